//! The way to Redis: one server, a cluster, or the master that sentinels name.
//!
//! What this decides: when a connection is made anew. One that ends, that no longer answers, or
//! that leads to a server which may not write, is replaced; so is one that cannot be made, for as
//! long as that takes. No command has to come for it. Redirections within a cluster and pipelining
//! are the library's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::PubSub;
use redis::{Cmd, FromRedisValue, RedisError, RedisResult, ScriptInvocation, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::address::Address;
use super::dial::{Connection, meaning};
use super::pause::Pause;
use super::reach::Reach;
use super::tls::Tls;
use crate::store::Fault;

/// A way to Redis. Cheap to clone; all clones share one pipelined connection.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    reach: Reach,
    /// For people: the URL without its password.
    shown: String,
    timeout: Duration,
    begun: Instant,
    /// When Redis was heard last, in milliseconds since `begun`.
    heard: AtomicU64,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Which connection this is, counted from 1.
    number: u64,
    made: Option<Instant>,
    /// Another is being made.
    renewing: bool,
    pause: Pause,
    /// Why there is none. While this is unknown, commands wait for the attempt under way.
    why: Option<String>,
    /// What was last logged, so that it is said once.
    said: Option<String>,
}

/// What a command's failure says about the connection it was sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// Nothing.
    Sound,
    /// Another should be made; this one may serve until then.
    Doubtful,
    /// It is over.
    Broken,
}

impl Link {
    /// Begins to connect and goes on until that succeeds; each command may take `timeout`. The
    /// error names a setting.
    pub fn open(
        address: &Address,
        tls: Tls,
        shown: String,
        timeout: Duration,
    ) -> Result<Self, String> {
        let shared = Shared {
            reach: Reach::new(address, tls, timeout)?,
            shown,
            timeout,
            begun: Instant::now(),
            heard: AtomicU64::new(0),
            state: watch::Sender::default(),
        };
        let link = Self(Arc::new(shared));
        renew(&link.0, 0, Health::Broken, "");
        Ok(link)
    }

    /// Runs a script.
    pub async fn run(&self, invocation: &ScriptInvocation<'_>) -> Result<Value, Fault> {
        self.ask(async |connection| match connection {
            Connection::Plain(mut plain) => invocation.invoke_async(&mut plain.connection).await,
            Connection::Cluster(mut cluster) => invocation.invoke_async(&mut cluster).await,
        })
        .await
    }

    /// Runs a command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        self.ask(async |connection| match connection {
            Connection::Plain(mut plain) => command.query_async(&mut plain.connection).await,
            Connection::Cluster(mut cluster) => command.query_async(&mut cluster).await,
        })
        .await
    }

    /// A connection to listen on. In a cluster any node will do: messages reach all.
    pub async fn pubsub(&self) -> Result<PubSub, Fault> {
        self.0
            .reach
            .listening()
            .await
            .map_err(|why| self.0.fault(&why))
    }

    /// Whether the first attempt to connect is still under way.
    pub(super) fn is_undecided(&self) -> bool {
        let state = self.0.state.borrow();
        state.connection.is_none() && state.why.is_none()
    }

    /// Which connection commands go to: it changes when another is made.
    pub fn number(&self) -> u64 {
        self.0.state.borrow().number
    }

    /// Waits until commands go to another connection than the one with this number.
    pub(super) async fn replaced(&self, number: u64) {
        let _ = self
            .0
            .state
            .subscribe()
            .wait_for(|state| state.number != number)
            .await;
    }

    async fn ask<T>(
        &self,
        send: impl AsyncFnOnce(Connection) -> RedisResult<T>,
    ) -> Result<T, Fault> {
        let (connection, number) = self.0.connection().await?;
        let kind = matches!(connection, Connection::Cluster(_));
        let sent = self.0.now();
        let result = send(connection).await;
        let health = match &result {
            Ok(_) => Health::Sound,
            Err(error) => health(error, kind, self.0.heard.load(Ordering::Relaxed) > sent),
        };
        // A server that says no has answered.
        if result
            .as_ref()
            .err()
            .is_none_or(|error| error.code().is_some())
        {
            self.0.heard.fetch_max(self.0.now(), Ordering::Relaxed);
        }
        result.map_err(|error| {
            let why = if error.is_timeout() {
                "it does not answer in time".to_owned()
            } else {
                meaning(&error)
            };
            renew(&self.0, number, health, &why);
            self.0.fault(&why)
        })
    }
}

