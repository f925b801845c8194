//! Stories of many requests at one worker: who leads, who waits, and what they get.

use larder_cache_core::exchange::Event;
use larder_cache_core::policy::Policy;
use larder_contract::http_time::DeltaSeconds;

use crate::fleet::{Answer, Fleet};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const COOKIE: [(&str, &str); 1] = [("cookie", "a=1")];

/// An origin that answers the n-th request as the n-th says, and all later ones as the last.
fn in_turn(answers: Vec<(u16, Vec<(&'static str, &'static str)>)>) -> impl FnMut() -> Answer {
    let mut n = 0;
    move || {
        let (status, fields) = &answers[n.min(answers.len() - 1)];
        n += 1;
        Answer::new(*status, fields)
    }
}

#[test]
fn a_leader_with_a_cookie_keeps_no_clean_request_waiting() {
    let mut fleet = Fleet::new(Policy::default(), || Answer::new(200, &[FRESH]));
    fleet.send(1, &COOKIE);
    fleet.pass_ms(100);
    assert_eq!(
        fleet.store.granted, 0,
        "a lease would hold the other Envoys' clean requests"
    );
    fleet.send(100, &[]);
    fleet.pass_ms(5_000);
    assert_eq!(fleet.fetches.len(), 2);
    assert_eq!(fleet.answered().len(), 101);
    fleet.send(20, &[]);
    assert_eq!(fleet.fetches.len(), 2, "nothing was marked: they are hits");
}

#[test]
fn requests_with_a_cookie_collapse_among_themselves_when_the_answer_is_explicitly_public() {
    let public = ("cache-control", "public, max-age=60");
    let mut fleet = Fleet::new(Policy::default(), move || Answer::new(200, &[public]));
    fleet.send(50, &COOKIE);
    fleet.pass_ms(5_000);
    assert_eq!((fleet.fetches.len(), fleet.answered().len()), (1, 50));
    let mut fleet = Fleet::new(Policy::default(), || Answer::new(200, &[FRESH]));
    fleet.send(50, &COOKIE);
    fleet.pass_ms(5_000);
    assert_eq!(
        (fleet.fetches.len(), fleet.answered().len()),
        (50, 50),
        "else each gets its own, and no queue forms"
    );
    assert_eq!(fleet.fetches[49], 1_000);
}

#[test]
fn a_request_that_says_no_store_leads_nobody() {
    let policy = Policy {
        request_directives: vec!["no-store".into()],
        ..Policy::default()
    };
    let mut fleet = Fleet::new(policy, || Answer::new(200, &[FRESH]));
    fleet.send(1, &[("cache-control", "no-store")]);
    fleet.send(60, &[]);
    fleet.pass_ms(5_000);
    assert_eq!((fleet.fetches.len(), fleet.answered().len()), (2, 61));
}

#[test]
fn what_one_request_brought_upon_itself_says_nothing_to_the_others() {
    for status in [400, 405, 408, 411, 413, 414, 416, 417, 421, 422, 429, 431] {
        let mut fleet = Fleet::new(
            Policy::default(),
            in_turn(vec![(status, vec![]), (200, vec![FRESH])]),
        );
        fleet.send(61, &[]);
        fleet.pass_ms(5_000);
        assert_eq!(
            (fleet.fetches.len(), fleet.answered().len()),
            (2, 61),
            "{status}"
        );
        fleet.send(20, &[]);
        assert_eq!(fleet.fetches.len(), 2, "{status}: nothing was marked");
    }
}

#[test]
fn where_every_request_is_refused_no_long_queue_forms() {
    for (status, rounds) in [(400, 3), (403, 2), (401, 2)] {
        let mut fleet = Fleet::new(Policy::default(), in_turn(vec![(status, vec![])]));
        fleet.send(60, &[]);
        fleet.pass_ms(20_000);
        assert_eq!(
            (fleet.fetches.len(), fleet.answered().len()),
            (60, 60),
            "{status}"
        );
        assert_eq!(
            fleet.fetches.last(),
            Some(&(rounds * 1_000)),
            "{status}: then all at once"
        );
    }
}

