//! Collapsed requests (RFC 9111 §4): one leader fetches, the others wait for its answer.
//!
//! What this decides: who leads, who waits and who goes alone, as pure transitions of one *leader slot*. A slot is a few
//! bytes that all worker VMs of one Envoy share and change by compare-and-swap. What it leaves out: where the bytes lie
//! and how messages travel; that is the filter's `collapsing`.
//!
//! ```text
//!            arrive                    arrive (same key)
//!   Free ───────────────► Leading ─────────────────────► Leading + one more inbox
//!    ▲                       │ finish
//!    └── deadline passed ────┼──────────► Free │ Published (answer in the handoff) │ Uncacheable (nobody waits)
//! ```
//!
//! There is a fixed number of slots. Another key in the same slot is not collapsed; it never waits for a stranger.

use sha2::{Digest, Sha256};

use crate::http_time::Timestamp;
use crate::key::append_part;
use crate::store_api::KeyDigest;
use crate::vary::SelectingFields;

pub mod message;
pub mod slot;

/// What concurrent requests must agree in to become one fetch: the resource, and as far as known the variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CollapseKey(pub [u8; 32]);

impl CollapseKey {
    /// `selecting` holds the values this request has for the fields that are known to select; none while nothing is
    /// known of the resource.
    pub fn new(resource: &KeyDigest, selecting: &SelectingFields) -> Self {
        let mut bytes = resource.0.to_vec();
        for (name, token) in selecting.selectors() {
            append_part(&mut bytes, name.as_bytes());
            append_part(&mut bytes, token.as_bytes());
        }
        Self(Sha256::digest(&bytes).into())
    }

    /// The slot of this key among `slots`.
    pub fn slot_index(&self, slots: u32) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d]) % slots.max(1)
    }
}

/// One stream in one worker VM: who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A random number the VM drew when it started.
    pub vm: u64,
    /// Envoy's context id of the stream; for a background refresh a number with [`Identity::REFRESH`] set.
    pub stream: u32,
}

impl Identity {
    /// Marks a background refresh. Envoy's context ids count up from 1 and do not reach it.
    pub const REFRESH: u32 = 0x8000_0000;

    fn is_refresh(self) -> bool {
        self.stream & Self::REFRESH != 0
    }
}

/// Where a leader left its answer for waiters in other VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// Place in the ring.
    pub index: u32,
    /// Random; a place that holds another number has been used again since.
    pub sequence: u64,
}

/// What became of a leader's fetch, as its slot remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Nothing to remember: the next request leads.
    Free,
    /// The answer lies in the handoff until the given time.
    Published(Handoff, Timestamp),
    /// The answer was not storable: until the given time nobody waits under this key.
    Uncacheable(Timestamp),
}

/// What a request does that arrives at a slot. Bytes are the slot's new content, to be put there if nobody else was
/// faster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Fetch.
    Lead(Vec<u8>),
    /// Wait for the leader; with bytes when this VM's inbox has to be added first.
    Wait(Option<Vec<u8>>),
    /// The answer is there already.
    HandedOver(Handoff),
    /// Look into the store first: what is being refreshed may be served stale meanwhile.
    Refreshing,
    /// Go alone: answers under this key are not storable until then.
    Uncacheable(Timestamp),
    /// Go alone: another key uses this slot.
    Occupied,
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
    use slot::Slot;
    let lead =
        || Arrival::Lead(Slot::Leading { key: *key, leader: me, until: terms.until, inboxes: Vec::new() }.encode());
    match slot.map_or(Slot::Free, Slot::decode) {
        Slot::Leading { until, .. } | Slot::Published { until, .. } | Slot::Uncacheable { until, .. }
            if until <= now =>
        {
            lead()
        }
        Slot::Leading { key: held, .. } if held != *key => Arrival::Occupied,
        Slot::Leading { leader, .. } if leader.is_refresh() && !terms.wait_for_refresh => Arrival::Refreshing,
        Slot::Leading { inboxes, .. } if inboxes.contains(&inbox) => Arrival::Wait(None),
        Slot::Leading { key, leader, until, mut inboxes } => {
            if inboxes.len() >= slot::MAX_INBOXES {
                return Arrival::Occupied;
            }
            inboxes.push(inbox);
            Arrival::Wait(Some(Slot::Leading { key, leader, until, inboxes }.encode()))
        }
        Slot::Published { key: held, handoff, .. } if held == *key && terms.accept_handed_over => {
            Arrival::HandedOver(handoff)
        }
        Slot::Uncacheable { key: held, until } if held == *key => Arrival::Uncacheable(until),
        Slot::Free | Slot::Published { .. } | Slot::Uncacheable { .. } => lead(),
    }
}

/// The slot's new content and the inboxes to wake when `me` has finished. `None` when `me` no longer leads there.
pub fn finish(slot: Option<&[u8]>, key: &CollapseKey, me: Identity, result: Finish) -> Option<(Vec<u8>, Vec<u32>)> {
    use slot::Slot;
    match slot.map(Slot::decode)? {
        Slot::Leading { key: held, leader, inboxes, .. } if held == *key && leader == me => {
            let next = match result {
                Finish::Free => Slot::Free,
                Finish::Published(handoff, until) => Slot::Published { key: *key, handoff, until },
                Finish::Uncacheable(until) => Slot::Uncacheable { key: *key, until },
            };
            Some((next.encode(), inboxes))
        }
        _ => None,
    }
}

