//! What a sidecar sends.

use bytes::BufMut;

use crate::store_api::{Events, Fence, LookUpAnswer};
use crate::wire::{FrameFault, Reader, put_text};

const WELCOME: u8 = 0x81;
const OTHER_VERSION: u8 = 0x82;
const TAKEN: u8 = 0x83;
const FOUND: u8 = 0x84;
const DONE: u8 = 0x85;
const PURGES: u8 = 0x86;

/// Kinds of [`Answer::LookUp`].
const ENTRY: u8 = 0;
const LEASE: u8 = 1;
const HELD: u8 = 2;
const NOTHING: u8 = 3;
const UNCACHEABLE: u8 = 4;

/// A frame from the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The stream is open: from here on it carries questions.
    Welcome {
        /// [`super::VERSION`] of the sidecar.
        version: u8,
    },
    /// The filter's version is another; the stream ends.
    OtherVersion {
        /// The sidecar's. Whatever it is, the frame's first two bytes are these.
        version: u8,
    },
    /// So many bytes of all frames have been read since the stream began.
    Taken(u64),
    /// The answer to a question.
    Answer {
        /// The question's.
        number: u32,
        /// What it says.
        answer: Answer,
    },
}

/// The answer to a [`super::Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a look-up.
    LookUp {
        /// What was found.
        found: LookUpAnswer,
        /// By how many milliseconds the asker's clock is ahead of the store's, whose times the
        /// entry has.
        ahead: i64,
    },
    /// To what was told; and to any question that could not be carried out.
    Done {
        /// As the HTTP API would have answered: 204, 409, 413; 400, 401, 429, 503.
        status: u16,
    },
    /// To one who follows.
    Purges {
        /// What was purged.
        events: Events,
        /// For how many milliseconds before the question came the sidecar may have missed some.
        unheard_ms: u64,
    },
}

impl Said {
    /// Writes the frame behind what `frame` holds already.
    pub fn write(&self, frame: &mut Vec<u8>) {
        match self {
            Self::Welcome { version } => frame.put_slice(&[WELCOME, *version]),
            Self::OtherVersion { version } => frame.put_slice(&[OTHER_VERSION, *version]),
            Self::Taken(bytes) => {
                frame.put_u8(TAKEN);
                frame.put_u64(*bytes);
            }
            Self::Answer { number, answer } => answer.write(*number, frame),
        }
    }

    /// Reads a frame.
    pub fn read(frame: &[u8]) -> Result<Self, FrameFault> {
        let mut reader = Reader(frame);
        let kind = reader.u8()?;
        let said = match kind {
            WELCOME => Self::Welcome {
                version: reader.u8()?,
            },
            OTHER_VERSION => {
                let version = reader.u8()?;
                // What a later version says behind its number is its own affair.
                reader.rest();
                Self::OtherVersion { version }
            }
            TAKEN => Self::Taken(reader.u64()?),
            _ => Self::Answer {
                number: reader.u32()?,
                answer: Answer::read(kind, &mut reader)?,
            },
        };
        reader.end(said)
    }
}

impl Answer {
    fn write(&self, number: u32, frame: &mut Vec<u8>) {
        match self {
            Self::LookUp { found, ahead } => {
                let (kind, fence, entry) = match found {
                    LookUpAnswer::Entry(entry) => (ENTRY, None, Some(entry)),
                    LookUpAnswer::Lease { fence, stale } => (LEASE, Some(fence), stale.as_ref()),
                    LookUpAnswer::Held { stale } => (HELD, None, stale.as_ref()),
                    LookUpAnswer::Nothing { uncacheable: true } => (UNCACHEABLE, None, None),
                    LookUpAnswer::Nothing { uncacheable: false } => (NOTHING, None, None),
                };
                frame.put_u8(FOUND);
                frame.put_u32(number);
                frame.put_i64(*ahead);
                frame.put_u8(kind);
                put_text(frame, fence.map_or("", |fence| &fence.0));
                frame.put_slice(entry.map_or(&[], Vec::as_slice));
            }
            Self::Done { status } => {
                frame.put_u8(DONE);
                frame.put_u32(number);
                frame.put_u16(*status);
            }
            Self::Purges { events, unheard_ms } => {
                frame.put_u8(PURGES);
                frame.put_u32(number);
                frame.put_u64(*unheard_ms);
                // Writing these members into memory cannot fail.
                let _ = serde_json::to_writer(frame, events);
            }
        }
    }

    fn read(kind: u8, reader: &mut Reader<'_>) -> Result<Self, FrameFault> {
        Ok(match kind {
            FOUND => {
                let ahead = reader.i64()?;
                let (kind, fence) = (reader.u8()?, reader.text()?);
                let found = found(kind, fence, reader.rest())?;
                Self::LookUp { found, ahead }
            }
            DONE => Self::Done {
                status: reader.u16()?,
            },
            PURGES => Self::Purges {
                unheard_ms: reader.u64()?,
                events: serde_json::from_slice(reader.rest()).map_err(|_| FrameFault::Unknown)?,
            },
            _ => return Err(FrameFault::Unknown),
        })
    }
}

fn found(kind: u8, fence: &str, entry: &[u8]) -> Result<LookUpAnswer, FrameFault> {
    let some = (!entry.is_empty()).then(|| entry.to_vec());
    let found = match (kind, fence) {
        (LEASE, fence) => LookUpAnswer::Lease {
            fence: Fence::parse(fence.as_bytes()).ok_or(FrameFault::Unknown)?,
            stale: some,
        },
        (ENTRY, "") => LookUpAnswer::Entry(some.ok_or(FrameFault::Short)?),
        (HELD, "") => LookUpAnswer::Held { stale: some },
        (NOTHING | UNCACHEABLE, "") if some.is_none() => LookUpAnswer::Nothing {
            uncacheable: kind == UNCACHEABLE,
        },
        _ => return Err(FrameFault::Unknown),
    };
    Ok(found)
}
