//! What worker VMs say to each other through their inboxes.
//!
//! What this decides: the messages and their bytes. A key travels as its digest. A message that
//! cannot be read can only come from another version of the code: every waiter has a deadline of
//! its own, but what it made untrue is not known.

use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::purge::Purge;

use super::key::CollapseKey;
use super::slot::{Handoff, Reader};

/// A message to one worker VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The fetch that requests under this key wait for is over.
    Wake(CollapseKey, Wake),
    /// Forget what is stored under a key and was requested up to a time (RFC 9111 §4.4).
    Invalidate(KeyDigest, Timestamp),
    /// A background refresh has a new response for this key; whoever holds the old one takes it
    /// from the handoff.
    Refreshed(KeyDigest, Handoff),
    /// Somewhere in the fleet this was purged.
    Purges(Vec<Purge>),
    /// Purges may have been missed: forget everything that was requested up to a time.
    Forget(Timestamp),
    /// There is one more worker VM.
    Joined,
    /// To oneself: go on with what was left, on a fresh stack.
    Continue,
}

/// How a fetch ended for those who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The answer lies in the handoff.
    HandedOver(Handoff),
    /// Not storable: everyone goes alone.
    Uncacheable,
    /// The leader is gone without an answer: arrive again.
    Again,
    /// The answer was for the leader alone: arrive again, a few times.
    NotForOthers,
    /// The origin gave no answer; this status stands for it.
    Failed(u16),
}

const VERSION: u8 = 2;

impl Message {
    /// Whether something that was stored, or is on its way, must not be served any more.
    pub fn makes_untrue(&self) -> bool {
        match self {
            Self::Invalidate(..) | Self::Purges(_) | Self::Forget(_) => true,
            Self::Wake(..) | Self::Refreshed(..) | Self::Joined | Self::Continue => false,
        }
    }

    /// The bytes; never empty, for Envoy cannot tell an empty message from none.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        match self {
            Self::Wake(key, wake) => {
                bytes.push(b'W');
                bytes.extend_from_slice(&key.0);
                match wake {
                    Wake::HandedOver(handoff) => {
                        bytes.push(b'H');
                        bytes.extend_from_slice(&handoff.index.to_be_bytes());
                        bytes.extend_from_slice(&handoff.sequence.to_be_bytes());
                    }
                    Wake::Uncacheable => bytes.push(b'U'),
                    Wake::Again => bytes.push(b'A'),
                    Wake::NotForOthers => bytes.push(b'N'),
                    Wake::Failed(status) => {
                        bytes.push(b'F');
                        bytes.extend_from_slice(&status.to_be_bytes());
                    }
                }
            }
            Self::Invalidate(key, time) => {
                bytes.push(b'I');
                bytes.extend_from_slice(&time.as_millis().to_be_bytes());
                bytes.extend_from_slice(&key.0);
            }
            Self::Refreshed(key, handoff) => {
                bytes.push(b'R');
                bytes.extend_from_slice(&handoff.index.to_be_bytes());
                bytes.extend_from_slice(&handoff.sequence.to_be_bytes());
                bytes.extend_from_slice(&key.0);
            }
            Self::Purges(purges) => {
                bytes.push(b'P');
                bytes.extend(serde_json::to_vec(purges).unwrap_or_default());
            }
            Self::Forget(time) => {
                bytes.push(b'F');
                bytes.extend_from_slice(&time.as_millis().to_be_bytes());
            }
            Self::Joined => bytes.push(b'J'),
            Self::Continue => bytes.push(b'C'),
        }
        bytes
    }

    /// Reads the bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        match reader.take()? {
            [VERSION, b'W'] => {
                let key = CollapseKey(reader.take()?);
                let wake = match reader.take()? {
                    [b'H'] => Wake::HandedOver(Handoff {
                        index: reader.u32()?,
                        sequence: reader.u64()?,
                    }),
                    [b'U'] => Wake::Uncacheable,
                    [b'A'] => Wake::Again,
                    [b'N'] => Wake::NotForOthers,
                    [b'F'] => Wake::Failed(u16::from_be_bytes(reader.take()?)),
                    _ => return None,
                };
                Some(Self::Wake(key, wake))
            }
            [VERSION, b'I'] => {
                let time = Timestamp::from_millis(reader.u64()?);
                Some(Self::Invalidate(KeyDigest(reader.take()?), time))
            }
            [VERSION, b'R'] => {
                let handoff = Handoff {
                    index: reader.u32()?,
                    sequence: reader.u64()?,
                };
                Some(Self::Refreshed(KeyDigest(reader.take()?), handoff))
            }
            [VERSION, b'P'] => serde_json::from_slice(reader.0).ok().map(Self::Purges),
            [VERSION, b'F'] => Some(Self::Forget(Timestamp::from_millis(reader.u64()?))),
            [VERSION, b'J'] => Some(Self::Joined),
            [VERSION, b'C'] => Some(Self::Continue),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_contract::purge::Scope;
    use proptest::prelude::*;

    #[test]
    fn every_message_survives_its_bytes() {
        let key = CollapseKey([7; 32]);
        for message in [
            Message::Wake(
                key,
                Wake::HandedOver(Handoff {
                    index: 1,
                    sequence: 2,
                }),
            ),
            Message::Wake(key, Wake::Uncacheable),
            Message::Wake(key, Wake::Again),
            Message::Wake(key, Wake::NotForOthers),
            Message::Wake(key, Wake::Failed(502)),
            Message::Invalidate(KeyDigest([7; 32]), Timestamp::from_millis(5)),
            Message::Refreshed(
                KeyDigest([7; 32]),
                Handoff {
                    index: 1,
                    sequence: 2,
                },
            ),
            Message::Purges(vec![
                Purge {
                    scope: Scope::Tag("a".into()),
                    soft: true,
                    at_ms: Timestamp::from_millis(5),
                },
                Purge {
                    scope: Scope::Key(KeyDigest([7; 32])),
                    soft: false,
                    at_ms: Timestamp::from_millis(6),
                },
            ]),
            Message::Forget(Timestamp::from_millis(5)),
            Message::Joined,
            Message::Continue,
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Message::decode(&bytes);
        }
    }
}
