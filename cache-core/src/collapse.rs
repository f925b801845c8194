//! Collapsed requests (RFC 9111 §4): one leader fetches, the others wait for its answer.
//!
//! What this decides: who leads, who waits and who goes alone, as pure transitions of one *leader
//! slot*; which of a key's slots that is; and when a background refresh that failed may be tried
//! again. A slot is a few bytes that all worker VMs of one Envoy share and change by
//! compare-and-swap. What it leaves out: where the bytes lie and how messages travel; that is the
//! filter's `collapsing`.
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
//! There is a fixed number of slots, and each key may use a few of them ([`CollapseKey::places`]),
//! which nobody outside can foretell. A key that finds all of them taken is not collapsed; it never
//! waits for a stranger.

use larder_contract::http_time::Timestamp;
mod key;
pub mod message;
pub mod pace;
pub mod slot;

pub use key::{CollapseKey, PLACES};
pub use slot::{Handoff, Identity};
use slot::{Lead, Pause, Slot};

/// After so many answers in a row that were for their own client alone, nobody waits under the key.
const MAX_REFUSED: u8 = 2;
/// A background refresh that fails for the first time is not tried again for so long; then twice as
/// long each time.
const FIRST_PAUSE_MS: u64 = 1_000;
/// The longest such pause.
const LONGEST_PAUSE_MS: u64 = 30_000;
/// Past its pause, how long a failure is remembered.
const PAUSE_MEMORY_MS: u64 = 60_000;
/// How long it is remembered that a part was asked for.
const ASKED_MEMORY_MS: u64 = 30_000;

/// Which of a key's places it uses: the one that is about it, else the first that is free, else one
/// whose mark may be lost. Where all have leaders, the first.
pub fn choose<'a>(
    slots: impl IntoIterator<Item = Option<&'a [u8]>>,
    key: &CollapseKey,
    now: Timestamp,
) -> usize {
    let rank = |bytes: Option<&[u8]>| match bytes.map_or(Slot::Free, Slot::decode) {
        slot if slot.is_about(key) => u8::from(!slot.is_live(now)),
        Slot::Leading(lead) if now < lead.until => 4,
        slot if slot.is_live(now) => 3,
        _ => 2,
    };
    slots
        .into_iter()
        .map(rank)
        .enumerate()
        .min_by_key(|(_, rank)| *rank)
        .map_or(0, |(index, _)| index)
}

/// Whether a slot says something of `key` that still counts.
pub fn speaks_of(slot: Option<&[u8]>, key: &CollapseKey, now: Timestamp) -> bool {
    let slot = slot.map_or(Slot::Free, Slot::decode);
    slot.is_about(key) && slot.is_live(now)
}

/// Until when somebody leads in a slot, if somebody does.
pub fn led_until(slot: &[u8]) -> Option<Timestamp> {
    match Slot::decode(slot) {
        Slot::Leading(lead) => Some(lead.until),
        _ => None,
    }
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
    /// The answer was for the leader alone: the next request leads. After two in a row, nobody
    /// waits until the given time.
    Refused(Timestamp),
    /// A background refresh failed: the next one waits a while.
    Failed,
}

/// What a request does that arrives at a slot. Bytes are the slot's new content, to be put there if
/// nobody else was faster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Fetch.
    Lead(Vec<u8>),
    /// Fetch in place of a leader who may still come back: its lease in the store is not waited
    /// for.
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
    /// When the key was last invalidated, as far as this VM knows: what was fetched before does not
    /// answer this request.
    pub invalidated: Option<Timestamp>,
    /// For a refresh: whether to lead only if the same was asked for a while before.
    pub only_again: bool,
}

impl Terms {
    /// For one who would lead until then, takes nothing that was fetched before, and knows nothing.
    pub fn until(until: Timestamp) -> Self {
        let (given_up, invalidated) = (None, None);
        Self {
            until,
            accept_handed_over: false,
            wait_for_refresh: false,
            given_up,
            invalidated,
            only_again: false,
        }
    }

    /// Whether a leader that began then will not do.
    fn replace(&self, leader: Identity, began: Timestamp) -> bool {
        self.given_up == Some(leader) || self.invalidated.is_some_and(|time| began <= time)
    }
}

/// Decides for a request that arrives. `slot` is what the slot holds, `inbox` where this VM can be
/// woken.
pub fn arrive(
    slot: Option<&[u8]>,
    key: &CollapseKey,
    me: Identity,
    inbox: u32,
    now: Timestamp,
    terms: Terms,
) -> Arrival {
    let lead = |setbacks, pause, inboxes| {
        let lead = Lead {
            key: *key,
            leader: me,
            began: now,
            until: terms.until,
            setbacks,
            pause,
            inboxes,
        };
        Slot::Leading(lead).encode()
    };
    let slot = slot.map_or(Slot::Free, Slot::decode);
    if me.is_refresh() {
        return refresh(&slot, key, now, terms, |pause: Pause| {
            lead(pause.failures, pause, Vec::new())
        });
    }
    let none = Pause::default();
    match slot {
        Slot::Leading(held) if held.key != *key && now < held.until => Arrival::Occupied,
        Slot::Leading(held) if held.key == *key => meet(held, inbox, now, terms, lead),
        Slot::Paused { key: held, pause } if held == *key && pause.is_remembered(now) => {
            Arrival::Lead(lead(0, pause, Vec::new()))
        }
        slot if !slot.is_about(key) || !slot.is_live(now) => {
            Arrival::Lead(lead(0, none, Vec::new()))
        }
        Slot::Published { handoff, .. } if terms.accept_handed_over => Arrival::HandedOver(handoff),
        Slot::Uncacheable { until, .. } => Arrival::Uncacheable(until),
        Slot::Refused { setbacks, .. } => Arrival::Lead(lead(setbacks, none, Vec::new())),
        _ => Arrival::Lead(lead(0, none, Vec::new())),
    }
}

