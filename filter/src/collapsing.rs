//! Leaders and waiters across the worker VMs of one Envoy: slots and answers in shared data, wakes
//! through inboxes.
//!
//! What this decides: which bytes are written when, and who is woken. Who leads is decided by the
//! core (`collapse`), with which this room shares its subject.

use larder_cache_core::collapse::message::{Message, Wake};
use larder_cache_core::collapse::{Arrival, CollapseKey, Finish, Handoff};
use larder_cache_core::exchange::{Outcome, SlotAnswer};
use larder_cache_core::policy::Policy;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;

use crate::calls::Outside;
use crate::host::{Host, Swap};
use crate::l1::Level1;
use crate::metrics;
use crate::peers::Peers;
use crate::store_client::StoreClient;

mod handoff;
mod slots;
mod waiting;

use handoff::{HANDOFF_MS, Handoffs, answer_of};
pub(crate) use slots::AtSlot;
use slots::Slots;
use waiting::Waiting;

/// Attempts at a contended slot before a request goes alone.
const ATTEMPTS: usize = 16;
/// Without anybody waiting elsewhere, only answers up to this size are handed over.
const SMALL: usize = 64 << 10;

/// The leaders and waiters of one VM.
#[derive(Debug)]
pub(crate) struct Collapsing {
    slots: Slots,
    handoffs: Handoffs,
    waiting: Waiting,
}

/// The rooms that a leader's end needs beside this one.
pub(crate) struct Lent<'a, H> {
    pub(crate) host: &'a H,
    pub(crate) peers: &'a Peers,
    pub(crate) l1: &'a Level1,
    /// Encodes what is handed over: the store is told the same next.
    pub(crate) store: &'a mut StoreClient,
}

/// How a leader ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) key: &'a CollapseKey,
    /// The stream, or the refresh.
    pub(crate) stream: u32,
    pub(crate) outcome: &'a Outcome,
    pub(crate) policy: &'a Policy,
    /// Up to when nobody waits under this key, for an outcome that is not storable.
    pub(crate) uncacheable_until: Timestamp,
}

impl Collapsing {
    /// Nobody leads or waits. `vm` is this VM's number.
    pub(crate) fn new(vm: u64) -> Self {
        Self {
            slots: Slots::new(vm),
            handoffs: Handoffs::default(),
            waiting: Waiting::default(),
        }
    }

