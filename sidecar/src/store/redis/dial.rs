//! Making one connection to Redis, and saying in one line why there is none.
//!
//! What this decides: how long each step may take, which options the socket has, and what an answer
//! that is not Redis's means. Before the library speaks, a `PING` shows who is there.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, RedisConnectionInfo, RedisError,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::tls::{self, Tls};

/// Longest time for each step: to reach the host, to agree on TLS, to be let in.
pub(super) const STEP: Duration = Duration::from_secs(1);
/// A connection without traffic is asked for a sign of life after so long, and so often, before it
/// is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// What was sent and is not acknowledged for so long ends the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(3);
/// More than any first answer to a `PING` needs.
const FIRST_ANSWER: usize = 512;

/// A stream of bytes, with TLS or without.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// The task that moves a connection's bytes; it ends with the last who uses the connection.
#[derive(Debug)]
pub(super) struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection, of whatever kind.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    Plain(Plain),
    /// To all nodes of a cluster.
    Cluster(ClusterConnection),
}

/// A connection that commands are sent on.
#[derive(Clone)]
pub(super) struct Plain {
    pub(super) connection: MultiplexedConnection,
    _driver: Arc<Driver>,
}

/// Options of every socket towards Redis, for the library's own connections.
pub(super) fn tcp_settings() -> TcpSettings {
    TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keep_alive())
        .set_user_timeout(UNACKNOWLEDGED)
}

fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE / 2)
        .with_retries(2)
}

/// Connects for commands, each of which may take `patience`. `ended` is told when the connection is
/// over.
pub(super) async fn commands(
    info: &ConnectionInfo,
    tls: &Tls,
    patience: Duration,
    ended: impl FnOnce() + Send + 'static,
) -> Result<Plain, String> {
    let stream = open(info, tls).await?;
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(patience));
    let made = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config);
    let (connection, driver) = let_in(made).await?;
    let driver = tokio::spawn(async move {
        driver.await;
        ended();
    });
    Ok(Plain {
        connection,
        _driver: Arc::new(Driver(driver.abort_handle())),
    })
}

/// Connects to listen on channels.
pub(super) async fn listening(info: &ConnectionInfo, tls: &Tls) -> Result<PubSub, String> {
    let stream = open(info, tls).await?;
    let_in(PubSub::new(info.redis_settings(), stream)).await
}

async fn let_in<T>(made: impl Future<Output = Result<T, RedisError>>) -> Result<T, String> {
    match timeout(STEP, made).await {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(meaning(&error)),
        Err(_) => Err("it stopped answering while the connection was made".to_owned()),
    }
}

async fn open(info: &ConnectionInfo, tls: &Tls) -> Result<Box<dyn Bytes>, String> {
    let mut stream: Box<dyn Bytes> = match info.addr() {
        ConnectionAddr::Tcp(host, port) => Box::new(reach(host, *port).await?),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let (config, name) = (tls.client_config()?, tls.name_for(host)?);
            let socket = reach(host, *port).await?;
            let connecting = tokio_rustls::TlsConnector::from(config).connect(name, socket);
            let agreed = timeout(STEP, connecting).await.map_err(|_| {
                "nothing there answers to TLS; without TLS the URL begins with redis://".to_owned()
            })?;
            Box::new(agreed.map_err(|error| {
                tls::advice(&error).unwrap_or_else(|| format!("TLS cannot be agreed on: {error}"))
            })?)
        }
        _ => return Err("only TCP leads to Redis".to_owned()),
    };
    let has_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    who_is_there(&mut stream, info.redis_settings(), has_tls).await?;
    Ok(stream)
}

/// A TCP connection to whichever of the host's addresses takes one.
async fn reach(host: &str, port: u16) -> Result<TcpStream, String> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connecting = timeout(STEP, TcpStream::connect((host, port)));
    let stream = match connecting.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("{host}:{port} takes no connection: {error}")),
        Err(_) => {
            return Err(format!(
                "{host}:{port} does not answer within {} s",
                STEP.as_secs()
            ));
        }
    };
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(&stream);
    let _ = socket.set_tcp_keepalive(&keep_alive());
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    Ok(stream)
}

/// Sends a `PING` and judges the first line that comes back.
async fn who_is_there(
    stream: &mut (impl Bytes + ?Sized),
    settings: &RedisConnectionInfo,
    has_tls: bool,
) -> Result<(), String> {
    let asked = async {
        let mut answer = Vec::new();
        stream.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
        while !answer.ends_with(b"\r\n")
            && answer.len() < FIRST_ANSWER
            && answer.first() != Some(&TLS_ALERT)
        {
            let mut byte = [0];
            if stream.read(&mut byte).await? == 0 {
                break;
            }
            answer.push(byte[0]);
        }
        Ok::<_, std::io::Error>(answer)
    };
    match timeout(STEP, asked).await {
        Ok(Ok(answer)) => judged(&answer, settings.password().is_some(), has_tls),
        Ok(Err(error)) => {
            Err(tls::advice(&error).unwrap_or_else(|| dropped(&error.to_string(), has_tls)))
        }
        Err(_) => Err("it takes the connection and does not answer; is it a Redis?".to_owned()),
    }
}

