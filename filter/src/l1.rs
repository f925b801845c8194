//! Level 1: stored responses in the VM's own memory, bounded in bytes.
//!
//! A purge by tag or prefix, or of everything, only leaves a mark: what is held is judged when it
//! is next looked up, and leaves then or for want of room. So a purge costs the same whatever is
//! held, and a hit since whose last look-up nothing was purged costs one comparison of numbers.
//! What concerns one key is carried out at once: it is found by its digest.
//!
//! What this decides: what is dropped when the bound is reached (`quick_cache`'s scan-resistant
//! S3-FIFO), how much of it one key and the memory of purges may take, and when what is held is
//! judged. What it leaves out: all that happens among the responses of one key
//! (`larder_cache_core::variants`).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use larder_cache_core::stored_response::StoredResponse;
use larder_cache_core::variants::{Bounds, Put, Untrue, Variants};
use larder_contract::http_time::Timestamp;
use larder_contract::key::{KeyDigest, PrimaryKey};
use larder_contract::purge::remembered::{BYTES_EACH, Remembered, STORE_DELAY_MS, Times};
use larder_contract::purge::requested::reaches;
use larder_contract::purge::{Marks, Purge, Scope};
use quick_cache::unsync::Cache;

mod held;

pub use held::Found;
use held::{Held, Places, Stored, Weight};

/// Variants kept per key.
const MAX_VARIANTS: usize = 32;
/// The variants of one key take at most this part of the bound: one key must not push out all the
/// others.
const KEY_SHARE: u64 = 4;
/// This part of the bound is for what is remembered of purges, and as much of invalidations.
const MEMORY_SHARE: u64 = 16;
/// Bytes for marks of purges: the least, even where level 1 is off or small, for what is on its way
/// is judged by them; and the most: some thirty thousand tags.
const BYTES_OF_MARKS: (u64, u64) = (64 << 10, 4 << 20);
/// Invalidations remembered: the least and the most likewise.
const INVALIDATIONS: (u64, u64) = (512, 16_384);

type Hasher = SeedableRandomState;

/// The level-1 cache of one VM.
pub struct Level1 {
    cache: Cache<Rc<PrimaryKey>, Held, Weight, Hasher, Places>,
    places: Places,
    /// In bytes; 0 is off.
    bound: u64,
    invalidations: Remembered,
    /// Purges that something requested before them may still be held or come behind.
    purges: Marks,
    cleared: Cleared,
}

/// The last time everything was dropped because purges may have been missed, or could not be told
/// one by one.
#[derive(Clone, Copy, Debug, Default)]
struct Cleared {
    /// What was requested until then is distrusted.
    until: Option<Timestamp>,
    /// When this was last heard of. The store's answers are distrusted for [`STORE_DELAY_MS`]
    /// longer: by then the store has heard whatever this VM has missed, and what it gives out may
    /// be held again.
    heard: Timestamp,
}

impl Cleared {
    fn takes(self, requested: Timestamp) -> bool {
        self.until.is_some_and(|time| reaches(time, requested))
    }

    /// Until when what the store answers now is distrusted.
    fn until_of_store(self, now: Timestamp) -> Option<Timestamp> {
        self.until
            .filter(|_| now.millis_since(self.heard) < STORE_DELAY_MS)
    }
}

/// How many invalidations, and bytes of marks, are remembered within a bound, and what that leaves
/// for responses.
fn shares(bound: u64) -> (usize, usize, u64) {
    let share = bound / MEMORY_SHARE;
    let invalidations = (share / BYTES_EACH).clamp(INVALIDATIONS.0, INVALIDATIONS.1);
    let marks = share.clamp(BYTES_OF_MARKS.0, BYTES_OF_MARKS.1);
    let reserved = share.min(invalidations * BYTES_EACH) + share.min(marks);
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    (whole(invalidations), whole(marks), bound - reserved)
}

impl Level1 {
    /// Empty, with room for `bytes`. `seed` is a random number: who knows it could choose keys that
    /// collide.
    pub fn new(bytes: u64, seed: u64) -> Self {
        let items = usize::try_from(bytes / 4096)
            .unwrap_or(16_384)
            .clamp(64, 1 << 20);
        let hasher = Hasher::with_seed(seed, SharedSeed::global_fixed());
        let places = Places::default();
        let (invalidations, marks, room) = shares(bytes);
        let cache = Cache::with(items, room, Weight, hasher, places.clone());
        let (invalidations, purges) = (Remembered::new(invalidations), Marks::new(marks));
        Self {
            cache,
            places,
            bound: bytes,
            invalidations,
            purges,
            cleared: Cleared::default(),
        }
    }

