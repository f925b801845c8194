//! When single keys were made untrue, remembered for what is yet to come.
//!
//! What this decides: how long a key's invalidation is remembered, and that forgetting one leads to
//! distrust: whatever was requested up to the time of a forgotten invalidation and arrives later is
//! refused, for nobody knows whether it was the one. So memory is bounded, and nothing comes back
//! however slow a fetch is. What it leaves out: what is held already (that goes when the
//! invalidation is heard), and purges by tag and prefix; those are [`super::Marks`].

use std::collections::HashMap;

use super::Verdict;
use super::requested::reaches;
use crate::http_time::Timestamp;
use crate::key::KeyDigest;

/// How long an invalidation is remembered by its key, in milliseconds: longer than nearly any fetch
/// takes.
pub const MEMORY_MS: u64 = 600_000;
/// An answer of the store may be older than an invalidation or purge that the store has not heard
/// of yet, for no longer than this, in milliseconds.
pub const STORE_DELAY_MS: u64 = 60_000;
/// What remembering one costs in bytes, its place in the table included.
pub const BYTES_EACH: u64 = 96;

/// The last invalidation and the last soft purge of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// What was requested until then is gone.
    pub hard: Option<Timestamp>,
    /// What was requested until then is stale since.
    pub soft: Option<Timestamp>,
}

impl Times {
    /// What they mean for a response to the key that was requested then.
    pub fn verdict(self, requested: Timestamp) -> Verdict {
        let reaching = |time: Option<Timestamp>| time.filter(|time| reaches(*time, requested));
        let softened = reaching(self.soft).map_or(Verdict::Kept, Verdict::StaleSince);
        reaching(self.hard).map_or(softened, Verdict::Gone)
    }

    /// The last of them, if it reaches what was requested then.
    pub fn last_reaching(self, requested: Timestamp) -> Option<Timestamp> {
        self.hard
            .max(self.soft)
            .filter(|time| reaches(*time, requested))
    }

    fn latest(self) -> Timestamp {
        self.hard.max(self.soft).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    times: Times,
    /// When this cache heard of it last: that may be much later.
    heard: Timestamp,
}

/// The invalidations that one cache remembers.
#[derive(Debug)]
pub struct Remembered {
    by_key: HashMap<KeyDigest, Record>,
    most: usize,
    /// What was requested up to here may have been made untrue, for all that is remembered.
    forgotten: Timestamp,
    /// The same for what the store answers, and until when: it may not have heard of the last ones.
    crowded_out: Timestamp,
    crowded_until: Timestamp,
    times_crowded: u64,
}

impl Remembered {
    /// None yet, and `most` keys at most.
    pub fn new(most: usize) -> Self {
        let zero = Timestamp::default();
        Self {
            by_key: HashMap::new(),
            most,
            forgotten: zero,
            crowded_out: zero,
            crowded_until: zero,
            times_crowded: 0,
        }
    }

    /// Another bound.
    pub fn set_most(&mut self, most: usize, now: Timestamp) {
        self.most = most;
        self.make_room(now);
    }

    /// Remembers one, hard or soft, that is heard of now.
    pub fn add(&mut self, key: KeyDigest, time: Timestamp, soft: bool, now: Timestamp) {
        let Record { times, heard } = self.by_key.entry(key).or_default();
        *heard = now;
        let known = if soft {
            &mut times.soft
        } else {
            &mut times.hard
        };
        *known = Some(known.map_or(time, |known| known.max(time)));
        self.make_room(now);
    }

    /// What is remembered of a key.
    pub fn of(&self, key: &KeyDigest) -> Times {
        self.by_key
            .get(key)
            .map(|record| record.times)
            .unwrap_or_default()
    }

    /// The same, for what a leader hands over or the store answers. The key is asked for only where
    /// it counts.
    pub fn of_arriving(&self, key: impl FnOnce() -> KeyDigest) -> Times {
        let times = if self.by_key.is_empty() {
            Times::default()
        } else {
            self.of(&key())
        };
        let crowded_out = (self.crowded_out > Timestamp::default()).then_some(self.crowded_out);
        Times {
            hard: times.hard.max(crowded_out),
            soft: times.soft,
        }
    }

    /// Whether a fetch that began at `request_time` is too old for what is remembered to vouch for
    /// it.
    pub fn is_too_late(&self, request_time: Timestamp) -> bool {
        reaches(self.forgotten, request_time)
    }

