//! What was made untrue, remembered for what is yet to come.
//!
//! What this decides: how long a key's invalidation is remembered, and that forgetting one leads to distrust: whatever was
//! requested up to the time of a forgotten invalidation and arrives later is refused, for nobody knows whether it was the
//! one. So memory is bounded, and nothing comes back however slow a fetch is. What it leaves out: purges by tag and prefix;
//! those are `purge::Marks`.

use std::collections::HashMap;
use std::hash::BuildHasher;

use larder_contract::http_time::Timestamp;
use larder_contract::key::PrimaryKey;

use super::Hasher;

/// How long an invalidation is remembered by its key: longer than nearly any fetch takes. The sidecar remembers as long.
const MEMORY_MS: u64 = 600_000;
/// An answer of the store may be older than an invalidation that the store has not heard of yet, for no longer than this.
const STORE_DELAY_MS: u64 = 60_000;
/// What remembering one costs, its place in the table included.
pub(super) const BYTES_EACH: u64 = 64;

/// The last invalidation and the last soft purge of one key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) hard: Option<Timestamp>,
    pub(super) soft: Option<Timestamp>,
}

impl Times {
    fn latest(self) -> Timestamp {
        self.hard.max(self.soft).unwrap_or_default()
    }
}

/// The invalidations of one VM. Keys are kept as seeded hashes: two that collide cost a miss.
#[derive(Debug)]
pub(super) struct Invalidations {
    by_key: HashMap<u64, Times>,
    hasher: Hasher,
    most: usize,
    /// What was requested up to here may have been made untrue, for all that is remembered.
    forgotten: Timestamp,
    /// The same for what the store answers, and until when: it may not have heard of the last ones.
    crowded_out: Timestamp,
    crowded_until: Timestamp,
}

impl Invalidations {
    pub(super) fn new(hasher: Hasher, most: usize) -> Self {
        let zero = Timestamp::default();
        Self { by_key: HashMap::new(), hasher, most, forgotten: zero, crowded_out: zero, crowded_until: zero }
    }

    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    pub(super) fn add(&mut self, key: &PrimaryKey, time: Timestamp, soft: bool, now: Timestamp) {
        let times = self.by_key.entry(self.hasher.hash_one(key)).or_default();
        let known = if soft { &mut times.soft } else { &mut times.hard };
        *known = Some(known.map_or(time, |known| known.max(time)));
        if self.by_key.len() > self.most {
            self.forget_older_half(now);
        }
    }

    /// What is remembered of a key, for what a leader hands over or the store answers.
    pub(super) fn of(&self, key: &PrimaryKey) -> Times {
        let times = match self.by_key.is_empty() {
            true => Times::default(),
            false => self.by_key.get(&self.hasher.hash_one(key)).copied().unwrap_or_default(),
        };
        let crowded_out = (self.crowded_out > Timestamp::default()).then_some(self.crowded_out);
        Times { hard: times.hard.max(crowded_out), soft: times.soft }
    }

    /// Whether a fetch that began at `request_time` is too old for what is remembered to vouch for it.
    pub(super) fn is_too_late(&self, request_time: Timestamp) -> bool {
        request_time <= self.forgotten
    }

    /// Forgets what is older than nearly any fetch.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        if now >= self.crowded_until {
            self.crowded_out = Timestamp::default();
        }
        self.forget(|times| now.millis_since(times.latest()) >= MEMORY_MS);
    }

    fn forget_older_half(&mut self, now: Timestamp) {
        let mut times: Vec<_> = self.by_key.values().map(|times| times.latest()).collect();
        times.sort_unstable();
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        self.forget(|times| times.latest() <= middle);
        self.crowded_out = self.crowded_out.max(middle);
        self.crowded_until = now.plus_millis(STORE_DELAY_MS);
    }

    fn forget(&mut self, is_forgotten: impl Fn(&Times) -> bool) {
        let forgotten = &mut self.forgotten;
        self.by_key.retain(|_, times| {
            let goes = is_forgotten(times);
            if goes {
                *forgotten = times.latest().max(*forgotten);
            }
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldhash::SharedSeed;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn key(n: u64) -> PrimaryKey {
        PrimaryKey::new(b"n", b"http", b"a", n.to_string().as_bytes())
    }

    fn empty(most: usize) -> Invalidations {
        Invalidations::new(Hasher::with_seed(7, SharedSeed::global_fixed()), most)
    }

    #[test]
    fn what_is_forgotten_with_time_is_distrusted_for_ever() {
        let mut invalidations = empty(8);
        invalidations.add(&key(1), at(5_000), false, at(5_000));
        invalidations.forget_old(at(600_000));
        assert_eq!(invalidations.of(&key(1)).hard, Some(at(5_000)));
        assert!(!invalidations.is_too_late(at(5_000)), "it is judged by its key");
        invalidations.forget_old(at(605_000));
        assert_eq!(invalidations.of(&key(1)).hard, None);
        assert!(invalidations.is_too_late(at(5_000)), "a fetch of ten minutes");
        assert!(!invalidations.is_too_late(at(5_001)));
    }

    #[test]
    fn a_flood_of_invalidations_keeps_out_what_they_may_concern() {
        let mut invalidations = empty(100);
        for n in 1..=1_000 {
            invalidations.add(&key(n), at(n), n % 2 == 0, at(n));
            assert!(invalidations.by_key.len() <= 100);
        }
        for n in 1..=1_000 {
            let times = invalidations.of(&key(n));
            let known = times.hard.max(times.soft).is_some_and(|time| time >= at(n));
            assert!(known || invalidations.is_too_late(at(n)), "{n}");
        }
        assert!(!invalidations.is_too_late(at(1_000)));
        assert!(invalidations.of(&key(5_000)).hard.is_some(), "what the store answers is doubted, too");
        invalidations.forget_old(at(1_000 + STORE_DELAY_MS));
        assert_eq!(invalidations.of(&key(5_000)).hard, None, "until it must have heard");
    }
}
