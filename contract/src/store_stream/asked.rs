//! What a filter sends.

use bytes::BufMut;

use crate::http_time::Timestamp;
use crate::key::KeyDigest;
use crate::selectors::{Presented, SelectorToken};
use crate::store_api::{Fence, Holder, Invalidate, LeaseTerms, LookUp, Release};
use crate::wire::{FrameFault, Reader, put_millis, put_text, put_time};

const HELLO: u8 = 0x01;
const LOOK_UP: u8 = 0x02;
const WRITE: u8 = 0x03;
const RELEASE: u8 = 0x04;
const INVALIDATE: u8 = 0x05;
const FOLLOW: u8 = 0x06;

/// A frame from the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Who speaks. The first frame, and never again.
    Hello {
        /// [`super::VERSION`] of the filter. Whatever it is, the frame's first two bytes are these.
        version: u8,
        /// A random number that all workers of an Envoy share.
        envoy: u64,
    },
    /// A question.
    Question {
        /// Drawn by the filter; the answer repeats it.
        number: u32,
        /// When it was sent, on the Envoy's clock.
        sent: Timestamp,
        /// What is asked.
        question: Question<'a>,
    },
}

/// What is asked of the store, or told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// Look up, or give me the lease, or let me wait.
    LookUp(LookUp),
    /// Store an entry.
    Write {
        /// Under which key.
        key: KeyDigest,
        /// The lease it was fetched under.
        fence: Option<Fence>,
        /// An encoded [`crate::entry::Entry`].
        entry: &'a [u8],
    },
    /// Give a lease back.
    Release(Release),
    /// Drop what is stored under some keys.
    Invalidate(Invalidate),
    /// Say what has been purged since a cursor, as soon as there is something.
    Follow {
        /// The cursor of the last answer; `None` asks for the place to begin.
        after: Option<String>,
        /// How long the answer may be held back, in milliseconds.
        wait_ms: u64,
    },
}

impl Asked<'_> {
    /// Writes the frame behind what `frame` holds already.
    pub fn write(&self, frame: &mut Vec<u8>) {
        match self {
            Self::Hello { version, envoy } => {
                frame.put_u8(HELLO);
                frame.put_u8(*version);
                frame.put_u64(*envoy);
            }
            Self::Question {
                number,
                sent,
                question,
            } => {
                frame.put_u8(question.kind());
                frame.put_u32(*number);
                put_time(frame, *sent);
                question.write(frame);
            }
        }
    }

    /// The number of a question that cannot be read any further, so that it can be refused.
    pub fn number_of(frame: &[u8]) -> Option<u32> {
        let mut reader = Reader(frame);
        let kind = reader.u8().ok()?;
        (LOOK_UP..=FOLLOW)
            .contains(&kind)
            .then(|| reader.u32().ok())
            .flatten()
    }

    /// Reads a frame.
    pub fn read(frame: &[u8]) -> Result<Asked<'_>, FrameFault> {
        let mut reader = Reader(frame);
        let kind = reader.u8()?;
        if kind == HELLO {
            let version = reader.u8()?;
            // What a later version says behind its number is its own affair.
            let envoy = if version == super::VERSION {
                reader.u64()?
            } else {
                reader.rest();
                0
            };
            return reader.end(Asked::Hello { version, envoy });
        }
        let (number, sent) = (reader.u32()?, reader.time()?);
        let question = Question::read(kind, &mut reader)?;
        reader.end(Asked::Question {
            number,
            sent,
            question,
        })
    }
}

