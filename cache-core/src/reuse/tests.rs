use super::*;
use crate::stored_response::ReuseTerms;
use proptest::prelude::*;

fn stored(terms: ReuseTerms) -> StoredResponse {
    StoredResponse {
        terms,
        ..StoredResponse::example()
    }
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
    assert_eq!(
        decide_plainly(&stored, 5_000),
        Reuse::Validate(MustValidate::Stale)
    );
}

#[test]
fn a_slow_origin_takes_its_delay_from_the_lifetime() {
    let slow = stored(terms(2, 0, 0));
    let slow = StoredResponse {
        response_time: slow.request_time.plus_millis(900),
        ..slow
    };
    assert_eq!(decide_plainly(&slow, 1_099), Reuse::Fresh);
    assert_eq!(
        decide_plainly(&slow, 1_100),
        Reuse::Validate(MustValidate::Stale)
    );
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
    let on_error = may_serve_on_error(
        &ahead,
        None,
        &Policy::default(),
        Failure::ErrorStatus,
        before(3_600_000),
    );
    assert!(!on_error);
}

#[test]
fn what_forbids_a_stale_use_that_the_response_offers_is_told_apart() {
    let forbidding = |swr, sie| {
        stored(ReuseTerms {
            must_revalidate: true,
            ..terms(5, swr, sie)
        })
    };
    let forbidden = |stored: &StoredResponse, millis| {
        is_stale_use_forbidden(stored, &Policy::default(), after(stored, millis))
    };
    assert!(forbidden(&forbidding(15, 0), 5_000));
    assert!(!forbidden(&forbidding(15, 0), 4_999), "it is fresh");
    assert!(!forbidden(&forbidding(15, 0), 20_000), "its window is over");
    assert!(!forbidden(&forbidding(0, 15), 5_000), "it offers none");
    let on_error = |stored: &StoredResponse| {
        let (policy, at) = (
            Policy {
                grace: DeltaSeconds::new(60),
                ..Policy::default()
            },
            after(stored, 6_000),
        );
        is_stale_on_error_forbidden(stored, None, &policy, Failure::Disconnected, at)
    };
    assert!(on_error(&forbidding(0, 15)));
    assert!(
        !on_error(&forbidding(0, 0)),
        "the operator's grace is not the origin's word"
    );
    assert!(!on_error(&stored(terms(5, 0, 15))));
}

#[test]
fn a_soft_purge_ends_freshness_and_lengthens_nothing() {
    let purged = StoredResponse {
        stale_from: Some(after(&stored(terms(5, 15, 0)), 2_000)),
        ..stored(terms(5, 15, 0))
    };
    assert_eq!(decide_plainly(&purged, 1_999), Reuse::Fresh);
    assert_eq!(decide_plainly(&purged, 2_000), Reuse::StaleWhileRevalidate);
    assert_eq!(
        decide_plainly(&purged, 17_000),
        Reuse::Validate(MustValidate::Stale)
    );
    let late = StoredResponse {
        stale_from: Some(after(&purged, 60_000)),
        ..stored(terms(5, 0, 0))
    };
    assert_eq!(
        decide_plainly(&late, 5_000),
        Reuse::Validate(MustValidate::Stale)
    );
}

#[test]
fn stale_while_revalidate_opens_behind_the_lifetime_and_closes_after_its_window() {
    let stored = stored(terms(5, 15, 0));
    assert_eq!(decide_plainly(&stored, 5_000), Reuse::StaleWhileRevalidate);
    assert_eq!(decide_plainly(&stored, 19_999), Reuse::StaleWhileRevalidate);
    assert_eq!(
        decide_plainly(&stored, 20_000),
        Reuse::Validate(MustValidate::Stale)
    );
}

