//! What level 1 holds under a key, and where it finds that by the key's digest.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::stored_response::StoredResponse;
use larder_cache_core::variants::Variants;
use larder_contract::http_time::Timestamp;
use larder_contract::key::{KeyDigest, PrimaryKey};
use quick_cache::{Lifecycle, Weighter};

/// What a key costs beside its bytes and its variants: its places in the tables.
const OVERHEAD: usize = 192;

/// What a look-up finds.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing, and nothing is known.
    Nothing,
    /// All variants.
    Stored(Rc<[Arc<StoredResponse>]>),
    /// Nothing, and until then there is no point in waiting for another's fetch.
    Uncacheable(Timestamp),
}

impl Found {
    /// The variants.
    pub fn variants(&self) -> &[Arc<StoredResponse>] {
        match self {
            Self::Stored(variants) => variants,
            Self::Nothing | Self::Uncacheable(_) => &[],
        }
    }

    /// Up to when answers are known not to be storable.
    pub fn uncacheable_until(&self) -> Option<Timestamp> {
        match self {
            Self::Uncacheable(until) => Some(*until),
            Self::Nothing | Self::Stored(_) => None,
        }
    }
}

/// What is held under a key.
#[derive(Clone, Debug)]
pub(super) enum Held {
    Stored(Stored),
    Uncacheable(Timestamp),
}

/// The variants of a key: never none.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) variants: Variants,
    /// How many purges there were when these were judged last.
    pub(super) judged: Cell<u64>,
}

#[derive(Clone)]
pub(super) struct Weight;

impl Weighter<Rc<PrimaryKey>, Held> for Weight {
    fn weight(&self, key: &Rc<PrimaryKey>, held: &Held) -> u64 {
        let bytes: usize = match held {
            Held::Stored(stored) => stored.variants.weight(),
            Held::Uncacheable(_) => 0,
        };
        (bytes + key.as_bytes().len() + OVERHEAD) as u64
    }
}

/// The keys of what is held, by their digests, and how many were dropped for want of room. The
/// cache keeps it up to date.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Rc<PlacesInner>);

#[derive(Debug, Default)]
struct PlacesInner {
    by_digest: RefCell<HashMap<KeyDigest, Rc<PrimaryKey>>>,
    evictions: Cell<u64>,
}

impl Places {
    pub(super) fn key_of(&self, digest: &KeyDigest) -> Option<Rc<PrimaryKey>> {
        self.0.by_digest.borrow().get(digest).cloned()
    }

    /// `replaces`: the cache has just counted what was there before as evicted.
    pub(super) fn add(&self, key: Rc<PrimaryKey>, replaces: bool) {
        self.0.by_digest.borrow_mut().insert(key.digest(), key);
        self.0
            .evictions
            .set(self.0.evictions.get().saturating_sub(u64::from(replaces)));
    }

    pub(super) fn remove(&self, digest: &KeyDigest) {
        self.0.by_digest.borrow_mut().remove(digest);
    }

    pub(super) fn clear(&self) {
        self.0.by_digest.borrow_mut().clear();
    }

    pub(super) fn take_evictions(&self) -> u64 {
        self.0.evictions.take()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.by_digest.borrow().len()
    }
}

impl Lifecycle<Rc<PrimaryKey>, Held> for Places {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), key: Rc<PrimaryKey>, held: Held) {
        self.0.evictions.set(self.0.evictions.get() + 1);
        if let Held::Stored(_) = held {
            self.remove(&key.digest());
        }
    }
}
