//! The laws of the stored responses of one key.

use larder_contract::http_time::DeltaSeconds;
use larder_contract::key::KeyDigest;
use larder_contract::purge::Scope;
use larder_contract::purge::remembered::Remembered;
use proptest::prelude::*;

use super::*;
use crate::stored_response::ReuseTerms;
use crate::vary::SelectingFields;

const BOUNDS: Bounds = Bounds {
    number: 4,
    bytes: 8_000,
};
const KEY: KeyDigest = KeyDigest([7; 32]);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + millis)
}

/// All times of the tests but those from the future are before this.
fn now() -> Timestamp {
    at(100)
}

fn asking(variant: u8) -> Request {
    Request::new("GET", "a", "/").with("v", &variant.to_string())
}

/// One response: the variant it is, when it was requested, its size, and whether it carries the
/// tag.
#[derive(Clone, Copy, Debug)]
struct Given {
    variant: u8,
    requested: u64,
    bytes: usize,
    tagged: bool,
}

impl Given {
    fn response(self) -> Arc<StoredResponse> {
        // Variant 0 has no selecting field: it matches beside every other.
        let names: &[Vec<u8>] = if self.variant == 0 {
            &[]
        } else {
            &[b"v".to_vec()]
        };
        Arc::new(StoredResponse {
            body: vec![0; self.bytes].into(),
            request_time: at(self.requested),
            response_time: at(self.requested),
            terms: ReuseTerms {
                lifetime: DeltaSeconds::new(60),
                ..ReuseTerms::default()
            },
            selecting: SelectingFields::of(names, &asking(self.variant)).unwrap(),
            tags: if self.tagged {
                vec!["tag".to_owned()]
            } else {
                Vec::new()
            },
            ..StoredResponse::example()
        })
    }
}

fn given() -> impl Strategy<Value = Given> {
    // Some come from the future.
    let requested = prop_oneof![9 => 1..100u64, 1 => 5_000..6_000u64];
    (0..7u8, requested, 0..3_000usize, any::<bool>()).prop_map(
        |(variant, requested, bytes, tagged)| Given {
            variant,
            requested,
            bytes,
            tagged,
        },
    )
}

fn several() -> impl Strategy<Value = Vec<Given>> {
    proptest::collection::vec(given(), 0..12)
}

/// Purges of the key, hard and soft: few enough for soft ones to be told apart.
fn purges() -> impl Strategy<Value = Vec<(bool, u64)>> {
    proptest::collection::vec((any::<bool>(), 0..100u64), 0..4)
}

fn nothing_purged() -> Marks {
    Marks::new(1 << 16)
}

fn put(variants: &mut Variants, given: Given) -> Put {
    let marks = nothing_purged();
    variants.put(
        given.response(),
        &Untrue {
            key: Times::default(),
            purges: &marks,
        },
        BOUNDS,
        now(),
    )
}

fn all_of(given: &[Given]) -> Variants {
    let mut variants = Variants::default();
    for given in given {
        put(&mut variants, *given);
    }
    variants
}

fn of_key(soft: bool, time: u64) -> Purge {
    Purge {
        scope: Scope::Key(KEY),
        soft,
        at_ms: at(time),
    }
}

fn purged(mut variants: Variants, purges: impl IntoIterator<Item = (bool, u64)>) -> Variants {
    for (soft, time) in purges {
        variants.purge(&of_key(soft, time));
    }
    variants
}

/// What is kept, but for its order.
fn seen(variants: &Variants) -> Vec<(String, Timestamp, Option<Timestamp>)> {
    let one = |held: Variant| {
        (
            format!("{:?}", held.stored.selecting),
            held.stored.response_time,
            held.stored.stale_from,
        )
    };
    let mut seen: Vec<_> = variants.all().map(one).collect();
    seen.sort();
    seen
}

#[test]
fn of_several_matches_the_one_received_last_counts() {
    let at = |millis| {
        let response_time = Timestamp::from_millis(millis);
        Arc::new(StoredResponse {
            response_time,
            ..StoredResponse::example()
        })
    };
    let variants = [at(1), at(3), at(2)];
    assert_eq!(select(&variants, &asking(1)), Some(&variants[1]));
}

#[test]
fn uses_are_counted_where_they_are_seen_and_survive_a_renewal() {
    let mut variants = Variants::default();
    let one = Given {
        variant: 1,
        requested: 1,
        bytes: 0,
        tagged: false,
    };
    put(&mut variants, one);
    variants.count_look_up();
    put(&mut variants, Given { variant: 2, ..one });
    variants.count_look_up();
    let first = variants.stored()[0].clone();
    variants.count_use(&first);
    variants.count_use(&one.response());
    put(
        &mut variants,
        Given {
            requested: 2,
            ..one
        },
    );
    let uses = |variant: u8| {
        variants
            .all()
            .find(|held| held.stored.selecting.matches(&asking(variant)))
            .unwrap()
            .uses
    };
    assert_eq!(
        (uses(1), uses(2)),
        (2, 0),
        "the sole one at its look-up, then what is said to have answered"
    );
}

#[test]
fn what_is_already_stale_for_as_long_is_left_as_it_is() {
    let variants = purged(
        all_of(&[Given {
            variant: 1,
            requested: 1,
            bytes: 0,
            tagged: false,
        }]),
        [(true, 10)],
    );
    let mut again = variants.clone();
    assert!(!again.purge(&of_key(true, 20)));
    assert!(
        Rc::ptr_eq(variants.stored(), again.stored()),
        "nothing is copied"
    );
}

