//! gRPC's framing of what comes: a flag, a length (u32, big-endian), and so many bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes before each message.
pub(super) const PREFIX: usize = 5;

/// Why what comes cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageFault {
    /// A message is compressed, or its flag is none.
    Compressed,
    /// A message is longer than any may be.
    TooLong,
}

/// Messages out of the pieces in which they come. A message that comes in one piece is not copied.
#[derive(Debug)]
pub(super) struct Messages {
    /// The last piece, or what is left of it.
    piece: Bytes,
    /// The beginning of a message whose rest has not come.
    begun: BytesMut,
    longest: usize,
}

impl Messages {
    /// None may be longer than this.
    pub(super) fn up_to(longest: usize) -> Self {
        Self {
            piece: Bytes::new(),
            begun: BytesMut::new(),
            longest,
        }
    }

    /// One more piece. The one before was read to its end: [`Self::next`] gave `None`.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    /// Whether a message has begun and its rest is missing.
    pub(super) fn has_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// The next message that is complete.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, MessageFault> {
        if self.begun.is_empty() {
            let length = self.length_of(&self.piece)?;
            return match length {
                Some(length) if self.piece.len() >= PREFIX + length => {
                    self.piece.advance(PREFIX);
                    Ok(Some(self.piece.split_to(length)))
                }
                _ => {
                    self.begin();
                    Ok(None)
                }
            };
        }
        // A message in several pieces is put together: first its prefix, then as much as that says.
        self.take(PREFIX);
        let Some(length) = self.length_of(&self.begun)? else {
            return Ok(None);
        };
        self.take(PREFIX + length);
        if self.begun.len() < PREFIX + length {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.begun);
        message.advance(PREFIX);
        Ok(Some(message.freeze()))
    }

    fn length_of(&self, begun: &[u8]) -> Result<Option<usize>, MessageFault> {
        let Some((&[flag, length @ ..], _)) = begun.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        if flag != 0 {
            return Err(MessageFault::Compressed);
        }
        usize::try_from(u32::from_be_bytes(length))
            .ok()
            .filter(|&length| length <= self.longest)
            .map(Some)
            .ok_or(MessageFault::TooLong)
    }

    fn begin(&mut self) {
        self.take(usize::MAX);
    }

    /// Moves bytes from the piece until so many of the message are there. Memory is taken for what
    /// has come, not for what a length promises.
    fn take(&mut self, until: usize) {
        let missing = until.saturating_sub(self.begun.len());
        let part = self.piece.split_to(missing.min(self.piece.len()));
        self.begun.extend_from_slice(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0], length.as_slice(), message].concat()
    }

    fn all(messages: &mut Messages, piece: &[u8]) -> Vec<Vec<u8>> {
        messages.push(Bytes::copy_from_slice(piece));
        std::iter::from_fn(|| messages.next().unwrap())
            .map(|message| message.to_vec())
            .collect()
    }

    #[test]
    fn messages_come_out_whole_wherever_they_are_cut() {
        let sent: Vec<Vec<u8>> = vec![vec![], vec![1], vec![2; 300], vec![], vec![3; 7]];
        let bytes: Vec<u8> = sent.iter().flat_map(|message| framed(message)).collect();
        for size in 1..=bytes.len() {
            let mut messages = Messages::up_to(300);
            let heard: Vec<Vec<u8>> = bytes
                .chunks(size)
                .flat_map(|piece| all(&mut messages, piece))
                .collect();
            assert_eq!(heard, sent, "in pieces of {size}");
            assert!(!messages.has_begun());
        }
    }

    #[test]
    fn what_is_compressed_or_too_long_is_found_at_its_prefix() {
        for (bytes, fault) in [
            (&[1, 0, 0, 0, 1, 9][..], MessageFault::Compressed),
            (&[0, 0, 0, 0, 11][..], MessageFault::TooLong),
            (&[0, 255, 255, 255, 255][..], MessageFault::TooLong),
        ] {
            let mut messages = Messages::up_to(10);
            messages.push(Bytes::copy_from_slice(bytes));
            assert_eq!(messages.next(), Err(fault));
            let mut messages = Messages::up_to(10);
            assert!(all(&mut messages, &bytes[..4]).is_empty());
            assert!(messages.has_begun());
            messages.push(Bytes::copy_from_slice(&bytes[4..]));
            assert_eq!(messages.next(), Err(fault));
        }
    }
}
