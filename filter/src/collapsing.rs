//! Leaders and waiters across the worker VMs of one Envoy: slots and handoff in shared data, wakes through inboxes.
//!
//! What this decides: where the bytes lie. Who leads is decided by the core (`collapse`), with which this file shares its
//! subject. Shared data never forgets a key, so the keys are fixed: [`SLOTS`] leader slots, places for answers
//! (`handoff`), one registry of inboxes, one secret that says which slots are a key's, and when the inboxes were last told
//! of something untrue: a VM has an inbox from its first request on, and may find an answer that is older than that.

use larder_cache_core::collapse::message::{Message, Wake};
use larder_cache_core::collapse::{self, Arrival, CollapseKey, Finish, Handoff, Identity, Terms};
use larder_cache_core::exchange::{Outcome, SlotAnswer};
use larder_cache_core::policy::Policy;
use larder_contract::http_time::Timestamp;

use crate::config::Config;
use crate::host::{Host, Swap};
use crate::metrics;
use crate::refresh::Ordered;
use crate::vm::Vm;

/// Leader slots in one Envoy.
pub const SLOTS: u32 = 4096;
/// How long a handed-over answer counts.
pub(crate) const HANDOFF_MS: u64 = 2_000;
/// An inbox whose VM has not been heard of for so long is dead: nobody writes to it any more. Long, for a process that was
/// stopped for a while goes on, and must find what it was told meanwhile.
const DEAD_AFTER_MS: u64 = 60_000;
/// Attempts at a contended slot before a request goes alone.
const ATTEMPTS: usize = 16;

const REGISTRY: &str = "larder/inboxes";
pub(crate) const SALT: &str = "larder/salt";
/// When a VM last told the others of something that was made untrue.
const TOLD: &str = "larder/told";

/// A slot as it was read: its name, its bytes, their version.
struct Place {
    name: String,
    bytes: Option<Vec<u8>>,
    version: Option<u32>,
}

impl<H: Host> Vm<H> {
    pub(crate) fn arrive_at_slot(
        &mut self,
        key: &CollapseKey,
        stream: u32,
        terms: Terms,
        now: Timestamp,
    ) -> SlotAnswer {
        let Some(inbox) = self.inbox else { return SlotAnswer::Occupied };
        let me = Identity { vm: self.id, stream };
        for _ in 0..ATTEMPTS {
            let Some(place) = self.place_of(key, now) else { break };
            let (bytes, answer) = match collapse::arrive(place.bytes.as_deref(), key, me, inbox.queue, now, terms) {
                Arrival::Lead(bytes) => (Some(bytes), SlotAnswer::Lead),
                Arrival::Succeed(bytes) => (Some(bytes), SlotAnswer::Succeed),
                Arrival::Wait(leader, bytes) => (bytes, SlotAnswer::Wait(leader)),
                Arrival::HandedOver(handoff) => {
                    let outcome = self.read_handoff(handoff).and_then(|outcome| self.unpurged(outcome));
                    (None, SlotAnswer::HandedOver(outcome.unwrap_or(Outcome::Again)))
                }
                Arrival::Refreshing => (None, SlotAnswer::Refreshing),
                Arrival::Uncacheable(until) => (None, SlotAnswer::Uncacheable(until)),
                Arrival::Occupied | Arrival::NotYet(_) => (None, SlotAnswer::Occupied),
            };
            if bytes.is_none_or(|bytes| self.outside.host.swap_shared(&place.name, &bytes, place.version) == Swap::Done)
            {
                if matches!(answer, SlotAnswer::Lead | SlotAnswer::Succeed) {
                    self.outside.metrics.event(metrics::LEADERS);
                }
                return answer;
            }
        }
        SlotAnswer::Occupied
    }

    /// All slots that `key` may use, as they are now.
    fn places_of(&mut self, key: &CollapseKey) -> Vec<Place> {
        let salt = self.salt.get(&self.outside.host);
        let read = |index: u32| {
            let name = format!("larder/s/{index}");
            let (bytes, version) = self.outside.host.shared(&name);
            Place { name, bytes, version }
        };
        key.places(SLOTS, salt).map(read).into()
    }

    /// The slot that `key` uses.
    fn place_of(&mut self, key: &CollapseKey, now: Timestamp) -> Option<Place> {
        let mut places = self.places_of(key);
        let index = collapse::choose(places.iter().map(|place| place.bytes.as_deref()), key, now);
        (index < places.len()).then(|| places.swap_remove(index))
    }