impl Question<'_> {
    fn kind(&self) -> u8 {
        match self {
            Self::LookUp(_) => LOOK_UP,
            Self::Write { .. } => WRITE,
            Self::Release(_) => RELEASE,
            Self::Invalidate(_) => INVALIDATE,
            Self::Follow { .. } => FOLLOW,
        }
    }

    fn write(&self, frame: &mut Vec<u8>) {
        match self {
            Self::LookUp(look_up) => write_look_up(look_up, frame),
            Self::Write { key, fence, entry } => {
                frame.put_slice(&key.0);
                put_text(frame, fence.as_ref().map_or("", |fence| &fence.0));
                frame.put_slice(entry);
            }
            Self::Release(release) => {
                frame.put_slice(&release.key.0);
                put_text(frame, &release.fence.0);
                put_millis(frame, release.uncacheable_ms);
            }
            Self::Invalidate(invalidate) => {
                put_time(frame, invalidate.now_ms);
                frame.put_u8(u8::from(invalidate.everything));
                for key in &invalidate.digests {
                    frame.put_slice(&key.0);
                }
            }
            Self::Follow { after, wait_ms } => {
                put_millis(frame, *wait_ms);
                frame.put_u8(u8::from(after.is_some()));
                after.iter().for_each(|after| put_text(frame, after));
            }
        }
    }

    fn read<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<Question<'a>, FrameFault> {
        Ok(match kind {
            LOOK_UP => Question::LookUp(read_look_up(reader)?),
            WRITE => Question::Write {
                key: reader.key()?,
                fence: read_fence(reader)?,
                entry: reader.rest(),
            },
            RELEASE => Question::Release(Release {
                key: reader.key()?,
                fence: read_fence(reader)?.ok_or(FrameFault::Unknown)?,
                uncacheable_ms: u64::from(reader.u32()?),
            }),
            INVALIDATE => Question::Invalidate(Invalidate {
                now_ms: reader.time()?,
                everything: reader.flag()?,
                digests: read_keys(reader)?,
            }),
            FOLLOW => Question::Follow {
                wait_ms: u64::from(reader.u32()?),
                after: match reader.flag()? {
                    true => Some(reader.text()?.to_owned()),
                    false => None,
                },
            },
            _ => return Err(FrameFault::Unknown),
        })
    }
}

fn write_look_up(look_up: &LookUp, frame: &mut Vec<u8>) {
    frame.put_slice(&look_up.key.0);
    frame.put_u8(u8::from(look_up.lease.is_some()));
    if let Some(terms) = &look_up.lease {
        frame.put_u64(terms.holder.0);
        put_millis(frame, terms.lease_ms);
        put_millis(frame, terms.wait_ms);
    }
    let count = u16::try_from(look_up.presented.len()).unwrap_or(u16::MAX);
    frame.put_u16(count);
    for (name, token) in look_up.presented.iter().take(usize::from(count)) {
        put_text(frame, name);
        frame.put_slice(&token.0);
    }
}

/// The clock of a look-up is the frame's.
fn read_look_up(reader: &mut Reader<'_>) -> Result<LookUp, FrameFault> {
    let key = reader.key()?;
    let lease = match reader.flag()? {
        true => Some(LeaseTerms {
            holder: Holder(reader.u64()?),
            lease_ms: u64::from(reader.u32()?),
            wait_ms: u64::from(reader.u32()?),
        }),
        false => None,
    };
    let count = reader.u16()?;
    let field = |_| Ok((reader.text()?, SelectorToken(reader.array()?)));
    let presented = (0..count)
        .map(field)
        .collect::<Result<Presented, FrameFault>>()?;
    Ok(LookUp {
        key,
        presented,
        now_ms: Timestamp::default(),
        lease,
    })
}

fn read_fence(reader: &mut Reader<'_>) -> Result<Option<Fence>, FrameFault> {
    match reader.text()? {
        "" => Ok(None),
        text => Fence::parse(text.as_bytes())
            .map(Some)
            .ok_or(FrameFault::Unknown),
    }
}

fn read_keys(reader: &mut Reader<'_>) -> Result<Vec<KeyDigest>, FrameFault> {
    let (keys, rest) = reader.rest().as_chunks();
    rest.is_empty()
        .then(|| keys.iter().copied().map(KeyDigest).collect())
        .ok_or(FrameFault::Short)
}
