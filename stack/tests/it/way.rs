//! A way between two programs over TCP that can be made slow, silent or closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// What is told to all connections, old and new.
#[derive(Debug, Default)]
struct Orders {
    /// Where it leads; 0 is nowhere: whoever connects is turned away.
    port: AtomicU16,
    delay_ms: AtomicU64,
    silent: AtomicBool,
}

/// A way to a port of this machine.
#[derive(Debug)]
pub(crate) struct Way {
    port: u16,
    orders: Arc<Orders>,
}

impl Way {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let orders = Arc::new(Orders { port: AtomicU16::new(port), ..Orders::default() });
        let told = orders.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(lead(client, told.clone()));
            }
        });
        Self { port: own, orders }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on it leads there.
    pub(crate) fn lead_to(&self, port: u16) {
        self.orders.port.store(port, Ordering::SeqCst);
    }

    /// Whether nothing passes, though connections stay open and new ones are taken.
    pub(crate) fn silent(&self, on: bool) {
        self.orders.silent.store(on, Ordering::SeqCst);
    }

    /// For how long everything is under way, in each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.orders.delay_ms.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

async fn lead(client: TcpStream, orders: Arc<Orders>) {
    let port = orders.port.load(Ordering::SeqCst);
    if port == 0 {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pass(from_client, to_server, &orders) => {}
        () = pass(from_server, to_client, &orders) => {}
    }
}

/// Passes pieces on, each after its delay; one that comes meanwhile does not wait for the one before it.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, orders: &Orders) {
    let (pieces, mut due) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async {
        let mut bytes = vec![0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let delay = Duration::from_millis(orders.delay_ms.load(Ordering::SeqCst));
            if pieces.send((Instant::now() + delay, bytes[..count].to_vec())).is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((at, piece)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            if orders.silent.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = read => {} () = write => {} }
}