    pub(crate) fn wait(&mut self, config: &Config, key: CollapseKey, stream: u32, now: Timestamp) {
        self.outside.metrics.event(metrics::FOLLOWERS);
        self.waiting.begin(key, stream, now, now.plus_millis(config.collapse_wait_ms));
    }

    /// A leader's end: leaves the slot and tells those who wait, here and in the other VMs.
    pub(crate) fn publish(
        &mut self,
        key: &CollapseKey,
        stream: u32,
        outcome: &Outcome,
        policy: &Policy,
        uncacheable_until: Timestamp,
        now: Timestamp,
    ) -> Option<Handoff> {
        let me = Identity { vm: self.id, stream };
        let own = self.inbox.map(|inbox| inbox.queue);
        let mut handoff = None;
        for _ in 0..ATTEMPTS {
            let leaves = |place: &Place, end| collapse::finish(place.bytes.as_deref(), key, me, end, now);
            let mut places = self.places_of(key).into_iter();
            let held = places.find_map(|place| leaves(&place, Finish::Free).map(|(_, inboxes)| (place, inboxes)));
            let Some((place, inboxes)) = held else {
                self.answer_late(key, outcome, policy, now);
                return None;
            };
            let awaited = inboxes.iter().any(|inbox| Some(*inbox) != own);
            if handoff.is_none() {
                handoff = self.hand_over(outcome, policy, awaited, now);
            }
            let result = match (outcome, handoff) {
                (Outcome::Uncacheable | Outcome::Unfinished, _) => Finish::Uncacheable(uncacheable_until),
                (Outcome::NotForOthers { counts: true }, _) => Finish::Refused(uncacheable_until),
                (Outcome::NotRefreshed, _) => Finish::Failed,
                (Outcome::Fetched(_), Some(handoff)) => Finish::Published(handoff, now.plus_millis(HANDOFF_MS)),
                (Outcome::Fetched(_), None) => Finish::Fetched,
                (Outcome::Found(_), Some(handoff)) => Finish::Found(handoff, now.plus_millis(HANDOFF_MS)),
                _ => Finish::Free,
            };
            let Some((bytes, _)) = leaves(&place, result) else { continue };
            if self.outside.host.swap_shared(&place.name, &bytes, place.version) == Swap::Done {
                self.wake_peers(key, inboxes, outcome, handoff);
                break;
            }
        }
        self.waiting.wake(&self.outside.host, key, outcome);
        self.go_on_if_woken();
        handoff
    }

    /// A leader that was replaced has an answer after all: whoever waits for its successor may have it, and the slot stays
    /// the successor's. Without an answer it has nothing to say any more.
    fn answer_late(&mut self, key: &CollapseKey, outcome: &Outcome, policy: &Policy, now: Timestamp) {
        if !matches!(outcome, Outcome::Fetched(_)) {
            return;
        }
        let inboxes: Vec<u32> =
            self.places_of(key).iter().flat_map(|place| collapse::waiting(place.bytes.as_deref(), key)).collect();
        let own = self.inbox.map(|inbox| inbox.queue);
        if inboxes.iter().any(|inbox| Some(*inbox) != own)
            && let Some(handoff) = self.hand_over(outcome, policy, true, now)
        {
            self.wake_peers(key, inboxes, outcome, Some(handoff));
        }
        self.waiting.wake(&self.outside.host, key, outcome);
        self.go_on_if_woken();
    }

    fn wake_peers(&self, key: &CollapseKey, inboxes: Vec<u32>, outcome: &Outcome, handoff: Option<Handoff>) {
        let own = self.inbox.map(|inbox| inbox.queue);
        let message = Message::Wake(*key, wake_for(outcome, handoff)).encode();
        for inbox in inboxes.into_iter().filter(|inbox| Some(*inbox) != own) {
            let _ = self.outside.host.enqueue(inbox, &message);
        }
    }

    fn go_on_if_woken(&self) {
        if self.waiting.has_woken() {
            self.go_on_later();
        }
    }

    /// Writes this VM's heartbeat into the registry, and drops dead inboxes from it.
    pub(crate) fn beat(&mut self, now: Timestamp) {
        let Some(inbox) = self.inbox else { return };
        if now.millis_since(self.beaten.unwrap_or(now)) >= DEAD_AFTER_MS {
            // The others may have given this VM up, and told it nothing since.
            self.l1.clear(now, now);
        }
        self.beaten = Some(now);
        for _ in 0..ATTEMPTS {
            let (held, version) = self.outside.host.shared(REGISTRY);
            let mut living = living(held.as_deref().unwrap_or_default(), now);
            living.retain(|(queue, _)| *queue != inbox.queue);
            self.alone = living.is_empty();
            living.push((inbox.queue, now));
            let mut bytes = Vec::with_capacity(living.len() * 12);
            for (queue, beat) in living {
                bytes.extend_from_slice(&queue.to_be_bytes());
                bytes.extend_from_slice(&beat.as_millis().to_be_bytes());
            }
            if self.outside.host.swap_shared(REGISTRY, &bytes, version) == Swap::Done {
                return;
            }
        }
    }

