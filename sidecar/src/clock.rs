//! What time it is for those whose entries are kept here: one time, the store's.
//!
//! A purge concerns what was requested before it, and the time of a request is taken by the Envoy
//! that made it. Clocks differ; so each Envoy says with every call what time it is there, this
//! process finds out by how much that is ahead of the store's clock, and all that goes to the store
//! is put back by it. In the store there is then one clock only, and an entry, an invalidation and
//! a purge can be compared whoever made them. What comes from the store is put forward again by
//! whoever asked (`x-larder-ahead`).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder_contract::http_time::Timestamp;
use larder_contract::store_api::ClockReading;
use tokio::time::Instant;

/// How long a lead is remembered, once to twice this.
const PERIOD: Duration = Duration::from_secs(60);
/// A clock that seems to be behind by less is in step: it is the time that its messages were under
/// way.
const IN_STEP_MS: i64 = 10;
/// Only after so many messages a clock counts as behind: any one of them may have been slow.
const SURE: u32 = 8;
/// Hardly a message is under way for so long. One that seems to be comes from a clock that was put
/// back, or was held up: by a process or a machine that was frozen.
const UNDER_WAY_MS: i64 = 1_000;
/// More Envoys than this are not kept apart: the clocks of newcomers are believed to be in step.
const MOST: usize = 10_000;

/// The store's clock, and how far the Envoys' clocks are ahead of it.
#[derive(Debug, Default)]
pub struct Clock(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    store: Option<Leads>,
    envoys: HashMap<u64, Leads>,
}

/// The largest leads of this period and of the one before. What a message says is older than its
/// arrival, never younger, so the largest is the nearest to the truth.
#[derive(Clone, Copy, Debug)]
struct Leads {
    began: Instant,
    this: i64,
    last: Option<i64>,
    count: u32,
}

impl Leads {
    fn hear(known: Option<Self>, lead: i64) -> Self {
        let now = Instant::now();
        match known {
            Some(leads) if leads.began.elapsed() < PERIOD => Self {
                this: leads.this.max(lead),
                count: leads.count.saturating_add(1),
                ..leads
            },
            Some(leads) if leads.began.elapsed() < 2 * PERIOD => Self {
                began: now,
                this: lead,
                last: Some(leads.this),
                count: leads.count.saturating_add(1),
            },
            _ => Self {
                began: now,
                this: lead,
                last: None,
                count: 1,
            },
        }
    }

    /// In milliseconds; negative where it is behind.
    fn lead(&self) -> i64 {
        let most = self.last.map_or(self.this, |last| last.max(self.this));
        if most > 0 || (most < -IN_STEP_MS && self.count >= SURE) {
            most
        } else {
            0
        }
    }
}

impl Clock {
    /// A message from an Envoy has come that says what time it is there. Gives by how many
    /// milliseconds its clock is ahead of the store's; a negative number where it is behind.
    pub fn lead(&self, reading: &ClockReading) -> i64 {
        let (heard, lead) = self.hear(reading);
        if seems_late(heard, lead) { heard } else { lead }
    }

    /// The same where a clock that is taken for later than it is would do harm. `None` for a
    /// message that seems to have been under way for long: whether it was, or the clock was put
    /// back, nobody knows.
    pub fn certain_lead(&self, reading: &ClockReading) -> Option<i64> {
        let (heard, lead) = self.hear(reading);
        (!seems_late(heard, lead)).then_some(lead)
    }

    /// By how much the clock is ahead if this message came at once, and as far as is known from
    /// all.
    fn hear(&self, reading: &ClockReading) -> (i64, i64) {
        let mut known = self.known();
        let heard = difference(reading.now, known.now());
        let leads = Leads::hear(known.envoys.get(&reading.envoy).copied(), heard);
        if known.envoys.len() >= MOST && !known.envoys.contains_key(&reading.envoy) {
            known
                .envoys
                .retain(|_, leads| leads.began.elapsed() < 2 * PERIOD);
        }
        if known.envoys.len() < MOST || known.envoys.contains_key(&reading.envoy) {
            known.envoys.insert(reading.envoy, leads);
        }
        (heard, leads.lead())
    }

