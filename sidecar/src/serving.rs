//! Serving connections: how many at once, and how long one may take to say what it wants.
//!
//! Whoever reaches the port may open connections, with a token or without. So one that says nothing,
//! or half of a head, is closed after a while, one whose other end is gone is noticed, and there is a
//! bound on all of them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::listening::Peer;

/// How often an HTTP/2 connection without traffic is asked whether its other end lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// How long that answer may take.
const ITS_ANSWER: Duration = Duration::from_secs(10);

/// Bytes of one HTTP/2 request, and of all on a connection, that may be under way unread. The library
/// closes a connection whose unread frames are small and many: each counts what it lacks to 256
/// bytes, up to half of a connection's window. On a store stream every question is such a frame, so
/// a whole stream of the smallest, some 50 bytes, has to fit: 1 MiB.
const UNREAD_OF_A_STREAM: u32 = 256 << 10;
const UNREAD: u32 = 4 << 20;

/// What a connection is granted.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long its first byte, and then each head, may take.
    pub head: Duration,
    /// How many there may be at once; more are closed at once.
    pub connections: usize,
}

impl Default for Patience {
    /// Ten seconds and ten thousand connections.
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            connections: 10_000,
        }
    }
}

/// A connection that can tell when its first byte is there.
pub trait Speaks {
    /// Waits for the first byte, or for the end.
    fn speaks(&self) -> impl Future<Output = std::io::Result<()>> + Send;
}

impl Speaks for TcpStream {
    async fn speaks(&self) -> std::io::Result<()> {
        // `readable` may be ready without a byte.
        self.peek(&mut [0]).await.map(drop)
    }
}

impl Speaks for UnixStream {
    async fn speaks(&self) -> std::io::Result<()> {
        // Who gets here is let in by the file's mode; it cannot be looked at without being read.
        self.readable().await
    }
}

/// Serves connections until `stop`, and then what is under way to its end.
pub async fn serve<L: Listener<Io: Speaks>>(
    mut listener: L,
    peer_of: impl Fn(&L::Addr) -> Peer,
    app: Router,
    patience: Patience,
    stop: impl Future<Output = ()>,
) {
    let (room, graceful) = (
        Arc::new(Semaphore::new(patience.connections)),
        GracefulShutdown::new(),
    );
    tokio::pin!(stop);
    loop {
        let (io, address) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            tracing::warn!("more connections come than are served at once; this one is closed");
            continue;
        };
        let app = app.clone().layer(Extension(ConnectInfo(peer_of(&address))));
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(patience.head, io.speaks()).await {
                let connection = builder(patience)
                    .serve_connection(TokioIo::new(io), TowerToHyperService::new(app))
                    .into_owned();
                // However it ends, nobody is left to be told.
                let _ = watcher.watch(connection).await;
            }
            drop(place);
        });
    }
    graceful.shutdown().await;
}

fn builder(patience: Patience) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(UNREAD_OF_A_STREAM)
        .initial_connection_window_size(UNREAD)
        .keep_alive_interval(SIGN_OF_LIFE)
        .keep_alive_timeout(ITS_ANSWER);
    builder
}