/// A TLS record that tells of a mistake begins so.
const TLS_ALERT: u8 = 0x15;

fn dropped(how: &str, has_tls: bool) -> String {
    let way_out = if has_tls {
        ""
    } else {
        "; if it expects TLS the URL begins with rediss://"
    };
    format!("it ends the connection at the first word ({how}){way_out}")
}

/// What the first answer to a `PING` says about who gives it.
fn judged(answer: &[u8], has_password: bool, has_tls: bool) -> Result<(), String> {
    let line = String::from_utf8_lossy(answer);
    let line = line.trim_end();
    match answer.first() {
        None => Err(dropped("nothing was said", has_tls)),
        Some(b'+') => Ok(()),
        Some(b'-') if line.starts_with("-NOAUTH") && has_password => Ok(()),
        Some(b'-') if line.starts_with("-NOPERM") => Ok(()),
        Some(b'-') => Err(said(line.trim_start_matches('-'))),
        Some(&TLS_ALERT) => Err("it expects TLS; then the URL begins with rediss://".to_owned()),
        Some(_) if line.starts_with("HTTP/") => {
            Err("an HTTP server answers there, not a Redis".to_owned())
        }
        Some(_) => Err("what answers there is no Redis".to_owned()),
    }
}

/// An error's meaning and the way out.
pub(super) fn meaning(error: &RedisError) -> String {
    // The library has words of its own for some of the server's.
    match (error.code(), error.detail()) {
        (Some(code), detail) => said(format!("{code} {}", detail.unwrap_or_default()).trim_end()),
        _ if error.kind() == redis::ErrorKind::AuthenticationFailed => said("WRONGPASS"),
        _ => said(&error.to_string()),
    }
}

/// What the server's own words mean.
pub(super) fn said(words: &str) -> String {
    let words = words.replace(['\r', '\n'], " ");
    let way_out = [
        (
            "NOAUTH",
            "it asks for a password; the URL is redis://user:password@host",
        ),
        (
            "Authentication required",
            "it asks for a password; the URL is redis://user:password@host",
        ),
        (
            "WRONGPASS",
            "it does not accept the user and password in the URL, or asks for none",
        ),
        (
            "AUTH",
            "it does not accept the user and password in the URL, or asks for none",
        ),
        (
            "NOPERM",
            "its user may not do this; allow EVALSHA, SCRIPT LOAD, XRANGE, PUBLISH, SUBSCRIBE on our keys",
        ),
        (
            "DENIED",
            "it is in protected mode; give it a password, or switch that off",
        ),
        (
            "MOVED",
            "it is part of a cluster; the URL is redis+cluster://host:port",
        ),
        (
            "READONLY",
            "it is a replica; the URL names the master, or redis+sentinel://… finds it",
        ),
        ("LOADING", "it reads its data; it will be tried again"),
        (
            "max number of clients",
            "it takes no more clients; raise its maxclients",
        ),
        (
            "cluster support disabled",
            "it is no cluster; the URL is redis://host",
        ),
        (
            "DB index is out of range",
            "it has no database of that number; the URL ends with /0",
        ),
    ];
    match way_out.iter().find(|(part, _)| words.contains(part)) {
        Some((_, way_out)) => format!("{way_out} ({words})"),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_socket_towards_redis_sends_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = reach("127.0.0.1", port).await.unwrap();
        assert!(stream.nodelay().unwrap());
        // Those of a cluster are the library's, which leaves the option off by itself.
        assert!(tcp_settings().nodelay());
    }

    #[test]
    fn the_first_answer_shows_who_is_there_and_the_way_out() {
        for (answer, part) in [
            (&b""[..], "rediss://"),
            (b"-NOAUTH Authentication required.\r\n", "user:password@"),
            (
                b"-DENIED Redis is running in protected mode\r\n",
                "protected mode",
            ),
            (
                b"-LOADING Redis is loading the dataset in memory\r\n",
                "tried again",
            ),
            (b"-ERR max number of clients reached\r\n", "maxclients"),
            (b"\x15\x03\x03\x00\x02\x02\x46", "rediss://"),
            (b"HTTP/1.1 400 Bad Request\r\n", "HTTP server"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "no Redis"),
            (b"\x00\xff", "no Redis"),
        ] {
            let problem = judged(answer, false, false).unwrap_err();
            assert!(problem.contains(part), "{problem}");
            assert!(!problem.contains('\n'));
        }
        assert!(judged(b"+PONG\r\n", false, false).is_ok());
        assert!(
            judged(b"-NOAUTH Authentication required.\r\n", true, false).is_ok(),
            "the password comes next"
        );
        assert!(
            !judged(b"", false, true).unwrap_err().contains("rediss"),
            "it has TLS already"
        );
    }
}
