//! Calls of our own, and how an answer to one is read.
//!
//! What this decides: what counts as an answer. Envoy answers in the place of an upstream that it did not reach; such an
//! answer says something of the way there and nothing of the upstream.

use std::rc::Rc;

use larder_cache_core::fields::Fields;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::store_api::Fence;

use crate::config::Config;
use crate::host::{Host, Map, Refused};

/// The field in which Envoy's router says how long the upstream took. Envoy's own answers lack it.
pub(crate) const SERVICE_TIME: &str = "x-envoy-upstream-service-time";

/// A call of our own under way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) purpose: Purpose,
    /// The lease that is to be given back should the call fail: a look-up may have been given it without our seeing it, a
    /// write would have ended it.
    pub(crate) holds: Option<(KeyDigest, Fence)>,
    pub(crate) config: Rc<Config>,
    pub(crate) sent: Timestamp,
    /// The root context that made it. Envoy ends its calls with it, and tells nobody.
    pub(crate) root: u32,
}

/// What a call of our own is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// A stream's look-up.
    LookUp(u32),
    /// A refresh's look-up.
    RefreshLookUp(u32),
    /// A refresh's request to the origin.
    RefreshFetch(u32),
    /// The long poll for purges.
    Follow,
    /// A write or release: only its failure is of interest.
    Tell,
    /// Invalidations that the store has to accept.
    Invalidate,
}

/// What came back for a call of our own: an upstream's answer, or what Envoy made up in its place.
#[derive(Debug)]
pub(crate) struct CallAnswer {
    /// 0 where there is none.
    pub(crate) status: u16,
    /// Whether an upstream answered.
    pub(crate) from_upstream: bool,
    /// Whether Envoy handed over a head at all. It has none for a call that came to nothing, nor for an answer larger than
    /// it may gather.
    pub(crate) has_head: bool,
    /// Without `:status`.
    pub(crate) fields: Fields,
    /// Refused where Envoy shows no content though there is some.
    pub(crate) body: Result<Vec<u8>, Refused>,
}

impl CallAnswer {
    /// What Envoy is calling about now. The content of its own answers is left where it is.
    pub(crate) fn read<H: Host>(host: &H, num_headers: usize, body_length: usize) -> Self {
        let has_head = num_headers > 0;
        let mut fields = if has_head { host.headers(Map::CallResponse).unwrap_or_default() } else { Fields::default() };
        let (status, from_upstream) = (status_of(&fields), fields.contains(SERVICE_TIME));
        fields.remove(b":status");
        let shows_body = from_upstream && body_length > 0;
        let body = if shows_body { host.call_body(body_length) } else { Ok(Vec::new()) };
        Self { status, from_upstream, has_head, fields, body }
    }

    /// The status, if an upstream gave it.
    pub(crate) fn upstream_status(&self) -> Option<u16> {
        (self.from_upstream && self.status > 0).then_some(self.status)
    }
}

/// The status in a head that Envoy hands over; 0 where there is none.
pub(crate) fn status_of(fields: &Fields) -> u16 {
    fields.get(":status").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0)
}
