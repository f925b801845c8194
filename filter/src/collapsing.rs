//! Leaders and waiters across the worker VMs of one Envoy: slots and handoff in shared data, wakes through inboxes.
//!
//! What this decides: where the bytes lie. Who leads is decided by the core (`collapse`), with which this file shares its
//! subject. Shared data never forgets a key, so the keys are fixed: [`SLOTS`] leader slots, [`HANDOFFS`] places for
//! answers, one registry of inboxes.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::codec;
use larder_cache_core::collapse::message::{Message, Wake};
use larder_cache_core::collapse::{self, Arrival, CollapseKey, Finish, Handoff, Identity, Terms};
use larder_cache_core::exchange::{Outcome, SlotAnswer};
use larder_cache_core::http_time::Timestamp;
use larder_cache_core::key::PrimaryKey;
use larder_cache_core::policy::Policy;
use larder_cache_core::store_api::entry;
use larder_cache_core::stored_response::StoredResponse;

use crate::config::Config;
use crate::host::{Host, Swap};
use crate::metrics;
use crate::vm::{Vm, Waiter};

/// Leader slots in one Envoy.
pub const SLOTS: u32 = 4096;
/// Places for handed-over answers.
pub const HANDOFFS: u32 = 256;
/// How long a handed-over answer counts.
const HANDOFF_MS: u64 = 2_000;
/// Without anybody waiting elsewhere, only answers up to this size are handed over.
const SMALL: usize = 64 << 10;
/// An inbox whose VM has not been heard of for so long is dead: nobody writes to it any more. Long, for a process that was
/// stopped for a while goes on, and must find what it was told meanwhile.
const DEAD_AFTER_MS: u64 = 60_000;
/// Attempts at a contended slot before a request goes alone.
const ATTEMPTS: usize = 16;

const REGISTRY: &str = "larder/inboxes";

impl<H: Host> Vm<H> {
    pub(crate) fn arrive_at_slot(
        &mut self,
        key: &CollapseKey,
        stream: u32,
        terms: Terms,
        now: Timestamp,
    ) -> SlotAnswer {
        let Some(inbox) = self.inbox else { return SlotAnswer::Occupied };
        let slot = slot_name(key);
        let me = Identity { vm: self.id, stream };
        for _ in 0..ATTEMPTS {
            let (held, version) = self.host.shared(&slot);
            match collapse::arrive(held.as_deref(), key, me, inbox.queue, now, terms) {
                Arrival::Lead(bytes) => {
                    if self.host.swap_shared(&slot, &bytes, version) == Swap::Done {
                        self.metrics.event(metrics::LEADERS);
                        return SlotAnswer::Lead;
                    }
                }
                Arrival::Wait(None) => return SlotAnswer::Wait,
                Arrival::Wait(Some(bytes)) => {
                    if self.host.swap_shared(&slot, &bytes, version) == Swap::Done {
                        return SlotAnswer::Wait;
                    }
                }
                Arrival::HandedOver(handoff) => {
                    return SlotAnswer::HandedOver(self.read_handoff(handoff).unwrap_or(Outcome::Again));
                }
                Arrival::Refreshing => return SlotAnswer::Refreshing,
                Arrival::Uncacheable(until) => return SlotAnswer::Uncacheable(until),
                Arrival::Occupied => return SlotAnswer::Occupied,
            }
        }
        SlotAnswer::Occupied
    }

    pub(crate) fn wait(&mut self, config: &Config, key: CollapseKey, stream: u32, now: Timestamp) {
        self.metrics.event(metrics::FOLLOWERS);
        let deadline = now.plus_millis(config.collapse_wait_ms);
        self.waiting.entry(key).or_default().push_back(Waiter { stream, since: now, deadline });
    }

    pub(crate) fn leave_waiting(&mut self, stream: u32) {
        for waiters in self.waiting.values_mut() {
            waiters.retain(|waiter| waiter.stream != stream);
        }
        self.waiting.retain(|_, waiters| !waiters.is_empty());
    }