/// Judges the connection by a command that failed on it. `heard` says whether anything was heard
/// since it was sent.
fn health(error: &RedisError, is_cluster: bool, heard: bool) -> Health {
    let code = error.code().unwrap_or_default();
    // Before Redis 7 a script's failure is an ERR that quotes the reason.
    let quoted = error.detail().unwrap_or_default();
    let says = |words: &[&str]| {
        words
            .iter()
            .any(|word| code == *word || quoted.contains(&format!("-{word} ")))
    };
    let health = if error.is_timeout() {
        // Slow is not gone: while answers come, the connection is kept.
        if heard && !is_cluster {
            Health::Sound
        } else {
            Health::Broken
        }
    } else if says(&["READONLY", "MASTERDOWN", "CLUSTERDOWN"]) {
        Health::Doubtful
    } else if says(&["NOAUTH", "WRONGPASS"])
        || error.kind() == redis::ErrorKind::AuthenticationFailed
    {
        Health::Broken
    } else if code.is_empty() && error.kind() != redis::ErrorKind::UnexpectedReturnType {
        // Not the server's words: the connection's.
        Health::Broken
    } else {
        Health::Sound
    };
    // The other nodes of a cluster are reached meanwhile.
    if is_cluster && health == Health::Broken {
        Health::Doubtful
    } else {
        health
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn fault(&self, why: &str) -> Fault {
        Fault(format!("Redis at {} (REDIS_URL): {why}", self.shown))
    }

    /// The connection, if need be after the first attempt to make one.
    async fn connection(&self) -> Result<(Connection, u64), Fault> {
        let mut state = self.state.subscribe();
        let decided = state.wait_for(|state| state.connection.is_some() || state.why.is_some());
        match timeout(self.timeout, decided).await {
            Ok(Ok(state)) => match (&state.connection, &state.why) {
                (Some(connection), _) => Ok((connection.clone(), state.number)),
                (None, why) => Err(self.fault(why.as_deref().unwrap_or_default())),
            },
            _ => Err(self.fault("the connection is not made yet")),
        }
    }
}

/// Has another connection made in place of the one with this number, unless that is being done.
fn renew(shared: &Arc<Shared>, number: u64, health: Health, why: &str) {
    let mut pause = None;
    shared.state.send_if_modified(|state| {
        if health == Health::Sound || state.number != number {
            return false;
        }
        if health == Health::Broken && state.connection.take().is_some() {
            state.why = None;
        }
        if !std::mem::replace(&mut state.renewing, true) {
            pause = Some(state.pause.next(state.made.map(|made| made.elapsed())));
        }
        true
    });
    if let Some(pause) = pause {
        if !why.is_empty() {
            say(shared, why);
        }
        tokio::spawn(make(Arc::downgrade(shared), pause));
    }
}

/// Logs what is wrong, once.
fn say(shared: &Shared, why: &str) {
    let mut new = false;
    shared.state.send_if_modified(|state| {
        new = state.said.as_deref() != Some(why);
        state.said = Some(why.to_owned());
        false
    });
    if new {
        tracing::warn!("{}; a connection is made anew", shared.fault(why));
    }
}

/// Tries until there is a connection, or nobody wants one.
async fn make(shared: Weak<Shared>, mut pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let number = strong.state.borrow().number + 1;
        let ended = {
            let shared = shared.clone();
            move || {
                if let Some(shared) = shared.upgrade() {
                    renew(&shared, number, Health::Broken, "it ended the connection");
                }
            }
        };
        match strong.reach.commands(ended).await {
            Ok(connection) => return take_up(&strong, connection),
            Err(why) => {
                say(&strong, &why);
                strong.state.send_modify(|state| {
                    state.why = Some(why);
                    pause = state.pause.next(None);
                });
            }
        }
    }
}

fn take_up(shared: &Shared, connection: Connection) {
    let mut healed = None;
    shared.state.send_modify(|state| {
        *state = State {
            connection: Some(connection),
            number: state.number + 1,
            made: Some(Instant::now()),
            renewing: false,
            pause: std::mem::take(&mut state.pause),
            why: None,
            said: state.said.take(),
        };
        // What is said again and again, such as that it may not write, is not over with a new
        // connection.
        if state.pause.is_short() {
            healed = state.said.take();
        }
    });
    match healed {
        Some(_) => tracing::info!("Redis at {} is reached again", shared.shown),
        None => tracing::debug!("Redis at {} is reached", shared.shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: redis::ErrorKind) -> RedisError {
        RedisError::from((kind, "x"))
    }

    #[test]
    fn silence_and_broken_bytes_end_a_connection_and_a_no_does_not() {
        let timed_out = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(health(&timed_out, false, false), Health::Broken);
        assert_eq!(health(&timed_out, false, true), Health::Sound, "it is slow");
        assert_eq!(
            health(&timed_out, true, true),
            Health::Doubtful,
            "other nodes answer"
        );
        let reset = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(health(&reset, false, true), Health::Broken);
        assert_eq!(
            health(&of(redis::ErrorKind::Parse), false, true),
            Health::Broken
        );
        assert_eq!(
            health(&of(redis::ErrorKind::AuthenticationFailed), false, true),
            Health::Broken
        );
        for (words, meant) in [
            (
                "READONLY You can't write against a read only replica.",
                Health::Doubtful,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:27: @user_script: 27: -READONLY You",
                Health::Doubtful,
            ),
            ("NOAUTH Authentication required.", Health::Broken),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Health::Sound,
            ),
            ("ERR unknown command", Health::Sound),
        ] {
            let said = redis::parse_redis_value(format!("-{words}\r\n").as_bytes())
                .and_then(redis::Value::extract_error);
            assert_eq!(health(&said.unwrap_err(), false, true), meant, "{words}");
        }
    }
}