    /// Another bound; 0 holds nothing.
    pub fn set_bound(&mut self, bytes: u64, now: Timestamp) {
        self.bound = bytes;
        let (invalidations, marks, room) = shares(bytes);
        self.invalidations.set_most(invalidations, now);
        self.purges.set_most(marks);
        if self.is_off() {
            self.empty();
        } else {
            self.cache.set_capacity(room);
        }
    }

    /// Whether it holds nothing, whatever it is given.
    pub fn is_off(&self) -> bool {
        self.bound == 0
    }

    /// All that is held under `key` and that the purges leave.
    pub fn look_up(&mut self, key: &PrimaryKey) -> Found {
        match self.cache.get(key) {
            None => Found::Nothing,
            Some(Held::Uncacheable(until)) => Found::Uncacheable(*until),
            Some(Held::Stored(held)) => {
                held.variants.count_look_up();
                if held.judged.get() == self.purges.added() {
                    return Found::Stored(held.variants.stored().clone());
                }
                self.judge(key)
            }
        }
    }

    /// Judges what is held under `key` by the purges that were heard of since it was judged last.
    #[cold]
    fn judge(&mut self, key: &PrimaryKey) -> Found {
        let Some(Held::Stored(held)) = self.cache.peek(key) else {
            return Found::Nothing;
        };
        let mut variants = held.variants.clone();
        if variants.judge(&self.purges) {
            self.hold(key, variants.clone(), self.purges.added());
        } else {
            held.judged.set(self.purges.added());
        }
        if variants.is_empty() {
            Found::Nothing
        } else {
            Found::Stored(variants.stored().clone())
        }
    }

    /// Holds these, or nothing if there are none. They were judged when there were so many purges.
    fn hold(&mut self, key: &PrimaryKey, variants: Variants, judged: u64) {
        let digest = key.digest();
        if variants.is_empty() {
            self.cache.remove(key);
            return self.places.remove(&digest);
        }
        let key = self
            .places
            .key_of(&digest)
            .unwrap_or_else(|| Rc::new(key.clone()));
        let replaces = self.cache.contains_key(&key);
        self.cache.insert(
            key.clone(),
            Held::Stored(Stored {
                variants,
                judged: Cell::new(judged),
            }),
        );
        if self.cache.contains_key(&key) {
            // What is replaced counts as evicted with the cache, and lost its place.
            self.places.add(key, replaces);
        }
    }

    /// Whether anything is stored under `key`.
    pub fn holds(&self, key: &PrimaryKey) -> bool {
        matches!(self.cache.peek(key), Some(Held::Stored(_)))
    }

    /// The key of a stored response that is held.
    pub fn key_of(&self, digest: &KeyDigest) -> Option<Rc<PrimaryKey>> {
        self.places.key_of(digest)
    }

    /// Remembers that `stored`, one of several variants, has answered a request.
    pub fn count_use(&self, key: &PrimaryKey, stored: &Arc<StoredResponse>) {
        if let Some(Held::Stored(held)) = self.cache.peek(key) {
            held.variants.count_use(stored);
        }
    }

    /// When a key was made untrue, for what a leader hands over or the store answers. Its digest is
    /// asked for only where that counts.
    pub fn untrue(&self, digest: impl FnOnce() -> KeyDigest) -> Times {
        self.invalidations.of_arriving(digest)
    }

    /// When a response to a request under a key was made untrue, by an invalidation or a purge,
    /// hard or soft.
    pub fn untrue_since(
        &self,
        digest: impl FnOnce() -> KeyDigest,
        stored: &StoredResponse,
    ) -> Option<Timestamp> {
        let known = self.untrue_with(self.untrue(digest), None).since(stored);
        let cleared = self
            .cleared
            .until
            .filter(|time| reaches(*time, stored.request_time));
        // The earlier: whoever came after that must not get it.
        known.into_iter().chain(cleared).min()
    }

