//! How much the background may fetch that no client has asked for whole.
//!
//! What this decides: how many fetches of a whole behind a part are under way at once and begin in a second, and how many
//! bytes all background fetches of one VM may hold together. Envoy keeps the answer to such a fetch in memory until it is
//! complete, and its size is known only then; what is stored so far is the best guess.

use crate::http_time::Timestamp;

/// Wholes behind parts that are fetched at once, in one VM.
pub const MAX_WHOLES: usize = 4;
/// Wholes behind parts that one VM begins to fetch in a second.
const MAX_WHOLES_A_SECOND: u32 = 4;
/// What all background fetches of one VM may hold together, in bytes.
pub const MAX_HELD: u64 = 64 << 20;
/// What a fetch counts at least, in bytes.
const LEAST: u64 = 64 << 10;

/// The pace of one VM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    second: Timestamp,
    begun: u32,
}

impl Pace {
    /// Whether one more whole may be fetched now, while `under_way` are; if so it counts.
    pub fn begin_whole(&mut self, under_way: usize, now: Timestamp) -> bool {
        // A clock that was set back begins a new second, too.
        if now < self.second || now.millis_since(self.second) >= 1_000 {
            *self = Self { second: now, begun: 0 };
        }
        let allowed = under_way < MAX_WHOLES && self.begun < MAX_WHOLES_A_SECOND;
        self.begun += u32::from(allowed);
        allowed
    }
}

/// What a background fetch counts while it is under way, in bytes: twice what is stored now, for it may have grown; of
/// something not stored, as much as may be stored.
pub fn reserve(stored: Option<usize>, max_object_bytes: u64) -> u64 {
    stored.map_or(max_object_bytes, |length| (length as u64).saturating_mul(2)).max(LEAST)
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
        assert_eq!(reserve(Some(10), 1 << 20), LEAST);
        assert_eq!(reserve(Some(1 << 20), 1 << 20), 2 << 20);
        assert_eq!(reserve(None, 1 << 20), 1 << 20);
        assert!(has_room(0, u64::MAX));
        let mut held = 0;
        let mut begun = 0;
        while has_room(held, 2 << 20) {
            (held, begun) = (held + (2 << 20), begun + 1);
        }
        assert_eq!(begun, 32);
    }
}
