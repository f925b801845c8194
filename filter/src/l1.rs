//! Level 1: stored responses in the VM's own memory, bounded in bytes.
//!
//! What this decides: what is dropped when the bound is reached (`quick_cache`'s scan-resistant S3-FIFO) and how many
//! variants a key has. What it leaves out: which variant answers; it hands out all of a key.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use larder_cache_core::exchange::Local;
use larder_cache_core::http_time::Timestamp;
use larder_cache_core::key::PrimaryKey;
use larder_cache_core::purge::{Marks, Purge, Scope, Verdict};
use larder_cache_core::stored_response::StoredResponse;
use quick_cache::unsync::Cache;
use quick_cache::{Lifecycle, Weighter};

/// Variants kept per key; one more drops the oldest.
const MAX_VARIANTS: usize = 32;
/// Purges remembered, for what they concern and is yet to come.
const MAX_PURGES: usize = 256;
/// Invalidations remembered; beyond it the oldest half is forgotten.
const MAX_INVALIDATIONS: usize = 8192;
/// How long an invalidation is remembered: longer than any fetch that was under way can take to be stored.
const INVALIDATION_MEMORY_MS: u64 = 60_000;
/// What a key costs beside its bytes and its variants: its places in the cache's tables.
const OVERHEAD: usize = 96;

type Hasher = SeedableRandomState;
type Variants = Rc<[Arc<StoredResponse>]>;

/// What is held under a key.
#[derive(Clone, Debug)]
enum Held {
    Stored(Variants),
    /// Nothing, and until then there is no point in waiting for another's fetch.
    Uncacheable(Timestamp),
}

