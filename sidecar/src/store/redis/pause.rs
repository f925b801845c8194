//! How long to wait before a connection is made again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Grows with every attempt, so that a server in trouble is not run over, and starts anew behind a
/// connection that was good for some time.
#[derive(Debug, Default)]
pub(super) struct Pause(Duration);

impl Pause {
    const FIRST: Duration = Duration::from_millis(25);
    const LONGEST: Duration = Duration::from_secs(2);
    /// A connection that lived so long was good.
    const GOOD: Duration = Duration::from_secs(10);

    /// The next wait; `lived` is how long the connection before it was of use.
    pub(super) fn next(&mut self, lived: Option<Duration>) -> Duration {
        if lived.is_some_and(|lived| lived >= Self::GOOD) {
            self.0 = Duration::ZERO;
        }
        let pause = self.0;
        self.0 = (pause * 2).clamp(Self::FIRST, Self::LONGEST);
        // A fleet that lost the same server does not come back at the same moment.
        let share = u32::try_from(RandomState::new().hash_one(()) % 50).unwrap_or(0);
        pause * (100 - share) / 100
    }

    /// Whether it has grown so little that nothing seems to be wrong for long.
    pub(super) fn is_short(&self) -> bool {
        self.0 < Self::LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_bound_and_starts_anew_behind_a_good_connection() {
        let mut pause = Pause::default();
        let mut waits = Vec::new();
        for _ in 0..12 {
            waits.push(pause.next(None));
        }
        assert_eq!(waits[0], Duration::ZERO, "the first attempt comes at once");
        assert!(waits[1] <= Pause::FIRST && waits[11] <= Pause::LONGEST);
        assert!(waits[11] >= Pause::LONGEST / 2 && waits[4] >= Pause::FIRST);
        assert!(
            pause.next(Some(Duration::from_secs(1))) >= Pause::LONGEST / 2,
            "it was no good"
        );
        assert_eq!(pause.next(Some(Pause::GOOD)), Duration::ZERO);
    }
}
