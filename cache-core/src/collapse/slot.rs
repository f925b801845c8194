//! The bytes of a leader slot.
//!
//! ```text
//! version 1 | kind 1 | key 32 | until 8 | rest by kind
//! Leading:     vm 8, stream 4, began 8, setbacks 1, pause 9, inboxes n × 4
//! Published:   index 4, sequence 8
//! Uncacheable: -
//! Refused:     setbacks 1
//! Paused:      setbacks 1
//! Asked:       -
//! ```
//! Numbers are big-endian. What cannot be read counts as [`Slot::Free`]: a slot outlives a change
//! of code.

use larder_contract::http_time::Timestamp;

use super::key::CollapseKey;

const VERSION: u8 = 2;
const LEADING: u8 = 1;
const PUBLISHED: u8 = 2;
const UNCACHEABLE: u8 = 3;
const REFUSED: u8 = 4;
const PAUSED: u8 = 5;
const ASKED: u8 = 6;

/// More worker VMs than this are not woken; their requests go alone.
pub const MAX_INBOXES: usize = 512;

/// Background refreshes that failed in a row, and when the next one may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// When.
    pub until: Timestamp,
    /// How many; none, and there is no pause.
    pub failures: u8,
}

/// One stream in one worker VM: who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A random number the VM drew when it started.
    pub vm: u64,
    /// Envoy's context id of the stream; for a background refresh a number with
    /// [`Identity::REFRESH`] set.
    pub stream: u32,
}

impl Identity {
    /// Marks a background refresh. Envoy's context ids count up from 1 and do not reach it.
    pub const REFRESH: u32 = 0x8000_0000;

    pub(super) fn is_refresh(self) -> bool {
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

/// A fetch under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// What is fetched.
    pub key: CollapseKey,
    /// Who fetches.
    pub leader: Identity,
    /// When it took the slot: its fetch did not begin before.
    pub began: Timestamp,
    /// When the leader is given up.
    pub until: Timestamp,
    /// How many fetches of its kind in a row ended badly before it.
    pub setbacks: u8,
    /// What the slot remembered of refreshes that failed.
    pub pause: Pause,
    /// Queues of the VMs in which requests wait.
    pub inboxes: Vec<u32>,
}

/// A slot's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nobody leads and nothing is remembered.
    Free,
    /// A fetch is under way.
    Leading(Lead),
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
    /// The last answers were for nobody but their own client; the next request leads all the same.
    Refused {
        /// What was fetched.
        key: CollapseKey,
        /// How long that is remembered.
        until: Timestamp,
        /// How many in a row.
        setbacks: u8,
    },
    /// The last background refreshes failed; the next one has to wait, a request has not.
    Paused {
        /// What was to be refreshed.
        key: CollapseKey,
        /// How long.
        pause: Pause,
    },
    /// A part was asked for; the second time brings the whole.
    Asked {
        /// Of what.
        key: CollapseKey,
        /// How long that is remembered.
        until: Timestamp,
    },
}

impl Slot {
    /// Its kind, what it is about, and until when it counts.
    fn front(&self) -> Option<(u8, &CollapseKey, Timestamp)> {
        match self {
            Self::Free => None,
            Self::Leading(Lead { key, until, .. }) => Some((LEADING, key, *until)),
            Self::Published { key, until, .. } => Some((PUBLISHED, key, *until)),
            Self::Uncacheable { key, until } => Some((UNCACHEABLE, key, *until)),
            Self::Refused { key, until, .. } => Some((REFUSED, key, *until)),
            Self::Paused { key, pause } => Some((PAUSED, key, pause.until)),
            Self::Asked { key, until } => Some((ASKED, key, *until)),
        }
    }

    /// Whether it is about `key`.
    pub(super) fn is_about(&self, key: &CollapseKey) -> bool {
        self.front().is_some_and(|(_, held, _)| held == key)
    }

    /// Whether it still counts.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.front().is_some_and(|(.., until)| now < until)
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Some((kind, key, until)) = self.front() else {
            return vec![VERSION, 0];
        };
        let mut bytes = vec![VERSION, kind];
        bytes.extend_from_slice(&key.0);
        bytes.extend_from_slice(&until.as_millis().to_be_bytes());
        match self {
            Self::Leading(lead) => {
                bytes.extend_from_slice(&lead.leader.vm.to_be_bytes());
                bytes.extend_from_slice(&lead.leader.stream.to_be_bytes());
                bytes.extend_from_slice(&lead.began.as_millis().to_be_bytes());
                bytes.push(lead.setbacks);
                bytes.extend_from_slice(&lead.pause.until.as_millis().to_be_bytes());
                bytes.push(lead.pause.failures);
                for inbox in &lead.inboxes {
                    bytes.extend_from_slice(&inbox.to_be_bytes());
                }
            }
            Self::Published { handoff, .. } => {
                bytes.extend_from_slice(&handoff.index.to_be_bytes());
                bytes.extend_from_slice(&handoff.sequence.to_be_bytes());
            }
            Self::Refused { setbacks, .. } => bytes.push(*setbacks),
            Self::Paused { pause, .. } => bytes.push(pause.failures),
            Self::Free | Self::Uncacheable { .. } | Self::Asked { .. } => {}
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

    fn u8(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn slot(&mut self) -> Option<Slot> {
        let [version, kind] = self.take()?;
        if version != VERSION || !(LEADING..=ASKED).contains(&kind) {
            return None;
        }
        let key = CollapseKey(self.take()?);
        let until = Timestamp::from_millis(self.u64()?);
        match kind {
            LEADING => {
                let leader = Identity {
                    vm: self.u64()?,
                    stream: self.u32()?,
                };
                let began = Timestamp::from_millis(self.u64()?);
                let setbacks = self.u8()?;
                let pause = Pause {
                    until: Timestamp::from_millis(self.u64()?),
                    failures: self.u8()?,
                };
                let inboxes = std::iter::from_fn(|| self.u32())
                    .take(MAX_INBOXES)
                    .collect();
                Some(Slot::Leading(Lead {
                    key,
                    leader,
                    began,
                    until,
                    setbacks,
                    pause,
                    inboxes,
                }))
            }
            PUBLISHED => {
                let handoff = Handoff {
                    index: self.u32()?,
                    sequence: self.u64()?,
                };
                Some(Slot::Published {
                    key,
                    handoff,
                    until,
                })
            }
            REFUSED => Some(Slot::Refused {
                key,
                until,
                setbacks: self.u8()?,
            }),
            PAUSED => Some(Slot::Paused {
                key,
                pause: Pause {
                    until,
                    failures: self.u8()?,
                },
            }),
            ASKED => Some(Slot::Asked { key, until }),
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
        fn a_slot_survives_its_bytes(
            key: [u8; 32], vm: u64, stream: u32, times: [u64; 2], setbacks: u8,
            inboxes in proptest::collection::vec(any::<u32>(), 0..9),
        ) {
            let [began, until] = times.map(Timestamp::from_millis);
            let pause = Pause { until: began, failures: setbacks };
            let (key, leader) = (CollapseKey(key), Identity { vm, stream });
            for slot in [
                Slot::Free,
                Slot::Leading(Lead { key, leader, began, until, setbacks, pause, inboxes: inboxes.clone() }),
                Slot::Published { key, handoff: Handoff { index: stream, sequence: vm }, until },
                Slot::Uncacheable { key, until },
                Slot::Refused { key, until, setbacks },
                Slot::Paused { key, pause },
                Slot::Asked { key, until },
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
