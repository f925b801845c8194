//! How old a response is (RFC 9111 §4.2.3).
//!
//! What this decides: the age on arrival, and now. What it leaves out: whether that is too old
//! (`freshness`, `reuse`).

use larder_contract::http_time::{CLOCK_TOLERANCE_MS, DeltaSeconds, Timestamp};

use crate::fields::Fields;
use crate::stored_response::StoredResponse;

/// corrected_initial_age: how old the response was when it arrived, by its `Age` and by its `Date`,
/// whichever says more.
pub fn corrected_initial_age(
    fields: &Fields,
    request_time: Timestamp,
    response_time: Timestamp,
) -> DeltaSeconds {
    let apparent = fields
        .get("date")
        .and_then(Timestamp::parse_http_date)
        .map_or(DeltaSeconds::ZERO, |date| response_time.since(date));
    // The rest of a second is added by `initial_age_millis`: `Date` knows whole seconds only, a
    // delay knows more.
    let response_delay = response_time.since(request_time);
    // RFC 9111 §5.1: of several members the first counts, and what is not a number is ignored.
    let age_value = fields
        .list("age")
        .next()
        .and_then(DeltaSeconds::parse)
        .unwrap_or_default();
    apparent.max(age_value.plus(response_delay))
}

/// corrected_initial_age in milliseconds: the whole seconds that are kept, and what the origin's
/// delay was beyond them. Where `Date` made the age, this is older than need be by less than a
/// second.
pub fn initial_age_millis(stored: &StoredResponse) -> u64 {
    let delay = stored.response_time.millis_since(stored.request_time);
    stored.initial_age.as_millis().saturating_add(delay % 1000)
}

/// current_age in milliseconds: the age on arrival and the time since (RFC 9111 §4.2.3).
pub fn current_age_millis(stored: &StoredResponse, now: Timestamp) -> u64 {
    initial_age_millis(stored).saturating_add(now.millis_since(stored.response_time))
}

/// current_age as `Age` says it: whole seconds, rounded down.
pub fn current_age(stored: &StoredResponse, now: Timestamp) -> DeltaSeconds {
    DeltaSeconds::new(current_age_millis(stored, now) / 1000)
}

/// By how many milliseconds a response seems to come from the future: it was received while a clock
/// was ahead, so how old it is nobody knows. 0 within [`CLOCK_TOLERANCE_MS`], by which clocks may
/// differ.
pub fn millis_ahead(response_time: Timestamp, now: Timestamp) -> u64 {
    let ahead = response_time.millis_since(now);
    if ahead > CLOCK_TOLERANCE_MS { ahead } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SENT: Timestamp = Timestamp::from_millis(784_111_777_000);

    fn initial_age(pairs: &[(&str, &str)], delay_millis: u64) -> u64 {
        let fields = Fields::from_pairs(pairs.iter().copied());
        corrected_initial_age(&fields, SENT, SENT.plus_millis(delay_millis)).as_secs()
    }

    #[test]
    fn age_counts_from_when_the_request_was_sent() {
        assert_eq!(initial_age(&[("age", "10")], 2_500), 12);
    }

    #[test]
    fn an_old_date_counts_when_it_says_more_than_age() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:07 GMT");
        assert_eq!(initial_age(&[date, ("age", "10")], 0), 30);
        assert_eq!(initial_age(&[date, ("age", "40")], 0), 40);
    }

    #[test]
    fn a_date_in_the_future_does_not_make_it_younger() {
        assert_eq!(
            initial_age(&[("date", "Sun, 06 Nov 1994 09:49:37 GMT")], 0),
            0
        );
    }

    #[test]
    fn the_first_of_several_ages_counts_and_rubbish_does_not() {
        for (age, expected) in [
            ("5,7", 5),
            ("x", 0),
            ("-1", 0),
            ("1.5", 0),
            ("", 0),
            ("7, x", 7),
            ("99999999999", 1 << 31),
        ] {
            assert_eq!(initial_age(&[("age", age)], 0), expected, "{age:?}");
        }
    }

    #[test]
    fn a_delay_counts_by_its_milliseconds() {
        let sent = StoredResponse::example().response_time;
        let stored = StoredResponse {
            response_time: sent.plus_millis(2_900),
            initial_age: corrected_initial_age(&Fields::default(), sent, sent.plus_millis(2_900)),
            ..StoredResponse::example()
        };
        assert_eq!(initial_age_millis(&stored), 2_900);
        assert_eq!(current_age(&stored, sent.plus_millis(3_000)).as_secs(), 3);
    }

    proptest! {
        #[test]
        fn without_other_news_age_is_the_time_since_the_request(delay in 0u64..100_000, since in 0u64..100_000) {
            let sent = StoredResponse::example().response_time;
            let response_time = sent.plus_millis(delay);
            let initial_age = corrected_initial_age(&Fields::default(), sent, response_time);
            let stored = StoredResponse { response_time, initial_age, ..StoredResponse::example() };
            prop_assert_eq!(current_age_millis(&stored, response_time.plus_millis(since)), delay + since);
        }

        #[test]
        fn age_never_falls_while_time_goes_on(first in 0u64..1 << 40, later in 0u64..1 << 40) {
            let stored = StoredResponse::example();
            let at = |millis| current_age(&stored, Timestamp::from_millis(millis));
            prop_assert!(at(first.min(later)) <= at(first.max(later)));
        }
    }
}
