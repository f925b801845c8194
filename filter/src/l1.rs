//! Level 1: stored responses in the VM's own memory, bounded in bytes.
//!
//! What this decides: what is dropped when the bound is reached (`quick_cache`'s scan-resistant S3-FIFO), how many variants
//! a key has, and what was made untrue before it came (`invalidations`). What it leaves out: which variant answers; it
//! hands out all of a key; and which variant leaves (`crowding`).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use larder_cache_core::exchange::Local;
use larder_cache_core::reuse;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::crowding::{self, Standing};
use larder_contract::http_time::Timestamp;
use larder_contract::key::PrimaryKey;
use larder_contract::purge::{Marks, Purge, Scope, Verdict};
use quick_cache::unsync::Cache;
use quick_cache::{Lifecycle, Weighter};

mod invalidations;

use invalidations::{BYTES_EACH, Invalidations};

/// Variants kept per key.
const MAX_VARIANTS: usize = 32;
/// The variants of one key take at most this part of the bound: one key must not push out all the others.
const KEY_SHARE: u64 = 4;
/// Purges remembered, for what they concern and is yet to come.
const MAX_PURGES: usize = 256;
/// Invalidations remembered at most; see [`invalidations`].
const MAX_INVALIDATIONS: u64 = 8192;
/// Invalidations remembered even where level 1 is off or small: what is on its way to the store is judged by them.
const MIN_INVALIDATIONS: u64 = 512;
/// What a key costs beside its bytes and its variants: its places in the cache's tables.
const OVERHEAD: usize = 96;

type Hasher = SeedableRandomState;

/// What is held under a key.
#[derive(Clone, Debug)]
enum Held {
    Stored(Variants),
    /// Nothing, and until then there is no point in waiting for another's fetch.
    Uncacheable(Timestamp),
}

/// The variants of a key, and how many requests each has answered here.
#[derive(Clone, Debug, Default)]
struct Variants {
    stored: Rc<[Arc<StoredResponse>]>,
    uses: Rc<[Cell<u32>]>,
}

impl Variants {
    fn of(all: Vec<(Arc<StoredResponse>, u32)>) -> Self {
        let uses = all.iter().map(|(_, uses)| Cell::new(*uses)).collect();
        Self { stored: all.into_iter().map(|(stored, _)| stored).collect(), uses }
    }

    fn pairs(&self) -> impl Iterator<Item = (Arc<StoredResponse>, u32)> {
        self.stored.iter().cloned().zip(self.uses.iter().map(Cell::get))
    }
}

impl Held {
    fn variants(&self) -> &[Arc<StoredResponse>] {
        match self {
            Self::Stored(variants) => &variants.stored,
            Self::Uncacheable(_) => &[],
        }
    }

    fn pairs(&self) -> Vec<(Arc<StoredResponse>, u32)> {
        match self {
            Self::Stored(variants) => variants.pairs().collect(),
            Self::Uncacheable(_) => Vec::new(),
        }
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<PrimaryKey, Held> for Weight {
    fn weight(&self, key: &PrimaryKey, held: &Held) -> u64 {
        let bytes: usize = held.variants().iter().map(|stored| stored.weight()).sum();
        (bytes + key.as_bytes().len() + OVERHEAD) as u64
    }
}

/// Counts what is dropped for want of room.
#[derive(Clone, Debug, Default)]
struct Evictions(Rc<Cell<u64>>);

impl Lifecycle<PrimaryKey, Held> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _key: PrimaryKey, _held: Held) {
        self.0.set(self.0.get() + 1);
    }
}

/// The level-1 cache of one VM.
pub struct Level1 {
    cache: Cache<PrimaryKey, Held, Weight, Hasher, Evictions>,
    evictions: Evictions,
    /// In bytes; 0 is off.
    bound: u64,
    invalidations: Invalidations,
    /// Purges that something requested before them may still come behind.
    purges: Marks,
}

/// How many invalidations are remembered within a bound, and what that leaves for responses.
fn shares(bound: u64) -> (usize, u64) {
    let most = (bound / 8 / BYTES_EACH).clamp(MIN_INVALIDATIONS, MAX_INVALIDATIONS);
    (usize::try_from(most).unwrap_or(usize::MAX), bound.saturating_sub(most * BYTES_EACH))
}

impl Level1 {
    /// Empty, with room for `bytes`. `seed` is a random number: who knows it could choose keys that collide.
    pub fn new(bytes: u64, seed: u64) -> Self {
        let items = usize::try_from(bytes / 4096).unwrap_or(16_384).clamp(64, 1 << 20);
        let purges = Marks::new(MAX_PURGES);
        let hasher = Hasher::with_seed(seed, SharedSeed::global_fixed());
        let evictions = Evictions::default();
        let (most, room) = shares(bytes);
        let cache = Cache::with(items, room, Weight, hasher.clone(), evictions.clone());
        Self { cache, evictions, bound: bytes, invalidations: Invalidations::new(hasher, most), purges }
    }