proptest! {
    #[test]
    fn to_put_something_twice_is_to_put_it_once(before in several(), given in given()) {
        let mut variants = all_of(&before);
        put(&mut variants, given);
        let once = seen(&variants);
        put(&mut variants, given);
        prop_assert_eq!(seen(&variants), once);
    }

    #[test]
    fn an_older_one_never_replaces_a_newer_and_what_comes_from_the_future_is_not_newer(
        before in several(), given in given(),
    ) {
        let mut variants = all_of(&before);
        let new = given.response();
        let held = variants.stored().iter().find(|held| held.selecting == new.selecting).cloned();
        let is_older = held.as_ref().is_some_and(|held| {
            held.response_time <= now().plus_millis(1_000) && held.response_time > new.response_time
        });
        prop_assert_eq!(put(&mut variants, given), if is_older { Put::Older } else { Put::Kept });
        let kept = variants.stored().iter().filter(|held| held.selecting == new.selecting);
        let kept: Vec<_> = kept.map(|held| held.response_time).collect();
        let expected = if is_older { held.unwrap().response_time } else { new.response_time };
        prop_assert_eq!(kept, [expected], "and there is one of each variant");
    }

    #[test]
    fn nothing_requested_before_an_invalidation_is_selected_ever_again(
        before in several(), behind in several(), time in 0..100u64, soft in any::<bool>(), by_mark in any::<bool>(),
    ) {
        let mut variants = all_of(&before);
        let (mut remembered, mut marks) = (Remembered::new(8), nothing_purged());
        if by_mark {
            marks.add(&Purge { scope: Scope::Everything, soft, at_ms: at(time) });
        } else {
            variants.purge(&of_key(soft, time));
            remembered.add(KEY, at(time), soft, now());
        }
        for given in before.iter().chain(&behind) {
            let untrue = Untrue { key: remembered.of_arriving(|| KEY), purges: &marks };
            let verdict = variants.put(given.response(), &untrue, BOUNDS, now());
            prop_assert_eq!(verdict == Put::Untrue, !soft && given.requested <= time);
        }
        variants.judge(&marks);
        for held in variants.stored().iter().filter(|held| held.request_time <= at(time)) {
            prop_assert!(soft && held.stale_from.is_some_and(|since| since <= at(time)), "{:?}", held);
        }
    }

    #[test]
    fn what_is_requested_in_the_future_is_reached_by_what_becomes_untrue_from_now_on(before in several()) {
        let variants = purged(all_of(&before), [(false, 100)]);
        prop_assert!(variants.is_empty());
    }

    #[test]
    fn a_soft_purge_and_then_a_hard_one_are_the_hard_one(before in several(), time in 0..100u64) {
        let variants = all_of(&before);
        let both = purged(variants.clone(), [(true, time), (false, time)]);
        prop_assert_eq!(seen(&both), seen(&purged(variants, [(false, time)])));
    }

    #[test]
    fn the_order_of_purges_does_not_matter_nor_whether_they_are_carried_out_late(
        before in several(), purges in purges(),
    ) {
        let variants = all_of(&before);
        let forwards = purged(variants.clone(), purges.clone());
        let backwards = purged(variants.clone(), purges.iter().rev().copied());
        prop_assert_eq!(seen(&forwards), seen(&backwards));
        let mut marks = nothing_purged();
        for (soft, time) in purges {
            marks.add(&Purge { scope: Scope::Everything, ..of_key(soft, time) });
        }
        let mut late = variants;
        late.judge(&marks);
        prop_assert_eq!(seen(&late), seen(&forwards));
    }

    #[test]
    fn a_purge_by_tag_reaches_what_carries_it_and_nothing_else(before in several(), time in 0..100u64) {
        let mut variants = all_of(&before);
        let untagged = |variants: &Variants| variants.stored().iter().filter(|held| held.tags.is_empty()).count();
        let without = untagged(&variants);
        let mut marks = nothing_purged();
        marks.add(&Purge { scope: Scope::Tag("tag".to_owned()), soft: false, at_ms: at(time) });
        variants.judge(&marks);
        prop_assert_eq!(untagged(&variants), without);
        prop_assert!(variants.all().all(|held| held.stored.tags.is_empty() || held.requested > at(time)));
        prop_assert!(!variants.judge(&marks), "once is enough");
    }

    #[test]
    fn never_more_are_kept_than_may_be_and_the_newcomer_is_among_them(before in several(), given in given()) {
        let mut variants = all_of(&before);
        if put(&mut variants, given) == Put::Kept {
            let new = given.response();
            prop_assert!(variants.stored().iter().any(|held| **held == *new));
        }
        prop_assert!(variants.stored().len() <= BOUNDS.number);
        prop_assert!(variants.weight() as u64 <= BOUNDS.bytes || variants.stored().len() == 1);
        prop_assert_eq!(variants.stored().len(), variants.standings.len());
    }

    #[test]
    fn what_is_selected_is_kept_matches_and_is_the_last_received(before in several(), asked in 0..8u8) {
        let variants = all_of(&before);
        let matching = |held: &&Arc<StoredResponse>| held.selecting.matches(&asking(asked));
        let last = variants.stored().iter().filter(matching).map(|held| held.response_time).max();
        match select(variants.stored(), &asking(asked)) {
            Some(selected) => {
                prop_assert!(variants.stored().contains(selected) && matching(&selected));
                prop_assert_eq!(Some(selected.response_time), last);
            }
            None => prop_assert_eq!(last, None),
        }
    }
}
