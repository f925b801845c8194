//! Where the sidecar listens, and what it knows of who connects.
//!
//! What this decides: that it listens beyond this machine only where a token is asked for, and that
//! small answers go out at once.

use std::io;
use std::net::{IpAddr, SocketAddr};

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host};

/// A listener whose connections send at once: an answer is not held back until the one before it is
/// acknowledged.
#[derive(Debug)]
pub struct Prompt(pub TcpListener);

impl Listener for Prompt {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        // Without the option it is slow, not wrong.
        let _ = stream.set_nodelay(true);
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Who is at the other end: an address, or a process of this machine behind a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub Option<IpAddr>);

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("a process of this machine"),
        }
    }
}

impl Peer {
    /// Who connects from this address.
    pub fn at(address: &SocketAddr) -> Self {
        Self(Some(address.ip().to_canonical()))
    }
}

/// Where to listen.
#[derive(Debug)]
pub enum Listening {
    /// A TCP socket, bound.
    Tcp(Prompt, SocketAddr),
    /// A Unix socket, bound, and its path.
    Unix(UnixListener, String),
}

/// Binds `listen`: `host:port`, or `unix:/path`. Without a token only this machine may connect. The
/// error is one line with the way out.
pub async fn bind(listen: &str, has_token: bool) -> Result<Listening, String> {
    let cannot = |error: io::Error| {
        format!("cannot listen on {listen}: {error}; choose another with --listen")
    };
    if let Some(path) = listen.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(
                "cannot listen on unix: without a path; it is unix:/path/to/socket".to_owned(),
            );
        }
        // A socket that a dead process left behind is in the way; one that answers is not ours to
        // take.
        if UnixStream::connect(path).await.is_err() {
            let _ = std::fs::remove_file(path);
        }
        return Ok(Listening::Unix(
            UnixListener::bind(path).map_err(cannot)?,
            path.to_owned(),
        ));
    }
    let addresses: Vec<SocketAddr> = lookup_host(listen).await.map_err(cannot)?.collect();
    if !has_token
        && addresses
            .iter()
            .any(|address| !address.ip().to_canonical().is_loopback())
    {
        return Err(format!(
            "refuses to listen on {listen} without a token: whoever reaches it could read and write what clients get; \
             set LARDER_TOKEN or LARDER_TOKEN_FILE (openssl rand -hex 32 makes one) here and in Envoy's environment, \
             or listen on 127.0.0.1 or unix:/path"
        ));
    }
    let listener = TcpListener::bind(addresses.as_slice())
        .await
        .map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    Ok(Listening::Tcp(Prompt(listener), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_socket_that_is_accepted_sends_at_once() {
        let Ok(Listening::Tcp(mut listener, address)) = bind("127.0.0.1:0", false).await else {
            panic!("no port")
        };
        let _client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = Listener::accept(&mut listener).await;
        assert!(stream.nodelay().unwrap());
    }
}
