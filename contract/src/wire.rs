//! The pieces that frames and entries are made of. Reading never panics, and takes no more memory
//! than there are bytes.

use std::fmt;

use bytes::{Buf, BufMut};

use crate::http_time::Timestamp;
use crate::key::KeyDigest;

/// Some bytes are not a frame of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// It ends too early.
    Short,
    /// It goes on behind its end.
    Long,
    /// A kind, a flag or a text that no frame has.
    Unknown,
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "a frame ends too early",
            Self::Long => "a frame goes on behind its end",
            Self::Unknown => "a frame says something unknown",
        })
    }
}

impl std::error::Error for FrameFault {}

/// The rest of a frame that is being read.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn u8(&mut self) -> Result<u8, FrameFault> {
        self.0.try_get_u8().map_err(|_| FrameFault::Short)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FrameFault> {
        self.0.try_get_u16().map_err(|_| FrameFault::Short)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FrameFault> {
        self.0.try_get_u32().map_err(|_| FrameFault::Short)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FrameFault> {
        self.0.try_get_u64().map_err(|_| FrameFault::Short)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, FrameFault> {
        self.0.try_get_i64().map_err(|_| FrameFault::Short)
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, FrameFault> {
        self.u64().map(Timestamp::from_millis)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, FrameFault> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameFault::Unknown),
        }
    }

    /// A fixed number of bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameFault> {
        let (array, rest) = self.0.split_first_chunk().ok_or(FrameFault::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn key(&mut self) -> Result<KeyDigest, FrameFault> {
        self.array().map(KeyDigest)
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], FrameFault> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(FrameFault::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, FrameFault> {
        let length = usize::from(self.u16()?);
        std::str::from_utf8(self.bytes(length)?).map_err(|_| FrameFault::Unknown)
    }

    /// Bytes behind their length as u32.
    pub(crate) fn long_bytes(&mut self) -> Result<&'a [u8], FrameFault> {
        let length = usize::try_from(self.u32()?).map_err(|_| FrameFault::Short)?;
        self.bytes(length)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Nothing may be left.
    pub(crate) fn end<T>(self, read: T) -> Result<T, FrameFault> {
        self.0.is_empty().then_some(read).ok_or(FrameFault::Long)
    }
}

pub(crate) fn put_time(frame: &mut Vec<u8>, time: Timestamp) {
    frame.put_u64(time.as_millis());
}

/// Durations on the stream are bounded well below this; a longer one counts as the longest.
pub(crate) fn put_millis(frame: &mut Vec<u8>, millis: u64) {
    frame.put_u32(u32::try_from(millis).unwrap_or(u32::MAX));
}

/// Text of more than 65,535 bytes, which no name, token, fence or cursor has, is cut off.
pub(crate) fn put_text(frame: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(usize::from(u16::MAX));
    let text = text.get(..end).unwrap_or_default();
    frame.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    frame.put_slice(text.as_bytes());
}

/// Bytes behind their length as u32. There are never 4 GiB of them.
pub(crate) fn put_bytes(frame: &mut Vec<u8>, bytes: &[u8]) {
    frame.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    frame.put_slice(bytes);
}
