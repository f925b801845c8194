//! A TCP proxy that misbehaves as networks do: the way between two of our processes.
//!
//! What this decides: what becomes of the connections that pass through it. It can be slow, silent
//! or reset as a whole; it can make single connections half-open, cut or garble them, and lead
//! elsewhere. What it leaves out: HTTP and Redis.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pieces of each direction that may be under way at once.
const UNDER_WAY: usize = 1024;

/// How a link treats what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Open,
    /// Everything passes later by this much, each way; nothing waits for what came before it.
    Slow(Duration),
    /// Nothing passes, and nobody is told; what came meanwhile passes afterwards. New connections
    /// are taken.
    Silent,
    /// Every connection is reset, a new one at its first bytes.
    Reset,
}

/// A running proxy. Dropping it closes all connections.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    made: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

/// What all connections, old and new, are told. Connections are numbered from 0.
#[derive(Clone, Debug)]
struct Orders {
    mode: Mode,
    /// Where new connections lead; `None` turns them away.
    to: Option<String>,
    garble: bool,
    /// Connections with a smaller number are half-open: nothing passes any more, and nobody is
    /// told.
    half_open_below: u64,
    /// One more that is half-open.
    half_open: Option<u64>,
    /// Connections with a smaller number are closed.
    cut_below: u64,
}

impl Orders {
    fn has_half_open(&self, number: u64) -> bool {
        number < self.half_open_below || self.half_open == Some(number)
    }

    fn has_cut(&self, number: u64) -> bool {
        number < self.cut_below
    }

    fn delay(&self) -> Duration {
        match self.mode {
            Mode::Slow(by) => by,
            _ => Duration::ZERO,
        }
    }
}

impl Link {
    /// Starts one that leads to `host:port`.
    pub async fn to(address: &str) -> io::Result<Self> {
        Self::start(Some(address.to_owned())).await
    }

    /// Starts one that turns every connection away, until it is told where to lead.
    pub async fn to_nowhere() -> io::Result<Self> {
        Self::start(None).await
    }

    async fn start(to: Option<String>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let orders = Orders {
            mode: Mode::Open,
            to,
            garble: false,
            half_open_below: 0,
            half_open: None,
            cut_below: 0,
        };
        let (orders, told) = watch::channel(orders);
        let made = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, made.clone(), told));
        Ok(Self {
            address,
            orders,
            made,
            accepting,
        })
    }

    /// `host:port` to connect to.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections were made.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }

    /// Treats everything so from now on.
    pub fn become_(&self, mode: Mode) {
        self.orders.send_modify(|orders| orders.mode = mode);
    }

    /// New connections lead to this `host:port`.
    pub fn lead_to(&self, address: &str) {
        self.orders
            .send_modify(|orders| orders.to = Some(address.to_owned()));
    }

    /// Whether what the server says arrives garbled.
    pub fn garble(&self, on: bool) {
        self.orders.send_modify(|orders| orders.garble = on);
    }

    /// Makes the connections that there are half-open; new ones work.
    pub fn half_open(&self) {
        self.orders
            .send_modify(|orders| orders.half_open_below = self.made());
    }

    /// Makes the connection that was made last half-open.
    pub fn half_open_the_last(&self) {
        self.orders
            .send_modify(|orders| orders.half_open = self.made().checked_sub(1));
    }

    /// Closes the connections that there are; new ones work.
    pub fn cut(&self) {
        self.orders
            .send_modify(|orders| orders.cut_below = self.made());
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, made: Arc<AtomicU64>, orders: watch::Receiver<Orders>) {
    while let Ok((stream, _)) = listener.accept().await {
        let number = made.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(carry(stream, number, orders.clone()));
    }
}

async fn carry(mut near: TcpStream, number: u64, orders: watch::Receiver<Orders>) {
    if is_reset(&near, orders.clone()).await {
        let _ = near.set_zero_linger();
        return;
    }
    let Some(to) = orders.borrow().to.clone() else {
        return;
    };
    let Ok(mut far) = TcpStream::connect(&to).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let mut broken = orders.clone();
    {
        let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
        let there = pump(
            near_in,
            far_out,
            Side {
                number,
                garbles: false,
                orders: orders.clone(),
            },
        );
        let back = pump(
            far_in,
            near_out,
            Side {
                number,
                garbles: true,
                orders: orders.clone(),
            },
        );
        tokio::select! {
            _ = async { tokio::join!(there, back) } => return,
            _ = broken.wait_for(|orders| orders.mode == Mode::Reset || orders.has_cut(number)) => {}
        }
    }
    if !orders.borrow().has_cut(number) {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

/// Whether a new connection was to be reset when its first bytes came.
async fn is_reset(near: &TcpStream, mut orders: watch::Receiver<Orders>) -> bool {
    let mut first = [0];
    tokio::select! {
        biased;
        _ = orders.wait_for(|orders| orders.mode != Mode::Reset) => false,
        _ = near.peek(&mut first) => true,
    }
}

/// One way of a connection.
struct Side {
    number: u64,
    /// Whether this is the way on which bytes may be garbled.
    garbles: bool,
    orders: watch::Receiver<Orders>,
}

/// Carries one way of a connection until its end. A piece that comes while others are under way
/// does not wait for them.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut side: Side) {
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let orders = side.orders.clone();
    let read = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = from.read(&mut buffer).await.unwrap_or(0);
            let mut piece = buffer[..count].to_vec();
            if let Some(first) = piece
                .first_mut()
                .filter(|_| side.garbles && orders.borrow().garble)
            {
                *first = b'?';
            }
            let due = Instant::now() + orders.borrow().delay();
            // The end, which is an empty piece, travels as everything does.
            if under_way.send((due, piece)).await.is_err() || count == 0 {
                return std::future::pending().await;
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = arriving.recv().await {
            tokio::time::sleep_until(due).await;
            // What is silent does not tell of an end either.
            let passes = side
                .orders
                .wait_for(|orders| orders.mode != Mode::Silent)
                .await;
            let Ok(half_open) = passes.map(|orders| orders.has_half_open(side.number)) else {
                return;
            };
            match piece.is_empty() {
                // The other way stays until its own end.
                true if half_open => return,
                true => return drop(to.shutdown().await),
                false if half_open => {}
                false if to.write_all(&piece).await.is_err() => return,
                false => {}
            }
        }
    };
    tokio::select! { () = read => {} () = write => {} }
}

#[cfg(test)]
mod tests;
