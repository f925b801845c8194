//! When the store is left alone, and how it gets its load back.

use larder_cache_core::exchange::StoreFault;
use larder_contract::http_time::Timestamp;

/// Leaves the store alone after a series of faults, tries again with one look-up at a time, and
/// comes back to it by and by.
#[derive(Debug, Default)]
pub struct Breaker {
    /// The weight of all faults since the last usable answer.
    weight: u32,
    open_until: Option<Timestamp>,
    /// Since when it is well again, while not everything is let through yet.
    recovering: Option<Timestamp>,
    /// Thousandths of look-ups that were held back and add up to one.
    credit: u64,
}

impl Breaker {
    /// Five refused look-ups, or ten slow ones.
    const MOST: u32 = 10;
    const OPEN_MS: u64 = 1_000;
    /// From the first answer to full load: a store that has just come back is not run over.
    const RAMP_MS: u64 = 2_000;

    /// Whether the store may be asked now. While open, one look-up per period is let through.
    pub fn allows(&mut self, now: Timestamp) -> bool {
        match self.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                self.open_until = Some(now.plus_millis(Self::OPEN_MS));
                true
            }
            None => self.is_let_through(now),
        }
    }

    /// While recovering, a share that grows with time, spread evenly.
    fn is_let_through(&mut self, now: Timestamp) -> bool {
        let Some(since) = self.recovering else {
            return true;
        };
        let elapsed = now.millis_since(since);
        if elapsed >= Self::RAMP_MS {
            self.recovering = None;
            return true;
        }
        self.credit += 100 + 900 * elapsed / Self::RAMP_MS;
        let through = self.credit >= 1000;
        self.credit %= 1000;
        through
    }

    /// A usable answer came. Says whether that changed the breaker's state.
    pub fn succeeded(&mut self, now: Timestamp) -> bool {
        self.weight = 0;
        let changed = self.open_until.take().is_some();
        if changed {
            self.recovering = Some(now);
        }
        changed
    }

    /// The store answers and will have nothing of us: it is left alone at once, and tried as after
    /// faults.
    pub fn refused(&mut self, now: Timestamp) {
        self.weight = Self::MOST;
        self.open_until = Some(now.plus_millis(Self::OPEN_MS));
    }

    /// None came. Says whether that changed the breaker's state.
    pub fn failed(&mut self, fault: StoreFault, now: Timestamp) -> bool {
        // A slow answer may be one packet that was lost; a refusal is about the store, and soon
        // there again.
        self.weight = self
            .weight
            .saturating_add(if fault == StoreFault::Timeout { 1 } else { 2 });
        if self.weight < Self::MOST {
            return false;
        }
        self.open_until
            .replace(now.plus_millis(Self::OPEN_MS))
            .is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_breaker_opens_after_a_series_of_faults_and_closes_with_one_success() {
        let mut breaker = Breaker::default();
        for n in 0..4 {
            assert!(!breaker.failed(StoreFault::Error, at(n)));
            assert!(breaker.allows(at(n)));
        }
        assert!(breaker.failed(StoreFault::Error, at(4)));
        assert!(!breaker.allows(at(5)));
        assert!(breaker.allows(at(1_004)), "one probe");
        assert!(!breaker.allows(at(1_005)), "and no second");
        assert!(breaker.succeeded(at(1_006)));
        assert!(breaker.allows(at(3_006)));
    }

    #[test]
    fn a_store_that_is_well_again_gets_its_load_back_by_and_by() {
        let mut breaker = Breaker::default();
        for n in 0..5 {
            breaker.failed(StoreFault::Error, at(n));
        }
        assert!(breaker.succeeded(at(10_000)));
        let mut through = |from: u64| (0..100).filter(|n| breaker.allows(at(from + n))).count();
        let shares = [
            through(10_000),
            through(10_900),
            through(11_800),
            through(12_100),
        ];
        assert!(shares[0] <= 20 && shares[0] >= 5, "{shares:?}");
        assert!(
            shares.is_sorted() && shares[2] > 80 && shares[3] == 100,
            "{shares:?}"
        );
    }

    #[test]
    fn a_slow_answer_counts_half_as_much_as_a_refused_one() {
        let opens_after = |fault: &dyn Fn(u64) -> StoreFault| {
            let mut breaker = Breaker::default();
            (1..).find(|&n| breaker.failed(fault(n), at(n)))
        };
        assert_eq!(opens_after(&|_| StoreFault::Error), Some(5));
        assert_eq!(opens_after(&|_| StoreFault::Timeout), Some(10));
        let mixed = |n| {
            if n % 2 == 0 {
                StoreFault::Error
            } else {
                StoreFault::Timeout
            }
        };
        assert_eq!(opens_after(&mixed), Some(7));
        let mut refused = Breaker::default();
        refused.refused(at(0));
        assert!(
            !refused.allows(at(1)) && refused.allows(at(1_000)) && refused.succeeded(at(1_001))
        );
        let mut breaker = Breaker::default();
        for n in 0..100 {
            assert!(
                !breaker.failed(StoreFault::Timeout, at(n)),
                "one answer in between makes it well"
            );
            breaker.succeeded(at(n));
        }
    }
}
