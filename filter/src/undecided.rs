//! Requests that may turn out to have no content.
//!
//! HTTP/2 and HTTP/3 say only with the end of the stream whether a request has content (RFC 9113
//! §8.1): some clients end a GET with an empty DATA frame. What this decides: how long such a
//! request is held to see its first piece. One whose content is still to come then counts as one
//! that has some; so content is never taken for none.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use larder_contract::http_time::Timestamp;
use rustc_hash::FxHashMap;

use crate::config::Config;
use crate::host::Host;

/// An empty frame comes with its head or right behind it.
const PATIENCE_MS: u64 = 20;
/// Where no piece was ever seen while a head was held, so many are waited for in vain.
const MAX_IN_VAIN: u32 = 4;

/// A request whose first piece of content has not come.
#[derive(Debug)]
pub(crate) struct HeldRequest {
    pub(crate) config: Rc<Config>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) request: Request,
    since: Timestamp,
}

/// Whether Envoy shows the content of a request whose head is held: only with
/// `allow_on_headers_stop_iteration`.
#[derive(Clone, Copy, Debug, Default)]
enum HeldContent {
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

/// The requests of one worker that are held for this.
#[derive(Debug, Default)]
pub(crate) struct Undecided {
    held: FxHashMap<u32, HeldRequest>,
    content: HeldContent,
}

impl Undecided {
    /// There is a new configuration: what was seen of the host may have been mended with it.
    pub(crate) fn trust_host(&mut self) {
        self.content = HeldContent::default();
    }

    /// Holds a request until it is known whether it has content.
    pub(crate) fn hold(
        &mut self,
        id: u32,
        config: &Rc<Config>,
        policy: &Arc<Policy>,
        request: Request,
        since: Timestamp,
    ) {
        let (config, policy) = (config.clone(), policy.clone());
        self.held.insert(
            id,
            HeldRequest {
                config,
                policy,
                request,
                since,
            },
        );
    }

    /// Whether the first piece of this request's content is worth waiting for.
    pub(crate) fn is_worth_holding(&self, request: &Request) -> bool {
        let fields = &request.fields;
        let waits = match self.content {
            HeldContent::Shown | HeldContent::Unknown => true,
            HeldContent::InVain(times) => times < MAX_IN_VAIN,
            HeldContent::Hidden => false,
        };
        waits
            && matches!(request.method(), b"GET" | b"HEAD")
            && fields
                .get("content-length")
                .is_none_or(|length| length == b"0")
            && !["content-type", "expect", "upgrade"]
                .iter()
                .any(|name| fields.contains(name))
    }

    /// Envoy shows a piece of a request's content. Says whether that request is held.
    pub(crate) fn see_piece(&mut self, id: u32) -> bool {
        let is_held = self.held.contains_key(&id);
        if is_held {
            self.content = HeldContent::Shown;
        }
        is_held
    }

    /// It is known whether a request has content: it is held no more.
    pub(crate) fn decide(&mut self, id: u32, has_content: bool) -> Option<HeldRequest> {
        let mut held = self.held.remove(&id)?;
        held.request.has_content = has_content;
        Some(held)
    }

    /// A stream is gone.
    pub(crate) fn forget(&mut self, id: u32) {
        self.held.remove(&id);
    }

    /// Those whose content has not come by now, `most` of them.
    pub(crate) fn overdue(&self, now: Timestamp, most: usize) -> Vec<u32> {
        let is_overdue = |held: &&HeldRequest| now.millis_since(held.since) >= PATIENCE_MS;
        let of = |(id, held): (&u32, &HeldRequest)| is_overdue(&held).then_some(*id);
        self.held.iter().filter_map(of).take(most).collect()
    }

    /// The request that Envoy is asked about now was held in vain: learns whether it has received
    /// content that it did not show.
    pub(crate) fn give_up<H: Host>(&mut self, host: &H) {
        let received = host
            .property(&["request", "size"])
            .is_some_and(|size| size.iter().any(|byte| *byte != 0));
        self.content = match self.content {
            _ if received => HeldContent::Hidden,
            HeldContent::Unknown => HeldContent::InVain(1),
            HeldContent::InVain(times) => HeldContent::InVain(times.saturating_add(1)),
            known => known,
        };
    }
}