    /// The store has said what time it is there.
    pub fn hear_store(&self, theirs: Timestamp) {
        let mut known = self.known();
        known.store = Some(Leads::hear(known.store, difference(theirs, now())));
    }

    /// The store's time.
    pub fn now(&self) -> Timestamp {
        self.known().now()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn now(&self) -> Timestamp {
        now().moved(self.store.map_or(0, |leads| leads.lead()))
    }
}

fn seems_late(heard: i64, lead: i64) -> bool {
    heard < lead.saturating_sub(UNDER_WAY_MS)
}

/// By how many milliseconds `one` is later.
fn difference(one: Timestamp, other: Timestamp) -> i64 {
    let millis = |time: Timestamp| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    millis(one).saturating_sub(millis(other))
}

/// This machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(clock: &Clock, envoy: u64, ahead_ms: i64) -> i64 {
        clock.lead(&ClockReading {
            envoy,
            now: clock.now().moved(ahead_ms),
        })
    }

    fn is_about(lead: i64, expected: i64) -> bool {
        (expected - 50..=expected).contains(&lead)
    }

    #[test]
    fn a_clock_that_is_ahead_is_known_from_its_first_message() {
        let clock = Clock::default();
        for ahead in [500_i64, 5_000, 86_400_000] {
            let lead = says(&clock, ahead.unsigned_abs(), ahead);
            assert!(is_about(lead, ahead), "{ahead}: {lead}");
        }
        assert_eq!(says(&clock, 1, 0), 0, "each Envoy has its own");
    }

    #[test]
    fn a_message_that_was_slow_makes_no_clock_late() {
        let clock = Clock::default();
        assert_eq!(says(&clock, 1, -300), 0);
        for _ in 0..20 {
            assert_eq!(says(&clock, 1, -8), 0, "under way");
        }
        for _ in 0..SURE {
            says(&clock, 2, -5_000);
        }
        let lead = says(&clock, 2, -5_003);
        assert!(is_about(lead, -5_000), "{lead}");
    }

    #[test]
    fn a_clock_that_was_put_back_is_noticed() {
        let clock = Clock::default();
        says(&clock, 1, 5_000);
        let lead = says(&clock, 1, 0);
        assert!(is_about(lead, 0), "{lead}");
    }

    #[test]
    fn what_was_held_up_tells_nothing_certain() {
        let clock = Clock::default();
        let certain = |ahead_ms| {
            clock.certain_lead(&ClockReading {
                envoy: 1,
                now: clock.now().moved(ahead_ms),
            })
        };
        assert!(is_about(certain(5_000).unwrap(), 5_000));
        assert!(is_about(certain(4_500).unwrap(), 5_000), "under way");
        assert_eq!(certain(2_600), None, "held up, or put back");
        assert!(certain(5_000).is_some());
        let behind = || {
            clock.certain_lead(&ClockReading {
                envoy: 2,
                now: clock.now().moved(-2_400),
            })
        };
        for _ in 1..SURE {
            assert_eq!(behind(), None);
        }
        assert!(
            is_about(behind().unwrap(), -2_400),
            "all its messages say so"
        );
    }

    #[test]
    fn the_time_is_the_stores() {
        let clock = Clock::default();
        clock.hear_store(now().plus_millis(7_000));
        assert!(difference(clock.now(), now()) > 6_900);
        assert!(
            is_about(says(&clock, 1, 0), 0),
            "an Envoy in step with the store"
        );
    }

    #[test]
    fn envoys_remembered_are_bounded() {
        let clock = Clock::default();
        for envoy in 0..20_000 {
            says(&clock, envoy, 1_000);
        }
        assert!(clock.known().envoys.len() <= MOST);
    }
}
