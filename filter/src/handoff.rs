//! Answers that a leader leaves in shared data for the other VMs.
//!
//! What this decides: which answers are worth it, and how long they lie there. Whether one still answers is decided by the
//! core.

use std::sync::Arc;

use larder_cache_core::codec;
use larder_cache_core::collapse::Handoff;
use larder_cache_core::collapse::message::Wake;
use larder_cache_core::exchange::Outcome;
use larder_cache_core::policy::Policy;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::entry;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;

use crate::collapsing::HANDOFF_MS;
use crate::host::Host;
use crate::vm::Vm;

/// Places for handed-over answers.
const HANDOFFS: u32 = 256;
/// Without anybody waiting elsewhere, only answers up to this size are handed over.
const SMALL: usize = 64 << 10;

impl<H: Host> Vm<H> {
    /// Another VM has refreshed what this one may still hold stale.
    pub(crate) fn take_refreshed(&mut self, digest: &KeyDigest, handoff: Handoff) {
        let Some(key) = self.l1.key_of(digest) else { return };
        if let Some(Outcome::Fetched(stored)) = self.read_handoff(handoff) {
            self.l1.put_fetched(&key, stored, self.outside.host.now());
        }
    }

    /// Puts an answer where the other VMs find it.
    pub(crate) fn hand_over(
        &mut self,
        outcome: &Outcome,
        policy: &Policy,
        awaited: bool,
        now: Timestamp,
    ) -> Option<Handoff> {
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
        let sequence = self.outside.host.random();
        let index = u32::try_from(sequence % u64::from(HANDOFFS)).unwrap_or(0);
        let mut bytes = sequence.to_be_bytes().to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(&self.store.encode(stored, policy, now));
        self.outside.host.set_shared(&handoff_name(index), &bytes);
        self.handed_over.push_back((now, index, sequence));
        Some(Handoff { index, sequence })
    }

    pub(crate) fn read_handoff(&self, handoff: Handoff) -> Option<Outcome> {
        let (bytes, _) = self.outside.host.shared(&handoff_name(handoff.index));
        let bytes = bytes?;
        let (sequence, rest) = bytes.split_first_chunk::<8>()?;
        let (kind, frame) = rest.split_first()?;
        if u64::from_be_bytes(*sequence) != handoff.sequence {
            return None;
        }
        let stored: Arc<StoredResponse> = Arc::new(codec::from_entry(entry::decode(frame).ok()?).ok()?);
        match kind {
            // An invalidation since its request may be forgotten; what the store had is judged by the store.
            b'F' if self.l1.is_too_late(&stored) => None,
            b'F' => Some(Outcome::Fetched(stored)),
            b'S' => Some(Outcome::Found(stored)),
            b'E' => Some(Outcome::StaleOnError(stored)),
            b'O' => Some(Outcome::OriginError(stored)),
            _ => None,
        }
    }

    /// What the purges heard of leave of an answer that a leader left for whoever comes later.
    pub(crate) fn unpurged(&self, outcome: Outcome) -> Option<Outcome> {
        match outcome {
            Outcome::Fetched(stored) => self.l1.unpurged(stored).map(Outcome::Fetched),
            Outcome::Found(stored) => self.l1.unpurged(stored).map(Outcome::Found),
            outcome => Some(outcome),
        }
    }

    pub(crate) fn outcome_of(&self, wake: Wake) -> Outcome {
        match wake {
            Wake::HandedOver(handoff) => self.read_handoff(handoff).unwrap_or(Outcome::Again),
            Wake::Uncacheable => Outcome::Uncacheable,
            Wake::Again => Outcome::Again,
            Wake::NotForOthers => Outcome::NotForOthers { counts: true },
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
            let (held, version) = self.outside.host.shared(&name);
            if held.is_some_and(|held| held.starts_with(&sequence.to_be_bytes())) {
                let _ = self.outside.host.swap_shared(&name, &[], version);
            }
        }
    }
}

fn handoff_name(index: u32) -> String {
    format!("larder/h/{index}")
}
