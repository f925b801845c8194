//! What has happened since the process began.

use std::sync::atomic::{AtomicU64, Ordering};

use larder_contract::store_api::{LookUpAnswer, WriteAnswer};

/// Counts, and one gauge: the streams that are open.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) entries: AtomicU64,
    pub(crate) leases: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) nothing: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) fenced: AtomicU64,
    pub(crate) invalidations: AtomicU64,
    pub(crate) purges: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Questions that came by the HTTP API.
    pub(crate) by_http: AtomicU64,
    /// Questions that came by a store stream.
    pub(crate) by_stream: AtomicU64,
    /// Store streams that are open now.
    pub(crate) streams: AtomicU64,
}

impl Counters {
    pub(super) fn found(&self, answer: &LookUpAnswer) {
        let counter = match answer {
            LookUpAnswer::Entry(_) => &self.entries,
            LookUpAnswer::Lease { .. } => &self.leases,
            LookUpAnswer::Held { .. } => &self.held,
            LookUpAnswer::Nothing { .. } => &self.nothing,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, answer: WriteAnswer) {
        let counter = if answer == WriteAnswer::Stored {
            &self.stored
        } else {
            &self.fenced
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
