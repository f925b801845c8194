//! Small sums over measurements.

use std::time::Duration;

/// The value below which `share` (0 to 1) of the measurements lie.
pub(crate) fn percentile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = (last as f64 * share).round() as usize;
    values.get(at.min(last)).copied().unwrap_or_default()
}

/// Milliseconds with one digit behind the point.
pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    match sorted.len() {
        0 => 0.0,
        even if even % 2 == 0 => (at(even / 2 - 1) + at(even / 2)) / 2.0,
        odd => at(odd / 2),
    }
}

/// The median of each round's ratio: what slows a whole round down does not count.
pub(crate) fn ratio(values: &[f64], yardstick: &[f64]) -> f64 {
    let ratios: Vec<f64> = values
        .iter()
        .zip(yardstick)
        .map(|(value, yardstick)| value / yardstick)
        .collect();
    median(&ratios)
}

/// The least and the most.
pub(crate) fn spread(values: &[f64]) -> (f64, f64) {
    let fold = |choose: fn(f64, f64) -> f64| values.iter().copied().reduce(choose).unwrap_or(0.0);
    (fold(f64::min), fold(f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-9
    }

    #[test]
    fn percentiles_are_members_of_what_was_measured() {
        let mut values: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut values, 0.5), Duration::from_millis(51));
        assert_eq!(percentile(&mut values, 0.99), Duration::from_millis(99));
        assert_eq!(percentile(&mut [], 0.5), Duration::ZERO);
    }

    #[test]
    fn the_median_is_the_middle() {
        for (values, middle) in [
            (&[3.0, 1.0, 2.0][..], 2.0),
            (&[4.0, 1.0, 2.0, 3.0], 2.5),
            (&[7.0], 7.0),
            (&[], 0.0),
        ] {
            assert!(close(median(values), middle), "{values:?}");
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        assert!(close(ratio(&[2.0, 1.0, 20.0], &[1.0, 1.0, 10.0]), 2.0));
        assert!(close(ratio(&[], &[]), 0.0));
    }

    #[test]
    fn the_spread_is_least_and_most() {
        assert_eq!(spread(&[2.0, 1.0, 3.0]), (1.0, 3.0));
        assert_eq!(spread(&[]), (0.0, 0.0));
    }
}
