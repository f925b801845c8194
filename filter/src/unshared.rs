//! Responses that are kept in level 1 alone until somebody asks for them again (`share_after`).
//!
//! Many URLs are asked for once. Where a rule says so, such a response is not written to the shared
//! store before a second request has found it in level 1: that spares the write and the store's
//! memory. What this decides: which responses wait for that. What it leaves out: other workers and
//! Envoys, which fetch for themselves meanwhile.

use std::sync::{Arc, Weak};

use larder_cache_core::stored_response::StoredResponse;
use larder_contract::key::KeyDigest;
use rustc_hash::FxHashMap;

/// More are not remembered: those that are left stay in level 1 alone.
const MOST: usize = 16_384;

/// The responses of one worker that wait for a second request, with their keys, by where they lie
/// in memory. Nothing else comes to lie there as long as they are remembered.
#[derive(Debug, Default)]
pub(crate) struct Unshared(FxHashMap<usize, (Weak<StoredResponse>, KeyDigest)>);

impl Unshared {
    /// This one waits.
    pub(crate) fn add(&mut self, key: KeyDigest, stored: &Arc<StoredResponse>) {
        if self.0.len() >= MOST {
            // What level 1 has evicted is asked for no more.
            self.0.retain(|_, (stored, _)| stored.strong_count() > 0);
        }
        if self.0.len() < MOST {
            self.0.insert(place(stored), (Arc::downgrade(stored), key));
        }
    }

    /// The key of this one, if it has waited until now.
    pub(crate) fn take(&mut self, stored: &Arc<StoredResponse>) -> Option<KeyDigest> {
        self.0.remove(&place(stored)).map(|(_, key)| key)
    }
}

fn place(stored: &Arc<StoredResponse>) -> usize {
    Arc::as_ptr(stored).addr()
}
