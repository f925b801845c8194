//! May a stored response answer this request now? (RFC 9111 §4, §4.2.4; RFC 5861)
//!
//! What this decides: fresh, stale but allowed, or to be validated, with the reason. What it leaves out: which variant is
//! asked about (`variants`), and what happens next (`exchange`).

use larder_contract::http_time::{DeltaSeconds, Timestamp};

use crate::age;
use crate::cache_control::RequestDirectives;
use crate::policy::Policy;
use crate::stored_response::StoredResponse;

/// The decision about one stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Answers as it is.
    Fresh,
    /// Answers although stale, while it is refreshed in the background (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Answers although stale, because the request asked for it (RFC 9111 §5.2.1.2).
    MaxStale,
    /// Must be validated first.
    Validate(MustValidate),
}

/// Why a stored response has to be validated before it may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MustValidate {
    /// It is stale and nothing allows that.
    Stale,
    /// It says `no-cache` (RFC 9111 §5.2.2.4).
    NoCache,
    /// The request says so: `no-cache`, `max-age`, `min-fresh` (RFC 9111 §5.2.1).
    Request,
}

/// What `Cache-Status` says of it: whole seconds of freshness left, less than 0 once it is stale (RFC 9211 §2.4). A second
/// that has begun counts, so that `Age` and this make up the lifetime.
pub fn ttl(stored: &StoredResponse, now: Timestamp) -> i64 {
    let remaining = remaining_millis(stored, now);
    if remaining > 0 { remaining.saturating_add(999) / 1000 } else { remaining.div_euclid(1000) }
}

/// Milliseconds of freshness left; negative when stale by so much. What comes from the future is not young: it is stale by
/// as much as a clock was ahead.
pub fn remaining_millis(stored: &StoredResponse, now: Timestamp) -> i64 {
    let age = age::current_age_millis(stored, now);
    let lifetime = stored.terms.lifetime.as_millis();
    let signed = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
    let remaining = signed(lifetime).saturating_sub(signed(age));
    let ahead = age::millis_ahead(stored.response_time, now);
    let remaining = if ahead > 0 { remaining.min(-signed(ahead)) } else { remaining };
    match stored.stale_from {
        Some(time) => remaining.min(signed(time.as_millis()).saturating_sub(signed(now.as_millis()))),
        None => remaining,
    }
}

/// When freshness ends (RFC 9111 §4.2).
pub fn fresh_until(stored: &StoredResponse) -> Timestamp {
    let lifetime = stored.terms.lifetime.as_millis().saturating_sub(age::initial_age_millis(stored));
    let natural = stored.response_time.plus_millis(lifetime);
    stored.stale_from.map_or(natural, |time| natural.min(time))
}

/// Decides about `stored`. `asked` are the request's directives, `None` where the policy does not honour them.
pub fn decide(stored: &StoredResponse, asked: Option<&RequestDirectives>, policy: &Policy, now: Timestamp) -> Reuse {
    if asked.is_some_and(|asked| asked.no_cache) {
        return Reuse::Validate(MustValidate::Request);
    }
    if stored.terms.no_cache {
        return Reuse::Validate(MustValidate::NoCache);
    }
    let remaining = remaining_millis(stored, now);
    if let Some(asked) = asked
        && !satisfies_request(stored, asked, remaining, now)
    {
        return Reuse::Validate(MustValidate::Request);
    }
    if remaining > 0 {
        return Reuse::Fresh;
    }
    // RFC 9111 §4.2.4: must-revalidate and its kin forbid every stale use.
    if stored.terms.must_revalidate {
        return Reuse::Validate(MustValidate::Stale);
    }
    let staleness = remaining.unsigned_abs();
    if staleness < capped(stored.terms.stale_while_revalidate, policy) {
        return Reuse::StaleWhileRevalidate;
    }
    match asked.and_then(|asked| asked.max_stale) {
        Some(limit) if staleness <= capped(limit.unwrap_or(DeltaSeconds::MAX), policy) => Reuse::MaxStale,
        _ => Reuse::Validate(MustValidate::Stale),
    }
}

/// Whether only `must-revalidate`, `proxy-revalidate` or `s-maxage` keeps a response within its own
/// `stale-while-revalidate` from being served: for a shared cache the two contradict each other, and the prohibition counts
/// (RFC 9111 §4.2.4, §5.2.2.10; RFC 5861 §3).
pub fn is_stale_use_forbidden(stored: &StoredResponse, policy: &Policy, now: Timestamp) -> bool {
    let remaining = remaining_millis(stored, now);
    stored.terms.must_revalidate
        && !stored.terms.no_cache
        && remaining <= 0
        && remaining.unsigned_abs() < capped(stored.terms.stale_while_revalidate, policy)
}

