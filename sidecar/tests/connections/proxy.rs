//! A TCP proxy that misbehaves as networks do: it falls silent, resets, garbles, and may lead elsewhere later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is told to the connections, old and new.
#[derive(Debug, Default)]
struct Orders {
    /// Where new connections lead.
    port: AtomicU16,
    /// So many connections have been made.
    made: AtomicUsize,
    /// Of connections with a smaller number nothing passes any more, and they stay open.
    silent_below: AtomicUsize,
    /// The one connection of which nothing passes any more, counted from 1; 0 for none.
    silent: AtomicUsize,
    /// Connections with a smaller number are closed.
    cut_below: AtomicUsize,
    /// New connections are reset at their first bytes.
    reset: AtomicBool,
    /// What the server says arrives garbled.
    garble: AtomicBool,
}

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    orders: Arc<Orders>,
}

impl Proxy {
    /// Leads to a port of this machine.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let orders = Arc::new(Orders { port: AtomicU16::new(port), ..Orders::default() });
        let told = orders.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, told.clone()));
            }
        });
        Self { port: own, orders }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Of what is open now nothing passes any more. What is opened later works.
    pub(crate) fn silence(&self) {
        self.orders.silent_below.store(self.orders.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Of the connection that was made last nothing passes any more.
    pub(crate) fn silence_the_last(&self) {
        self.orders.silent.store(self.orders.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Closes what is open now.
    pub(crate) fn cut(&self) {
        self.orders.cut_below.store(self.orders.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Whether new connections are reset.
    pub(crate) fn reset_new(&self, on: bool) {
        self.orders.reset.store(on, Ordering::SeqCst);
    }

    /// Whether what the server says is garbled.
    pub(crate) fn garble(&self, on: bool) {
        self.orders.garble.store(on, Ordering::SeqCst);
    }

    /// New connections lead to another port.
    pub(crate) fn lead_to(&self, port: u16) {
        self.orders.port.store(port, Ordering::SeqCst);
    }

    /// How many connections were made.
    pub(crate) fn made(&self) -> usize {
        self.orders.made.load(Ordering::SeqCst)
    }
}

async fn serve(mut client: TcpStream, orders: Arc<Orders>) {
    let number = orders.made.fetch_add(1, Ordering::SeqCst);
    let silent =
        || number < orders.silent_below.load(Ordering::SeqCst) || number + 1 == orders.silent.load(Ordering::SeqCst);
    let (mut to_server, mut to_client) = (vec![0; 65_536], vec![0; 65_536]);
    if orders.reset.load(Ordering::SeqCst) {
        let _ = client.read(&mut to_server).await;
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", orders.port.load(Ordering::SeqCst))).await else { return };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    loop {
        if silent() {
            return std::future::pending().await;
        }
        if number < orders.cut_below.load(Ordering::SeqCst) {
            return;
        }
        tokio::select! {
            read = client.read(&mut to_server) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) if silent() => {}
                Ok(count) => { let _ = server.write_all(&to_server[..count]).await; }
            },
            read = server.read(&mut to_client) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) if silent() => {}
                Ok(count) => {
                    if orders.garble.load(Ordering::SeqCst) {
                        to_client[0] = b'?';
                    }
                    let _ = client.write_all(&to_client[..count]).await;
                }
            },
            // Orders are heard also while nothing passes.
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
}
