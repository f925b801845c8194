//! The response side of a stream: head, content and trailers as they pass, and who made them.

use larder_cache_core::exchange::{Event, Interest, ResponseChange, ResponseSource};
use larder_cache_core::message::ResponseHead;

use super::{Action, Passage, Stream};
use crate::calls::{SERVICE_TIME, status_of};
use crate::host::{Host, Map, Refused};

/// How Envoy's details begin when it reached no origin.
const NO_ORIGIN: [&[u8]; 2] = [b"no_healthy_upstream", b"cluster_not_found"];
/// How they begin when a connection to it broke, and what they name in braces when there was none
/// to send the request on.
const RESET: &[u8] = b"upstream_reset";
const NOT_SENT: [&[u8]; 3] = [b"connection_failure", b"connection_timeout", b"{overflow"];

impl Stream {
    /// The head of a response as the exchange is to be told of it; `None` if it is of no interest.
    pub(crate) fn read_head<H: Host>(&mut self, host: &H, end: bool) -> Option<Event<'static>> {
        if self.replied || !self.exchange.expects_response() {
            return None;
        }
        let mut fields = host.headers(Map::Response).ok()?;
        let status = status_of(&fields);
        if (100..200).contains(&status) {
            return None;
        }
        self.response = Passage::InCallback(Action::Continue);
        // A 304 that does not end with its head has no content either (RFC 9110 §15.4.5): no frame,
        // or an empty one, or trailers, which leave no place for an answer's.
        self.content_follows = !end && status != 304;
        let source = source_of(host, status, fields.contains(SERVICE_TIME));
        fields.remove(b":status");
        Some(Event::Response {
            head: ResponseHead { status, fields },
            source,
            end,
        })
    }

    /// What Envoy is to do with the head that has been read.
    pub(crate) fn leave_head(&mut self) -> Action {
        match std::mem::replace(&mut self.response, Passage::Passed) {
            Passage::InCallback(action) => action,
            Passage::Held | Passage::Passed => Action::Continue,
        }
    }

    /// Lets the response pass, changed so.
    pub(crate) fn pass_response<H: Host>(&mut self, host: &H, change: ResponseChange) {
        if let Some(status) = change.status {
            let _ = host.set_header(Map::Response, b":status", status.to_string().as_bytes());
        }
        for name in &change.remove {
            let _ = host.remove_header(Map::Response, name);
        }
        for (name, value) in change.set.iter() {
            let _ = host.set_header(Map::Response, name, value);
        }
        self.before = change.before;
    }

    /// A piece of the response's content, with what is to be sent before it in its place; `None` if
    /// it is of no interest.
    pub(crate) fn read_piece<H: Host>(
        &mut self,
        host: &H,
        length: usize,
    ) -> Option<Result<Vec<u8>, Refused>> {
        if self.replied || self.exchange.interest() == Interest::None {
            return None;
        }
        let piece = if length > 0 {
            host.response_body(length)
        } else {
            Ok(Vec::new())
        };
        if let Some(before) = self.before.take() {
            let _ = host.prepend_response_body(&before);
        }
        Some(piece)
    }
}

/// Who made a response. Envoy's own answers lack the field its router adds to an origin's.
pub(crate) fn source_of<H: Host>(host: &H, status: u16, has_service_time: bool) -> ResponseSource {
    if has_service_time {
        return ResponseSource::Origin;
    }
    let details = host
        .property(&["response", "code_details"])
        .unwrap_or_default();
    if details.starts_with(b"via_upstream") {
        ResponseSource::Origin
    } else if status == 504 {
        ResponseSource::Timeout
    } else if NO_ORIGIN.iter().any(|start| details.starts_with(start)) {
        ResponseSource::NoOrigin
    } else if status == 502 || details.starts_with(RESET) {
        let names = |reason: &&[u8]| details.windows(reason.len()).any(|part| part == *reason);
        if NOT_SENT.iter().any(names) {
            ResponseSource::NoOrigin
        } else {
            ResponseSource::Lost
        }
    } else {
        ResponseSource::Proxy
    }
}
