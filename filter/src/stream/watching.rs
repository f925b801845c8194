//! Whether the route sent what its client sent: known once a stream is over, when Envoy shows the request as it went out.

use std::sync::Arc;

use larder_cache_core::http_time::DeltaSeconds;
use larder_cache_core::route::{RouteSeen, Sent};
use larder_cache_core::stored_response::StoredResponse;

use super::Stream;
use crate::host::{Host, Map};
use crate::vm::Vm;

/// A response that is kept, and what was sent for it.
#[derive(Debug)]
pub(crate) struct Watched {
    stored: Arc<StoredResponse>,
    sent: Sent,
}

impl<H: Host> Vm<H> {
    /// Remembers what a stream sent, where that will be compared: only what may be refreshed in the background needs it.
    pub(super) fn watch_route(&mut self, id: u32, stream: &Stream, stored: &Arc<StoredResponse>) {
        let Some(change) = &stream.change else { return };
        if stored.terms.stale_while_revalidate > DeltaSeconds::ZERO && !stored.terms.must_revalidate {
            let sent = Sent::by(stream.exchange.request(), change);
            self.watched.insert(id, Watched { stored: stored.clone(), sent });
        }
    }

    /// Envoy is done with a stream, and its request can be read once more.
    pub fn on_log(&mut self, id: u32) {
        let Some(Watched { stored, sent }) = self.watched.remove(&id) else { return };
        let Ok(fields) = self.host.headers(Map::Request) else { return };
        stored.route.note(RouteSeen { at_ms: self.host.now(), changes: Sent::of(&fields) != sent });
        if self.encoded.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, &stored)) {
            self.encoded = None; // the store is told what is known now
        }
    }
}
