//! A response as it passes through Envoy: the origin's, Envoy's own, or ours again.

use larder_cache_core::exchange::Event;

use super::Vm;
use crate::answer::Passage;
use crate::host::Host;
use crate::stream::{Action, Stream};

impl<H: Host> Vm<H> {
    /// A response's head.
    pub fn on_response_headers(&mut self, id: u32, end: bool) -> Action {
        let host = &self.outside.host;
        if self.answers.send_head(host, id) {
            return Action::Continue;
        }
        if let Some(status) = self.marked.on_response_headers(host, id) {
            self.outside.metrics.request(&status);
            return Action::Continue;
        }
        let head = self
            .streams
            .get_mut(id)
            .and_then(|stream| stream.read_head(host, end));
        let Some(head) = head else {
            return Action::Continue;
        };
        let now = host.now();
        self.drive(id, head, now);
        let action = self
            .streams
            .get_mut(id)
            .map_or(Action::Continue, Stream::leave_head);
        if self.streams.get(id).is_some_and(Stream::is_over) {
            self.streams.take(id); // its content is of no interest
        }
        action
    }

    /// A piece of a response's content.
    pub fn on_response_body(&mut self, id: u32, length: usize, end: bool) -> Action {
        let host = &self.outside.host;
        if self.answers.send_content(host, id, length) {
            return Action::Continue;
        }
        let piece = self
            .streams
            .get_mut(id)
            .and_then(|stream| stream.read_piece(host, length));
        let Some(piece) = piece else {
            return Action::Continue;
        };
        let now = host.now();
        match piece {
            Ok(piece) => self.drive(id, Event::Body { chunk: &piece, end }, now),
            Err(_) => self.drive(id, Event::Gone { origin_broke: true }, now),
        }
        self.answers.passing()
    }

    /// Trailers: the content was complete without an end of its own.
    pub fn on_response_trailers(&mut self, id: u32) -> Action {
        if self.answers.miss_content(&self.outside.host, id) {
            return self.answers.passing();
        }
        self.on_response_body(id, 0, true)
    }

    /// How the answer that was given last should pass, if it was given at once to this stream.
    pub fn expected_passage(&self, id: u32) -> Option<Passage> {
        self.answers.expected_passage(id)
    }

    /// An answer that was given at once does not pass as it should.
    pub fn correct_passage(&mut self, id: u32) {
        self.answers.correct_passage(id);
    }
}
