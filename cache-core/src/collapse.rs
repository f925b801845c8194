//! Collapsed requests (RFC 9111 §4): one leader fetches, the others wait for its answer.
//!
//! What this decides: who leads, who waits and who goes alone, as pure transitions of one *leader slot*; which of a key's
//! slots that is; and when a background refresh that failed may be tried again. A slot is a few bytes that all worker VMs
//! of one Envoy share and change by compare-and-swap. What it leaves out: where the bytes lie and how messages travel;
//! that is the filter's `collapsing`.
//!
//! ```text
//!            arrive                    arrive (same key)
//!   Free ───────────────► Leading ─────────────────────► Leading + one more inbox
//!    ▲                     │    └─ given up, or invalidated: the next one leads, the inboxes stay
//!    │                     │ finish
//!    └── deadline passed ──┴─► Free │ Published (answer in the handoff) │ Uncacheable (nobody waits)
//!                              Refused (the next one leads, and then nobody waits) │ Paused (no refresh meanwhile)
//! ```
//!
//! There is a fixed number of slots, and each key may use a few of them ([`CollapseKey::places`]), which nobody outside can
//! foretell. A key that finds all of them taken is not collapsed; it never waits for a stranger.

use larder_contract::http_time::Timestamp;
mod key;
pub mod message;
pub mod pace;
pub mod slot;

pub use key::{CollapseKey, PLACES};
pub use slot::{Handoff, Identity};
use slot::{Pause, Slot};

/// After so many answers in a row that were for their own client alone, nobody waits under the key.
const MAX_REFUSED: u8 = 2;
/// A background refresh that fails for the first time is not tried again for so long; then twice as long each time.
const FIRST_PAUSE_MS: u64 = 1_000;
/// The longest such pause.
const LONGEST_PAUSE_MS: u64 = 30_000;
/// Past its pause, how long a failure is remembered.
const PAUSE_MEMORY_MS: u64 = 60_000;
/// How long it is remembered that a part was asked for.
const ASKED_MEMORY_MS: u64 = 30_000;

/// Which of a key's places it uses: the one that is about it, else the first that is free, else one whose mark may be
/// lost. Where all have leaders, the first.
pub fn choose<'a>(slots: impl IntoIterator<Item = Option<&'a [u8]>>, key: &CollapseKey, now: Timestamp) -> usize {
    let rank = |bytes: Option<&[u8]>| match bytes.map_or(Slot::Free, Slot::decode) {
        slot if slot.is_about(key) => u8::from(!slot.is_live(now)),
        Slot::Leading { until, .. } if now < until => 4,
        slot if slot.is_live(now) => 3,
        _ => 2,
    };
    slots.into_iter().map(rank).enumerate().min_by_key(|(_, rank)| *rank).map_or(0, |(index, _)| index)
}

/// What became of a leader's fetch, as its slot remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Nothing new: the next request leads.
    Free,
    /// The origin answered well.
    Fetched,
    /// The origin answered well, and its answer lies in the handoff until the given time.
    Published(Handoff, Timestamp),
    /// What was stored already lies in the handoff until the given time.
    Found(Handoff, Timestamp),
    /// The answer was not storable: until the given time nobody waits under this key.
    Uncacheable(Timestamp),
    /// The answer was for the leader alone: the next request leads. After two in a row, nobody waits until the
    /// given time.
    Refused(Timestamp),
    /// A background refresh failed: the next one waits a while.
    Failed,
}

/// What a request does that arrives at a slot. Bytes are the slot's new content, to be put there if nobody else was
/// faster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Fetch.
    Lead(Vec<u8>),
    /// Fetch in place of a leader who may still come back: its lease in the store is not waited for.
    Succeed(Vec<u8>),
    /// Wait for this leader; with bytes when this VM's inbox has to be added first.
    Wait(Identity, Option<Vec<u8>>),
    /// The answer is there already.
    HandedOver(Handoff),
    /// Look into the store first: what is being refreshed may be served stale meanwhile.
    Refreshing,
    /// Go alone: answers under this key are not storable until then.
    Uncacheable(Timestamp),
    /// Go alone: other keys use this key's slots.
    Occupied,
    /// For a refresh: not yet; with bytes when that has to be written down.
    NotYet(Option<Vec<u8>>),
}