    /// A stream arrives at its slot. If it has to wait, it does so until `deadline`.
    pub(crate) fn arrive<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        (peers, l1): (&Peers, &Level1),
        at: AtSlot<'_>,
        deadline: Timestamp,
        now: Timestamp,
    ) -> SlotAnswer {
        let answer = self
            .ask_slot(&outside.host, (peers, l1), at, now)
            .unwrap_or(SlotAnswer::Occupied);
        match answer {
            SlotAnswer::Lead | SlotAnswer::Succeed => outside.metrics.event(metrics::LEADERS),
            SlotAnswer::Wait(_) => {
                outside.metrics.event(metrics::FOLLOWERS);
                self.waiting.begin(*at.key, at.stream, now, deadline);
            }
            _ => {}
        }
        answer
    }

    fn ask_slot<H: Host>(
        &mut self,
        host: &H,
        (peers, l1): (&Peers, &Level1),
        at: AtSlot<'_>,
        now: Timestamp,
    ) -> Option<SlotAnswer> {
        let from = (peers.inbox()?, peers.is_settled_alone(now));
        for _ in 0..ATTEMPTS {
            let (place, arrival) = self.slots.arrive(host, from, at, now)?;
            let (bytes, answer) = match arrival {
                Arrival::Lead(bytes) => (Some(bytes), SlotAnswer::Lead),
                Arrival::Succeed(bytes) => (Some(bytes), SlotAnswer::Succeed),
                Arrival::Wait(leader, bytes) => (bytes, SlotAnswer::Wait(leader)),
                Arrival::HandedOver(left) => {
                    let outcome = handoff::read(host, l1, left)
                        .and_then(|outcome| handoff::unpurged(l1, outcome));
                    (
                        None,
                        SlotAnswer::HandedOver(outcome.unwrap_or(Outcome::Again)),
                    )
                }
                Arrival::Refreshing => (None, SlotAnswer::Refreshing),
                Arrival::Uncacheable(until) => (None, SlotAnswer::Uncacheable(until)),
                Arrival::Occupied | Arrival::NotYet(_) => (None, SlotAnswer::Occupied),
            };
            let swap = bytes.map(|bytes| self.slots.write(host, &place, at.key, bytes, now));
            if swap.is_none_or(|swap| swap == Swap::Done) {
                return Some(answer);
            }
        }
        None
    }

    /// Whether a refresh may lead its slot: then it does. `begins` is asked last.
    pub(crate) fn lead_refresh<H: Host>(
        &mut self,
        host: &H,
        peers: &Peers,
        at: AtSlot<'_>,
        begins: impl FnOnce() -> bool,
        now: Timestamp,
    ) -> bool {
        let Some(inbox) = peers.inbox() else {
            return false;
        };
        let from = (inbox, peers.is_settled_alone(now));
        match self.slots.arrive(host, from, at, now) {
            Some((place, Arrival::Lead(bytes))) if begins() => {
                self.slots.write(host, &place, at.key, bytes, now) == Swap::Done
            }
            Some((place, Arrival::NotYet(Some(bytes)))) => {
                let _ = self.slots.write(host, &place, at.key, bytes, now);
                false
            }
            _ => false,
        }
    }

    /// A leader's end: leaves the slot and tells those who wait, here and in the other VMs. Returns
    /// where its answer lies, if it was handed over.
    pub(crate) fn publish<H: Host>(
        &mut self,
        mut lent: Lent<'_, H>,
        end: End<'_>,
        now: Timestamp,
    ) -> Option<Handoff> {
        let End {
            key,
            stream,
            outcome,
            ..
        } = end;
        let mut handoff = None;
        for _ in 0..ATTEMPTS {
            let Some((place, inboxes)) = self.slots.led_by(lent.host, key, stream, now) else {
                self.answer_late(lent, end, now);
                return None;
            };
            if handoff.is_none() {
                handoff = self.hand_over(&mut lent, end, &inboxes, now);
            }
            let finish = finish_of(end, handoff, now);
            let Some((bytes, _)) = self.slots.finish(&place, key, stream, finish, now) else {
                continue;
            };
            if self.slots.write(lent.host, &place, key, bytes, now) == Swap::Done {
                wake_peers(&lent, end, inboxes, handoff);
                break;
            }
        }
        self.wake(lent.host, lent.peers, key, outcome);
        handoff
    }

    /// A leader that was replaced has an answer after all: whoever waits for its successor may have
    /// it, and the slot stays the successor's. Without an answer it has nothing to say any more.
    fn answer_late<H: Host>(&mut self, mut lent: Lent<'_, H>, end: End<'_>, now: Timestamp) {
        if !matches!(end.outcome, Outcome::Fetched(_)) {
            return;
        }
        let inboxes = self.slots.waiting(lent.host, end.key);
        if lent.peers.are_others(&inboxes)
            && let Some(handoff) = self.hand_over(&mut lent, end, &inboxes, now)
        {
            wake_peers(&lent, end, inboxes, Some(handoff));
        }
        self.wake(lent.host, lent.peers, end.key, end.outcome);
    }

    /// Puts an answer where the other VMs find it, if that is worth it.
    fn hand_over<H: Host>(
        &mut self,
        lent: &mut Lent<'_, H>,
        end: End<'_>,
        inboxes: &[u32],
        now: Timestamp,
    ) -> Option<Handoff> {
        let (kind, stored) = answer_of(end.outcome)?;
        if !lent.peers.are_others(inboxes) {
            let is_of_use_later = matches!(end.outcome, Outcome::Fetched(_) | Outcome::Found(_));
            // Where there is no other worker level 1 does the same for less.
            let level_1_does = lent.peers.is_alone() && !lent.l1.is_off();
            if !is_of_use_later || stored.body.len() > SMALL || level_1_does {
                return None;
            }
        }
        let entry = lent.store.encode(stored, end.policy, now);
        Some(self.handoffs.leave(lent.host, kind, &entry, now))
    }

    /// Another VM's leader has ended.
    pub(crate) fn on_wake<H: Host>(
        &mut self,
        host: &H,
        l1: &Level1,
        key: &CollapseKey,
        wake: Wake,
    ) {
        let outcome = match wake {
            Wake::HandedOver(left) => handoff::read(host, l1, left).unwrap_or(Outcome::Again),
            Wake::Uncacheable => Outcome::Uncacheable,
            Wake::Again => Outcome::Again,
            Wake::NotForOthers => Outcome::NotForOthers { counts: true },
            Wake::Failed(status) => Outcome::Failed(status),
        };
        self.waiting.wake(host, key, &outcome);
    }

    /// Another VM has refreshed what this one may still hold stale.
    pub(crate) fn take_refreshed<H: Host>(
        host: &H,
        l1: &mut Level1,
        digest: &KeyDigest,
        left: Handoff,
    ) {
        let Some(key) = l1.key_of(digest) else { return };
        if let Some(Outcome::Fetched(stored)) = handoff::read(host, l1, left) {
            l1.put_fetched(&key, stored, host.now());
        }
    }

    fn wake<H: Host>(&mut self, host: &H, peers: &Peers, key: &CollapseKey, outcome: &Outcome) {
        self.waiting.wake(host, key, outcome);
        if self.waiting.has_woken() {
            peers.call_for_us(host);
        }
    }

    /// A stream waits no more.
    pub(crate) fn leave(&mut self, stream: u32) {
        self.waiting.leave(stream);
    }

    /// Whether somebody here is to be told how a fetch ended.
    pub(crate) fn has_woken(&self) -> bool {
        self.waiting.has_woken()
    }

    /// Takes the next that is to be told.
    pub(crate) fn next_woken(&mut self) -> Option<(u32, Outcome)> {
        self.waiting.next_woken()
    }

    /// Takes those who have waited long enough, `most` of them.
    pub(crate) fn take_overdue(&mut self, now: Timestamp, most: usize) -> Vec<u32> {
        self.waiting.take_overdue(now, most)
    }

    /// Frees the places of answers that no longer count.
    pub(crate) fn clear_old_handoffs<H: Host>(&mut self, host: &H, now: Timestamp) {
        self.handoffs.clear_old(host, now);
    }
}

