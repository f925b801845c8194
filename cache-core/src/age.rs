//! How old a response is (RFC 9111 §4.2.3).
//!
//! What this decides: the age on arrival, and now. What it leaves out: whether that is too old (`freshness`, `reuse`).

use crate::fields::Fields;
use crate::http_time::{DeltaSeconds, Timestamp};
use crate::stored_response::StoredResponse;

/// corrected_initial_age: how old the response was when it arrived, by its `Age` and by its `Date`, whichever says more.
pub fn corrected_initial_age(fields: &Fields, request_time: Timestamp, response_time: Timestamp) -> DeltaSeconds {
    let apparent = fields
        .get("date")
        .and_then(Timestamp::parse_http_date)
        .map_or(DeltaSeconds::ZERO, |date| response_time.since(date));
    let response_delay = response_time.since(request_time);
    // RFC 9111 §5.1: of several members the first counts, and what is not a number is ignored.
    let age_value = fields.list("age").next().and_then(DeltaSeconds::parse).unwrap_or_default();
    apparent.max(age_value.plus(response_delay))
}

/// current_age: the age on arrival and the time since.
pub fn current_age(stored: &StoredResponse, now: Timestamp) -> DeltaSeconds {
    stored.initial_age.plus(now.since(stored.response_time))
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
        assert_eq!(initial_age(&[("date", "Sun, 06 Nov 1994 09:49:37 GMT")], 0), 0);
    }

    #[test]
    fn the_first_of_several_ages_counts_and_rubbish_does_not() {
        for (age, expected) in
            [("5,7", 5), ("x", 0), ("-1", 0), ("1.5", 0), ("", 0), ("7, x", 7), ("99999999999", 1 << 31)]
        {
            assert_eq!(initial_age(&[("age", age)], 0), expected, "{age:?}");
        }
    }

    proptest! {
        #[test]
        fn age_never_falls_while_time_goes_on(first in 0u64..1 << 40, later in 0u64..1 << 40) {
            let stored = StoredResponse::example();
            let at = |millis| current_age(&stored, Timestamp::from_millis(millis));
            prop_assert!(at(first.min(later)) <= at(first.max(later)));
        }
    }
}
