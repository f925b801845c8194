//! An entry in its frame: what a store is given.

use bytes::Bytes;

use super::{EntryFault, EntryMeta, decode, encode};

/// A stored response as a store sees it: the frame in which it came, checked, and the meta that was
/// read from it. A store that keeps frames keeps it as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    meta: EntryMeta,
    frame: Bytes,
    body_start: usize,
}

impl Entry {
    /// The entry of a response with this meta and body, whose length and digest the meta has.
    pub fn new(meta: EntryMeta, body: &[u8]) -> Self {
        let frame = Bytes::from(encode(&meta, body));
        let body_start = frame.len() - body.len();
        Self {
            meta,
            frame,
            body_start,
        }
    }

    /// Reads a frame and checks it.
    pub fn read(frame: Bytes) -> Result<Self, EntryFault> {
        let (meta, body) = decode(&frame)?;
        let body_start = frame.len() - body.len();
        Ok(Self {
            meta,
            body_start,
            frame,
        })
    }

    /// Everything but the body.
    pub fn meta(&self) -> &EntryMeta {
        &self.meta
    }

    /// The response's content.
    pub fn body(&self) -> &[u8] {
        self.frame.get(self.body_start..).unwrap_or_default()
    }

    /// All its bytes.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Changes the meta, and the frame with it.
    pub fn change(&mut self, change: impl FnOnce(&mut EntryMeta)) {
        let mut meta = self.meta.clone();
        change(&mut meta);
        if meta != self.meta {
            *self = Self::new(meta, self.body());
        }
    }
}
