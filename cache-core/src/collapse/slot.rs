//! The bytes of a leader slot.
//!
//! ```text
//! version 1 | kind 1 | key 32 | until 8 | rest by kind
//! Leading:     vm 8, stream 4, inboxes n × 4
//! Published:   index 4, sequence 8
//! Uncacheable: -
//! ```
//! Numbers are big-endian. What cannot be read counts as [`Slot::Free`]: a slot outlives a change of code.

use super::{CollapseKey, Handoff, Identity};
use crate::http_time::Timestamp;

const VERSION: u8 = 1;
const LEADING: u8 = 1;
const PUBLISHED: u8 = 2;
const UNCACHEABLE: u8 = 3;

/// More worker VMs than this are not woken; their requests go alone.
pub const MAX_INBOXES: usize = 512;

/// A slot's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nobody leads and nothing is remembered.
    Free,
    /// A fetch is under way.
    Leading {
        /// What is fetched.
        key: CollapseKey,
        /// Who fetches.
        leader: Identity,
        /// When the leader is given up.
        until: Timestamp,
        /// Queues of the VMs in which requests wait.
        inboxes: Vec<u32>,
    },
    /// An answer lies in the handoff.
    Published {
        /// What was fetched.
        key: CollapseKey,
        /// Where it lies.
        handoff: Handoff,
        /// How long it counts.
        until: Timestamp,
    },
    /// The last answer was not storable.
    Uncacheable {
        /// What was fetched.
        key: CollapseKey,
        /// How long that is remembered.
        until: Timestamp,
    },
}

impl Slot {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, key, until) = match self {
            Self::Free => return vec![VERSION, 0],
            Self::Leading { key, until, .. } => (LEADING, key, until),
            Self::Published { key, until, .. } => (PUBLISHED, key, until),
            Self::Uncacheable { key, until } => (UNCACHEABLE, key, until),
        };
        let mut bytes = vec![VERSION, kind];
        bytes.extend_from_slice(&key.0);
        bytes.extend_from_slice(&until.as_millis().to_be_bytes());
        match self {
            Self::Leading { leader, inboxes, .. } => {
                bytes.extend_from_slice(&leader.vm.to_be_bytes());
                bytes.extend_from_slice(&leader.stream.to_be_bytes());
                for inbox in inboxes {
                    bytes.extend_from_slice(&inbox.to_be_bytes());
                }
            }
            Self::Published { handoff, .. } => {
                bytes.extend_from_slice(&handoff.index.to_be_bytes());
                bytes.extend_from_slice(&handoff.sequence.to_be_bytes());
            }
            Self::Free | Self::Uncacheable { .. } => {}
        }
        bytes
    }

    /// Reads the bytes; what is not a slot is [`Slot::Free`].
    pub fn decode(bytes: &[u8]) -> Self {
        let mut reader = Reader(bytes);
        reader.slot().unwrap_or(Self::Free)
    }
}

/// Takes numbers from the front of some bytes.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn slot(&mut self) -> Option<Slot> {
        let [version, kind] = self.take()?;
        if version != VERSION || !(LEADING..=UNCACHEABLE).contains(&kind) {
            return None;
        }
        let key = CollapseKey(self.take()?);
        let until = Timestamp::from_millis(self.u64()?);
        match kind {
            LEADING => {
                let leader = Identity { vm: self.u64()?, stream: self.u32()? };
                let inboxes = std::iter::from_fn(|| self.u32()).take(MAX_INBOXES).collect();
                Some(Slot::Leading { key, leader, until, inboxes })
            }
            PUBLISHED => {
                let handoff = Handoff { index: self.u32()?, sequence: self.u64()? };
                Some(Slot::Published { key, handoff, until })
            }
            _ => Some(Slot::Uncacheable { key, until }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_slot_survives_its_bytes(key: [u8; 32], vm: u64, stream: u32, until: u64, inboxes in proptest::collection::vec(any::<u32>(), 0..9)) {
            let (key, until) = (CollapseKey(key), Timestamp::from_millis(until));
            for slot in [
                Slot::Free,
                Slot::Leading { key, leader: Identity { vm, stream }, until, inboxes: inboxes.clone() },
                Slot::Published { key, handoff: Handoff { index: stream, sequence: vm }, until },
                Slot::Uncacheable { key, until },
            ] {
                prop_assert_eq!(Slot::decode(&slot.encode()), slot);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Slot::decode(&bytes);
        }
    }
}