impl Held {
    fn variants(&self) -> &[Arc<StoredResponse>] {
        match self {
            Self::Stored(variants) => variants,
            Self::Uncacheable(_) => &[],
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
    off: bool,
    invalidated: HashMap<PrimaryKey, Timestamp>,
    /// Purges that something requested before them may still come behind.
    purges: Marks,
}

impl Level1 {
    /// Empty, with room for `bytes`. `seed` is a random number: who knows it could choose keys that collide.
    pub fn new(bytes: u64, seed: u64) -> Self {
        let items = usize::try_from(bytes / 4096).unwrap_or(16_384).clamp(64, 1 << 20);
        let purges = Marks::new(MAX_PURGES);
        let hasher = Hasher::with_seed(seed, SharedSeed::global_fixed());
        let evictions = Evictions::default();
        let cache = Cache::with(items, bytes, Weight, hasher, evictions.clone());
        Self { cache, evictions, off: false, invalidated: HashMap::new(), purges }
    }

    /// Another bound; 0 holds nothing.
    pub fn set_bound(&mut self, bytes: u64) {
        self.off = bytes == 0;
        if self.off {
            self.cache.clear();
        } else {
            self.cache.set_capacity(bytes);
        }
    }

    /// Whether it holds nothing, whatever it is given.
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// All that is held under `key`.
    pub fn look_up(&self, key: &PrimaryKey) -> Local<'_> {
        let invalidated = if self.invalidated.is_empty() { None } else { self.invalidated.get(key).copied() };
        match self.cache.get(key) {
            Some(Held::Stored(variants)) => Local { variants, invalidated, ..Local::default() },
            Some(Held::Uncacheable(until)) => {
                Local { invalidated, uncacheable_until: Some(*until), ..Local::default() }
            }
            None => Local { invalidated, ..Local::default() },
        }
    }

    /// Whether a response requested at `request_time` was made untrue since.
    pub fn was_invalidated(&self, key: &PrimaryKey, request_time: Timestamp) -> bool {
        self.invalidated.get(key).is_some_and(|time| request_time <= *time)
    }

    /// Keeps `stored`, in place of the same variant. Refused when the key was invalidated after it was requested.
    pub fn put(&mut self, key: &PrimaryKey, stored: Arc<StoredResponse>) -> bool {
        if self.was_invalidated(key, stored.request_time) {
            return false;
        }
        let Some(stored) = self.unpurged(stored) else { return false };
        if self.off {
            return true;
        }
        let mut variants = self.cache.get(key).map(|held| held.variants().to_vec()).unwrap_or_default();
        if variants.iter().any(|held| held.selecting == stored.selecting && held.response_time > stored.response_time) {
            return true; // a newer one is there already
        }
        variants.retain(|held| held.selecting != stored.selecting);
        if variants.len() >= MAX_VARIANTS {
            variants.remove(0);
        }
        variants.push(stored);
        self.cache.insert(key.clone(), Held::Stored(variants.into()));
        true
    }

    /// Remembers that answers under `key` are not storable, where nothing is stored.
    pub fn mark_uncacheable(&mut self, key: &PrimaryKey, until: Timestamp) {
        if !self.off && self.cache.peek(key).is_none_or(|held| held.variants().is_empty()) {
            self.cache.insert(key.clone(), Held::Uncacheable(until));
        }
    }

    /// Drops what a purge concerns, or softly ends its freshness; what is yet to come of it, too. Costs a look at
    /// everything held, unless it concerns one key.
    pub fn purge(&mut self, purge: &Purge) {
        match &purge.scope {
            Scope::Key(key) if !purge.soft => self.invalidate(key, purge.at_ms),
            Scope::Key(key) => {
                if let Some(variants) = self.cache.peek(key).and_then(|held| changed(key, held.variants(), purge)) {
                    self.replace(key.clone(), variants);
                }
            }
            _ => {
                self.purges.add(purge);
                let all = self
                    .cache
                    .iter()
                    .filter_map(|(key, held)| Some((key.clone(), changed(key, held.variants(), purge)?)));
                for (key, variants) in all.collect::<Vec<_>>() {
                    self.replace(key, variants);
                }
            }
        }
    }

    fn replace(&mut self, key: PrimaryKey, variants: Vec<Arc<StoredResponse>>) {
        if variants.is_empty() {
            self.cache.remove(&key);
        } else {
            self.cache.insert(key, Held::Stored(variants.into()));
        }
    }

    /// Drops everything held, and what was requested until `now` and is yet to come.
    pub fn clear(&mut self, now: Timestamp) {
        self.cache.clear();
        self.purges.add(&Purge { scope: Scope::Everything, soft: false, at_ms: now });
    }

    /// What the purges heard of leave of a response that comes from elsewhere.
    pub fn unpurged(&self, stored: Arc<StoredResponse>) -> Option<Arc<StoredResponse>> {
        match self.purges.verdict(&stored.url, &stored.tags, stored.request_time) {
            Verdict::Kept => Some(stored),
            Verdict::Gone(_) => None,
            Verdict::StaleSince(time) => Some(stale_since(&stored, time)),
        }
    }

    /// Drops what was requested under a key up to `time`, and whatever of that is yet to come.
    pub fn invalidate(&mut self, key: &PrimaryKey, time: Timestamp) {
        if let Some(Held::Stored(variants)) = self.cache.peek(key) {
            let newer: Vec<_> = variants.iter().filter(|stored| stored.request_time > time).cloned().collect();
            self.replace(key.clone(), newer);
        }
        if self.invalidated.len() >= MAX_INVALIDATIONS {
            let mut times: Vec<_> = self.invalidated.values().copied().collect();
            times.sort_unstable();
            let middle = times.get(times.len() / 2).copied().unwrap_or_default();
            self.invalidated.retain(|_, time| *time > middle);
        }
        let known = self.invalidated.entry(key.clone()).or_default();
        *known = time.max(*known);
    }

    /// Forgets invalidations that no fetch can be older than.
    pub fn forget_old_invalidations(&mut self, now: Timestamp) {
        self.invalidated.retain(|_, time| now.millis_since(*time) < INVALIDATION_MEMORY_MS);
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

/// The variants a purge leaves; `None` when it concerns none.
fn changed(key: &PrimaryKey, variants: &[Arc<StoredResponse>], purge: &Purge) -> Option<Vec<Arc<StoredResponse>>> {
    let verdicts: Vec<Verdict> = variants.iter().map(|stored| purge.verdict(key, stored)).collect();
    if verdicts.iter().all(|verdict| *verdict == Verdict::Kept) {
        return None;
    }
    let kept = variants.iter().zip(verdicts).filter_map(|(stored, verdict)| match verdict {
        Verdict::Kept => Some(stored.clone()),
        Verdict::Gone(_) => None,
        Verdict::StaleSince(time) => Some(stale_since(stored, time)),
    });
    Some(kept.collect())
}

fn stale_since(stored: &Arc<StoredResponse>, time: Timestamp) -> Arc<StoredResponse> {
    let stale_from = Some(stored.stale_from.map_or(time, |known| known.min(time)));
    Arc::new(StoredResponse { stale_from, ..(**stored).clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_cache_core::fields::Fields;
    use larder_cache_core::http_time::DeltaSeconds;
    use larder_cache_core::stored_response::ReuseTerms;
    use larder_cache_core::vary::SelectingFields;

    fn key(path: &str) -> PrimaryKey {
        PrimaryKey::new(b"n", b"http", b"a", path.as_bytes())
    }

    fn stored(at: u64, body: usize) -> Arc<StoredResponse> {
        Arc::new(StoredResponse {
            url: String::new(),
            status: 200,
            fields: Fields::default(),
            body: vec![0; body].into(),
            part: None,
            request_time: Timestamp::from_millis(at),
            response_time: Timestamp::from_millis(at),
            initial_age: DeltaSeconds::ZERO,
            terms: ReuseTerms::default(),
            explicitly_public: false,
            stale_from: None,
            selecting: SelectingFields::default(),
            tags: Vec::new(),
        })
    }

    #[test]
    fn a_purge_takes_what_is_held_and_what_comes_late() {
        let mut l1 = Level1::new(1 << 20, 7);
        let tagged = |at: u64| Arc::new(StoredResponse { tags: vec!["news".into()], ..(*stored(at, 10)).clone() });
        l1.put(&key("/a"), tagged(5));
        l1.put(&key("/b"), stored(5, 10));
        let purge = |soft, at| Purge { scope: Scope::Tag("news".into()), soft, at_ms: Timestamp::from_millis(at) };
        l1.purge(&purge(true, 6));
        assert_eq!(l1.look_up(&key("/a")).variants[0].stale_from, Some(Timestamp::from_millis(6)));
        l1.put(&key("/c"), tagged(6));
        assert_eq!(l1.look_up(&key("/c")).variants[0].stale_from, Some(Timestamp::from_millis(6)));
        l1.purge(&purge(false, 7));
        assert!(l1.look_up(&key("/a")).variants.is_empty());
        assert_eq!(l1.look_up(&key("/b")).variants.len(), 1);
        assert!(!l1.put(&key("/a"), tagged(7)));
        assert!(l1.put(&key("/a"), tagged(8)));
    }

    #[test]
    fn a_mark_gives_way_to_what_is_stored_and_never_takes_its_place() {
        let mut l1 = Level1::new(1 << 20, 7);
        let until = Timestamp::from_millis(9);
        l1.mark_uncacheable(&key("/a"), until);
        assert_eq!(l1.look_up(&key("/a")).uncacheable_until, Some(until));
        assert!(l1.bytes() > 0, "it counts against the bound");
        l1.put(&key("/a"), stored(1, 10));
        l1.mark_uncacheable(&key("/a"), until);
        let found = l1.look_up(&key("/a"));
        assert_eq!((found.variants.len(), found.uncacheable_until), (1, None));
    }

    #[test]
    fn an_invalidation_heard_late_leaves_what_is_newer() {
        let mut l1 = Level1::new(1 << 20, 7);
        l1.put(&key("/a"), stored(9, 10));
        l1.invalidate(&key("/a"), Timestamp::from_millis(8));
        assert_eq!(l1.look_up(&key("/a")).variants.len(), 1);
    }

    #[test]
    fn its_bound_follows_the_configuration() {
        let mut level1 = Level1::new(1 << 20, 7);
        for n in 0..100 {
            level1.put(&key(&format!("/{n}")), stored(1, 1000));
        }
        level1.set_bound(65_536);
        assert!((30_000..=65_536).contains(&level1.bytes()), "{}", level1.bytes());
        level1.set_bound(0);
        assert!(level1.put(&key("/"), stored(1, 1)), "the store gets it all the same");
        assert_eq!(level1.bytes(), 0);
        level1.set_bound(1 << 20);
        level1.put(&key("/"), stored(1, 1));
        assert_eq!(level1.look_up(&key("/")).variants.len(), 1);
    }

    #[test]
    fn what_was_put_is_found_and_a_newer_one_replaces_it() {
        let mut level1 = Level1::new(1 << 20, 7);
        level1.put(&key("/"), stored(1, 10));
        level1.put(&key("/"), stored(2, 20));
        level1.put(&key("/"), stored(1, 10));
        let found = level1.look_up(&key("/"));
        assert_eq!(found.variants.iter().map(|stored| stored.body.len()).collect::<Vec<_>>(), [20]);
    }

    #[test]
    fn it_never_holds_more_bytes_than_its_bound() {
        let mut level1 = Level1::new(100_000, 7);
        for n in 0..1000 {
            level1.put(&key(&format!("/{n}")), stored(1, 1000));
            assert!(level1.bytes() <= 100_000);
        }
        assert!(level1.bytes() > 50_000);
        assert!(level1.take_evictions() > 800);
        assert_eq!(level1.take_evictions(), 0);
    }

    #[test]
    fn an_invalidation_beats_what_was_requested_before_it_and_arrives_later() {
        let mut level1 = Level1::new(1 << 20, 7);
        level1.put(&key("/"), stored(1, 1));
        level1.invalidate(&key("/"), Timestamp::from_millis(5));
        assert!(level1.look_up(&key("/")).variants.is_empty());
        assert!(!level1.put(&key("/"), stored(5, 1)));
        assert!(level1.put(&key("/"), stored(6, 1)));
        assert_eq!(level1.look_up(&key("/")).variants.len(), 1);
    }
}
