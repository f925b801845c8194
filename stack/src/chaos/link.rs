//! A TCP proxy that can be slow, silent or broken: the network between two of our processes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How it treats what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything passes.
    Open,
    /// Everything passes later by this much, each way.
    Slow(Duration),
    /// Nothing passes, and nobody is told.
    Silent,
    /// Every connection is reset.
    Reset,
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Link {
    address: String,
    mode: watch::Sender<Mode>,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    /// Connections are numbered.
    made: AtomicU64,
    /// Those with a smaller number are half-open: nothing passes any more, and nobody is told.
    dead_before: AtomicU64,
    mode: watch::Receiver<Mode>,
    to: String,
}

impl Link {
    /// Starts one that leads to `host:port`.
    pub(crate) async fn to(address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (mode, told) = watch::channel(Mode::Open);
        let line = Line { made: AtomicU64::new(0), dead_before: AtomicU64::new(0), mode: told, to: address.to_owned() };
        let link = Self { address: listener.local_addr()?.to_string(), mode, line: Arc::new(line) };
        tokio::spawn(accept(listener, link.line.clone()));
        Ok(link)
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Treats everything so from now on.
    pub(crate) fn become_(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Makes the connections that there are half-open; new ones work.
    pub(crate) fn half_open(&self) {
        self.line.dead_before.store(self.line.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, line: Arc<Line>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(carry(stream, line.clone()));
    }
}

async fn carry(mut near: TcpStream, line: Arc<Line>) {
    let number = line.made.fetch_add(1, Ordering::SeqCst);
    if *line.mode.borrow() == Mode::Reset {
        let _ = near.set_zero_linger();
        return;
    }
    let Ok(mut far) = TcpStream::connect(&line.to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let mut broken = line.mode.clone();
    let reset = {
        let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
        let both = async { tokio::join!(pump(near_in, far_out, &line, number), pump(far_in, near_out, &line, number)) };
        tokio::select! {
            _ = both => false,
            _ = broken.wait_for(|mode| *mode == Mode::Reset) => true,
        }
    };
    if reset {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

/// One way of a connection, until its end.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, line: &Line, number: u64) {
    let mut buffer = vec![0; 16 << 10];
    let mut mode = line.mode.clone();
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        // What is silent does not tell of an end either.
        if mode.wait_for(|mode| *mode != Mode::Silent).await.is_err() {
            return;
        }
        let now = *mode.borrow();
        if let Mode::Slow(by) = now {
            tokio::time::sleep(by).await;
        }
        let dead = number < line.dead_before.load(Ordering::SeqCst);
        if count == 0 {
            if dead {
                // Until the other side gives up as well, which ends its own direction.
                return;
            }
            let _ = to.shutdown().await;
            return;
        }
        if !dead && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link to a server that sends everything back.
    async fn echo() -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Link::to(&address).await.unwrap()
    }

    async fn answer(stream: &mut TcpStream, within: Duration) -> Option<u8> {
        stream.write_all(b"x").await.ok()?;
        tokio::time::timeout(within, stream.read_u8()).await.ok()?.ok()
    }

    #[tokio::test]
    async fn what_is_silent_keeps_everything_until_it_is_open_again() {
        let link = echo().await;
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        let long = Duration::from_secs(5);
        assert_eq!(answer(&mut stream, long).await, Some(b'x'));
        link.become_(Mode::Silent);
        assert_eq!(answer(&mut stream, Duration::from_millis(50)).await, None);
        link.become_(Mode::Open);
        assert_eq!(tokio::time::timeout(long, stream.read_u8()).await.unwrap().unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_half_open_connection_stays_so_and_a_new_one_works() {
        let link = echo().await;
        let mut old = TcpStream::connect(link.address()).await.unwrap();
        assert!(answer(&mut old, Duration::from_secs(5)).await.is_some());
        link.half_open();
        assert_eq!(answer(&mut old, Duration::from_millis(50)).await, None);
        let mut new = TcpStream::connect(link.address()).await.unwrap();
        assert!(answer(&mut new, Duration::from_secs(5)).await.is_some());
    }

    #[tokio::test]
    async fn a_reset_ends_every_connection() {
        let link = echo().await;
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        assert!(answer(&mut stream, Duration::from_secs(5)).await.is_some());
        link.become_(Mode::Reset);
        assert!(tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await.unwrap().is_err());
    }
}