#[test]
fn must_revalidate_forbids_every_stale_use() {
    let stored = stored(ReuseTerms {
        must_revalidate: true,
        ..terms(5, 15, 15)
    });
    assert_eq!(
        decide_plainly(&stored, 5_000),
        Reuse::Validate(MustValidate::Stale)
    );
    assert!(!may_serve_on_error(
        &stored,
        None,
        &Policy::default(),
        Failure::ErrorStatus,
        after(&stored, 5_000)
    ));
    let any_stale = RequestDirectives {
        max_stale: Some(None),
        ..RequestDirectives::default()
    };
    let decision = decide(
        &stored,
        Some(&any_stale),
        &Policy::default(),
        after(&stored, 6_000),
    );
    assert_eq!(decision, Reuse::Validate(MustValidate::Stale));
}

#[test]
fn the_operators_grace_counts_only_while_no_origin_answers_and_nothing_forbids_it() {
    let policy = Policy {
        grace: DeltaSeconds::new(20),
        ..Policy::default()
    };
    let plain = stored(terms(5, 0, 0));
    let at = |stored: &StoredResponse, failure, secs: u64| {
        may_serve_on_error(stored, None, &policy, failure, after(stored, secs * 1000))
    };
    assert!(at(&plain, Failure::Disconnected, 24));
    assert!(!at(&plain, Failure::Disconnected, 25));
    assert!(!at(&plain, Failure::ErrorStatus, 6));
    for forbidding in [
        ReuseTerms {
            must_revalidate: true,
            ..terms(5, 0, 0)
        },
        ReuseTerms {
            no_cache: true,
            ..terms(5, 0, 0)
        },
    ] {
        assert!(!at(&stored(forbidding), Failure::Disconnected, 6));
    }
}

#[test]
fn stale_if_error_serves_only_within_its_window() {
    let stored = stored(terms(5, 0, 10));
    for (millis, allowed) in [(0, true), (5_000, true), (14_999, true), (15_000, false)] {
        assert_eq!(
            may_serve_on_error(
                &stored,
                None,
                &Policy::default(),
                Failure::ErrorStatus,
                after(&stored, millis)
            ),
            allowed,
            "{millis}"
        );
    }
}

#[test]
fn the_operators_cap_ends_every_stale_window() {
    let stored = stored(terms(5, 1_000, 1_000));
    let policy = Policy {
        max_stale: DeltaSeconds::new(10),
        ..Policy::default()
    };
    let at = after(&stored, 15_000);
    assert_eq!(
        decide(&stored, None, &policy, at),
        Reuse::Validate(MustValidate::Stale)
    );
    assert!(!may_serve_on_error(
        &stored,
        None,
        &policy,
        Failure::ErrorStatus,
        at
    ));
}

#[test]
fn a_requests_own_bounds_send_it_to_the_origin() {
    let stored = stored(terms(60, 0, 0));
    let policy = Policy::default();
    let at = after(&stored, 30_000);
    let secs = |n| Some(DeltaSeconds::new(n));
    for (asked, reuse) in [
        (
            RequestDirectives {
                max_age: secs(30),
                ..Default::default()
            },
            Reuse::Fresh,
        ),
        (
            RequestDirectives {
                max_age: secs(29),
                ..Default::default()
            },
            Reuse::Validate(MustValidate::Request),
        ),
        (
            RequestDirectives {
                min_fresh: secs(30),
                ..Default::default()
            },
            Reuse::Fresh,
        ),
        (
            RequestDirectives {
                min_fresh: secs(31),
                ..Default::default()
            },
            Reuse::Validate(MustValidate::Request),
        ),
        (
            RequestDirectives {
                no_cache: true,
                ..Default::default()
            },
            Reuse::Validate(MustValidate::Request),
        ),
    ] {
        assert_eq!(
            decide(&stored, Some(&asked), &policy, at),
            reuse,
            "{asked:?}"
        );
    }
}

#[test]
fn max_stale_accepts_a_response_that_is_stale_by_no_more_than_it_says() {
    let stored = stored(terms(5, 0, 0));
    let asked = RequestDirectives {
        max_stale: Some(Some(DeltaSeconds::new(3))),
        ..RequestDirectives::default()
    };
    let at = |millis| {
        decide(
            &stored,
            Some(&asked),
            &Policy::default(),
            after(&stored, millis),
        )
    };
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