/// The slot's new content once `key` was invalidated: what was published must not be found any more. `None` when there is
/// nothing to forget.
pub fn forget(slot: Option<&[u8]>, key: &CollapseKey) -> Option<Vec<u8>> {
    match slot.map(slot::Slot::decode)? {
        slot::Slot::Published { key: held, .. } if held == *key => Some(slot::Slot::Free.encode()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CollapseKey = CollapseKey([1; 32]);
    const OTHER: CollapseKey = CollapseKey([2; 32]);
    const ME: Identity = Identity { vm: 1, stream: 10 };
    const YOU: Identity = Identity { vm: 2, stream: 20 };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn arriving(slot: Option<&[u8]>, key: &CollapseKey, me: Identity, inbox: u32, now: u64) -> Arrival {
        arrive(
            slot,
            key,
            me,
            inbox,
            at(now),
            Terms { until: at(now + 1000), accept_handed_over: true, wait_for_refresh: false },
        )
    }

    fn led() -> Vec<u8> {
        match arriving(None, &KEY, ME, 1, 0) {
            Arrival::Lead(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_to_arrive_leads_and_the_others_wait() {
        let slot = led();
        let Arrival::Wait(Some(slot)) = arriving(Some(&slot), &KEY, YOU, 2, 1) else { panic!() };
        assert_eq!(arriving(Some(&slot), &KEY, YOU, 2, 2), Arrival::Wait(None));
        let (_, woken) = finish(Some(&slot), &KEY, ME, Finish::Free).unwrap();
        assert_eq!(woken, [2]);
    }

    #[test]
    fn another_key_in_the_same_slot_goes_alone() {
        assert_eq!(arriving(Some(&led()), &OTHER, YOU, 2, 1), Arrival::Occupied);
    }

    #[test]
    fn a_leader_past_its_deadline_is_replaced_and_can_no_longer_finish() {
        let Arrival::Lead(slot) = arriving(Some(&led()), &KEY, YOU, 2, 1000) else { panic!() };
        assert_eq!(finish(Some(&slot), &KEY, ME, Finish::Free), None);
        assert!(finish(Some(&slot), &KEY, YOU, Finish::Free).is_some());
    }

    #[test]
    fn what_was_published_is_handed_over_until_its_time() {
        let handoff = Handoff { index: 3, sequence: 9 };
        let (slot, _) = finish(Some(&led()), &KEY, ME, Finish::Published(handoff, at(50))).unwrap();
        assert_eq!(arriving(Some(&slot), &KEY, YOU, 2, 49), Arrival::HandedOver(handoff));
        assert!(matches!(arriving(Some(&slot), &KEY, YOU, 2, 50), Arrival::Lead(_)));
        assert!(matches!(arriving(Some(&slot), &OTHER, YOU, 2, 1), Arrival::Lead(_)));
    }

    #[test]
    fn an_invalidation_takes_what_was_published() {
        let published = Finish::Published(Handoff { index: 3, sequence: 9 }, at(50));
        let (slot, _) = finish(Some(&led()), &KEY, ME, published).unwrap();
        let slot = forget(Some(&slot), &KEY).unwrap();
        assert!(matches!(arriving(Some(&slot), &KEY, YOU, 2, 1), Arrival::Lead(_)));
        assert_eq!(forget(Some(&led()), &KEY), None);
    }

    #[test]
    fn under_an_uncacheable_key_nobody_waits_until_the_mark_ends() {
        let (slot, _) = finish(Some(&led()), &KEY, ME, Finish::Uncacheable(at(50))).unwrap();
        assert_eq!(arriving(Some(&slot), &KEY, YOU, 2, 49), Arrival::Uncacheable(at(50)));
        assert!(matches!(arriving(Some(&slot), &KEY, YOU, 2, 50), Arrival::Lead(_)));
    }

    #[test]
    fn behind_a_refresh_one_waits_only_if_nothing_may_be_served_stale() {
        let refresh = Identity { vm: 3, stream: Identity::REFRESH | 1 };
        let Arrival::Lead(slot) = arriving(None, &KEY, refresh, 3, 0) else { panic!() };
        assert_eq!(arriving(Some(&slot), &KEY, YOU, 2, 1), Arrival::Refreshing);
        let terms = Terms { until: at(1000), accept_handed_over: true, wait_for_refresh: true };
        assert!(matches!(arrive(Some(&slot), &KEY, YOU, 2, at(1), terms), Arrival::Wait(Some(_))));
    }

    #[test]
    fn rubbish_in_a_slot_counts_as_free() {
        for rubbish in [&b""[..], b"x", &[1; 7], &[0xff; 64]] {
            assert!(matches!(arriving(Some(rubbish), &KEY, ME, 1, 0), Arrival::Lead(_)), "{rubbish:?}");
        }
    }
}