#[test]
fn an_error_is_shared_when_it_has_met_two() {
    let mut fleet = Fleet::new(Policy::default(), in_turn(vec![(500, vec![])]));
    fleet.send(60, &[]);
    fleet.pass_ms(20_000);
    assert_eq!((fleet.fetches.len(), fleet.answered().len()), (2, 60));
    let mut fleet = Fleet::new(
        Policy::default(),
        in_turn(vec![(503, vec![]), (200, vec![FRESH])]),
    );
    fleet.send(60, &[]);
    fleet.pass_ms(20_000);
    assert_eq!(fleet.fetches.len(), 2, "one more try, and all have it");
    assert_eq!(
        fleet
            .answered()
            .iter()
            .filter(|status| **status == 200)
            .count(),
        58
    );
}

#[test]
fn an_error_that_is_its_clients_own_is_never_shared() {
    let own = [
        vec![("cache-control", "private")],
        vec![("cache-control", "no-store")],
        vec![("set-cookie", "sid=1")],
        vec![("vary", "*")],
        vec![
            ("cache-control", "private=\"set-cookie\""),
            ("set-cookie", "sid=1"),
        ],
    ];
    for fields in own {
        for status in [500, 502, 503, 504, 507, 520] {
            let mut fleet = Fleet::new(Policy::strict(), in_turn(vec![(status, fields.clone())]));
            fleet.send(12, &[]);
            fleet.pass_ms(20_000);
            assert_eq!(fleet.fetches.len(), 12, "{status} {fields:?}: each its own");
        }
    }
    let policy = Policy {
        store_with_cookie: true,
        ..Policy::default()
    };
    let mut fleet = Fleet::new(policy, in_turn(vec![(500, vec![])]));
    fleet.send(12, &COOKIE);
    fleet.pass_ms(20_000);
    assert_eq!(fleet.fetches.len(), 12, "it may be about the cookie");
}

#[test]
fn a_cookie_does_not_drop_what_is_stored() {
    let stale = ("cache-control", "max-age=1, stale-if-error=60");
    let mut fleet = Fleet::new(
        Policy::default(),
        in_turn(vec![(200, vec![stale]), (200, vec![stale]), (503, vec![])]),
    );
    fleet.send(1, &[]);
    fleet.pass_ms(5_000);
    fleet.send(1, &COOKIE);
    fleet.pass_ms(2_000);
    assert_eq!(fleet.invalidations, 0);
    fleet.send(1, &[]);
    fleet.pass_ms(2_000);
    assert_eq!(fleet.answered().last(), Some(&200), "the stale copy");
}

#[test]
fn behind_a_leader_that_hangs_one_successor_at_a_time_tries() {
    let mut n = 0;
    let mut fleet = Fleet::new(Policy::default(), move || {
        n += 1;
        Answer {
            after_ms: if n <= 2 { 1_000_000 } else { 1_000 },
            ..Answer::new(200, &[FRESH])
        }
    });
    fleet.send(201, &[]);
    fleet.pass_ms(19_999);
    assert_eq!(fleet.fetches, [0, 10_000]);
    fleet.pass_ms(2_000);
    assert_eq!(fleet.fetches, [0, 10_000, 20_000]);
    assert_eq!(
        fleet.answered().len(),
        199,
        "all but the two whose own fetch hangs"
    );
}

#[test]
fn a_leader_that_was_given_up_and_answers_after_all_answers_who_still_waits() {
    let slow = || Answer {
        after_ms: 12_000,
        ..Answer::new(200, &[FRESH])
    };
    let mut fleet = Fleet::new(Policy::default(), slow);
    fleet.send(50, &[]);
    fleet.pass_ms(12_000);
    assert_eq!(fleet.fetches.len(), 2);
    assert_eq!(fleet.answered().len(), 49, "all but the successor");
    fleet.pass_ms(12_000);
    assert_eq!((fleet.fetches.len(), fleet.answered().len()), (2, 50));
}