    /// What is remembered of a key, of everything that was dropped, and of purges.
    fn untrue_with(&self, key: Times, cleared: Option<Timestamp>) -> Untrue<'_> {
        Untrue {
            key: Times {
                hard: key.hard.max(cleared),
                ..key
            },
            purges: &self.purges,
        }
    }

    /// Keeps what was fetched, in place of the same variant. Refused when it was made untrue after
    /// it was requested, or when that may be and is forgotten.
    pub fn put_fetched(
        &mut self,
        key: &PrimaryKey,
        stored: Arc<StoredResponse>,
        now: Timestamp,
    ) -> bool {
        !self.is_too_late(&stored)
            && !self.cleared.takes(stored.request_time)
            && self.put(key, stored, now)
    }

    /// Keeps what the store has, which has its own memory of what was made untrue. Says whether it
    /// is still true.
    pub fn put(&mut self, key: &PrimaryKey, stored: Arc<StoredResponse>, now: Timestamp) -> bool {
        let mut variants = match self.cache.get(key) {
            Some(Held::Stored(held)) => held.variants.clone(),
            _ => Variants::default(),
        };
        let bounds = Bounds {
            number: MAX_VARIANTS,
            bytes: self.bound / KEY_SHARE,
        };
        let untrue = self.untrue_with(
            self.untrue(|| key.digest()),
            self.cleared.until_of_store(now),
        );
        let put = variants.put(stored, &untrue, bounds, now);
        if put == Put::Kept && !self.is_off() {
            self.hold(key, variants, self.purges.added());
        }
        put != Put::Untrue
    }

    /// Remembers that answers under `key` are not storable, where nothing is stored.
    pub fn mark_uncacheable(&mut self, key: &PrimaryKey, until: Timestamp) {
        if !self.is_off() && !matches!(self.cache.peek(key), Some(Held::Stored(_))) {
            self.cache
                .insert(Rc::new(key.clone()), Held::Uncacheable(until));
        }
    }

    /// What a purge concerns is gone from now on, or stale since; what is yet to come of it, too.
    pub fn purge(&mut self, purge: &Purge, now: Timestamp) {
        let purge = &Purge {
            at_ms: purge.at_ms.no_later_than(now),
            ..purge.clone()
        };
        let Scope::Key(digest) = &purge.scope else {
            return self.purges.add(purge);
        };
        if let Some(key) = self.places.key_of(digest)
            && let Some(Held::Stored(held)) = self.cache.peek(&key)
        {
            // The purges that were not looked at yet are still to be.
            let (mut variants, judged) = (held.variants.clone(), held.judged.get());
            if variants.purge(purge) {
                self.hold(&key, variants, judged);
            }
        }
        self.invalidations
            .add(*digest, purge.at_ms, purge.soft, now);
    }

    /// Drops what was requested under a key up to `time`, and whatever of that is yet to come.
    pub fn invalidate(&mut self, digest: &KeyDigest, time: Timestamp, now: Timestamp) {
        self.purge(
            &Purge {
                scope: Scope::Key(*digest),
                soft: false,
                at_ms: time,
            },
            now,
        );
    }

    /// Drops everything held, and what was requested until `time` and is yet to come: from an
    /// origin or another worker for ever, from the store for a minute.
    pub fn clear(&mut self, time: Timestamp, now: Timestamp) {
        self.empty();
        self.cleared = Cleared {
            until: self.cleared.until.max(Some(time.no_later_than(now))),
            heard: now,
        };
    }

    fn empty(&mut self) {
        self.cache.clear();
        self.places.clear();
    }

    /// What the purges heard of leave of a response that comes from elsewhere.
    pub fn unpurged(&self, stored: Arc<StoredResponse>) -> Option<Arc<StoredResponse>> {
        let requested = stored.request_time;
        self.untrue_with(Times::default(), self.cleared.until)
            .leaves(stored, requested)
    }

    /// Whether what was fetched comes so late that an invalidation since its request may be
    /// forgotten.
    pub fn is_too_late(&self, stored: &StoredResponse) -> bool {
        self.invalidations.is_too_late(stored.request_time)
    }

    /// Forgets invalidations that hardly a fetch can be older than; what is, is refused from then
    /// on.
    pub fn forget_old_invalidations(&mut self, now: Timestamp) {
        self.invalidations.forget_old(now);
    }

    /// Keys dropped for want of room since this was asked last.
    pub fn take_evictions(&self) -> u64 {
        self.places.take_evictions()
    }

    /// How often invalidations, and marks of purges, were forgotten for want of room.
    pub fn times_crowded(&self) -> (u64, u64) {
        (self.invalidations.times_crowded(), self.purges.folded())
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

#[cfg(test)]
mod eagerly;
#[cfg(test)]
mod tests;