/// On what terms a request arrives.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// When this request is given up if it leads and does not finish.
    pub until: Timestamp,
    /// Whether an answer that another has just handed over will do.
    pub accept_handed_over: bool,
    /// Whether to wait for a background refresh as for any other leader.
    pub wait_for_refresh: bool,
    /// The leader that this request has waited for as long as it may.
    pub given_up: Option<Identity>,
    /// When the key was last invalidated, as far as this VM knows: what was fetched before does not answer this request.
    pub invalidated: Option<Timestamp>,
    /// For a refresh: whether to lead only if the same was asked for a while before.
    pub only_again: bool,
}

impl Terms {
    /// For one who would lead until then, takes nothing that was fetched before, and knows nothing.
    pub fn until(until: Timestamp) -> Self {
        let (given_up, invalidated) = (None, None);
        Self { until, accept_handed_over: false, wait_for_refresh: false, given_up, invalidated, only_again: false }
    }
}

/// Decides for a request that arrives. `slot` is what the slot holds, `inbox` where this VM can be woken.
pub fn arrive(
    slot: Option<&[u8]>,
    key: &CollapseKey,
    me: Identity,
    inbox: u32,
    now: Timestamp,
    terms: Terms,
) -> Arrival {
    let lead = |setbacks, pause, inboxes| {
        let (key, leader) = (*key, me);
        Slot::Leading { key, leader, began: now, until: terms.until, setbacks, pause, inboxes }.encode()
    };
    let slot = slot.map_or(Slot::Free, Slot::decode);
    if me.is_refresh() {
        return refresh(&slot, key, now, terms, |pause: Pause| lead(pause.failures, pause, Vec::new()));
    }
    let none = Pause::default();
    match slot {
        Slot::Leading { key: held, until, .. } if held != *key && now < until => Arrival::Occupied,
        // Whoever waited for the one before waits for this one.
        Slot::Leading { key: held, until, pause, inboxes, .. } if held == *key && until <= now => {
            Arrival::Lead(lead(0, pause, inboxes))
        }
        Slot::Leading { key: held, leader, began, setbacks, pause, inboxes, .. }
            if held == *key
                && (terms.given_up == Some(leader) || terms.invalidated.is_some_and(|time| began <= time)) =>
        {
            let setbacks = if leader.is_refresh() { 0 } else { setbacks };
            Arrival::Succeed(lead(setbacks, pause, inboxes))
        }
        Slot::Leading { key: held, leader, began, until, setbacks, pause, mut inboxes } if held == *key => {
            if leader.is_refresh() && !terms.wait_for_refresh {
                Arrival::Refreshing
            } else if inboxes.contains(&inbox) {
                Arrival::Wait(leader, None)
            } else if inboxes.len() >= slot::MAX_INBOXES {
                Arrival::Occupied
            } else {
                inboxes.push(inbox);
                let slot = Slot::Leading { key: held, leader, began, until, setbacks, pause, inboxes };
                Arrival::Wait(leader, Some(slot.encode()))
            }
        }
        Slot::Paused { key: held, pause } if held == *key && pause.is_remembered(now) => {
            Arrival::Lead(lead(0, pause, Vec::new()))
        }
        slot if !slot.is_about(key) || !slot.is_live(now) => Arrival::Lead(lead(0, none, Vec::new())),
        Slot::Published { handoff, .. } if terms.accept_handed_over => Arrival::HandedOver(handoff),
        Slot::Uncacheable { until, .. } => Arrival::Uncacheable(until),
        Slot::Refused { setbacks, .. } => Arrival::Lead(lead(setbacks, none, Vec::new())),
        _ => Arrival::Lead(lead(0, none, Vec::new())),
    }
}

/// Decides for a background refresh. It never waits: another's fetch brings what it wants.
fn refresh(
    slot: &Slot,
    key: &CollapseKey,
    now: Timestamp,
    terms: Terms,
    lead: impl FnOnce(Pause) -> Vec<u8>,
) -> Arrival {
    let is_own = slot.is_about(key);
    match slot {
        Slot::Leading { until, .. } if now < *until => Arrival::Occupied,
        Slot::Uncacheable { until, .. } if is_own && now < *until => Arrival::Uncacheable(*until),
        Slot::Paused { pause, .. } if is_own && now < pause.until => Arrival::NotYet(None),
        Slot::Asked { until, .. } if is_own && now < *until => Arrival::Lead(lead(Pause::default())),
        Slot::Paused { pause, .. } if is_own && pause.is_remembered(now) => Arrival::Lead(lead(*pause)),
        _ if terms.only_again => {
            Arrival::NotYet(Some(Slot::Asked { key: *key, until: now.plus_millis(ASKED_MEMORY_MS) }.encode()))
        }
        _ => Arrival::Lead(lead(Pause::default())),
    }
}