    /// Before level 1 is looked into: whether this VM was stopped for so long that it was given up.
    pub(crate) fn beat_if_late(&mut self, now: Timestamp) {
        if self.beaten.is_some_and(|beaten| now.millis_since(beaten) >= DEAD_AFTER_MS) {
            self.beat(now);
        }
    }

    /// The inbox is there, and the others know of it: whatever they were told before is distrusted as a whole.
    pub(crate) fn begin_to_hear(&mut self, now: Timestamp) {
        self.beat(now);
        // Who tells writes this first and reads the registry then: it finds our inbox, or we find its time.
        if let Some(told) = read_time(self.outside.host.shared(TOLD).0.as_deref()) {
            self.l1.clear(told, told);
        }
    }

    /// Remembers when the others were last told of something that was made untrue.
    fn note_telling(&self, now: Timestamp) {
        for _ in 0..ATTEMPTS {
            let (held, version) = self.outside.host.shared(TOLD);
            if read_time(held.as_deref()).is_some_and(|told| told >= now)
                || self.outside.host.swap_shared(TOLD, &now.as_millis().to_be_bytes(), version) == Swap::Done
            {
                return;
            }
        }
    }

    /// Tells every other VM something.
    pub(crate) fn tell_peers(&self, message: &Message, now: Timestamp) {
        if message.makes_untrue() {
            self.note_telling(now);
        }
        let own = self.inbox.map(|inbox| inbox.queue);
        let (held, _) = self.outside.host.shared(REGISTRY);
        let message = message.encode();
        for (queue, _) in living(held.as_deref().unwrap_or_default(), now) {
            if Some(queue) != own {
                let _ = self.outside.host.enqueue(queue, &message);
            }
        }
    }

    /// Whether the refresh `id` may begin now. If so it leads its slot.
    pub(crate) fn lead_refresh(&mut self, ordered: &Ordered, id: u32, now: Timestamp) -> bool {
        let Ordered { config, policy, order, .. } = ordered;
        let Some(inbox) = self.inbox else { return false };
        if !self.refreshes.have_room(order, policy.max_object_bytes, now) {
            return false;
        }
        let fetches_whole = order.stored.is_none();
        let terms = Terms { only_again: fetches_whole, ..Terms::until(now.plus_millis(config.lease_ms)) };
        let me = Identity { vm: self.id, stream: id };
        let Some(place) = self.place_of(&order.collapse, now) else { return false };
        match collapse::arrive(place.bytes.as_deref(), &order.collapse, me, inbox.queue, now, terms) {
            Arrival::Lead(bytes) if !fetches_whole || self.refreshes.begin_whole(now) => {
                self.outside.host.swap_shared(&place.name, &bytes, place.version) == Swap::Done
            }
            Arrival::NotYet(Some(bytes)) => {
                let _ = self.outside.host.swap_shared(&place.name, &bytes, place.version);
                false
            }
            _ => false,
        }
    }
}

fn read_time(bytes: Option<&[u8]>) -> Option<Timestamp> {
    Some(Timestamp::from_millis(u64::from_be_bytes(bytes?.try_into().ok()?)))
}

fn wake_for(outcome: &Outcome, handoff: Option<Handoff>) -> Wake {
    match (outcome, handoff) {
        (Outcome::Uncacheable | Outcome::Unfinished, _) => Wake::Uncacheable,
        (Outcome::NotForOthers { .. }, _) => Wake::NotForOthers,
        (Outcome::Failed(status), _) => Wake::Failed(*status),
        (_, Some(handoff)) => Wake::HandedOver(handoff),
        (_, None) => Wake::Again,
    }
}

fn living(registry: &[u8], now: Timestamp) -> Vec<(u32, Timestamp)> {
    let record = |bytes: &[u8]| {
        let (queue, beat) = bytes.split_first_chunk::<4>()?;
        let beat = Timestamp::from_millis(u64::from_be_bytes(beat.try_into().ok()?));
        Some((u32::from_be_bytes(*queue), beat))
    };
    registry.chunks_exact(12).filter_map(record).filter(|(_, beat)| now.millis_since(*beat) < DEAD_AFTER_MS).collect()
}
