//! Level 1: stored responses in the VM's own memory, bounded in bytes.
//!
//! A purge by tag or prefix, or of everything, only leaves a mark: what is held is judged when it is next looked up, and
//! leaves then or for want of room. So a purge costs the same whatever is held, and a hit since whose last look-up nothing
//! was purged costs one comparison of numbers. What concerns one key is carried out at once: it is found by its digest.
//!
//! What this decides: what is dropped when the bound is reached (`quick_cache`'s scan-resistant S3-FIFO), how many variants
//! a key has, and what of them the purges and invalidations heard of leave. What it leaves out: which variant answers; it
//! hands out all of a key; and which variant leaves (`crowding`).

use std::rc::Rc;
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use larder_cache_core::reuse;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::crowding::{self, Standing};
use larder_contract::http_time::Timestamp;
use larder_contract::key::{KeyDigest, PrimaryKey};
use larder_contract::purge::remembered::{BYTES_EACH, Remembered, Times};
use larder_contract::purge::{Marks, Purge, Scope, Verdict};
use quick_cache::unsync::Cache;

mod held;

pub use held::Found;
use held::{Held, Places, Variant, Variants, Weight};

/// Variants kept per key.
const MAX_VARIANTS: usize = 32;
/// The variants of one key take at most this part of the bound: one key must not push out all the others.
const KEY_SHARE: u64 = 4;
/// This part of the bound is for what is remembered of purges, and as much of invalidations.
const MEMORY_SHARE: u64 = 16;
/// Bytes for marks of purges: the least, even where level 1 is off or small, for what is on its way is judged by them; and
/// the most: some thirty thousand tags.
const BYTES_OF_MARKS: (u64, u64) = (64 << 10, 4 << 20);
/// The store's answers may be older than a purge that it has not heard of yet, for no longer than this.
const STORE_DELAY_MS: u64 = 60_000;
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

/// The last time everything was dropped because purges may have been missed, or could not be told one by one.
#[derive(Clone, Copy, Debug, Default)]
struct Cleared {
    /// What was requested until then is distrusted.
    until: Timestamp,
    /// When this was last heard of. The store's answers are distrusted for [`STORE_DELAY_MS`] longer: by then the store has
    /// heard whatever this VM has missed, and what it gives out may be held again.
    heard: Timestamp,
}

impl Cleared {
    fn takes(self, requested: Timestamp) -> bool {
        requested <= self.until
    }

    fn takes_from_store(self, requested: Timestamp, now: Timestamp) -> bool {
        self.takes(requested) && now.millis_since(self.heard) < STORE_DELAY_MS
    }
}

/// How many invalidations, and bytes of marks, are remembered within a bound, and what that leaves for responses.
fn shares(bound: u64) -> (usize, usize, u64) {
    let share = bound / MEMORY_SHARE;
    let invalidations = (share / BYTES_EACH).clamp(INVALIDATIONS.0, INVALIDATIONS.1);
    let marks = share.clamp(BYTES_OF_MARKS.0, BYTES_OF_MARKS.1);
    let reserved = share.min(invalidations * BYTES_EACH) + share.min(marks);
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    (whole(invalidations), whole(marks), bound - reserved)
}

