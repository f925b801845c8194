//! Calls of our own, and how an answer to one is read.
//!
//! What this decides: what counts as an answer. Envoy answers in the place of an upstream that it
//! did not reach; such an answer says something of the way there and nothing of the upstream.

use std::collections::HashMap;
use std::rc::Rc;

use larder_cache_core::fields::Fields;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::store_api::Fence;

use crate::config::Config;
use crate::host::{Host, Map, Refused};
use crate::metrics::Metrics;

/// The field in which Envoy's router says how long the upstream took. Envoy's own answers lack it.
pub(crate) const SERVICE_TIME: &str = "x-envoy-upstream-service-time";

/// A call of our own under way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) purpose: Purpose,
    /// The lease that is to be given back should the call fail: a look-up may have been given it
    /// without our seeing it, a write would have ended it.
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

/// What is to be noted of a call that is made.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) purpose: Purpose,
    pub(crate) holds: Option<(KeyDigest, Fence)>,
    pub(crate) config: Rc<Config>,
    pub(crate) now: Timestamp,
}

/// A request of our own, and how many milliseconds its answer may take.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) head: &'a Fields,
    pub(crate) body: &'a [u8],
    pub(crate) timeout_ms: u64,
}

/// The calls under way, by their tokens.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// The root context that host calls concern now.
    root: u32,
    under_way: HashMap<u32, Call>,
    /// Calls that went with their root.
    lost: Vec<u32>,
}

impl Calls {
    /// What is sent from now on is sent on behalf of this root context.
    pub(crate) fn set_root(&mut self, root: u32) {
        self.root = root;
    }

    /// On whose behalf calls are made now.
    pub(crate) fn root(&self) -> u32 {
        self.root
    }

    /// Makes a call. Gives its token.
    pub(crate) fn make<H: Host>(
        &mut self,
        host: &H,
        letter: &Letter<'_>,
        errand: Errand,
    ) -> Result<u32, Refused> {
        let token = host.call(letter.cluster, letter.head, letter.body, letter.timeout_ms)?;
        let Errand {
            purpose,
            holds,
            config,
            now,
        } = errand;
        self.under_way.insert(
            token,
            Call {
                purpose,
                holds,
                config,
                sent: now,
                root: self.root,
            },
        );
        Ok(token)
    }

    /// The call is over, or nobody waits for it any more.
    pub(crate) fn take(&mut self, token: u32) -> Option<Call> {
        self.under_way.remove(&token)
    }

    /// A root is gone, and its calls with it.
    pub(crate) fn lose(&mut self, root: u32) {
        self.lost.extend(
            self.under_way
                .iter()
                .filter(|(_, call)| call.root == root)
                .map(|(token, _)| *token),
        );
    }

    /// Calls that Envoy will not answer, each once.
    pub(crate) fn take_lost(&mut self) -> Vec<(u32, Call)> {
        let lost = std::mem::take(&mut self.lost);
        lost.into_iter()
            .filter_map(|token| Some((token, self.take(token)?)))
            .collect()
    }

    /// A stream's look-ups: Envoy tells nobody of an answer whose stream is gone.
    pub(crate) fn take_look_ups_of(&mut self, stream: u32) -> Vec<Call> {
        let is_its = |_: &u32, call: &mut Call| matches!(call.purpose, Purpose::LookUp(asker) if asker == stream);
        self.under_way
            .extract_if(is_its)
            .map(|(_, call)| call)
            .collect()
    }
}

/// The way out of a VM: the host, the calls under way, the counters. It is lent to every room that
/// calls out.
#[derive(Debug)]
pub(crate) struct Outside<H> {
    pub(crate) host: H,
    pub(crate) calls: Calls,
    pub(crate) metrics: Metrics,
}

impl<H> Outside<H> {
    /// Nothing has been called or counted yet.
    pub(crate) fn of(host: H) -> Self {
        Self {
            host,
            calls: Calls::default(),
            metrics: Metrics::default(),
        }
    }
}

/// What came back for a call of our own: an upstream's answer, or what Envoy made up in its place.
#[derive(Debug)]
pub(crate) struct CallAnswer {
    /// 0 where there is none.
    pub(crate) status: u16,
    /// Whether an upstream answered.
    pub(crate) from_upstream: bool,
    /// Whether Envoy handed over a head at all. It has none for a call that came to nothing, nor
    /// for an answer larger than it may gather.
    pub(crate) has_head: bool,
    /// Without `:status`.
    pub(crate) fields: Fields,
    /// Refused where Envoy shows no content though there is some.
    pub(crate) body: Result<Vec<u8>, Refused>,
}

impl CallAnswer {
    /// None: the call went with its root.
    pub(crate) fn none() -> Self {
        Self {
            status: 0,
            from_upstream: false,
            has_head: false,
            fields: Fields::default(),
            body: Ok(Vec::new()),
        }
    }

    /// What Envoy is calling about now. The content of its own answers is left where it is.
    pub(crate) fn read<H: Host>(host: &H, num_headers: usize, body_length: usize) -> Self {
        let has_head = num_headers > 0;
        let mut fields = if has_head {
            host.headers(Map::CallResponse).unwrap_or_default()
        } else {
            Fields::default()
        };
        let (status, from_upstream) = (status_of(&fields), fields.contains(SERVICE_TIME));
        fields.remove(b":status");
        let shows_body = from_upstream && body_length > 0;
        let body = if shows_body {
            host.call_body(body_length)
        } else {
            Ok(Vec::new())
        };
        Self {
            status,
            from_upstream,
            has_head,
            fields,
            body,
        }
    }

    /// The status, if an upstream gave it.
    pub(crate) fn upstream_status(&self) -> Option<u16> {
        (self.from_upstream && self.status > 0).then_some(self.status)
    }
}

/// The status in a head that Envoy hands over; 0 where there is none.
pub(crate) fn status_of(fields: &Fields) -> u16 {
    fields
        .get(":status")
        .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
        .unwrap_or(0)
}
