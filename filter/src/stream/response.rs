//! The response side of a stream: head, content and trailers as they pass, and who made them.

use larder_cache_core::exchange::{Event, Interest, ResponseChange, ResponseSource};
use larder_cache_core::message::ResponseHead;

use super::{Action, Passage};
use crate::calls::{SERVICE_TIME, status_of};
use crate::host::{Host, Map};
use crate::vm::Vm;

/// How Envoy's details begin when it reached no origin.
const NO_ORIGIN: [&[u8]; 2] = [b"no_healthy_upstream", b"cluster_not_found"];
/// How they begin when a connection to it broke, and what they name in braces when there was none to send the request on.
const RESET: &[u8] = b"upstream_reset";
const NOT_SENT: [&[u8]; 3] = [b"connection_failure", b"connection_timeout", b"{overflow"];

impl<H: Host> Vm<H> {
    /// A response's head: the origin's, Envoy's own, or ours again.
    pub fn on_response_headers(&mut self, id: u32, end: bool) -> Action {
        if self.answers.send_head(&self.outside.host, id) {
            return Action::Continue;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Action::Continue };
        if stream.replied || !stream.exchange.expects_response() {
            return Action::Continue;
        }
        let Ok(mut fields) = self.outside.host.headers(Map::Response) else { return Action::Continue };
        let status = status_of(&fields);
        if (100..200).contains(&status) {
            return Action::Continue;
        }
        stream.response = Passage::InCallback(Action::Continue);
        // A 304 that does not end with its head has no content either (RFC 9110 §15.4.5): no frame, or an empty one, or
        // trailers, which leave no place for an answer's.
        stream.content_follows = !end && status != 304;
        let source = self.source_of(status, fields.contains(SERVICE_TIME));
        fields.remove(b":status");
        let now = self.outside.host.now();
        self.drive(id, Event::Response { head: ResponseHead { status, fields }, source, end }, now);
        let action = self.response_action(id);
        if self.streams.get(&id).is_some_and(|stream| stream.exchange.is_over()) {
            self.streams.remove(&id); // its content is of no interest
        }
        action
    }

    /// A piece of a response's content.
    pub fn on_response_body(&mut self, id: u32, length: usize, end: bool) -> Action {
        if self.answers.send_content(&self.outside.host, id, length) {
            return Action::Continue;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Action::Continue };
        if stream.replied {
            return Action::Continue;
        }
        if stream.exchange.interest() == Interest::None {
            return Action::Continue;
        }
        let piece = if length > 0 { self.outside.host.response_body(length) } else { Ok(Vec::new()) };
        if let Some(before) = stream.before.take() {
            let _ = self.outside.host.prepend_response_body(&before);
        }
        let now = self.outside.host.now();
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

    fn response_action(&mut self, id: u32) -> Action {
        let Some(stream) = self.streams.get_mut(&id) else { return Action::Continue };
        match std::mem::replace(&mut stream.response, Passage::Passed) {
            Passage::InCallback(action) => action,
            Passage::Held | Passage::Passed => Action::Continue,
        }
    }

    /// Who made a response. Envoy's own answers lack the field its router adds to an origin's.
    fn source_of(&self, status: u16, has_service_time: bool) -> ResponseSource {
        if has_service_time {
            return ResponseSource::Origin;
        }
        let details = self.outside.host.property(&["response", "code_details"]).unwrap_or_default();
        if details.starts_with(b"via_upstream") {
            ResponseSource::Origin
        } else if status == 504 {
            ResponseSource::Timeout
        } else if NO_ORIGIN.iter().any(|start| details.starts_with(start)) {
            ResponseSource::NoOrigin
        } else if status == 502 || details.starts_with(RESET) {
            let names = |reason: &&[u8]| details.windows(reason.len()).any(|part| part == *reason);
            if NOT_SENT.iter().any(names) { ResponseSource::NoOrigin } else { ResponseSource::Lost }
        } else {
            ResponseSource::Proxy
        }
    }

    pub(super) fn pass_response(&self, change: &ResponseChange) {
        if let Some(status) = change.status {
            let _ = self.outside.host.set_header(Map::Response, b":status", status.to_string().as_bytes());
        }
        for name in &change.remove {
            let _ = self.outside.host.remove_header(Map::Response, name);
        }
        for (name, value) in change.set.iter() {
            let _ = self.outside.host.set_header(Map::Response, name, value);
        }
    }
}