/// RFC 9111 §5.2.1.1 and §5.2.1.3: the request's own bounds on age and remaining freshness. `max-stale` loosens the
/// former only as far as it says.
fn satisfies_request(stored: &StoredResponse, asked: &RequestDirectives, remaining: i64, now: Timestamp) -> bool {
    let min_fresh = asked.min_fresh.map_or(0, |span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
    if asked.min_fresh.is_some() && remaining < min_fresh {
        return false;
    }
    asked.max_age.is_none_or(|limit| {
        let age = age::current_age(stored, now);
        age <= limit || (remaining <= 0 && asked.max_stale.is_some() && !stored.terms.must_revalidate)
    })
}

/// How the origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answered, with an error (RFC 5861 §4).
    ErrorStatus,
    /// It gave no answer: the cache is disconnected (RFC 9111 §4.2.4).
    Disconnected,
}

/// May `stored` answer because the origin failed? (RFC 5861 §4, RFC 9111 §4.2.4)
pub fn may_serve_on_error(
    stored: &StoredResponse,
    asked: Option<&RequestDirectives>,
    policy: &Policy,
    failure: Failure,
    now: Timestamp,
) -> bool {
    if decide(stored, asked, policy, now) == Reuse::StaleWhileRevalidate {
        return true; // it might have answered without asking (RFC 5861 §3)
    }
    !stored.terms.must_revalidate && is_within_error_window(stored, asked, policy, failure, now)
}

/// Whether only `must-revalidate` or its kin keeps a response from standing in for the origin's failure.
pub fn is_stale_on_error_forbidden(
    stored: &StoredResponse,
    asked: Option<&RequestDirectives>,
    policy: &Policy,
    failure: Failure,
    now: Timestamp,
) -> bool {
    // The operator's grace is no word of the origin's that another one contradicts.
    let names_window = stored.terms.stale_if_error > DeltaSeconds::ZERO;
    stored.terms.must_revalidate && names_window && is_within_error_window(stored, asked, policy, failure, now)
}

fn is_within_error_window(
    stored: &StoredResponse,
    asked: Option<&RequestDirectives>,
    policy: &Policy,
    failure: Failure,
    now: Timestamp,
) -> bool {
    if stored.terms.no_cache || asked.is_some_and(|asked| asked.no_cache) {
        return false;
    }
    let window = asked.and_then(|asked| asked.stale_if_error).unwrap_or_default().max(stored.terms.stale_if_error);
    let window = if failure == Failure::Disconnected { window.max(policy.grace) } else { window };
    let remaining = remaining_millis(stored, now);
    remaining > 0 || remaining.unsigned_abs() < capped(window, policy)
}