fn wake_peers<H: Host>(
    lent: &Lent<'_, H>,
    end: End<'_>,
    inboxes: Vec<u32>,
    handoff: Option<Handoff>,
) {
    let wake = match (end.outcome, handoff) {
        (Outcome::Uncacheable | Outcome::Unfinished, _) => Wake::Uncacheable,
        (Outcome::NotForOthers { .. }, _) => Wake::NotForOthers,
        (Outcome::Failed(status), _) => Wake::Failed(*status),
        (_, Some(handoff)) => Wake::HandedOver(handoff),
        (_, None) => Wake::Again,
    };
    lent.peers
        .send(lent.host, inboxes, &Message::Wake(*end.key, wake));
}

/// What a leader leaves in its slot.
fn finish_of(end: End<'_>, handoff: Option<Handoff>, now: Timestamp) -> Finish {
    match (end.outcome, handoff) {
        (Outcome::Uncacheable | Outcome::Unfinished, _) => {
            Finish::Uncacheable(end.uncacheable_until)
        }
        (Outcome::NotForOthers { counts: true }, _) => Finish::Refused(end.uncacheable_until),
        (Outcome::NotRefreshed, _) => Finish::Failed,
        (Outcome::Fetched(_), Some(handoff)) => {
            Finish::Published(handoff, now.plus_millis(HANDOFF_MS))
        }
        (Outcome::Fetched(_), None) => Finish::Fetched,
        (Outcome::Found(_), Some(handoff)) => Finish::Found(handoff, now.plus_millis(HANDOFF_MS)),
        _ => Finish::Free,
    }
}
