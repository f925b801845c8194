//! Stories of a fleet: workers that hand over, Envoys that share a store, leases and what breaks
//! them.

use larder_cache_core::policy::Policy;

use crate::fleet::{Answer, Fleet};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const SWR: (&str, &str) = ("cache-control", "max-age=3, stale-while-revalidate=60");
const TAG: (&str, &str) = ("etag", "\"1\"");

fn fresh() -> Answer {
    Answer::new(200, &[FRESH])
}

/// An origin whose first answer takes this long, and all others a second.
fn slow_first(after_ms: u64) -> impl FnMut() -> Answer {
    let mut first = true;
    move || {
        let after_ms = if std::mem::take(&mut first) {
            after_ms
        } else {
            1_000
        };
        Answer {
            after_ms,
            ..fresh()
        }
    }
}

#[test]
fn two_workers_share_one_fetch_by_hand_over() {
    let policy = Policy {
        shared_store: false,
        ..Policy::default()
    };
    let mut fleet = Fleet::of(&[2], policy, fresh);
    fleet.send_to(0, 1, &[]);
    fleet.pass_ms(500);
    fleet.send_to(1, 5, &[]);
    fleet.pass_ms(600);
    assert_eq!(
        (fleet.fetches.len(), fleet.answered().len()),
        (1, 6),
        "those who waited"
    );
    assert!(fleet.got()[1].says("collapsed"));
    fleet.send_to(1, 1, &[]);
    assert_eq!(fleet.fetches.len(), 1, "and who came just after");
    assert!(fleet.got()[6].is_hit());
}

#[test]
fn two_envoys_share_one_fetch_by_lease() {
    let mut fleet = Fleet::of(&[1, 1], Policy::default(), fresh);
    fleet.send_to(0, 10, &[]);
    fleet.send_to(1, 10, &[]);
    fleet.pass_ms(999);
    assert_eq!((fleet.answered().len(), fleet.store.granted), (0, 1));
    fleet.pass_ms(1);
    assert_eq!(
        (fleet.fetches.len(), fleet.answered().len()),
        (1, 20),
        "the held look-up gets what was published"
    );
    assert!(fleet.got()[10].is_hit(), "{:?}", fleet.got()[10]);
}

#[test]
fn where_a_leaders_lease_lapses_another_leads_and_the_late_write_is_refused() {
    let mut fleet = Fleet::of(&[1, 1], Policy::default(), slow_first(60_000));
    fleet.send_to(0, 1, &[]);
    fleet.pass_ms(25_000);
    fleet.send_to(1, 1, &[]);
    fleet.pass_ms(4_999);
    assert_eq!(fleet.fetches, [0]);
    fleet.pass_ms(1);
    assert_eq!(
        (fleet.fetches.as_slice(), fleet.store.granted),
        ([0, 30_000].as_slice(), 2)
    );
    fleet.pass_ms(40_000);
    assert_eq!((fleet.answered().len(), fleet.store.refused), (2, 1));
}

#[test]
fn a_stale_entry_of_the_store_is_validated_under_its_lease() {
    let stale = ("cache-control", "max-age=1");
    let mut answers = vec![
        Answer::new(304, &[FRESH, TAG]),
        Answer::new(200, &[stale, TAG]),
    ];
    let mut fleet = Fleet::of(&[1, 1], Policy::default(), move || answers.pop().unwrap());
    fleet.send_to(0, 1, &[]);
    fleet.pass_ms(5_000);
    fleet.send_to(1, 1, &[]);
    fleet.pass_ms(1_000);
    assert_eq!(
        fleet.sent[1].get("if-none-match"),
        Some(b"\"1\"".as_slice())
    );
    assert!(fleet.got()[1].says("fwd=stale; fwd-status=304; stored"));
    assert_eq!((fleet.store.granted, fleet.store.refused), (2, 0));
    fleet.send_to(0, 1, &[]);
    assert!(fleet.got()[2].is_hit(), "the other Envoy finds it fresh");
}

#[test]
fn a_write_after_an_invalidation_is_refused() {
    let mut fleet = Fleet::of(&[1, 1], Policy::default(), fresh);
    fleet.send_to(0, 1, &[]);
    fleet.pass_ms(500);
    fleet.invalidate();
    fleet.pass_ms(1_000);
    assert_eq!((fleet.answered().len(), fleet.store.refused), (1, 1));
    fleet.send_to(1, 1, &[]);
    assert_eq!(fleet.fetches.len(), 2, "nothing was stored");
}

#[test]
fn one_envoy_alone_leads_a_refresh() {
    let mut fleet = Fleet::of(&[2, 2], Policy::default(), || Answer::new(200, &[SWR, TAG]));
    for vm in 0..4 {
        fleet.send_to(vm, 1, &[]);
    }
    fleet.pass_ms(1_000);
    assert_eq!((fleet.fetches.len(), fleet.answered().len()), (1, 4));
    fleet.pass_ms(5_000);
    for vm in 0..4 {
        fleet.send_to(vm, 3, &[]);
    }
    assert_eq!(
        (fleet.fetches.len(), fleet.answered().len()),
        (2, 16),
        "all are answered stale at once"
    );
    fleet.pass_ms(1_000);
    fleet.send_to(2, 1, &[]);
    assert_eq!(fleet.fetches.len(), 2, "what it brought is the fleet's");
}
