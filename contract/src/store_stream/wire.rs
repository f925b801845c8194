//! The pieces that frames are made of. Reading never panics, and takes no more memory than the
//! frame has bytes.

use bytes::{Buf, BufMut};

use super::FrameFault;
use crate::http_time::Timestamp;
use crate::key::KeyDigest;

/// The rest of a frame that is being read.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn u8(&mut self) -> Result<u8, FrameFault> {
        self.0.try_get_u8().map_err(|_| FrameFault::Short)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FrameFault> {
        self.0.try_get_u16().map_err(|_| FrameFault::Short)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FrameFault> {
        self.0.try_get_u32().map_err(|_| FrameFault::Short)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FrameFault> {
        self.0.try_get_u64().map_err(|_| FrameFault::Short)
    }

    pub(super) fn i64(&mut self) -> Result<i64, FrameFault> {
        self.0.try_get_i64().map_err(|_| FrameFault::Short)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, FrameFault> {
        self.u64().map(Timestamp::from_millis)
    }

    pub(super) fn flag(&mut self) -> Result<bool, FrameFault> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameFault::Unknown),
        }
    }

    pub(super) fn key(&mut self) -> Result<KeyDigest, FrameFault> {
        let (key, rest) = self.0.split_first_chunk().ok_or(FrameFault::Short)?;
        self.0 = rest;
        Ok(KeyDigest(*key))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, FrameFault> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(length).ok_or(FrameFault::Short)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| FrameFault::Unknown)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Nothing may be left.
    pub(super) fn end<T>(self, read: T) -> Result<T, FrameFault> {
        self.0.is_empty().then_some(read).ok_or(FrameFault::Long)
    }
}

pub(super) fn put_time(frame: &mut Vec<u8>, time: Timestamp) {
    frame.put_u64(time.as_millis());
}

/// Durations on the stream are bounded well below this; a longer one counts as the longest.
pub(super) fn put_millis(frame: &mut Vec<u8>, millis: u64) {
    frame.put_u32(u32::try_from(millis).unwrap_or(u32::MAX));
}

/// Text of more than 65,535 bytes, which no name, token, fence or cursor has, is cut off.
pub(super) fn put_text(frame: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(usize::from(u16::MAX));
    let text = text.get(..end).unwrap_or_default();
    frame.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    frame.put_slice(text.as_bytes());
}
