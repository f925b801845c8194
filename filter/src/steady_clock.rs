//! A clock that goes on while the machine's is put right.
//!
//! What was requested before a change is told by time. Were the machine's clock put back between
//! the two, the change would seem to be older than what it concerns. So a small step back is waited
//! out. After a large one the old time is given up: nothing would end while it is waited for. `vm`
//! then empties level 1.

use std::cell::Cell;

use larder_contract::http_time::Timestamp;

/// The largest step back that is waited out, in milliseconds.
const SMALL_MS: u64 = 5_000;

/// The time as one VM has seen it.
#[derive(Debug, Default)]
pub struct SteadyClock(Cell<Timestamp>);

impl SteadyClock {
    /// What time it is while the machine's clock says this.
    pub fn read(&self, machine: Timestamp) -> Timestamp {
        let last = self.0.get();
        let now = if last.millis_since(machine) <= SMALL_MS {
            machine.max(last)
        } else {
            machine
        };
        self.0.set(now);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_step_back_is_waited_out_and_a_large_one_is_taken() {
        let clock = SteadyClock::default();
        for (machine, read) in [
            (100_000, 100_000),
            (99_950, 100_000),
            (95_000, 100_000),
            (100_001, 100_001),
            (95_000, 95_000),
            (95_010, 95_010),
        ] {
            assert_eq!(
                clock.read(Timestamp::from_millis(machine)),
                Timestamp::from_millis(read),
                "{machine}"
            );
        }
    }
}
