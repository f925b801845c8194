//! Whether the route sent what its client sent: known once a stream is over, when Envoy shows the request as it went out.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::route::Sent;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::entry::RouteSeen;
use larder_contract::http_time::{DeltaSeconds, Timestamp};

use super::Stream;
use crate::config::Config;
use crate::host::{Host, Map};
use crate::store_client::StoreCall;
use crate::vm::Vm;

/// For how long the store's copy waits for what the end of the stream tells, in milliseconds. Most streams end at once; a
/// slow client's must not keep the lease.
const WRITE_WAITS_MS: u64 = 100;

/// A response that is kept, and what was sent for it.
#[derive(Debug)]
pub(crate) struct Watched {
    stored: Arc<StoredResponse>,
    sent: Sent,
    since: Timestamp,
    write: Option<(Rc<Config>, StoreCall)>,
}

impl<H: Host> Vm<H> {
    /// Remembers what a stream sent, where that will be compared: only what may be refreshed in the background needs it. What
    /// is to be written to the store waits for the outcome.
    pub(super) fn watch_route(&mut self, id: u32, stream: &Stream, stored: &Arc<StoredResponse>, now: Timestamp) {
        let Some(change) = &stream.change else { return };
        if stored.terms.stale_while_revalidate == DeltaSeconds::ZERO || stored.terms.must_revalidate {
            return;
        }
        let write = self.store.take_write_of(stored);
        let sent = Sent::by(stream.exchange.request(), change);
        let watched = Watched { stored: stored.clone(), sent, since: now, write };
        let earlier = self.watched.insert(id, watched);
        self.write_watched(earlier.and_then(|earlier| earlier.write));
    }

    fn write_watched(&mut self, write: Option<(Rc<Config>, StoreCall)>) {
        if let Some((config, call)) = write {
            self.tell_store(&config, call);
        }
    }

    /// What has waited long enough for the end of its stream is written without what that will tell.
    pub(crate) fn write_overdue(&mut self, now: Timestamp) {
        let is_overdue = |watched: &&mut Watched| now.millis_since(watched.since) >= WRITE_WAITS_MS;
        let overdue: Vec<_> =
            self.watched.values_mut().filter(is_overdue).map(|watched| watched.write.take()).collect();
        for write in overdue {
            self.write_watched(write);
        }
    }

    /// A stream is gone; whether or not it was logged.
    pub(super) fn forget_route(&mut self, id: u32) {
        let write = self.watched.remove(&id).and_then(|watched| watched.write);
        self.write_watched(write);
    }

    /// Envoy is done with a stream, and its request can be read once more.
    pub fn on_log(&mut self, id: u32) {
        let Some(Watched { stored, sent, write, .. }) = self.watched.remove(&id) else { return };
        if let Ok(fields) = self.outside.host.headers(Map::Request) {
            stored.route.note(RouteSeen { at_ms: self.outside.host.now(), changes: Sent::of(&fields) != sent });
            self.store.forget_encoded(&stored); // the store is told what is known now
        }
        self.write_watched(write);
    }
}