fn capped(window: DeltaSeconds, policy: &Policy) -> u64 {
    window.min(policy.max_stale).as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored_response::ReuseTerms;
    use proptest::prelude::*;

    fn stored(terms: ReuseTerms) -> StoredResponse {
        StoredResponse { terms, ..StoredResponse::example() }
    }

    fn terms(lifetime: u64, swr: u64, sie: u64) -> ReuseTerms {
        ReuseTerms {
            lifetime: DeltaSeconds::new(lifetime),
            stale_while_revalidate: DeltaSeconds::new(swr),
            stale_if_error: DeltaSeconds::new(sie),
            ..ReuseTerms::default()
        }
    }

    fn after(stored: &StoredResponse, millis: u64) -> Timestamp {
        stored.response_time.plus_millis(millis)
    }

    fn decide_plainly(stored: &StoredResponse, millis: u64) -> Reuse {
        decide(stored, None, &Policy::default(), after(stored, millis))
    }

    #[test]
    fn a_response_is_fresh_until_its_lifetime_is_reached() {
        let stored = stored(terms(5, 0, 0));
        assert_eq!(decide_plainly(&stored, 0), Reuse::Fresh);
        assert_eq!(decide_plainly(&stored, 4_999), Reuse::Fresh);
        assert_eq!(decide_plainly(&stored, 5_000), Reuse::Validate(MustValidate::Stale));
    }

    #[test]
    fn a_slow_origin_takes_its_delay_from_the_lifetime() {
        let slow = stored(terms(2, 0, 0));
        let slow = StoredResponse { response_time: slow.request_time.plus_millis(900), ..slow };
        assert_eq!(decide_plainly(&slow, 1_099), Reuse::Fresh);
        assert_eq!(decide_plainly(&slow, 1_100), Reuse::Validate(MustValidate::Stale));
        assert_eq!(fresh_until(&slow), slow.request_time.plus_millis(2_000));
    }

    #[test]
    fn a_response_from_the_future_is_not_young() {
        let ahead = stored(terms(60, 10, 10));
        let before = |millis: u64| Timestamp::from_millis(ahead.response_time.as_millis() - millis);
        let decide = |millis| decide(&ahead, None, &Policy::default(), before(millis));
        assert_eq!(decide(1_000), Reuse::Fresh, "clocks differ by so much");
        assert_eq!(decide(1_001), Reuse::StaleWhileRevalidate);
        assert_eq!(decide(3_600_000), Reuse::Validate(MustValidate::Stale));
        let on_error = may_serve_on_error(&ahead, None, &Policy::default(), Failure::ErrorStatus, before(3_600_000));
        assert!(!on_error);
    }

    #[test]
    fn what_forbids_a_stale_use_that_the_response_offers_is_told_apart() {
        let forbidding = |swr, sie| stored(ReuseTerms { must_revalidate: true, ..terms(5, swr, sie) });
        let forbidden =
            |stored: &StoredResponse, millis| is_stale_use_forbidden(stored, &Policy::default(), after(stored, millis));
        assert!(forbidden(&forbidding(15, 0), 5_000));
        assert!(!forbidden(&forbidding(15, 0), 4_999), "it is fresh");
        assert!(!forbidden(&forbidding(15, 0), 20_000), "its window is over");
        assert!(!forbidden(&forbidding(0, 15), 5_000), "it offers none");
        let on_error = |stored: &StoredResponse| {
            let (policy, at) = (Policy { grace: DeltaSeconds::new(60), ..Policy::default() }, after(stored, 6_000));
            is_stale_on_error_forbidden(stored, None, &policy, Failure::Disconnected, at)
        };
        assert!(on_error(&forbidding(0, 15)));
        assert!(!on_error(&forbidding(0, 0)), "the operator's grace is not the origin's word");
        assert!(!on_error(&stored(terms(5, 0, 15))));
    }

    #[test]
    fn a_soft_purge_ends_freshness_and_lengthens_nothing() {
        let purged =
            StoredResponse { stale_from: Some(after(&stored(terms(5, 15, 0)), 2_000)), ..stored(terms(5, 15, 0)) };
        assert_eq!(decide_plainly(&purged, 1_999), Reuse::Fresh);
        assert_eq!(decide_plainly(&purged, 2_000), Reuse::StaleWhileRevalidate);
        assert_eq!(decide_plainly(&purged, 17_000), Reuse::Validate(MustValidate::Stale));
        let late = StoredResponse { stale_from: Some(after(&purged, 60_000)), ..stored(terms(5, 0, 0)) };
        assert_eq!(decide_plainly(&late, 5_000), Reuse::Validate(MustValidate::Stale));
    }

    #[test]
    fn stale_while_revalidate_opens_behind_the_lifetime_and_closes_after_its_window() {
        let stored = stored(terms(5, 15, 0));
        assert_eq!(decide_plainly(&stored, 5_000), Reuse::StaleWhileRevalidate);
        assert_eq!(decide_plainly(&stored, 19_999), Reuse::StaleWhileRevalidate);
        assert_eq!(decide_plainly(&stored, 20_000), Reuse::Validate(MustValidate::Stale));
    }

    #[test]
    fn must_revalidate_forbids_every_stale_use() {
        let stored = stored(ReuseTerms { must_revalidate: true, ..terms(5, 15, 15) });
        assert_eq!(decide_plainly(&stored, 5_000), Reuse::Validate(MustValidate::Stale));
        assert!(!may_serve_on_error(&stored, None, &Policy::default(), Failure::ErrorStatus, after(&stored, 5_000)));
        let any_stale = RequestDirectives { max_stale: Some(None), ..RequestDirectives::default() };
        let decision = decide(&stored, Some(&any_stale), &Policy::default(), after(&stored, 6_000));
        assert_eq!(decision, Reuse::Validate(MustValidate::Stale));
    }

    #[test]
    fn the_operators_grace_counts_only_while_no_origin_answers_and_nothing_forbids_it() {
        let policy = Policy { grace: DeltaSeconds::new(20), ..Policy::default() };
        let plain = stored(terms(5, 0, 0));
        let at = |stored: &StoredResponse, failure, secs: u64| {
            may_serve_on_error(stored, None, &policy, failure, after(stored, secs * 1000))
        };
        assert!(at(&plain, Failure::Disconnected, 24));
        assert!(!at(&plain, Failure::Disconnected, 25));
        assert!(!at(&plain, Failure::ErrorStatus, 6));
        for forbidding in
            [ReuseTerms { must_revalidate: true, ..terms(5, 0, 0) }, ReuseTerms { no_cache: true, ..terms(5, 0, 0) }]
        {
            assert!(!at(&stored(forbidding), Failure::Disconnected, 6));
        }
    }

    #[test]
    fn stale_if_error_serves_only_within_its_window() {
        let stored = stored(terms(5, 0, 10));
        for (millis, allowed) in [(0, true), (5_000, true), (14_999, true), (15_000, false)] {
            assert_eq!(
                may_serve_on_error(&stored, None, &Policy::default(), Failure::ErrorStatus, after(&stored, millis)),
                allowed,
                "{millis}"
            );
        }
    }

    #[test]
    fn the_operators_cap_ends_every_stale_window() {
        let stored = stored(terms(5, 1_000, 1_000));
        let policy = Policy { max_stale: DeltaSeconds::new(10), ..Policy::default() };
        let at = after(&stored, 15_000);
        assert_eq!(decide(&stored, None, &policy, at), Reuse::Validate(MustValidate::Stale));
        assert!(!may_serve_on_error(&stored, None, &policy, Failure::ErrorStatus, at));
    }

    #[test]
    fn a_requests_own_bounds_send_it_to_the_origin() {
        let stored = stored(terms(60, 0, 0));
        let policy = Policy::default();
        let at = after(&stored, 30_000);
        let secs = |n| Some(DeltaSeconds::new(n));
        for (asked, reuse) in [
            (RequestDirectives { max_age: secs(30), ..Default::default() }, Reuse::Fresh),
            (RequestDirectives { max_age: secs(29), ..Default::default() }, Reuse::Validate(MustValidate::Request)),
            (RequestDirectives { min_fresh: secs(30), ..Default::default() }, Reuse::Fresh),
            (RequestDirectives { min_fresh: secs(31), ..Default::default() }, Reuse::Validate(MustValidate::Request)),
            (RequestDirectives { no_cache: true, ..Default::default() }, Reuse::Validate(MustValidate::Request)),
        ] {
            assert_eq!(decide(&stored, Some(&asked), &policy, at), reuse, "{asked:?}");
        }
    }

    #[test]
    fn max_stale_accepts_a_response_that_is_stale_by_no_more_than_it_says() {
        let stored = stored(terms(5, 0, 0));
        let asked = RequestDirectives { max_stale: Some(Some(DeltaSeconds::new(3))), ..RequestDirectives::default() };
        let at = |millis| decide(&stored, Some(&asked), &Policy::default(), after(&stored, millis));
        assert_eq!(at(7_000), Reuse::MaxStale);
        assert_eq!(at(9_000), Reuse::Validate(MustValidate::Stale));
    }

    proptest! {
        #[test]
        fn age_and_ttl_make_up_the_lifetime(delay in 0u64..5_000, lifetime in 6u64..100, since in 0u64..1_000) {
            let stored = stored(terms(lifetime, 0, 0));
            let response_time = stored.request_time.plus_millis(delay);
            let initial_age = DeltaSeconds::new(delay / 1000);
            let stored = StoredResponse { response_time, initial_age, ..stored };
            let now = after(&stored, since);
            let sum = ttl(&stored, now) + i64::try_from(age::current_age(&stored, now).as_secs()).unwrap();
            prop_assert_eq!(sum, i64::try_from(lifetime).unwrap());
        }

        #[test]
        fn once_a_response_needs_validation_it_never_becomes_fresh_again(
            lifetime in 0u64..100, swr in 0u64..100, first in 0u64..300_000, later in 0u64..300_000,
        ) {
            let stored = stored(terms(lifetime, swr, 0));
            let rank = |reuse| match reuse { Reuse::Fresh => 0, Reuse::StaleWhileRevalidate => 1, _ => 2 };
            let (first, later) = (first.min(later), first.max(later));
            prop_assert!(rank(decide_plainly(&stored, first)) <= rank(decide_plainly(&stored, later)));
        }
    }
}