impl Level1 {
    /// Empty, with room for `bytes`. `seed` is a random number: who knows it could choose keys that collide.
    pub fn new(bytes: u64, seed: u64) -> Self {
        let items = usize::try_from(bytes / 4096).unwrap_or(16_384).clamp(64, 1 << 20);
        let hasher = Hasher::with_seed(seed, SharedSeed::global_fixed());
        let places = Places::default();
        let (invalidations, marks, room) = shares(bytes);
        let cache = Cache::with(items, room, Weight, hasher, places.clone());
        let (invalidations, purges) = (Remembered::new(invalidations), Marks::new(marks));
        Self { cache, places, bound: bytes, invalidations, purges, cleared: Cleared::default() }
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
            Some(Held::Stored(variants)) => {
                // Of a key's only variant every look-up counts as a use; among several, see `count_use`.
                if let [only] = &*variants.standings {
                    only.uses.set(only.uses.get().saturating_add(1));
                }
                if variants.judged.get() == self.purges.added() {
                    return Found::Stored(variants.stored.clone());
                }
                match self.judge(key) {
                    Some(stored) => Found::Stored(stored),
                    None => Found::Nothing,
                }
            }
        }
    }

    /// Judges what is held under `key` by the purges that were heard of since it was judged last. Gives what they leave.
    #[cold]
    fn judge(&mut self, key: &PrimaryKey) -> Option<Rc<[Arc<StoredResponse>]>> {
        let Some(Held::Stored(variants)) = self.cache.peek(key) else { return None };
        let kept = |variant: &Variant| self.verdict(variant) == Verdict::Kept;
        if variants.all().all(|variant| kept(&variant)) {
            variants.judged.set(self.purges.added());
            return Some(variants.stored.clone());
        }
        let left = variants.all().filter_map(|variant| {
            let stored = variant.stored.clone().left_by(self.verdict(&variant))?;
            Some(Variant { stored, ..variant })
        });
        self.hold(key, variants.digest, left.collect())
    }

    /// What the purges mean for a variant that is held. One that is stale already needs no other word of that.
    fn verdict(&self, variant: &Variant) -> Verdict {
        let stored = &variant.stored;
        match (self.purges.verdict(&stored.url, &stored.tags, variant.requested), stored.stale_from) {
            (Verdict::StaleSince(time), Some(known)) if known <= time => Verdict::Kept,
            (verdict, _) => verdict,
        }
    }

    /// Holds these, all judged by what is known now, or nothing if there are none.
    fn hold(&mut self, key: &PrimaryKey, digest: KeyDigest, all: Vec<Variant>) -> Option<Rc<[Arc<StoredResponse>]>> {
        if all.is_empty() {
            self.cache.remove(key);
            self.places.remove(&digest);
            return None;
        }
        let key = self.places.key_of(&digest).unwrap_or_else(|| Rc::new(key.clone()));
        let replaces = self.cache.contains_key(&key);
        let variants = Variants::of(digest, all, self.purges.added());
        let stored = variants.stored.clone();
        self.cache.insert(key.clone(), Held::Stored(variants));
        if self.cache.contains_key(&key) {
            // What is replaced counts as evicted with the cache, and lost its place.
            self.places.add(digest, key, replaces);
        }
        Some(stored)
    }

    /// The key of a stored response that is held.
    pub fn key_of(&self, digest: &KeyDigest) -> Option<Rc<PrimaryKey>> {
        self.places.key_of(digest)
    }

    /// Remembers that `stored`, one of several variants, has answered a request.
    pub fn count_use(&self, key: &PrimaryKey, stored: &Arc<StoredResponse>) {
        if let Some(Held::Stored(variants)) = self.cache.peek(key)
            && let Some(at) = variants.stored.iter().position(|held| Arc::ptr_eq(held, stored))
            && let Some(standing) = variants.standings.get(at)
        {
            standing.uses.set(standing.uses.get().saturating_add(1));
        }
    }

    /// When a key was made untrue, for what a leader hands over or the store answers. Its digest is asked for only where
    /// that counts.
    pub fn untrue(&self, digest: impl FnOnce() -> KeyDigest) -> Times {
        self.invalidations.of_arriving(digest)
    }

    /// Whether a response requested at `request_time` was made untrue since.
    pub fn was_invalidated(&self, digest: &KeyDigest, request_time: Timestamp) -> bool {
        self.untrue(|| *digest).hard.is_some_and(|time| request_time <= time)
    }

    /// When a response to a request under a key was made untrue, by an invalidation or a purge, hard or soft.
    pub fn untrue_since(&self, digest: impl FnOnce() -> KeyDigest, stored: &StoredResponse) -> Option<Timestamp> {
        let times = self.untrue(digest);
        let invalidated = times.hard.max(times.soft).filter(|time| stored.request_time <= *time);
        let purged = match self.purges.verdict(&stored.url, &stored.tags, stored.request_time) {
            Verdict::Kept => None,
            Verdict::Gone(time) | Verdict::StaleSince(time) => Some(time),
        };
        let cleared = Some(self.cleared.until).filter(|_| self.cleared.takes(stored.request_time));
        // The earliest: whoever came after that must not get it.
        invalidated.into_iter().chain(purged).chain(cleared).min()
    }

    /// Keeps what was fetched, in place of the same variant. Refused when it was made untrue after it was requested, or when
    /// that may be and is forgotten.
    pub fn put_fetched(&mut self, key: &PrimaryKey, stored: Arc<StoredResponse>, now: Timestamp) -> bool {
        !self.is_too_late(&stored) && !self.cleared.takes(stored.request_time) && self.put(key, stored, now)
    }

    /// Keeps what the store has, which has its own memory of what was made untrue.
    pub fn put(&mut self, key: &PrimaryKey, stored: Arc<StoredResponse>, now: Timestamp) -> bool {
        let digest = match self.cache.peek(key) {
            Some(Held::Stored(variants)) => variants.digest,
            _ => key.digest(),
        };
        // Nothing counts as requested later than it came: its clock may be wrong.
        let came = stored.request_time.no_later_than(now);
        let requested = if came < stored.request_time { now } else { came };
        let times = self.untrue(|| digest);
        if times.hard.is_some_and(|time| requested <= time) || self.cleared.takes_from_store(requested, now) {
            return false;
        }
        let verdict = self.purges.verdict(&stored.url, &stored.tags, requested);
        let softened = times.soft.filter(|time| requested <= *time).map_or(Verdict::Kept, Verdict::StaleSince);
        let Some(stored) = stored.left_by(verdict.and(softened)) else { return false };
        if self.is_off() {
            return true;
        }
        self.judge(key);
        let mut variants: Vec<Variant> = match self.cache.get(key) {
            Some(Held::Stored(variants)) => variants.all().collect(),
            _ => Vec::new(),
        };
        let mut uses = 0;
        if let Some(at) = variants.iter().position(|held| held.stored.selecting == stored.selecting) {
            let held = variants.remove(at);
            let received = held.stored.response_time;
            // What comes from the future is not newer than anything.
            if received > stored.response_time && received <= received.no_later_than(now) {
                return true; // a newer one is there already
            }
            uses = held.uses;
        }
        self.make_room(&mut variants, &stored, now);
        variants.push(Variant { stored, uses, requested });
        self.hold(key, digest, variants);
        true
    }

    /// Drops variants until one more may be kept, by number and by bytes.
    fn make_room(&self, variants: &mut Vec<Variant>, more: &StoredResponse, now: Timestamp) {
        loop {
            let bytes: usize = variants.iter().map(|held| held.stored.weight()).sum::<usize>() + more.weight();
            if variants.len() < MAX_VARIANTS && bytes as u64 <= self.bound / KEY_SHARE {
                return;
            }
            let standings: Vec<Standing> = variants.iter().map(|held| standing(&held.stored, held.uses, now)).collect();
            let Some(goes) = crowding::first_to_go(&standings) else { return };
            variants.remove(goes);
        }
    }

    /// Remembers that answers under `key` are not storable, where nothing is stored.
    pub fn mark_uncacheable(&mut self, key: &PrimaryKey, until: Timestamp) {
        if !self.is_off() && !matches!(self.cache.peek(key), Some(Held::Stored(_))) {
            self.cache.insert(Rc::new(key.clone()), Held::Uncacheable(until));
        }
    }

    /// What a purge concerns is gone from now on, or stale since; what is yet to come of it, too.
    pub fn purge(&mut self, purge: &Purge, now: Timestamp) {
        let purge = &Purge { at_ms: purge.at_ms.no_later_than(now), ..purge.clone() };
        let Scope::Key(digest) = &purge.scope else { return self.purges.add(purge) };
        if let Some(key) = self.places.key_of(digest)
            && let Some(Held::Stored(variants)) = self.cache.peek(&key)
            && variants.all().any(|variant| purge.verdict(variant.requested) != Verdict::Kept)
        {
            let left = variants.all().filter_map(|variant| {
                let stored = variant.stored.clone().left_by(purge.verdict(variant.requested))?;
                Some(Variant { stored, ..variant })
            });
            let (left, judged) = (left.collect(), variants.judged.get());
            self.hold(&key, *digest, left);
            // The purges that were not looked at yet are still to be.
            if let Some(Held::Stored(variants)) = self.cache.peek(&key) {
                variants.judged.set(judged);
            }
        }
        self.invalidations.add(*digest, purge.at_ms, purge.soft, now);
    }

    /// Drops what was requested under a key up to `time`, and whatever of that is yet to come.
    pub fn invalidate(&mut self, digest: &KeyDigest, time: Timestamp, now: Timestamp) {
        self.purge(&Purge { scope: Scope::Key(*digest), soft: false, at_ms: time }, now);
    }

    /// Drops everything held, and what was requested until `time` and is yet to come: from an origin or another worker for
    /// ever, from the store for a minute.
    pub fn clear(&mut self, time: Timestamp, now: Timestamp) {
        self.empty();
        self.cleared = Cleared { until: self.cleared.until.max(time.no_later_than(now)), heard: now };
    }

    fn empty(&mut self) {
        self.cache.clear();
        self.places.clear();
    }

    /// What the purges heard of leave of a response that comes from elsewhere.
    pub fn unpurged(&self, stored: Arc<StoredResponse>) -> Option<Arc<StoredResponse>> {
        if self.cleared.takes(stored.request_time) {
            return None;
        }
        let verdict = self.purges.verdict(&stored.url, &stored.tags, stored.request_time);
        stored.left_by(verdict)
    }

    /// Whether what was fetched comes so late that an invalidation since its request may be forgotten.
    pub fn is_too_late(&self, stored: &StoredResponse) -> bool {
        self.invalidations.is_too_late(stored.request_time)
    }

    /// Forgets invalidations that hardly a fetch can be older than; what is, is refused from then on.
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

/// What speaks for keeping a variant.
fn standing(stored: &StoredResponse, uses: u32, now: Timestamp) -> Standing {
    let terms = &stored.terms;
    let usable = terms.lifetime.plus(terms.stale_while_revalidate.max(terms.stale_if_error)).as_millis();
    let remaining = reuse::remaining_millis(stored, now);
    let spent = remaining < 0 && remaining.unsigned_abs() > usable;
    Standing { uses, received: stored.response_time, spent }
}

#[cfg(test)]
mod eagerly;
#[cfg(test)]
mod tests;
