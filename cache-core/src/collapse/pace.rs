//! How much background refreshes may fetch that no client has asked for whole.
//!
//! What this decides: how many fetches of a whole behind a part are under way at once and begin in
//! a second, and how many bytes all background fetches of one VM may hold together. Envoy keeps the
//! answer to such a fetch in memory until it is complete, and its size is known only then; what is
//! stored so far is the best guess.

use larder_contract::http_time::Timestamp;

/// Wholes behind parts that are fetched at once, in one VM.
pub const MAX_WHOLES: usize = 4;
/// Wholes behind parts that one VM begins to fetch in a second.
const MAX_WHOLES_A_SECOND: u32 = 4;
/// What all background fetches of one VM may hold together, in bytes.
pub const MAX_HELD: u64 = 64 << 20;
/// What a fetch counts at least, in bytes.
const LEAST: u64 = 64 << 10;
/// What each counts at least for a while after one has come out larger than may be stored, in
/// bytes: as much as Envoy gathers of an answer (`envoy.yaml`).
const LEAST_AFTER_LARGE: u64 = 17 << 20;
/// That while, in milliseconds.
const LARGE_MEMORY_MS: u64 = 60_000;

/// The pace of one VM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    second: Timestamp,
    begun: u32,
    wary_until: Timestamp,
}

impl Pace {
    /// Whether one more whole may be fetched now, while `under_way` are; if so it counts.
    pub fn begin_whole(&mut self, under_way: usize, now: Timestamp) -> bool {
        // A clock that was set back begins a new second, too.
        if now < self.second || now.millis_since(self.second) >= 1_000 {
            (self.second, self.begun) = (now, 0);
        }
        let allowed = under_way < MAX_WHOLES && self.begun < MAX_WHOLES_A_SECOND;
        self.begun += u32::from(allowed);
        allowed
    }

    /// A background fetch has brought more than may be stored: where one thing has grown, others
    /// may have.
    pub fn note_large(&mut self, now: Timestamp) {
        self.wary_until = now.plus_millis(LARGE_MEMORY_MS);
    }

    /// What a background fetch counts while it is under way, in bytes: twice what is stored now,
    /// for it may have grown; of something not stored, as much as may be stored.
    pub fn reserve(&self, stored: Option<usize>, max_object_bytes: u64, now: Timestamp) -> u64 {
        let least = if now < self.wary_until {
            LEAST_AFTER_LARGE
        } else {
            LEAST
        };
        stored
            .map_or(max_object_bytes, |length| (length as u64).saturating_mul(2))
            .max(least)
    }
}

/// Whether a fetch that counts `reserve` may begin while others hold `held`. One always may.
pub fn has_room(held: u64, reserve: u64) -> bool {
    held == 0 || held.saturating_add(reserve) <= MAX_HELD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wholes_begin_four_a_second_and_four_at_once() {
        let mut pace = Pace::default();
        let mut begin = |under_way, now| pace.begin_whole(under_way, Timestamp::from_millis(now));
        assert_eq!((0..9).filter(|_| begin(0, 5_000)).count(), 4);
        assert!(!begin(0, 5_999));
        assert!(!begin(4, 6_000), "four are under way");
        assert!(begin(3, 6_000));
        assert!(begin(0, 10), "a clock that was set back stops nothing");
    }

    #[test]
    fn what_the_background_holds_is_bounded_and_one_fetch_always_has_room() {
        let now = Timestamp::from_millis(5_000);
        let mut pace = Pace::default();
        assert_eq!(pace.reserve(Some(10), 1 << 20, now), LEAST);
        assert_eq!(pace.reserve(Some(1 << 20), 1 << 20, now), 2 << 20);
        assert_eq!(pace.reserve(None, 1 << 20, now), 1 << 20);
        pace.note_large(now);
        assert_eq!(
            pace.reserve(Some(10), 1 << 20, now),
            17 << 20,
            "three at once"
        );
        assert_eq!(
            pace.reserve(Some(10), 1 << 20, now.plus_millis(60_000)),
            LEAST
        );
        assert!(has_room(0, u64::MAX));
        let mut held = 0;
        let mut begun = 0;
        while has_room(held, 2 << 20) {
            (held, begun) = (held + (2 << 20), begun + 1);
        }
        assert_eq!(begun, 32);
    }
}