    /// Notes down everyone in this VM who waits under `key`; they are answered on a fresh stack.
    pub(crate) fn wake_local(&mut self, key: &CollapseKey, outcome: &Outcome) {
        let Some(waiters) = self.waiting.remove(key) else { return };
        let now = self.host.now();
        for waiter in &waiters {
            self.host.record(metrics::WAIT_MS, now.millis_since(waiter.since));
        }
        self.woken.extend(waiters.into_iter().map(|waiter| (waiter.stream, outcome.clone())));
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
        let slot = slot_name(key);
        let me = Identity { vm: self.id, stream };
        let own = self.inbox.map(|inbox| inbox.queue);
        let mut handoff = None;
        for _ in 0..ATTEMPTS {
            let (held, version) = self.host.shared(&slot);
            let Some((_, inboxes)) = collapse::finish(held.as_deref(), key, me, Finish::Free) else { break };
            let awaited = inboxes.iter().any(|inbox| Some(*inbox) != own);
            if handoff.is_none() {
                handoff = self.hand_over(outcome, policy, awaited, now);
            }
            let result = match (outcome, handoff) {
                (Outcome::Uncacheable, _) => Finish::Uncacheable(uncacheable_until),
                (Outcome::Fetched(_) | Outcome::Found(_), Some(handoff)) => {
                    Finish::Published(handoff, now.plus_millis(HANDOFF_MS))
                }
                _ => Finish::Free,
            };
            let Some((bytes, _)) = collapse::finish(held.as_deref(), key, me, result) else { break };
            if self.host.swap_shared(&slot, &bytes, version) == Swap::Done {
                let message = Message::Wake(*key, wake_for(outcome, handoff)).encode();
                for inbox in inboxes.into_iter().filter(|inbox| Some(*inbox) != own) {
                    let _ = self.host.enqueue(inbox, &message);
                }
                break;
            }
        }
        self.wake_local(key, outcome);
        if !self.woken.is_empty() {
            self.go_on_later();
        }
        handoff
    }

    /// Another VM has refreshed what this one may still hold stale.
    pub(crate) fn take_refreshed(&mut self, key: &PrimaryKey, handoff: Handoff) {
        if self.l1.look_up(key).variants.is_empty() {
            return;
        }
        if let Some(Outcome::Fetched(stored)) = self.read_handoff(handoff) {
            self.l1.put(key, stored);
        }
    }

    /// Puts an answer where the other VMs find it.
    fn hand_over(&mut self, outcome: &Outcome, policy: &Policy, awaited: bool, now: Timestamp) -> Option<Handoff> {
        let (kind, stored) = match outcome {
            Outcome::Fetched(stored) => (b'F', stored),
            Outcome::Found(stored) => (b'S', stored),
            Outcome::StaleOnError(stored) if awaited => (b'E', stored),
            Outcome::OriginError(stored) if awaited => (b'O', stored),
            _ => return None,
        };
        // Where there is no other worker level 1 does the same for less.
        if !awaited && (stored.body.len() > SMALL || (self.alone && !self.l1.is_off())) {
            return None;
        }
        let sequence = self.host.random();
        let index = u32::try_from(sequence % u64::from(HANDOFFS)).unwrap_or(0);
        let mut bytes = sequence.to_be_bytes().to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(&self.encode(stored, policy, now));
        self.host.set_shared(&handoff_name(index), &bytes);
        self.handed_over.push_back((now, index, sequence));
        Some(Handoff { index, sequence })
    }

    fn read_handoff(&self, handoff: Handoff) -> Option<Outcome> {
        let (bytes, _) = self.host.shared(&handoff_name(handoff.index));
        let bytes = bytes?;
        let (sequence, rest) = bytes.split_first_chunk::<8>()?;
        let (kind, frame) = rest.split_first()?;
        if u64::from_be_bytes(*sequence) != handoff.sequence {
            return None;
        }
        let stored: Arc<StoredResponse> = Arc::new(codec::from_entry(entry::decode(frame).ok()?).ok()?);
        let stored = self.l1.unpurged(stored)?;
        match kind {
            b'F' => Some(Outcome::Fetched(stored)),
            b'S' => Some(Outcome::Found(stored)),
            b'E' => Some(Outcome::StaleOnError(stored)),
            b'O' => Some(Outcome::OriginError(stored)),
            _ => None,
        }
    }

