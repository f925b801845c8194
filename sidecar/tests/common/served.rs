//! A sidecar to ask over HTTP.

use std::net::SocketAddr;

use larder_sidecar::listening::{self, Listening, Peer};
use larder_sidecar::serving::{self, Patience};
use larder_sidecar::store::memory::Memory;
use larder_sidecar::{Access, Limits, Purged, Purges, Store, Waiting, app};

/// Serves a store on a free port, for as long as the test takes.
pub(crate) async fn serve<S: Store>(
    store: Purged<S>,
    access: Access,
    patience: Patience,
) -> SocketAddr {
    let limits = Limits {
        max_entry_bytes: 1024,
        max_waiters: 10,
    };
    let app = app(store, Waiting::default(), limits, access);
    let Ok(Listening::Tcp(listener, address)) = listening::bind("127.0.0.1:0", false).await else {
        panic!("no port")
    };
    let for_ever = std::future::pending();
    tokio::spawn(serving::serve(listener, Peer::at, app, patience, for_ever));
    address
}

/// A store in this process's memory.
pub(crate) fn on_memory() -> Purged<Memory> {
    let (store, purges) = (Memory::new(1 << 20, 4), Purges::default());
    purges.begin_at(store.first_cursor());
    Purged::new(store, purges)
}
