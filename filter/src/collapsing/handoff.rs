//! Answers that a leader leaves in shared data for the other VMs.
//!
//! What this decides: where they lie, and for how long. Whether one still answers is decided by the
//! core, and by level 1, which knows what was made untrue.

use std::collections::VecDeque;
use std::sync::Arc;

use larder_cache_core::codec;
use larder_cache_core::collapse::Handoff;
use larder_cache_core::exchange::Outcome;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::entry;
use larder_contract::http_time::Timestamp;

use crate::host::Host;
use crate::l1::Level1;

/// How long a handed-over answer counts.
pub(super) const HANDOFF_MS: u64 = 2_000;
/// Places for handed-over answers.
const HANDOFFS: u32 = 256;

/// What this VM has left for the others, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Handoffs(VecDeque<(Timestamp, Handoff)>);

/// What kind of answer an outcome hands over, if any, by the letter that says so in shared data.
pub(super) fn answer_of(outcome: &Outcome) -> Option<(u8, &Arc<StoredResponse>)> {
    match outcome {
        Outcome::Fetched(stored) => Some((b'F', stored)),
        Outcome::Found(stored) => Some((b'S', stored)),
        Outcome::StaleOnError(stored) => Some((b'E', stored)),
        Outcome::OriginError(stored) => Some((b'O', stored)),
        _ => None,
    }
}

impl Handoffs {
    /// Puts an answer of a kind, encoded as `entry`, where the other VMs find it.
    pub(super) fn leave<H: Host>(
        &mut self,
        host: &H,
        kind: u8,
        entry: &[u8],
        now: Timestamp,
    ) -> Handoff {
        let sequence = host.random();
        let index = u32::try_from(sequence % u64::from(HANDOFFS)).unwrap_or(0);
        let mut bytes = sequence.to_be_bytes().to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(entry);
        host.set_shared(&name_of(index), &bytes);
        let handoff = Handoff { index, sequence };
        self.0.push_back((now, handoff));
        handoff
    }

    /// Frees the places of answers that no longer count; the keys themselves stay.
    pub(super) fn clear_old<H: Host>(&mut self, host: &H, now: Timestamp) {
        while let Some((_, Handoff { index, sequence })) = self
            .0
            .pop_front_if(|(since, _)| now.millis_since(*since) >= HANDOFF_MS + 1_000)
        {
            let name = name_of(index);
            let (held, version) = host.shared(&name);
            if held.is_some_and(|held| held.starts_with(&sequence.to_be_bytes())) {
                let _ = host.swap_shared(&name, &[], version);
            }
        }
    }
}

/// What a leader has left there, if that is still it, and nothing speaks against it.
pub(super) fn read<H: Host>(host: &H, l1: &Level1, handoff: Handoff) -> Option<Outcome> {
    let (bytes, _) = host.shared(&name_of(handoff.index));
    let bytes = bytes?;
    let (sequence, rest) = bytes.split_first_chunk::<8>()?;
    let (kind, frame) = rest.split_first()?;
    if u64::from_be_bytes(*sequence) != handoff.sequence {
        return None;
    }
    let stored: Arc<StoredResponse> = Arc::new(codec::from_entry(entry::decode(frame).ok()?).ok()?);
    match kind {
        // An invalidation since its request may be forgotten; what the store had is judged by the
        // store.
        b'F' if l1.is_too_late(&stored) => None,
        b'F' => Some(Outcome::Fetched(stored)),
        b'S' => Some(Outcome::Found(stored)),
        b'E' => Some(Outcome::StaleOnError(stored)),
        b'O' => Some(Outcome::OriginError(stored)),
        _ => None,
    }
}

/// What the purges heard of leave of an answer that a leader left for whoever comes later.
pub(super) fn unpurged(l1: &Level1, outcome: Outcome) -> Option<Outcome> {
    match outcome {
        Outcome::Fetched(stored) => l1.unpurged(stored).map(Outcome::Fetched),
        Outcome::Found(stored) => l1.unpurged(stored).map(Outcome::Found),
        outcome => Some(outcome),
    }
}

fn name_of(index: u32) -> String {
    format!("larder/h/{index}")
}
