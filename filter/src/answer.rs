//! An answer of the cache's own on its way to Envoy: at once, or in two steps where that spares copies.
//!
//! What this decides: which of the two. What is answered was decided by the core.

use larder_cache_core::exchange::Reply;

use crate::host::{Host, Map};
use crate::vm::Vm;

/// Answers of this size go out in two steps. Envoy copies what `reply` is given three times, and what is put in place of a
/// passing response once: so it is given a stand-in, and then the real head and content in its place. Two more calls cost
/// as much as copying so many bytes of content; a byte of the head, which comes in many pieces, counts for several.
pub const DEFERRED_FROM: usize = 4096;
const HEAD_BYTE: usize = 6;
/// What stands in: not empty, or no content would pass.
const STAND_IN: &[u8] = b"-";

impl<H: Host> Vm<H> {
    /// Answers. `passes_us` says whether our response callbacks will see the answer pass.
    pub(crate) fn reply(&mut self, id: u32, mut reply: Reply, passes_us: bool) {
        let head: usize = reply.parts().iter().map(|part| part.text_len()).sum();
        let content = reply.content().len();
        let deferred = passes_us && content > 0 && content + head * HEAD_BYTE >= DEFERRED_FROM;
        let result = if deferred {
            self.host.reply(reply.status, &[], STAND_IN, reply.details)
        } else {
            self.host.reply(reply.status, &reply.parts(), reply.content(), reply.details)
        };
        if result.is_err() {
            self.host.log(log::Level::Warn, "larder: Envoy refused an answer");
        } else if deferred {
            // What Envoy works out for its stand-in alone.
            let (mut status, mut length) = (itoa::Buffer::new(), itoa::Buffer::new());
            reply.fields.append(b":status", status.format(reply.status).as_bytes());
            reply.fields.append(b"content-length", length.format(content).as_bytes());
            self.unsent.insert(id, reply);
        }
    }

    /// If an answer of our own passes: its head in place of its stand-in's. Says whether one does.
    pub(crate) fn send_head(&mut self, id: u32) -> bool {
        let Some(reply) = self.unsent.get(&id) else { return false };
        let _ = self.host.replace_headers(Map::Response, &reply.parts());
        true
    }

    /// If an answer of our own passes: its content in place of its stand-in's. Says whether one does.
    pub(crate) fn send_content(&mut self, id: u32) -> bool {
        let Some(reply) = self.unsent.remove(&id) else { return false };
        let _ = self.host.replace_response_body(reply.content());
        true
    }
}