    /// How often some were forgotten for want of room.
    pub fn times_crowded(&self) -> u64 {
        self.times_crowded
    }

    /// Forgets what is older than nearly any fetch. To be called now and then.
    pub fn forget_old(&mut self, now: Timestamp) {
        if now >= self.crowded_until {
            self.crowded_out = Timestamp::default();
        }
        self.forget(|record| now.millis_since(record.heard) >= MEMORY_MS);
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.by_key.len() <= self.most {
            return;
        }
        let mut heard: Vec<Timestamp> = self.by_key.values().map(|record| record.heard).collect();
        let half = heard.len() / 2;
        let (_, middle, _) = heard.select_nth_unstable(half);
        let middle = *middle;
        let latest = self.forget(|record| record.heard <= middle);
        // The store has heard of what was heard long ago.
        let until = middle.plus_millis(STORE_DELAY_MS);
        if until > now {
            self.crowded_out = self.crowded_out.max(latest);
            self.crowded_until = self.crowded_until.max(until);
        }
        self.times_crowded += 1;
    }

    /// Gives the latest time that it forgets.
    fn forget(&mut self, is_forgotten: impl Fn(&Record) -> bool) -> Timestamp {
        let mut latest = Timestamp::default();
        self.by_key.retain(|_, record| {
            let goes = is_forgotten(record);
            if goes {
                latest = latest.max(record.times.latest());
            }
            !goes
        });
        self.forgotten = self.forgotten.max(latest);
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn key(n: u64) -> KeyDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        KeyDigest(bytes)
    }

    fn arriving(invalidations: &Remembered, n: u64) -> Times {
        invalidations.of_arriving(|| key(n))
    }

    #[test]
    fn what_is_forgotten_with_time_is_distrusted_for_ever() {
        let mut invalidations = Remembered::new(8);
        invalidations.add(key(1), at(5_000), false, at(5_000));
        invalidations.forget_old(at(600_000));
        assert_eq!(arriving(&invalidations, 1).hard, Some(at(5_000)));
        assert!(
            !invalidations.is_too_late(at(5_000)),
            "it is judged by its key"
        );
        invalidations.forget_old(at(605_000));
        assert_eq!(arriving(&invalidations, 1).hard, None);
        assert!(
            invalidations.is_too_late(at(5_000)),
            "a fetch of ten minutes"
        );
        assert!(!invalidations.is_too_late(at(5_001)));
    }

    #[test]
    fn what_is_heard_again_is_remembered_anew_however_old_it_is() {
        let mut invalidations = Remembered::new(8);
        for heard in [5_000, 600_000, 1_190_000] {
            invalidations.add(key(1), at(5_000), false, at(heard));
            invalidations.forget_old(at(heard + MEMORY_MS - 1));
            assert_eq!(arriving(&invalidations, 1).hard, Some(at(5_000)), "{heard}");
        }
    }

    #[test]
    fn a_flood_of_invalidations_keeps_out_what_they_may_concern() {
        let mut invalidations = Remembered::new(100);
        for n in 1..=1_000 {
            invalidations.add(key(n), at(n), n % 2 == 0, at(n));
            assert!(invalidations.by_key.len() <= 100);
        }
        for n in 1..=1_000 {
            let times = arriving(&invalidations, n);
            let known = times.hard.max(times.soft).is_some_and(|time| time >= at(n));
            assert!(known || invalidations.is_too_late(at(n)), "{n}");
        }
        assert!(!invalidations.is_too_late(at(1_000)));
        assert!((1..=20).contains(&invalidations.times_crowded()));
        assert!(
            arriving(&invalidations, 5_000).hard.is_some(),
            "what the store answers is doubted, too"
        );
        invalidations.forget_old(at(1_000 + STORE_DELAY_MS));
        assert_eq!(
            arriving(&invalidations, 5_000).hard,
            None,
            "until it must have heard"
        );
    }

    #[test]
    fn the_store_is_not_doubted_for_what_it_must_have_heard_of() {
        let mut invalidations = Remembered::new(100);
        for n in 1..=200 {
            invalidations.add(key(n), at(n * 2_000), false, at(n * 2_000));
        }
        assert!(invalidations.is_too_late(at(2_000)));
        assert_eq!(arriving(&invalidations, 5_000), Times::default());
    }
}
