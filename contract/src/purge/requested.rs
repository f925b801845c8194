//! The rule by which every keeper of responses tells old from new: when was it requested?
//!
//! What this decides: what an invalidation or a purge reaches, which of two responses is the newer
//! one, and what becomes of times that a clock ahead of ours has written. What it leaves out: what
//! happens to what is reached. The scripts of the sidecar say the same in Lua;
//! `sidecar/tests/contract.rs` holds them to it.

use crate::http_time::Timestamp;

/// Whether a response that was requested then is reached by what was made untrue at `time`:
/// everything requested up to that time is, for its request may have been answered just before.
pub fn reaches(time: Timestamp, requested: Timestamp) -> bool {
    requested <= time
}

/// The same at `now`, where nobody has seen the response come: a request from the future is
/// reached, too, for its clock is wrong and it may be older than it says.
pub fn may_reach(time: Timestamp, requested: Timestamp, now: Timestamp) -> bool {
    reaches(time, requested) || is_from_the_future(requested, now)
}

/// When a response that comes `now` counts as requested: nothing is requested later than it comes.
pub fn as_it_came(requested: Timestamp, now: Timestamp) -> Timestamp {
    if is_from_the_future(requested, now) {
        now
    } else {
        requested
    }
}

/// Whether what is held is newer than `other`, by the time of either, and so keeps its place. What
/// comes from the future is not newer than anything.
pub fn is_newer(held: Timestamp, other: Timestamp, now: Timestamp) -> bool {
    held > other && !is_from_the_future(held, now)
}

/// Whether a clock that is ahead has written a time, by more than clocks may differ.
fn is_from_the_future(time: Timestamp, now: Timestamp) -> bool {
    time > time.no_later_than(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_requested_until_then_is_reached_and_what_a_wrong_clock_dated_may_be() {
        let at = |millis: u64| Timestamp::from_millis(10_000 + millis);
        for (requested, reached, may_be) in [
            (at(4), true, true),
            (at(5), true, true),
            (at(6), false, false),
            (at(1_007), false, true),
        ] {
            assert_eq!(reaches(at(5), requested), reached, "{requested:?}");
            assert_eq!(may_reach(at(5), requested, at(6)), may_be, "{requested:?}");
        }
    }

    #[test]
    fn what_comes_from_the_future_counts_from_now_and_is_not_newer_than_anything() {
        let at = |millis: u64| Timestamp::from_millis(10_000 + millis);
        assert_eq!(
            (as_it_came(at(1_000), at(0)), as_it_came(at(1_001), at(0))),
            (at(1_000), at(0))
        );
        assert!(
            is_newer(at(2), at(1), at(0))
                && !is_newer(at(1), at(1), at(0))
                && !is_newer(at(1), at(2), at(0))
        );
        assert!(!is_newer(at(1_001), at(1), at(0)));
    }
}