    pub(crate) fn outcome_of(&self, wake: Wake) -> Outcome {
        match wake {
            Wake::HandedOver(handoff) => self.read_handoff(handoff).unwrap_or(Outcome::Again),
            Wake::Uncacheable => Outcome::Uncacheable,
            Wake::Again => Outcome::Again,
            Wake::Failed(status) => Outcome::Failed(status),
        }
    }

    /// Frees the places of answers that no longer count; the keys themselves stay.
    pub(crate) fn clear_old_handoffs(&mut self, now: Timestamp) {
        while let Some((since, index, sequence)) = self.handed_over.front().copied() {
            if now.millis_since(since) < HANDOFF_MS + 1_000 {
                return;
            }
            self.handed_over.pop_front();
            let name = handoff_name(index);
            let (held, version) = self.host.shared(&name);
            if held.is_some_and(|held| held.starts_with(&sequence.to_be_bytes())) {
                let _ = self.host.swap_shared(&name, &[], version);
            }
        }
    }

    /// Writes this VM's heartbeat into the registry, and drops dead inboxes from it.
    pub(crate) fn beat(&mut self, now: Timestamp) {
        let Some(inbox) = self.inbox else { return };
        if now.millis_since(self.beaten.unwrap_or(now)) >= DEAD_AFTER_MS {
            // The others may have given this VM up, and told it nothing since.
            self.l1.clear(now);
        }
        self.beaten = Some(now);
        for _ in 0..ATTEMPTS {
            let (held, version) = self.host.shared(REGISTRY);
            let mut living = living(held.as_deref().unwrap_or_default(), now);
            living.retain(|(queue, _)| *queue != inbox.queue);
            self.alone = living.is_empty();
            living.push((inbox.queue, now));
            let mut bytes = Vec::with_capacity(living.len() * 12);
            for (queue, beat) in living {
                bytes.extend_from_slice(&queue.to_be_bytes());
                bytes.extend_from_slice(&beat.as_millis().to_be_bytes());
            }
            if self.host.swap_shared(REGISTRY, &bytes, version) == Swap::Done {
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

    /// Tells every other VM something.
    pub(crate) fn tell_peers(&self, message: &Message, now: Timestamp) {
        let own = self.inbox.map(|inbox| inbox.queue);
        let (held, _) = self.host.shared(REGISTRY);
        let message = message.encode();
        for (queue, _) in living(held.as_deref().unwrap_or_default(), now) {
            if Some(queue) != own {
                let _ = self.host.enqueue(queue, &message);
            }
        }
    }

    pub(crate) fn next_refresh_id(&mut self) -> u32 {
        self.next_refresh = self.next_refresh.wrapping_add(1) & !Identity::REFRESH;
        self.next_refresh | Identity::REFRESH
    }

    pub(crate) fn lead_refresh(&mut self, config: &Rc<Config>, key: &CollapseKey, id: u32, now: Timestamp) -> bool {
        let Some(inbox) = self.inbox else { return false };
        let slot = slot_name(key);
        let terms =
            Terms { until: now.plus_millis(config.lease_ms), accept_handed_over: false, wait_for_refresh: false };
        let (held, version) = self.host.shared(&slot);
        let me = Identity { vm: self.id, stream: id };
        match collapse::arrive(held.as_deref(), key, me, inbox.queue, now, terms) {
            Arrival::Lead(bytes) => self.host.swap_shared(&slot, &bytes, version) == Swap::Done,
            _ => false,
        }
    }
}

fn wake_for(outcome: &Outcome, handoff: Option<Handoff>) -> Wake {
    match (outcome, handoff) {
        (Outcome::Uncacheable, _) => Wake::Uncacheable,
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

fn slot_name(key: &CollapseKey) -> String {
    format!("larder/s/{}", key.slot_index(SLOTS))
}

fn handoff_name(index: u32) -> String {
    format!("larder/h/{index}")
}