/// Five requests, a change while the first of them fetches, and twelve that come after it.
fn around_a_change() -> Fleet {
    let mut fleet = Fleet::new(Policy::default(), || Answer::new(200, &[FRESH]));
    fleet.send(5, &[]);
    fleet.pass_ms(500);
    fleet.invalidate();
    fleet.pass_ms(1);
    fleet.send(12, &[]);
    fleet
}

#[test]
fn who_comes_after_a_change_gets_nothing_that_was_fetched_before_it() {
    let mut fleet = around_a_change();
    assert_eq!(fleet.fetches, [0, 501], "the slot is theirs");
    fleet.pass_ms(500);
    assert_eq!(
        fleet.answered().len(),
        5,
        "who came before may have the old one"
    );
    fleet.pass_ms(1_000);
    assert_eq!((fleet.fetches.len(), fleet.answered().len()), (2, 17));
}

#[test]
fn another_change_does_not_hide_the_one_before_it() {
    let mut fleet = around_a_change();
    fleet.pass_ms(200);
    fleet.invalidate();
    fleet.pass_ms(300);
    assert_eq!(
        fleet.answered().len(),
        5,
        "who came between the changes does not get what is older than both"
    );
    fleet.pass_ms(1_500);
    assert_eq!(fleet.answered().len(), 17);
}

#[test]
fn content_without_an_end_keeps_nobody_waiting() {
    let policy = Policy {
        default_lifetime: Some(DeltaSeconds::new(60)),
        ..Policy::default()
    };
    let endless = |fields: Vec<(&'static str, &'static str)>| {
        move || Answer {
            end_after_ms: None,
            ..Answer::new(200, &fields)
        }
    };
    let mut fleet = Fleet::new(
        policy.clone(),
        endless(vec![("content-type", "application/x-ndjson")]),
    );
    fleet.send(30, &[]);
    fleet.pass_ms(2_000);
    assert_eq!(
        (fleet.fetches.len(), fleet.answered().len()),
        (30, 30),
        "freed at the head"
    );
    let mut fleet = Fleet::new(policy.clone(), endless(vec![]));
    fleet.send(30, &[]);
    fleet.pass_ms(2_999);
    assert_eq!(fleet.fetches.len(), 1);
    fleet.pass_ms(1);
    assert_eq!(fleet.fetches.len(), 30, "freed two seconds behind the head");
    // What does end is stored all the same.
    let mut fleet = Fleet::new(policy, || Answer {
        end_after_ms: Some(3_000),
        ..Answer::new(200, &[])
    });
    fleet.send(1, &[]);
    fleet.pass_ms(5_000);
    fleet.send(1, &[]);
    assert_eq!((fleet.fetches.len(), fleet.answered().len()), (1, 2));
}

#[test]
fn leaders_that_leave_one_by_one_send_nobody_else_to_the_origin() {
    let mut fleet = Fleet::new(Policy::default(), || Answer::new(200, &[FRESH]));
    fleet.send(60, &[]);
    for leader in 0..20 {
        fleet.pass_ms(10);
        fleet.end(
            leader,
            Event::Gone {
                origin_broke: false,
            },
        );
    }
    fleet.pass_ms(5_000);
    assert_eq!(
        (fleet.fetches.len(), fleet.answered().len()),
        (21, 40),
        "one at a time"
    );
}

#[test]
fn behind_a_redirect_that_the_proxy_follows_nobody_queues() {
    let mut fleet = Fleet::new(Policy::default(), || Answer::new(200, &[FRESH]));
    fleet.send(60, &[]);
    fleet.pass_ms(500);
    fleet.end(0, Event::Redirected);
    assert_eq!(
        (fleet.fetches.len(), fleet.fetches[59]),
        (60, 500),
        "each has to be redirected itself"
    );
    fleet.pass_ms(5_000);
    assert_eq!(fleet.answered().len(), 59);
}