/// Decides where a leader of the same key is met.
fn meet(
    mut held: Lead,
    inbox: u32,
    now: Timestamp,
    terms: Terms,
    lead: impl FnOnce(u8, Pause, Vec<u32>) -> Vec<u8>,
) -> Arrival {
    let leader = held.leader;
    if held.until <= now {
        // Whoever waited for the one before waits for this one.
        Arrival::Lead(lead(0, held.pause, held.inboxes))
    } else if terms.replace(leader, held.began) {
        let setbacks = if leader.is_refresh() {
            0
        } else {
            held.setbacks
        };
        Arrival::Succeed(lead(setbacks, held.pause, held.inboxes))
    } else if leader.is_refresh() && !terms.wait_for_refresh {
        Arrival::Refreshing
    } else if held.inboxes.contains(&inbox) {
        Arrival::Wait(leader, None)
    } else if held.inboxes.len() >= slot::MAX_INBOXES {
        Arrival::Occupied
    } else {
        held.inboxes.push(inbox);
        Arrival::Wait(leader, Some(Slot::Leading(held).encode()))
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
        Slot::Leading(lead) if now < lead.until => Arrival::Occupied,
        Slot::Uncacheable { until, .. } if is_own && now < *until => Arrival::Uncacheable(*until),
        Slot::Paused { pause, .. } if is_own && now < pause.until => Arrival::NotYet(None),
        Slot::Asked { until, .. } if is_own && now < *until => {
            Arrival::Lead(lead(Pause::default()))
        }
        Slot::Paused { pause, .. } if is_own && pause.is_remembered(now) => {
            Arrival::Lead(lead(*pause))
        }
        _ if terms.only_again => Arrival::NotYet(Some(
            Slot::Asked {
                key: *key,
                until: now.plus_millis(ASKED_MEMORY_MS),
            }
            .encode(),
        )),
        _ => Arrival::Lead(lead(Pause::default())),
    }
}

impl Pause {
    /// After so many failures in a row, the last one now.
    fn after(failures: u8, now: Timestamp) -> Self {
        let doubled = FIRST_PAUSE_MS << failures.saturating_sub(1).min(16);
        Self {
            until: now.plus_millis(doubled.min(LONGEST_PAUSE_MS)),
            failures,
        }
    }

    fn is_remembered(self, now: Timestamp) -> bool {
        self.failures > 0 && now < self.until.plus_millis(PAUSE_MEMORY_MS)
    }
}

/// The slot's new content and the inboxes to wake when `me` has finished. `None` when `me` no
/// longer leads there.
pub fn finish(
    slot: Option<&[u8]>,
    key: &CollapseKey,
    me: Identity,
    result: Finish,
    now: Timestamp,
) -> Option<(Vec<u8>, Vec<u32>)> {
    let Slot::Leading(held) = slot.map(Slot::decode)? else {
        return None;
    };
    if held.key != *key || held.leader != me {
        return None;
    }
    let (key, setbacks) = (*key, held.setbacks.saturating_add(1));
    let next = match result {
        // Only what the origin says anew ends a pause.
        Finish::Free | Finish::Found(..) if held.pause.is_remembered(now) => Slot::Paused {
            key,
            pause: held.pause,
        },
        Finish::Free | Finish::Fetched => Slot::Free,
        Finish::Published(handoff, until) | Finish::Found(handoff, until) => Slot::Published {
            key,
            handoff,
            until,
        },
        Finish::Uncacheable(until) => Slot::Uncacheable { key, until },
        Finish::Refused(until) if setbacks >= MAX_REFUSED => Slot::Uncacheable { key, until },
        Finish::Refused(until) => Slot::Refused {
            key,
            until,
            setbacks,
        },
        Finish::Failed => Slot::Paused {
            key,
            pause: Pause::after(setbacks, now),
        },
    };
    Some((next.encode(), held.inboxes))
}

/// Where those wait who could use an answer that comes from a leader that was replaced: the inboxes
/// of the slot, if one leads there under `key`.
pub fn waiting(slot: Option<&[u8]>, key: &CollapseKey) -> Vec<u32> {
    match slot.map(Slot::decode) {
        Some(Slot::Leading(held)) if held.key == *key => held.inboxes,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
