//! What time it is for those whose entries are kept here.
//!
//! A purge concerns what was requested before it, and the time of a request is taken by the Envoy that made it. So an order
//! is dated by the latest clock that was lately seen, not by this machine's alone: a sidecar 50 ms behind would else purge
//! nothing of what was fetched a moment ago.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder_contract::http_time::Timestamp;
use tokio::time::Instant;

/// A clock further ahead than this is wrong, and is followed no further.
pub const MOST_AHEAD_MS: u64 = 10_000;
/// How long a lead is remembered, once to twice this.
const PERIOD: Duration = Duration::from_secs(60);

/// This machine's clock, and how far the Envoys' clocks are ahead of it.
#[derive(Debug)]
pub struct Clock(Mutex<Leads>);

/// The largest leads of this period and of the one before, in milliseconds.
#[derive(Debug)]
struct Leads {
    began: Instant,
    this: u64,
    last: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self(Mutex::new(Leads { began: Instant::now(), this: 0, last: 0 }))
    }
}

impl Clock {
    /// An Envoy said what time it is there.
    pub fn hear(&self, theirs: Timestamp) {
        let lead = theirs.millis_since(now()).min(MOST_AHEAD_MS);
        let mut leads = self.leads();
        leads.this = leads.this.max(lead);
    }

    /// The latest time that any of the clocks shows, at most [`MOST_AHEAD_MS`] ahead of this machine's.
    pub fn now(&self) -> Timestamp {
        let leads = self.leads();
        now().plus_millis(leads.this.max(leads.last))
    }

    fn leads(&self) -> MutexGuard<'_, Leads> {
        let mut leads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if leads.began.elapsed() >= PERIOD {
            *leads = Leads { began: Instant::now(), this: 0, last: leads.this };
        }
        leads
    }
}

/// This machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_dated_by_the_latest_clock_seen() {
        let clock = Clock::default();
        let ahead = now().plus_millis(500);
        clock.hear(ahead);
        clock.hear(now());
        assert!(clock.now() >= ahead);
        assert!(clock.now() < ahead.plus_millis(400));
    }

    #[test]
    fn a_clock_that_is_behind_or_far_ahead_is_not_followed() {
        let clock = Clock::default();
        clock.hear(Timestamp::from_millis(1));
        assert!(clock.now() <= now());
        clock.hear(now().plus_millis(86_400_000));
        assert!(clock.now() <= now().plus_millis(MOST_AHEAD_MS));
    }
}
