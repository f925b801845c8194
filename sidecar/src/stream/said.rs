//! What is said next, gathered so that it goes out together.

use bytes::Bytes;
use larder_contract::store_stream::{Answer, Said};

use super::messages::PREFIX;

/// Frames in gRPC's framing, ready to be sent as one piece.
#[derive(Debug, Default)]
pub(super) struct Gathered(Vec<u8>);

impl Gathered {
    /// One more frame.
    pub(super) fn say(&mut self, said: &Said) {
        let begin = self.0.len();
        self.0.extend_from_slice(&[0; PREFIX]);
        said.write(&mut self.0);
        // An answer is hardly longer than an entry, which is bounded far below this.
        let length = u32::try_from(self.0.len() - begin - PREFIX).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(begin + 1..begin + PREFIX) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }

    /// One more frame: an answer.
    pub(super) fn answer(&mut self, number: u32, answer: Answer) {
        self.say(&Said::Answer { number, answer });
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of it, if there is any.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| std::mem::take(&mut self.0).into())
    }
}
