//! Which variant leaves when a resource has more of them than are kept.
//!
//! Anybody can make variants: by a lifetime in the query override, by a value that a `Vary` field
//! has never had. So the number of variants is bounded, and who floods a resource evicts his own,
//! not the variant that everybody uses.
//!
//! What this decides: the order in which variants leave. What it leaves out: how many are kept, and
//! how uses are counted; level 1 and the stores do that, each as well as it can.
//! `sidecar/src/store/write.lua` says the same in Lua.

use crate::http_time::Timestamp;

/// What is known of one variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many requests it has answered, as far as whoever keeps it has seen.
    pub uses: u32,
    /// When it was received.
    pub received: Timestamp,
    /// Whether it is stale beyond any use but validation.
    pub spent: bool,
}

/// More uses than this show that a variant is wanted by more than whoever made it.
const OWN_USES: u32 = 1;

/// The index of the variant that leaves first. `None` when there is none.
///
/// What is spent goes first. Then, of those that have answered one request at most, the oldest of
/// the newer half: those that were there before a flood stay, and a newcomer has time to show that
/// it is wanted. Only when every variant has answered more does one of these go, the least used, of
/// equals the oldest.
pub fn first_to_go(standings: &[Standing]) -> Option<usize> {
    let oldest_first = |indices: &mut Vec<usize>| {
        indices.sort_by_key(|index| standings.get(*index).map(|standing| standing.received));
    };
    let those = |wanted: &dyn Fn(&Standing) -> bool| {
        let all = standings.iter().enumerate();
        let mut indices: Vec<usize> = all
            .filter(|(_, standing)| wanted(standing))
            .map(|(index, _)| index)
            .collect();
        oldest_first(&mut indices);
        indices
    };
    let spent = those(&|standing| standing.spent);
    let unproven = those(&|standing| standing.uses <= OWN_USES);
    let least = standings.iter().map(|standing| standing.uses).min()?;
    let least_used = those(&|standing| standing.uses == least);
    spent
        .first()
        .or_else(|| unproven.get(unproven.len() / 2))
        .or_else(|| least_used.first())
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn standing(uses: u32, received: u64) -> Standing {
        Standing {
            uses,
            received: Timestamp::from_millis(received),
            spent: false,
        }
    }

    #[test]
    fn of_wanted_variants_the_least_used_goes_and_of_equals_the_oldest() {
        assert_eq!(
            first_to_go(&[standing(5, 1), standing(2, 3), standing(2, 2)]),
            Some(2)
        );
        assert_eq!(first_to_go(&[standing(5, 9)]), Some(0));
        assert_eq!(first_to_go(&[]), None);
    }

    #[test]
    fn what_is_spent_goes_first_however_often_it_was_used() {
        let spent = Standing {
            spent: true,
            ..standing(99, 1)
        };
        assert_eq!(
            first_to_go(&[standing(0, 2), spent, standing(9, 3)]),
            Some(1)
        );
    }

    #[test]
    fn who_floods_evicts_his_own() {
        const MOST: usize = 32;
        // The one that everybody uses; beside it one that was there before and is used elsewhere.
        let mut held = vec![standing(2, 0), standing(0, 1)];
        for n in 0..3_000 {
            while held.len() >= MOST {
                held.remove(first_to_go(&held).unwrap());
            }
            held.push(standing(n % 2, 10 + u64::from(n)));
        }
        assert_eq!(held[..2], [standing(2, 0), standing(0, 1)]);
    }

    proptest! {
        #[test]
        fn what_many_use_never_goes_before_what_one_made(
            all in proptest::collection::vec((0u32..5, 0u64..50), 1..40),
        ) {
            let all: Vec<Standing> = all.into_iter().map(|(uses, received)| standing(uses, received)).collect();
            let gone = all[first_to_go(&all).unwrap()];
            prop_assert!(gone.uses <= OWN_USES || all.iter().all(|other| other.uses >= gone.uses));
        }

        #[test]
        fn a_newcomer_outlives_some_others(most in 2usize..40) {
            let mut held: Vec<Standing> = (0..most as u64).map(|n| standing(0, n)).collect();
            let newcomer = standing(0, 1_000);
            held.push(newcomer);
            for n in 0..most as u64 / 2 {
                held.remove(first_to_go(&held).unwrap());
                prop_assert!(held.contains(&newcomer), "{n}");
                held.push(standing(0, 2_000 + n));
            }
        }
    }
}
