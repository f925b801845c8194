use larder_contract::key::{KeyDigest, PrimaryKey};

use super::*;
use crate::message::Request;
use crate::vary::SelectingFields;

const KEY: CollapseKey = CollapseKey([1; 32]);
const OTHER: CollapseKey = CollapseKey([2; 32]);
const RESOURCE: KeyDigest = KeyDigest([7; 32]);
const ME: Identity = Identity { vm: 1, stream: 10 };
const YOU: Identity = Identity { vm: 2, stream: 20 };
const REFRESH: Identity = Identity {
    vm: 3,
    stream: Identity::REFRESH | 1,
};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn terms(now: u64) -> Terms {
    Terms {
        accept_handed_over: true,
        ..Terms::until(at(now + 1000))
    }
}

fn arriving(slot: Option<&[u8]>, key: &CollapseKey, me: Identity, inbox: u32, now: u64) -> Arrival {
    arrive(slot, key, me, inbox, at(now), terms(now))
}

fn lead(slot: Option<&[u8]>, me: Identity, now: u64) -> Vec<u8> {
    match arriving(slot, &KEY, me, 1, now) {
        Arrival::Lead(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

fn led() -> Vec<u8> {
    lead(None, ME, 0)
}

fn end(slot: &[u8], me: Identity, result: Finish, now: u64) -> Vec<u8> {
    finish(Some(slot), &KEY, me, result, at(now)).unwrap().0
}

#[test]
fn the_first_to_arrive_leads_and_the_others_wait() {
    let slot = led();
    let Arrival::Wait(ME, Some(slot)) = arriving(Some(&slot), &KEY, YOU, 2, 1) else {
        panic!()
    };
    assert_eq!(
        arriving(Some(&slot), &KEY, YOU, 2, 2),
        Arrival::Wait(ME, None)
    );
    let (_, woken) = finish(Some(&slot), &KEY, ME, Finish::Free, at(3)).unwrap();
    assert_eq!(woken, [2]);
}

#[test]
fn another_key_in_the_same_slot_goes_alone() {
    assert_eq!(arriving(Some(&led()), &OTHER, YOU, 2, 1), Arrival::Occupied);
}

#[test]
fn a_key_whose_first_slot_another_uses_takes_its_next_one_and_is_found_there() {
    let slow = led();
    let free = Slot::Free.encode();
    assert_eq!(
        choose([Some(&*slow), Some(&*free), None, None], &OTHER, at(1)),
        1
    );
    let Arrival::Lead(own) = arriving(Some(&free), &OTHER, YOU, 2, 1) else {
        panic!()
    };
    assert_eq!(
        choose([Some(&*slow), Some(&*own), None, None], &OTHER, at(2)),
        1
    );
    assert_eq!(
        choose([None, Some(&*own), None, None], &OTHER, at(2)),
        1,
        "the first one is free again"
    );
    assert_eq!(choose([Some(&*slow), Some(&*slow)], &OTHER, at(2)), 0);
    let mark = end(&slow, ME, Finish::Uncacheable(at(50)), 1);
    assert_eq!(
        choose([Some(&*mark), Some(&*slow), None], &OTHER, at(2)),
        2,
        "a mark is lost last"
    );
    assert_eq!(
        choose([Some(&*mark), Some(&*slow), Some(&*slow)], &OTHER, at(2)),
        0
    );
}

#[test]
fn where_a_key_lies_depends_on_the_salt_and_fills_all_slots() {
    let key = |n: u64| {
        let resource = PrimaryKey::new(b"n", b"http", b"a", n.to_string().as_bytes());
        CollapseKey::new(&resource.digest(), &SelectingFields::default())
    };
    let of = |salt| {
        (0..250)
            .map(|n| key(n).places(4096, salt))
            .collect::<Vec<_>>()
    };
    assert_ne!(of(1), of(3));
    let all: std::collections::HashSet<u32> =
        of(0x9e37_79b9_7f4a_7c15).into_iter().flatten().collect();
    assert!(
        all.len() > 850 && all.iter().all(|place| *place < 4096),
        "{}",
        all.len()
    );
    // Keys that meet under one salt do not under most others.
    let (one, meets) = (key(0), |salt: u64| {
        (1..250)
            .filter(|n| key(*n).places(16, salt) == key(0).places(16, salt))
            .count()
    });
    assert!((0..8).map(meets).sum::<usize>() < 8, "{one:?}");
}

#[test]
fn requests_collapse_by_what_selects_in_whatever_order_it_is_named() {
    let request = Request::new("GET", "a", "/")
        .with("x-a", "1")
        .with("x-b", "");
    let key = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        CollapseKey::new(&RESOURCE, &SelectingFields::of(&names, &request).unwrap())
    };
    let nothing = key(&[]);
    assert_eq!(nothing, key(&[":override", ":unkeyed"]), "neither is there");
    assert_eq!(key(&["x-a", "x-b"]), key(&["x-b", "x-a"]));
    let different = [&[][..], &["x-a"], &["x-b"], &["x-c"], &["x-a", "x-b"]].map(key);
    for (index, one) in different.iter().enumerate() {
        assert!(!different[..index].contains(one), "{index}");
    }
    let other = request.with(":override", "max-age=1");
    let names = [b":override".to_vec()];
    let chosen = SelectingFields::of(&names, &other).unwrap();
    assert_ne!(nothing, CollapseKey::new(&RESOURCE, &chosen));
}

#[test]
fn a_leader_past_its_deadline_is_replaced_and_can_no_longer_finish() {
    let Arrival::Lead(slot) = arriving(Some(&led()), &KEY, YOU, 2, 1000) else {
        panic!()
    };
    assert_eq!(finish(Some(&slot), &KEY, ME, Finish::Free, at(1001)), None);
    assert!(finish(Some(&slot), &KEY, YOU, Finish::Free, at(1001)).is_some());
}

#[test]
fn the_first_who_gives_a_leader_up_takes_its_place_and_the_others_wait_for_that_one() {
    let Arrival::Wait(_, Some(slot)) = arriving(Some(&led()), &KEY, YOU, 2, 1) else {
        panic!()
    };
    let given_up = |now| Terms {
        given_up: Some(ME),
        ..terms(now)
    };
    let Arrival::Succeed(slot) = arrive(Some(&slot), &KEY, YOU, 2, at(10), given_up(10)) else {
        panic!()
    };
    let third = Identity { vm: 2, stream: 21 };
    assert_eq!(
        arrive(Some(&slot), &KEY, third, 2, at(10), given_up(10)),
        Arrival::Wait(YOU, None)
    );
    assert_eq!(
        finish(Some(&slot), &KEY, ME, Finish::Free, at(11)),
        None,
        "the old leader wakes nobody"
    );
    assert_eq!(waiting(Some(&slot), &KEY), [2], "but they are still known");
    assert_eq!(
        finish(Some(&slot), &KEY, YOU, Finish::Free, at(12))
            .unwrap()
            .1,
        [2]
    );
}

#[test]
fn who_knows_of_an_invalidation_does_not_join_a_fetch_that_began_before_it() {
    let slot = lead(None, ME, 5);
    let knows = |time| Terms {
        invalidated: Some(at(time)),
        ..terms(9)
    };
    assert!(matches!(
        arrive(Some(&slot), &KEY, YOU, 2, at(9), knows(4)),
        Arrival::Wait(..)
    ));
    assert!(matches!(
        arrive(Some(&slot), &KEY, YOU, 2, at(9), knows(5)),
        Arrival::Succeed(_)
    ));
    let slot = lead(None, REFRESH, 5);
    assert!(matches!(
        arrive(Some(&slot), &KEY, YOU, 2, at(9), knows(5)),
        Arrival::Succeed(_)
    ));
}

#[test]
fn what_was_published_is_handed_over_until_its_time() {
    let handoff = Handoff {
        index: 3,
        sequence: 9,
    };
    let slot = end(&led(), ME, Finish::Published(handoff, at(50)), 1);
    assert_eq!(
        arriving(Some(&slot), &KEY, YOU, 2, 49),
        Arrival::HandedOver(handoff)
    );
    assert!(matches!(
        arriving(Some(&slot), &KEY, YOU, 2, 50),
        Arrival::Lead(_)
    ));
    assert!(matches!(
        arriving(Some(&slot), &OTHER, YOU, 2, 1),
        Arrival::Lead(_)
    ));
    let anew = Terms {
        accept_handed_over: false,
        ..terms(1)
    };
    assert!(matches!(
        arrive(Some(&slot), &KEY, YOU, 2, at(1), anew),
        Arrival::Lead(_)
    ));
}

#[test]
fn under_an_uncacheable_key_nobody_waits_until_the_mark_ends() {
    let slot = end(&led(), ME, Finish::Uncacheable(at(50)), 1);
    assert_eq!(
        arriving(Some(&slot), &KEY, YOU, 2, 49),
        Arrival::Uncacheable(at(50))
    );
    assert!(matches!(
        arriving(Some(&slot), &KEY, YOU, 2, 50),
        Arrival::Lead(_)
    ));
}

#[test]
fn the_second_answer_in_a_row_that_is_for_nobody_else_ends_the_waiting() {
    let slot = end(&led(), ME, Finish::Refused(at(50)), 1);
    let slot = end(&lead(Some(&slot), YOU, 2), YOU, Finish::Refused(at(50)), 3);
    assert_eq!(
        arriving(Some(&slot), &KEY, ME, 1, 4),
        Arrival::Uncacheable(at(50))
    );
    let slot = end(&led(), ME, Finish::Refused(at(50)), 1);
    let slot = end(&lead(Some(&slot), YOU, 2), YOU, Finish::Free, 3);
    let slot = end(&lead(Some(&slot), ME, 4), ME, Finish::Refused(at(50)), 5);
    assert!(
        matches!(arriving(Some(&slot), &KEY, YOU, 1, 6), Arrival::Lead(_)),
        "not in a row"
    );
}

#[test]
fn behind_a_refresh_one_waits_only_if_nothing_may_be_served_stale() {
    let slot = lead(None, REFRESH, 0);
    assert_eq!(arriving(Some(&slot), &KEY, YOU, 2, 1), Arrival::Refreshing);
    let waits = Terms {
        wait_for_refresh: true,
        ..terms(0)
    };
    assert!(matches!(
        arrive(Some(&slot), &KEY, YOU, 2, at(1), waits),
        Arrival::Wait(REFRESH, Some(_))
    ));
}

#[test]
fn a_refresh_that_failed_is_tried_again_after_pauses_that_grow() {
    let mut slot = None;
    let mut now = 0;
    for pause in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        let leading = lead(slot.as_deref(), REFRESH, now);
        let failed = end(&leading, REFRESH, Finish::Failed, now);
        assert_eq!(
            arriving(Some(&failed), &KEY, REFRESH, 1, now + pause - 1),
            Arrival::NotYet(None)
        );
        now += pause;
        slot = Some(failed);
    }
    let leading = lead(slot.as_deref(), REFRESH, now);
    let done = end(&leading, REFRESH, Finish::Fetched, now);
    let failed = end(
        &lead(Some(&done), REFRESH, now),
        REFRESH,
        Finish::Failed,
        now,
    );
    assert!(
        matches!(
            arriving(Some(&failed), &KEY, REFRESH, 1, now + 1_000),
            Arrival::Lead(_)
        ),
        "success forgets"
    );
}

#[test]
fn a_failed_refresh_is_forgotten_after_a_minute_and_keeps_no_request_waiting() {
    let failed = end(&lead(None, REFRESH, 0), REFRESH, Finish::Failed, 0);
    assert!(matches!(
        arriving(Some(&failed), &KEY, ME, 1, 1),
        Arrival::Lead(_)
    ));
    let later = lead(Some(&failed), REFRESH, 61_000);
    let failed = end(&later, REFRESH, Finish::Failed, 61_000);
    assert!(
        matches!(
            arriving(Some(&failed), &KEY, REFRESH, 1, 62_000),
            Arrival::Lead(_)
        ),
        "counted anew"
    );
}

#[test]
fn a_request_that_finds_what_is_stored_ends_no_pause() {
    let failed = end(&lead(None, REFRESH, 0), REFRESH, Finish::Failed, 0);
    let handoff = Handoff {
        index: 3,
        sequence: 9,
    };
    for unchanged in [Finish::Free, Finish::Found(handoff, at(50))] {
        let slot = end(&lead(Some(&failed), ME, 10), ME, unchanged, 11);
        assert_eq!(
            arriving(Some(&slot), &KEY, REFRESH, 1, 999),
            Arrival::NotYet(None),
            "{unchanged:?}"
        );
        let again = end(
            &lead(Some(&slot), REFRESH, 1_000),
            REFRESH,
            Finish::Failed,
            1_000,
        );
        assert_eq!(
            arriving(Some(&again), &KEY, REFRESH, 1, 2_999),
            Arrival::NotYet(None),
            "it has grown"
        );
    }
    for fetched in [Finish::Fetched, Finish::Published(handoff, at(50))] {
        let slot = end(&lead(Some(&failed), ME, 10), ME, fetched, 11);
        assert!(
            matches!(
                arriving(Some(&slot), &KEY, REFRESH, 1, 12),
                Arrival::Lead(_)
            ),
            "{fetched:?}"
        );
    }
}

#[test]
fn the_whole_behind_a_part_is_fetched_the_second_time_it_is_asked_for() {
    let ask = |slot: Option<&[u8]>, now| {
        arrive(
            slot,
            &KEY,
            REFRESH,
            1,
            at(now),
            Terms {
                only_again: true,
                ..terms(now)
            },
        )
    };
    let Arrival::NotYet(Some(slot)) = ask(None, 0) else {
        panic!()
    };
    assert!(matches!(ask(Some(&slot), 29_999), Arrival::Lead(_)));
    assert!(
        matches!(ask(Some(&slot), 30_000), Arrival::NotYet(Some(_))),
        "too long ago"
    );
    assert!(
        matches!(arriving(Some(&slot), &KEY, ME, 1, 1), Arrival::Lead(_)),
        "a request leads at once"
    );
}

#[test]
fn rubbish_in_a_slot_counts_as_free() {
    for rubbish in [&b""[..], b"x", &[1; 7], &[0xff; 64]] {
        assert!(
            matches!(arriving(Some(rubbish), &KEY, ME, 1, 0), Arrival::Lead(_)),
            "{rubbish:?}"
        );
    }
}
