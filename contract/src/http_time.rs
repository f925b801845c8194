//! Points in time and spans of time as HTTP counts them.
//!
//! What this decides: how `delta-seconds` and HTTP-date are read and written (RFC 9111 §1.2.2, RFC
//! 9110 §5.6.7). What it leaves out: what time it is. Every caller passes `now`.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::http_date;
use crate::ows::trim;

/// Milliseconds since the Unix epoch, on the clock of the machine that took it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

/// By how many milliseconds two clocks may differ before one is taken to be wrong.
pub const CLOCK_TOLERANCE_MS: u64 = 1_000;

impl Timestamp {
    /// The time `ms` milliseconds after the Unix epoch.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down: the resolution of an HTTP-date.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The time `ms` later; stays at the end of time instead of wrapping.
    #[must_use]
    pub const fn plus_millis(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The time `ms` later, or earlier where that is negative; stays within the bounds of time
    /// instead of wrapping.
    #[must_use]
    pub const fn moved(self, ms: i64) -> Self {
        Self(self.0.saturating_add_signed(ms))
    }

    /// The time `span` later; stays at the end of time instead of wrapping.
    #[must_use]
    pub const fn plus(self, span: DeltaSeconds) -> Self {
        self.plus_millis(span.as_millis())
    }

    /// When something was invalidated, as the receiver takes it: at most [`CLOCK_TOLERANCE_MS`]
    /// after `now`. Otherwise a clock that is ahead would keep everything out for as long as it is
    /// ahead.
    #[must_use]
    pub fn no_later_than(self, now: Self) -> Self {
        self.min(now.plus_millis(CLOCK_TOLERANCE_MS))
    }

    /// Milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds from `earlier` to `self`, rounded down; 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> DeltaSeconds {
        DeltaSeconds::new(self.millis_since(earlier) / 1000)
    }

    /// Reads an HTTP-date in any of its three forms (RFC 9110 §5.6.7). `None` when it is not one.
    pub fn parse_http_date(value: &[u8]) -> Option<Self> {
        http_date::parse(trim(value)).map(|secs| Self(secs.saturating_mul(1000)))
    }

    /// Writes the time as an IMF-fixdate, the form every sender must use (RFC 9110 §5.6.7).
    pub fn to_http_date(self) -> String {
        // httpdate refuses years past 9999.
        const LAST_SECOND_OF_9999: u64 = 253_402_300_799;
        let secs = self.as_secs().min(LAST_SECOND_OF_9999);
        httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(secs))
    }
}

/// A non-negative span in whole seconds, capped at 2^31 as RFC 9111 §1.2.2 asks of a value too
/// large to hold.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(from = "u64")]
pub struct DeltaSeconds(u32);

impl From<u64> for DeltaSeconds {
    fn from(secs: u64) -> Self {
        Self::new(secs)
    }
}

impl DeltaSeconds {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// 2^31 seconds, about 68 years: what "too large" becomes (RFC 9111 §1.2.2).
    pub const MAX: Self = Self(1 << 31);

    /// A span of `secs` seconds, or [`Self::MAX`] when that is less.
    pub const fn new(secs: u64) -> Self {
        if secs > Self::MAX.0 as u64 {
            Self::MAX
        } else {
            Self(secs as u32)
        }
    }

    /// Whole seconds, 0 to 2^31.
    pub const fn as_secs(self) -> u64 {
        self.0 as u64
    }

    /// The span in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0 as u64 * 1000
    }

    /// The sum, capped at [`Self::MAX`].
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self::new(self.0 as u64 + other.0 as u64)
    }

    /// Reads `1*DIGIT`; a number too large becomes [`Self::MAX`]; anything else is `None` (RFC 9111
    /// §1.2.2).
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.is_empty() {
            return None;
        }
        let mut secs: u64 = 0;
        for byte in value {
            if !byte.is_ascii_digit() {
                return None;
            }
            secs = secs
                .saturating_mul(10)
                .saturating_add(u64::from(byte - b'0'));
        }
        Some(Self::new(secs))
    }
}

impl fmt::Display for DeltaSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delta_seconds_are_digits_only_and_capped_at_two_to_the_31() {
        for (text, secs) in [
            ("0", 0),
            ("007", 7),
            ("2147483648", 1 << 31),
            ("99999999999999999999999", 1 << 31),
        ] {
            assert_eq!(
                DeltaSeconds::parse(text.as_bytes()).map(DeltaSeconds::as_secs),
                Some(secs),
                "{text}"
            );
        }
        for text in ["", "-1", "+1", "1.5", " 1", "1 ", "1s", "\"1\"", "０"] {
            assert_eq!(DeltaSeconds::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn all_three_date_forms_are_read_and_the_fixdate_is_written() {
        let expected = Timestamp::from_millis(784_111_777_000);
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(
                Timestamp::parse_http_date(text.as_bytes()),
                Some(expected),
                "{text}"
            );
        }
        assert_eq!(expected.to_http_date(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn what_is_not_a_date_is_not_read() {
        for text in [
            "",
            "0",
            "-1",
            "soon",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 99 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(Timestamp::parse_http_date(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Timestamp::parse_http_date(&[0xff, 0xfe]), None);
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let late = Timestamp::from_millis(u64::MAX);
        assert_eq!(late.plus_millis(1), late);
        assert_eq!(Timestamp::default().since(late), DeltaSeconds::ZERO);
        assert_eq!(late.since(Timestamp::default()), DeltaSeconds::MAX);
        assert!(late.to_http_date().ends_with("9999 23:59:59 GMT"));
    }

    #[test]
    fn an_invalidation_from_the_future_counts_from_now() {
        let at = Timestamp::from_millis;
        assert_eq!(at(86_400_000).no_later_than(at(5_000)), at(6_000));
        assert_eq!(at(5_500).no_later_than(at(5_000)), at(5_500));
        assert_eq!(at(1).no_later_than(at(5_000)), at(1));
    }
}
