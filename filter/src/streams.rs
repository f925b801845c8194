//! The streams of one worker that something is still to be done for.

use std::collections::VecDeque;

use larder_contract::http_time::Timestamp;
use rustc_hash::FxHashMap;

use crate::stream::Stream;

/// The streams under way, and what they want to be reminded of.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    under_way: FxHashMap<u32, Stream>,
    /// Streams that want to know how late it is, the earliest first.
    reminders: VecDeque<(Timestamp, u32)>,
}

impl Streams {
    /// A stream under way.
    pub(crate) fn get(&self, id: u32) -> Option<&Stream> {
        self.under_way.get(&id)
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.under_way.get_mut(&id)
    }

    /// Takes a stream out, to be driven or forgotten.
    pub(crate) fn take(&mut self, id: u32) -> Option<Stream> {
        self.under_way.remove(&id)
    }

    /// Keeps a stream whose answer is still to come, or of which Envoy will call again.
    pub(crate) fn keep(&mut self, id: u32, stream: Stream) {
        self.under_way.insert(id, stream);
    }

    /// A stream is to be told when it is so late.
    pub(crate) fn remind(&mut self, id: u32, at: Timestamp) {
        self.reminders.push_back((at, id));
    }

    /// Takes the next stream that is to be told how late it is.
    pub(crate) fn next_reminded(&mut self, now: Timestamp) -> Option<u32> {
        while let Some((_, id)) = self.reminders.pop_front_if(|(at, _)| *at <= now) {
            if self.under_way.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }
}