impl Pause {
    /// After so many failures in a row, the last one now.
    fn after(failures: u8, now: Timestamp) -> Self {
        let doubled = FIRST_PAUSE_MS << failures.saturating_sub(1).min(16);
        Self { until: now.plus_millis(doubled.min(LONGEST_PAUSE_MS)), failures }
    }

    fn is_remembered(self, now: Timestamp) -> bool {
        self.failures > 0 && now < self.until.plus_millis(PAUSE_MEMORY_MS)
    }
}

/// The slot's new content and the inboxes to wake when `me` has finished. `None` when `me` no longer leads there.
pub fn finish(
    slot: Option<&[u8]>,
    key: &CollapseKey,
    me: Identity,
    result: Finish,
    now: Timestamp,
) -> Option<(Vec<u8>, Vec<u32>)> {
    match slot.map(Slot::decode)? {
        Slot::Leading { key: held, leader, setbacks, pause, inboxes, .. } if held == *key && leader == me => {
            let (key, setbacks) = (*key, setbacks.saturating_add(1));
            let next = match result {
                // Only what the origin says anew ends a pause.
                Finish::Free | Finish::Found(..) if pause.is_remembered(now) => Slot::Paused { key, pause },
                Finish::Free | Finish::Fetched => Slot::Free,
                Finish::Published(handoff, until) | Finish::Found(handoff, until) => {
                    Slot::Published { key, handoff, until }
                }
                Finish::Uncacheable(until) => Slot::Uncacheable { key, until },
                Finish::Refused(until) if setbacks >= MAX_REFUSED => Slot::Uncacheable { key, until },
                Finish::Refused(until) => Slot::Refused { key, until, setbacks },
                Finish::Failed => Slot::Paused { key, pause: Pause::after(setbacks, now) },
            };
            Some((next.encode(), inboxes))
        }
        _ => None,
    }
}

