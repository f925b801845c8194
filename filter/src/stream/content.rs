//! A request that may turn out to have no content.
//!
//! HTTP/2 and HTTP/3 say only with the end of the stream whether a request has content (RFC 9113 §8.1): some clients end a
//! GET with an empty DATA frame. What this decides: how long such a request is held to see its first piece. One whose content
//! is still to come then counts as one that has some; so content is never taken for none.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use larder_contract::http_time::Timestamp;

use super::{Action, Passage};
use crate::config::Config;
use crate::host::Host;
use crate::vm::Vm;

/// An empty frame comes with its head or right behind it.
const PATIENCE_MS: u64 = 20;
/// Where no piece was ever seen while a head was held, so many are waited for in vain.
const MAX_IN_VAIN: u32 = 4;

/// A request whose first piece of content has not come.
#[derive(Debug)]
pub(crate) struct Undecided {
    config: Rc<Config>,
    policy: Arc<Policy>,
    request: Request,
    since: Timestamp,
}

/// Whether Envoy shows the content of a request whose head is held: only with `allow_on_headers_stop_iteration`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum HeldContent {
    /// Nothing is known.
    #[default]
    Unknown,
    /// It does.
    Shown,
    /// So many times it showed none, and there may have been none.
    InVain(u32),
    /// It has received content and not shown it.
    Hidden,
}

impl<H: Host> Vm<H> {
    /// Holds a request until it is known whether it has content.
    pub(super) fn hold(&mut self, id: u32, config: &Rc<Config>, policy: &Arc<Policy>, request: Request) -> Action {
        let (config, policy, since) = (config.clone(), policy.clone(), self.outside.host.now());
        self.undecided.insert(id, Undecided { config, policy, request, since });
        Action::Pause
    }

    /// Whether the first piece of this request's content is worth waiting for.
    pub(super) fn may_turn_out_empty(&self, request: &Request) -> bool {
        let fields = &request.fields;
        let waits = match self.held_content {
            HeldContent::Shown | HeldContent::Unknown => true,
            HeldContent::InVain(times) => times < MAX_IN_VAIN,
            HeldContent::Hidden => false,
        };
        waits
            && matches!(request.method(), b"GET" | b"HEAD")
            && fields.get("content-length").is_none_or(|length| length == b"0")
            && !["content-type", "expect", "upgrade"].iter().any(|name| fields.contains(name))
    }

    /// A piece of a request's content.
    pub fn on_request_body(&mut self, id: u32, length: usize, end: bool) -> Action {
        if !self.undecided.contains_key(&id) {
            return Action::Continue;
        }
        self.held_content = HeldContent::Shown;
        if length == 0 && !end {
            return Action::Pause;
        }
        self.decide(id, length > 0, Passage::InCallback(Action::Pause))
    }

    /// Trailers of a request. They mean more than no content does.
    pub fn on_request_trailers(&mut self, id: u32) -> Action {
        self.decide(id, true, Passage::InCallback(Action::Pause))
    }

    fn decide(&mut self, id: u32, has_content: bool, passage: Passage) -> Action {
        let Some(undecided) = self.undecided.remove(&id) else { return Action::Continue };
        let Undecided { config, policy, mut request, .. } = undecided;
        request.has_content = has_content;
        self.begin(id, &config, &policy, request, passage)
    }

    /// Lets go on whose content has not come by now.
    pub(crate) fn end_overdue_holds(&mut self, now: Timestamp) {
        let is_overdue = |held: &&Undecided| now.millis_since(held.since) >= PATIENCE_MS;
        let overdue = self.undecided.iter().filter(|(_, held)| is_overdue(held)).map(|(id, _)| *id);
        for id in overdue.take(crate::vm::BATCH).collect::<Vec<_>>() {
            if self.outside.host.set_effective_context(id).is_err() {
                self.undecided.remove(&id);
                continue;
            }
            let received =
                self.outside.host.property(&["request", "size"]).is_some_and(|size| size.iter().any(|byte| *byte != 0));
            self.held_content = match self.held_content {
                _ if received => HeldContent::Hidden,
                HeldContent::Unknown => HeldContent::InVain(1),
                HeldContent::InVain(times) => HeldContent::InVain(times.saturating_add(1)),
                known => known,
            };
            self.decide(id, true, Passage::Held);
        }
    }
}