    /// Another bound; 0 holds nothing.
    pub fn set_bound(&mut self, bytes: u64) {
        self.bound = bytes;
        let (most, room) = shares(bytes);
        self.invalidations.set_most(most);
        if self.is_off() {
            self.cache.clear();
        } else {
            self.cache.set_capacity(room);
        }
    }

    /// Whether it holds nothing, whatever it is given.
    pub fn is_off(&self) -> bool {
        self.bound == 0
    }

    /// All that is held under `key`.
    pub fn look_up(&self, key: &PrimaryKey) -> Local<'_> {
        let times = self.invalidations.of(key);
        let local = Local { invalidated: times.hard, softened: times.soft, ..Local::default() };
        match self.cache.get(key) {
            Some(Held::Stored(variants)) => {
                // Of a key's only variant every look-up counts as a use; among several, see `count_use`.
                if let [only] = &*variants.uses {
                    only.set(only.get().saturating_add(1));
                }
                Local { variants: &variants.stored, ..local }
            }
            Some(Held::Uncacheable(until)) => Local { uncacheable_until: Some(*until), ..local },
            None => local,
        }
    }

    /// Whether a stored response is held under `key`.
    pub fn holds(&self, key: &PrimaryKey) -> bool {
        self.cache.peek(key).is_some_and(|held| !held.variants().is_empty())
    }

    /// Remembers that `stored`, one of several variants, has answered a request.
    pub fn count_use(&self, key: &PrimaryKey, stored: &Arc<StoredResponse>) {
        if let Some(Held::Stored(variants)) = self.cache.peek(key)
            && let Some(at) = variants.stored.iter().position(|held| Arc::ptr_eq(held, stored))
            && let Some(uses) = variants.uses.get(at)
        {
            uses.set(uses.get().saturating_add(1));
        }
    }

    /// Whether a response requested at `request_time` was made untrue since.
    pub fn was_invalidated(&self, key: &PrimaryKey, request_time: Timestamp) -> bool {
        self.invalidations.of(key).hard.is_some_and(|time| request_time <= time)
    }

    /// When a response to a request under `key` was made untrue, by an invalidation or a purge, hard or soft.
    pub fn untrue_since(&self, key: &PrimaryKey, stored: &StoredResponse) -> Option<Timestamp> {
        let times = self.invalidations.of(key);
        let invalidated = times.hard.max(times.soft).filter(|time| stored.request_time <= *time);
        let purged = match self.purges.verdict(&stored.url, &stored.tags, stored.request_time) {
            Verdict::Kept => None,
            Verdict::Gone(time) | Verdict::StaleSince(time) => Some(time),
        };
        invalidated.max(purged)
    }

    /// When `key` was last invalidated, if that is remembered.
    pub fn invalidated_at(&self, key: &PrimaryKey) -> Option<Timestamp> {
        self.invalidations.of(key).hard
    }

    /// Keeps what was fetched, in place of the same variant. Refused when it was made untrue after it was requested, or when
    /// that may be and is forgotten.
    pub fn put_fetched(&mut self, key: &PrimaryKey, stored: Arc<StoredResponse>, now: Timestamp) -> bool {
        !self.is_too_late(&stored) && self.put(key, stored, now)
    }

    /// Keeps what the store has, which has its own memory of what was made untrue.
    pub fn put(&mut self, key: &PrimaryKey, stored: Arc<StoredResponse>, now: Timestamp) -> bool {
        let times = self.invalidations.of(key);
        if times.hard.is_some_and(|time| stored.request_time <= time) {
            return false;
        }
        let Some(mut stored) = self.unpurged(stored) else { return false };
        if let Some(time) = times.soft.filter(|time| stored.request_time <= *time) {
            stored = stale_since(&stored, time);
        }
        if self.is_off() {
            return true;
        }
        let mut variants = self.cache.get(key).map(Held::pairs).unwrap_or_default();
        let mut uses = 0;
        if let Some(at) = variants.iter().position(|(held, _)| held.selecting == stored.selecting) {
            let (held, known) = variants.remove(at);
            // What comes from the future is not newer than anything.
            if held.response_time > stored.response_time && held.response_time <= held.response_time.no_later_than(now)
            {
                return true; // a newer one is there already
            }
            uses = known;
        }
        self.make_room(&mut variants, &stored, now);
        variants.push((stored, uses));
        self.cache.insert(key.clone(), Held::Stored(Variants::of(variants)));
        true
    }

    /// Drops variants until one more may be kept, by number and by bytes.
    fn make_room(&self, variants: &mut Vec<(Arc<StoredResponse>, u32)>, more: &StoredResponse, now: Timestamp) {
        loop {
            let bytes: usize = variants.iter().map(|(stored, _)| stored.weight()).sum::<usize>() + more.weight();
            if variants.len() < MAX_VARIANTS && bytes as u64 <= self.bound / KEY_SHARE {
                return;
            }
            let standings: Vec<Standing> = variants.iter().map(|(stored, uses)| standing(stored, *uses, now)).collect();
            let Some(goes) = crowding::first_to_go(&standings) else { return };
            variants.remove(goes);
        }
    }

    /// Remembers that answers under `key` are not storable, where nothing is stored.
    pub fn mark_uncacheable(&mut self, key: &PrimaryKey, until: Timestamp) {
        if !self.is_off() && self.cache.peek(key).is_none_or(|held| held.variants().is_empty()) {
            self.cache.insert(key.clone(), Held::Uncacheable(until));
        }
    }

    /// Drops what a purge concerns, or softly ends its freshness; what is yet to come of it, too. Costs a look at
    /// everything held, unless it concerns one key.
    pub fn purge(&mut self, purge: &Purge, now: Timestamp) {
        let purge = &Purge { at_ms: purge.at_ms.no_later_than(now), ..purge.clone() };
        match &purge.scope {
            Scope::Key(key) if !purge.soft => self.invalidate(key, purge.at_ms, now),
            Scope::Key(key) => {
                if let Some(variants) = self.cache.peek(key).and_then(|held| changed(key, held, purge)) {
                    self.replace(key.clone(), variants);
                }
                self.invalidations.add(key, purge.at_ms, true, now);
            }
            _ => {
                self.purges.add(purge);
                let all = self.cache.iter().filter_map(|(key, held)| Some((key.clone(), changed(key, held, purge)?)));
                for (key, variants) in all.collect::<Vec<_>>() {
                    self.replace(key, variants);
                }
            }
        }
    }

    fn replace(&mut self, key: PrimaryKey, variants: Vec<(Arc<StoredResponse>, u32)>) {
        if variants.is_empty() {
            self.cache.remove(&key);
        } else {
            self.cache.insert(key, Held::Stored(Variants::of(variants)));
        }
    }

    /// Drops everything held, and what was requested until `time` and is yet to come.
    pub fn clear(&mut self, time: Timestamp, now: Timestamp) {
        self.cache.clear();
        let at_ms = time.no_later_than(now);
        self.purges.add(&Purge { scope: Scope::Everything, soft: false, at_ms });
    }

    /// What the purges heard of leave of a response that comes from elsewhere.
    pub fn unpurged(&self, stored: Arc<StoredResponse>) -> Option<Arc<StoredResponse>> {
        match self.purges.verdict(&stored.url, &stored.tags, stored.request_time) {
            Verdict::Kept => Some(stored),
            Verdict::Gone(_) => None,
            Verdict::StaleSince(time) => Some(stale_since(&stored, time)),
        }
    }

    /// Whether what was fetched comes so late that an invalidation since its request may be forgotten.
    pub fn is_too_late(&self, stored: &StoredResponse) -> bool {
        self.invalidations.is_too_late(stored.request_time)
    }

    /// Drops what was requested under a key up to `time`, and whatever of that is yet to come.
    pub fn invalidate(&mut self, key: &PrimaryKey, time: Timestamp, now: Timestamp) {
        let time = time.no_later_than(now);
        if let Some(held @ Held::Stored(_)) = self.cache.peek(key) {
            // What seems to come from the future may be older all the same.
            let is_newer = |at: Timestamp| at > time && at == at.no_later_than(now);
            let newer: Vec<_> = held.pairs().into_iter().filter(|(stored, _)| is_newer(stored.request_time)).collect();
            self.replace(key.clone(), newer);
        }
        self.invalidations.add(key, time, false, now);
    }

    /// Forgets invalidations that hardly a fetch can be older than; what is, is refused from then on.
    pub fn forget_old_invalidations(&mut self, now: Timestamp) {
        self.invalidations.forget_old(now);
    }

    /// Keys dropped for want of room since this was asked last.
    pub fn take_evictions(&self) -> u64 {
        self.evictions.0.take()
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

/// The variants a purge leaves; `None` when it concerns none.
fn changed(key: &PrimaryKey, held: &Held, purge: &Purge) -> Option<Vec<(Arc<StoredResponse>, u32)>> {
    let verdict = |stored: &StoredResponse| purge.verdict(key, &stored.url, &stored.tags, stored.request_time);
    if held.variants().iter().all(|stored| verdict(stored) == Verdict::Kept) {
        return None;
    }
    let kept = held.pairs().into_iter().filter_map(|(stored, uses)| match verdict(&stored) {
        Verdict::Kept => Some((stored, uses)),
        Verdict::Gone(_) => None,
        Verdict::StaleSince(time) => Some((stale_since(&stored, time), uses)),
    });
    Some(kept.collect())
}

fn stale_since(stored: &Arc<StoredResponse>, time: Timestamp) -> Arc<StoredResponse> {
    let stale_from = Some(stored.stale_from.map_or(time, |known| known.min(time)));
    Arc::new(StoredResponse { stale_from, ..(**stored).clone() })
}

#[cfg(test)]
mod tests;