/// Where those wait who could use an answer that comes from a leader that was replaced: the inboxes of the slot, if one
/// leads there under `key`.
pub fn waiting(slot: Option<&[u8]>, key: &CollapseKey) -> Vec<u32> {
    match slot.map(Slot::decode) {
        Some(Slot::Leading { key: held, inboxes, .. }) if held == *key => inboxes,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use larder_contract::key::KeyDigest;

    use super::*;
    use crate::vary::SelectingFields;

    const KEY: CollapseKey = CollapseKey([1; 32]);
    const OTHER: CollapseKey = CollapseKey([2; 32]);
    const ME: Identity = Identity { vm: 1, stream: 10 };
    const YOU: Identity = Identity { vm: 2, stream: 20 };
    const REFRESH: Identity = Identity { vm: 3, stream: Identity::REFRESH | 1 };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn terms(now: u64) -> Terms {
        Terms { accept_handed_over: true, ..Terms::until(at(now + 1000)) }
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
        let Arrival::Wait(ME, Some(slot)) = arriving(Some(&slot), &KEY, YOU, 2, 1) else { panic!() };
        assert_eq!(arriving(Some(&slot), &KEY, YOU, 2, 2), Arrival::Wait(ME, None));
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
        assert_eq!(choose([Some(&*slow), Some(&*free), None, None], &OTHER, at(1)), 1);
        let Arrival::Lead(own) = arriving(Some(&free), &OTHER, YOU, 2, 1) else { panic!() };
        assert_eq!(choose([Some(&*slow), Some(&*own), None, None], &OTHER, at(2)), 1);
        assert_eq!(choose([None, Some(&*own), None, None], &OTHER, at(2)), 1, "the first one is free again");
        assert_eq!(choose([Some(&*slow), Some(&*slow)], &OTHER, at(2)), 0);
        let mark = end(&slow, ME, Finish::Uncacheable(at(50)), 1);
        assert_eq!(choose([Some(&*mark), Some(&*slow), None], &OTHER, at(2)), 2, "a mark is lost last");
        assert_eq!(choose([Some(&*mark), Some(&*slow), Some(&*slow)], &OTHER, at(2)), 0);
    }

    #[test]
    fn where_a_key_lies_depends_on_the_salt_and_fills_all_slots() {
        let key =
            |n: u64| CollapseKey::new(&KeyDigest([u8::try_from(n % 251).unwrap(); 32]), &SelectingFields::default());
        let of = |salt| (0..250).map(|n| key(n).places(4096, salt)).collect::<Vec<_>>();
        assert_ne!(of(1), of(3));
        let all: std::collections::HashSet<u32> = of(0x9e37_79b9_7f4a_7c15).into_iter().flatten().collect();
        assert!(all.len() > 850 && all.iter().all(|place| *place < 4096), "{}", all.len());
        // Keys that meet under one salt do not under most others.
        let (one, meets) =
            (key(0), |salt: u64| (1..250).filter(|n| key(*n).places(16, salt) == key(0).places(16, salt)).count());
        assert!((0..8).map(meets).sum::<usize>() < 8, "{one:?}");
    }

    #[test]
    fn a_leader_past_its_deadline_is_replaced_and_can_no_longer_finish() {
        let Arrival::Lead(slot) = arriving(Some(&led()), &KEY, YOU, 2, 1000) else { panic!() };
        assert_eq!(finish(Some(&slot), &KEY, ME, Finish::Free, at(1001)), None);
        assert!(finish(Some(&slot), &KEY, YOU, Finish::Free, at(1001)).is_some());
    }

    #[test]
    fn the_first_who_gives_a_leader_up_takes_its_place_and_the_others_wait_for_that_one() {
        let Arrival::Wait(_, Some(slot)) = arriving(Some(&led()), &KEY, YOU, 2, 1) else { panic!() };
        let given_up = |now| Terms { given_up: Some(ME), ..terms(now) };
        let Arrival::Succeed(slot) = arrive(Some(&slot), &KEY, YOU, 2, at(10), given_up(10)) else { panic!() };
        let third = Identity { vm: 2, stream: 21 };
        assert_eq!(arrive(Some(&slot), &KEY, third, 2, at(10), given_up(10)), Arrival::Wait(YOU, None));
        assert_eq!(finish(Some(&slot), &KEY, ME, Finish::Free, at(11)), None, "the old leader wakes nobody");
        assert_eq!(waiting(Some(&slot), &KEY), [2], "but they are still known");
        assert_eq!(finish(Some(&slot), &KEY, YOU, Finish::Free, at(12)).unwrap().1, [2]);
    }

    #[test]
    fn who_knows_of_an_invalidation_does_not_join_a_fetch_that_began_before_it() {
        let slot = lead(None, ME, 5);
        let knows = |time| Terms { invalidated: Some(at(time)), ..terms(9) };
        assert!(matches!(arrive(Some(&slot), &KEY, YOU, 2, at(9), knows(4)), Arrival::Wait(..)));
        assert!(matches!(arrive(Some(&slot), &KEY, YOU, 2, at(9), knows(5)), Arrival::Succeed(_)));
        let slot = lead(None, REFRESH, 5);
        assert!(matches!(arrive(Some(&slot), &KEY, YOU, 2, at(9), knows(5)), Arrival::Succeed(_)));
    }

    #[test]
    fn what_was_published_is_handed_over_until_its_time() {
        let handoff = Handoff { index: 3, sequence: 9 };
        let slot = end(&led(), ME, Finish::Published(handoff, at(50)), 1);
        assert_eq!(arriving(Some(&slot), &KEY, YOU, 2, 49), Arrival::HandedOver(handoff));
        assert!(matches!(arriving(Some(&slot), &KEY, YOU, 2, 50), Arrival::Lead(_)));
        assert!(matches!(arriving(Some(&slot), &OTHER, YOU, 2, 1), Arrival::Lead(_)));
        let anew = Terms { accept_handed_over: false, ..terms(1) };
        assert!(matches!(arrive(Some(&slot), &KEY, YOU, 2, at(1), anew), Arrival::Lead(_)));
    }

    #[test]
    fn under_an_uncacheable_key_nobody_waits_until_the_mark_ends() {
        let slot = end(&led(), ME, Finish::Uncacheable(at(50)), 1);
        assert_eq!(arriving(Some(&slot), &KEY, YOU, 2, 49), Arrival::Uncacheable(at(50)));
        assert!(matches!(arriving(Some(&slot), &KEY, YOU, 2, 50), Arrival::Lead(_)));
    }

    #[test]
    fn the_second_answer_in_a_row_that_is_for_nobody_else_ends_the_waiting() {
        let slot = end(&led(), ME, Finish::Refused(at(50)), 1);
        let slot = end(&lead(Some(&slot), YOU, 2), YOU, Finish::Refused(at(50)), 3);
        assert_eq!(arriving(Some(&slot), &KEY, ME, 1, 4), Arrival::Uncacheable(at(50)));
        let slot = end(&led(), ME, Finish::Refused(at(50)), 1);
        let slot = end(&lead(Some(&slot), YOU, 2), YOU, Finish::Free, 3);
        let slot = end(&lead(Some(&slot), ME, 4), ME, Finish::Refused(at(50)), 5);
        assert!(matches!(arriving(Some(&slot), &KEY, YOU, 1, 6), Arrival::Lead(_)), "not in a row");
    }

    #[test]
    fn behind_a_refresh_one_waits_only_if_nothing_may_be_served_stale() {
        let slot = lead(None, REFRESH, 0);
        assert_eq!(arriving(Some(&slot), &KEY, YOU, 2, 1), Arrival::Refreshing);
        let waits = Terms { wait_for_refresh: true, ..terms(0) };
        assert!(matches!(arrive(Some(&slot), &KEY, YOU, 2, at(1), waits), Arrival::Wait(REFRESH, Some(_))));
    }

    #[test]
    fn a_refresh_that_failed_is_tried_again_after_pauses_that_grow() {
        let mut slot = None;
        let mut now = 0;
        for pause in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            let leading = lead(slot.as_deref(), REFRESH, now);
            let failed = end(&leading, REFRESH, Finish::Failed, now);
            assert_eq!(arriving(Some(&failed), &KEY, REFRESH, 1, now + pause - 1), Arrival::NotYet(None));
            now += pause;
            slot = Some(failed);
        }
        let leading = lead(slot.as_deref(), REFRESH, now);
        let done = end(&leading, REFRESH, Finish::Fetched, now);
        let failed = end(&lead(Some(&done), REFRESH, now), REFRESH, Finish::Failed, now);
        assert!(matches!(arriving(Some(&failed), &KEY, REFRESH, 1, now + 1_000), Arrival::Lead(_)), "success forgets");
    }

    #[test]
    fn a_failed_refresh_is_forgotten_after_a_minute_and_keeps_no_request_waiting() {
        let failed = end(&lead(None, REFRESH, 0), REFRESH, Finish::Failed, 0);
        assert!(matches!(arriving(Some(&failed), &KEY, ME, 1, 1), Arrival::Lead(_)));
        let later = lead(Some(&failed), REFRESH, 61_000);
        let failed = end(&later, REFRESH, Finish::Failed, 61_000);
        assert!(matches!(arriving(Some(&failed), &KEY, REFRESH, 1, 62_000), Arrival::Lead(_)), "counted anew");
    }

    #[test]
    fn a_request_that_finds_what_is_stored_ends_no_pause() {
        let failed = end(&lead(None, REFRESH, 0), REFRESH, Finish::Failed, 0);
        let handoff = Handoff { index: 3, sequence: 9 };
        for unchanged in [Finish::Free, Finish::Found(handoff, at(50))] {
            let slot = end(&lead(Some(&failed), ME, 10), ME, unchanged, 11);
            assert_eq!(arriving(Some(&slot), &KEY, REFRESH, 1, 999), Arrival::NotYet(None), "{unchanged:?}");
            let again = end(&lead(Some(&slot), REFRESH, 1_000), REFRESH, Finish::Failed, 1_000);
            assert_eq!(arriving(Some(&again), &KEY, REFRESH, 1, 2_999), Arrival::NotYet(None), "it has grown");
        }
        for fetched in [Finish::Fetched, Finish::Published(handoff, at(50))] {
            let slot = end(&lead(Some(&failed), ME, 10), ME, fetched, 11);
            assert!(matches!(arriving(Some(&slot), &KEY, REFRESH, 1, 12), Arrival::Lead(_)), "{fetched:?}");
        }
    }

    #[test]
    fn the_whole_behind_a_part_is_fetched_the_second_time_it_is_asked_for() {
        let ask = |slot: Option<&[u8]>, now| {
            arrive(slot, &KEY, REFRESH, 1, at(now), Terms { only_again: true, ..terms(now) })
        };
        let Arrival::NotYet(Some(slot)) = ask(None, 0) else { panic!() };
        assert!(matches!(ask(Some(&slot), 29_999), Arrival::Lead(_)));
        assert!(matches!(ask(Some(&slot), 30_000), Arrival::NotYet(Some(_))), "too long ago");
        assert!(matches!(arriving(Some(&slot), &KEY, ME, 1, 1), Arrival::Lead(_)), "a request leads at once");
    }

    #[test]
    fn rubbish_in_a_slot_counts_as_free() {
        for rubbish in [&b""[..], b"x", &[1; 7], &[0xff; 64]] {
            assert!(matches!(arriving(Some(rubbish), &KEY, ME, 1, 0), Arrival::Lead(_)), "{rubbish:?}");
        }
    }
}
