//! Requests that went past the cache, for nothing under their keys is storable at present: what
//! their answers are given as they pass.
//!
//! What this decides: how little is read of such an answer. Its status says most; who made it is
//! found out only where that counts.

use larder_cache_core::cache_status::CacheStatus;
use larder_cache_core::exchange::{Marked, ResponseSource};
use rustc_hash::FxHashMap;

use crate::calls::{SERVICE_TIME, read_status};
use crate::host::{Host, Map};
use crate::stream::source_of;

/// Those of one worker whose answers are still to come.
#[derive(Debug, Default)]
pub(crate) struct MarkedStreams(FxHashMap<u32, Marked>);

impl MarkedStreams {
    /// The answer to this stream's request is to be given what it gets.
    pub(crate) fn expect(&mut self, id: u32, marked: Marked) {
        self.0.insert(id, marked);
    }

    /// A response's head passes. What to report, if it is the answer to such a request.
    pub(crate) fn on_response_headers<H: Host>(
        &mut self,
        host: &H,
        id: u32,
    ) -> Option<CacheStatus> {
        let marked = *self.0.get(&id)?;
        let status = read_status(host.header(Map::Response, b":status").as_deref());
        if (100..200).contains(&status) {
            return None;
        }
        self.0.remove(&id);
        let source = if Marked::asks_who_made(status) {
            let is_timed = host
                .header(Map::Response, SERVICE_TIME.as_bytes())
                .is_some();
            source_of(host, status, is_timed)
        } else {
            ResponseSource::Origin
        };
        let response = marked.on_response(status, source);
        if let Some(status) = response.status {
            let _ = host.set_header(Map::Response, b":status", status.to_string().as_bytes());
        }
        for (name, value) in response.add.iter() {
            let _ = host.add_header(Map::Response, name, value);
        }
        for (name, value) in response.set.iter() {
            let _ = host.set_header(Map::Response, name, value);
        }
        Some(response.report)
    }

    /// The stream is over.
    pub(crate) fn forget(&mut self, id: u32) {
        self.0.remove(&id);
    }
}
