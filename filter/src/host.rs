//! Envoy as the filter sees it: bytes in, bytes out, every call fallible.
//!
//! What this decides: nothing. There are two hosts: Envoy's (`envoy`, wasm32 only) and a fake one
//! for tests. The proxy-wasm SDK's own wrappers panic on statuses and header bytes they do not
//! expect, and a panic takes the worker's VM down; nothing here does.

use larder_cache_core::fields::Fields;
use larder_contract::http_time::Timestamp;

/// A host call was refused; the number is proxy-wasm's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub u32);

impl Refused {
    /// We did not ask the host: there is no room, or nothing to ask it for.
    pub const BUSY: Self = Self(u32::MAX);
}

/// What a shared-data write met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Written.
    Done,
    /// Somebody else was faster.
    Lost,
}

/// Which headers are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// The request's, until it has been let through, and once more when its stream is over.
    Request,
    /// The response's, while they pass.
    Response,
    /// Those of the answer to a call of our own.
    CallResponse,
}

/// The calls the filter makes. Stream calls concern the effective context.
pub trait Host {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// A random number; not for secrets.
    fn random(&self) -> u64;
    /// All headers of a map, pseudo-fields included.
    fn headers(&self, map: Map) -> Result<Fields, Refused>;
    /// The value of a header, its lines joined by commas; `None` without one.
    fn header(&self, map: Map, name: &[u8]) -> Option<Vec<u8>>;
    /// Adds a header line behind those of its name.
    fn add_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), Refused>;
    /// Sets a header in place of any of its name.
    fn set_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), Refused>;
    /// Removes a header.
    fn remove_header(&self, map: Map, name: &[u8]) -> Result<(), Refused>;
    /// Bytes of the response's content that are passing now.
    fn response_body(&self, length: usize) -> Result<Vec<u8>, Refused>;
    /// Puts `body` in place of the response's content that is passing now.
    fn replace_response_body(&self, body: &[u8]) -> Result<(), Refused>;
    /// Puts `body` before the response's content that is passing now.
    fn prepend_response_body(&self, body: &[u8]) -> Result<(), Refused>;
    /// Resets the stream, so that the client sees that its answer is not complete.
    fn break_off(&self) -> Result<(), Refused>;
    /// Answers the client. The fields of all `parts` are sent.
    fn reply(
        &self,
        status: u16,
        parts: &[&Fields],
        body: &[u8],
        details: &str,
    ) -> Result<(), Refused>;
    /// Puts the fields of all `parts` in place of a map's.
    fn replace_headers(&self, map: Map, parts: &[&Fields]) -> Result<(), Refused>;
    /// Lets a paused request go on to the origin.
    fn resume_request(&self) -> Result<(), Refused>;
    /// Makes another stream the one that stream calls concern. Refused when it is gone.
    fn set_effective_context(&self, context: u32) -> Result<(), Refused>;
    /// A property of the stream.
    fn property(&self, path: &[&str]) -> Option<Vec<u8>>;
    /// Sends a request of our own; its answer comes with the returned token.
    fn call(
        &self,
        cluster: &str,
        head: &Fields,
        body: &[u8],
        timeout_ms: u64,
    ) -> Result<u32, Refused>;
    /// Content of the answer to a call of our own.
    fn call_body(&self, length: usize) -> Result<Vec<u8>, Refused>;
    /// Opens a gRPC stream of our own to a cluster, for a service and its method. What comes on it
    /// comes with the returned token, to the root context of the effective one.
    fn open_stream(
        &self,
        cluster: &str,
        method: (&str, &str),
        metadata: &Fields,
    ) -> Result<u32, Refused>;
    /// Sends a message on such a stream, whose root context has to be the effective context's.
    fn send(&self, stream: u32, message: &[u8]) -> Result<(), Refused>;
    /// Ends such a stream. Nothing comes on it any more.
    fn close_stream(&self, stream: u32);
    /// The message that has come on such a stream.
    fn stream_message(&self, length: usize) -> Result<Vec<u8>, Refused>;
    /// From now on the effective context's root is called every so many milliseconds.
    fn set_tick_period(&self, millis: u64);
    /// A shared value and its version; both absent when it was never written.
    fn shared(&self, key: &str) -> (Option<Vec<u8>>, Option<u32>);
    /// Writes a shared value if its version is still `version`; `None` if it was never written.
    fn swap_shared(&self, key: &str, value: &[u8], version: Option<u32>) -> Swap;
    /// Writes a shared value unconditionally.
    fn set_shared(&self, key: &str, value: &[u8]);
    /// Registers a queue whose messages this VM is told of.
    fn register_queue(&self, name: &str) -> Result<u32, Refused>;
    /// Puts a message into a queue.
    fn enqueue(&self, queue: u32, message: &[u8]) -> Result<(), Refused>;
    /// Takes a message out of a queue.
    fn dequeue(&self, queue: u32) -> Option<Vec<u8>>;
    /// Adds to a counter, which is made when it is first used.
    fn count(&self, name: &str, by: u64);
    /// Adds to a gauge, or takes from it. All VMs share it, so none may set it.
    fn move_gauge(&self, name: &str, by: i64);
    /// A value for a histogram.
    fn record(&self, name: &str, value: u64);
    /// A line in Envoy's log.
    fn log(&self, level: log::Level, line: &str);
}
