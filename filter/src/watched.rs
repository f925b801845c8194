//! Whether the route sent what its client sent: known once a stream is over, when Envoy shows the
//! request as it went out.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::route::Sent;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::entry::RouteSeen;
use larder_contract::http_time::{DeltaSeconds, Timestamp};
use rustc_hash::FxHashMap;

use crate::config::Config;
use crate::host::{Host, Map};
use crate::store_client::{StoreCall, StoreClient};
use crate::stream::Stream;

/// For how long the store's copy waits for what the end of the stream tells, in milliseconds. Most
/// streams end at once; a slow client's must not keep the lease.
const WRITE_WAITS_MS: u64 = 100;

/// What the store is to be told of a response, once its route is known or that has taken too long.
pub(crate) type Write = (Rc<Config>, StoreCall);

/// A response that is kept, and what was sent for it.
#[derive(Debug)]
struct Watched {
    stored: Arc<StoredResponse>,
    sent: Sent,
    since: Timestamp,
    write: Option<Write>,
}

/// The responses of one worker of whose route the end of their stream will tell.
#[derive(Debug, Default)]
pub(crate) struct WatchedRoutes(FxHashMap<u32, Watched>);

impl WatchedRoutes {
    /// Remembers what a stream sent, where that will be compared: only what may be refreshed in the
    /// background needs it. What is to be written to the store waits for the outcome; returns what
    /// waits no more.
    pub(crate) fn watch(
        &mut self,
        store: &mut StoreClient,
        (id, stream): (u32, &Stream),
        stored: &Arc<StoredResponse>,
        now: Timestamp,
    ) -> Option<Write> {
        if stored.terms.stale_while_revalidate == DeltaSeconds::ZERO || stored.terms.must_revalidate
        {
            return None;
        }
        let sent = stream.sent()?;
        let write = store.take_write_of(stored);
        self.0
            .insert(
                id,
                Watched {
                    stored: stored.clone(),
                    sent,
                    since: now,
                    write,
                },
            )?
            .write
    }

    /// Takes what has waited long enough for the end of its stream: it is written without what that
    /// will tell.
    pub(crate) fn take_overdue(&mut self, now: Timestamp) -> Vec<Write> {
        let overdue = self
            .0
            .values_mut()
            .filter(|watched| now.millis_since(watched.since) >= WRITE_WAITS_MS);
        overdue.filter_map(|watched| watched.write.take()).collect()
    }

    /// A stream is gone; whether or not it was logged.
    pub(crate) fn forget(&mut self, id: u32) -> Option<Write> {
        self.0.remove(&id)?.write
    }

    /// Envoy is done with a stream, and its request can be read once more.
    pub(crate) fn on_log<H: Host>(
        &mut self,
        host: &H,
        store: &mut StoreClient,
        id: u32,
    ) -> Option<Write> {
        let Watched {
            stored,
            sent,
            write,
            ..
        } = self.0.remove(&id)?;
        if let Ok(fields) = host.headers(Map::Request) {
            stored.route.note(RouteSeen {
                at_ms: host.now(),
                changes: Sent::of(&fields) != sent,
            });
            store.forget_encoded(&stored); // the store is told what is known now
        }
        write
    }
}
