//! How the cache tells a client where its answer came from: `Cache-Status` (RFC 9211) and
//! `x-cache-status`.
//!
//! What this decides: the text of both fields, and the closed list of reasons ([`Detail`]). One
//! value is the source for the fields, the metrics and the log. What it leaves out: which value it
//! is; `exchange` fills it in.

use std::fmt;
use std::hint::black_box;

use crate::message::Request;
use crate::policy::{Policy, Tell};
use crate::storability::NotStorable;

/// This cache's name in `Cache-Status` (RFC 9211 §2).
pub const CACHE_NAME: &str = "larder";
/// The field every answer carries besides `Cache-Status`, with [`CacheStatus::hit_or_miss`].
pub const X_CACHE_STATUS: &str = "x-cache-status";

/// The request field by which a client shows that it may know; the filter takes it out, so no
/// origin sees it.
pub const DEBUG_FIELD: &str = "x-larder-debug";

/// Whether the client of this request is told how its answer came about.
pub fn is_told(request: &Request, policy: &Policy) -> bool {
    match policy.tell {
        Tell::All => true,
        Tell::None => false,
        Tell::Trusted => {
            let presented = request.fields.get(DEBUG_FIELD);
            presented
                .zip(policy.debug_token.as_deref())
                .is_some_and(|(presented, token)| is_same(presented, token))
        }
    }
}

/// Compares in a time that depends on the lengths alone.
fn is_same(presented: &[u8], token: &[u8]) -> bool {
    let differing = presented
        .iter()
        .zip(token)
        .fold(0, |differing, (one, other)| differing | (one ^ other));
    !token.is_empty() && presented.len() == token.len() && black_box(differing) == 0
}

/// How one request was handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Answered from a stored response without going forward (RFC 9211 §2.1).
    pub hit: bool,
    /// Why it went forward (RFC 9211 §2.2).
    pub forward: Option<Forward>,
    /// Status code of the forwarded request's answer (RFC 9211 §2.3).
    pub forward_status: Option<u16>,
    /// Freshness left in seconds; negative when stale (RFC 9211 §2.4).
    pub ttl: Option<i64>,
    /// Whether the answer was stored (RFC 9211 §2.5).
    pub stored: bool,
    /// Whether the answer is another request's fetch (RFC 9211 §2.6).
    pub collapsed: bool,
    /// A stored response answered although the origin was asked and failed.
    pub stale_on_error: bool,
    /// What else there is to say (RFC 9211 §2.8).
    pub detail: Option<Detail>,
}

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// A rule, or the kind of request, keeps it out of the cache.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Something is stored for the URI, but no variant that matches.
    VaryMiss,
    /// The request's own directives demanded it.
    Request,
    /// What is stored is stale.
    Stale,
    /// Only a part is stored, and not the one asked for.
    Partial,
}

impl Forward {
    /// The token of RFC 9211 §2.2.
    pub fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// Everything `detail=` can say. `docs/cache-status.md` lists the same words; a test compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detail {
    /// Not stored, and why.
    NotStored(NotStorable),
    /// Served stale while a refresh runs (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Served stale because the origin failed (RFC 5861 §4).
    StaleIfError,
    /// Served stale because the request accepted it.
    MaxStale,
    /// Within its own stale window, which `s-maxage`, `proxy-revalidate` or `must-revalidate`
    /// forbids (RFC 9111 §4.2.4).
    StaleForbidden,
    /// The request wants only a stored response and there is none that may be used (RFC 9111
    /// §5.2.1.7).
    OnlyIfCached,
    /// The override is malformed.
    MalformedOverride,
    /// A `PURGE` that a rule allows: done.
    Purged,
    /// No healthy origin, or no connection to one.
    NoOrigin,
    /// The origin did not answer in time.
    OriginTimeout,
    /// The origin's answer broke off before its end.
    OriginBroken,
    /// The origin confirmed what was stored, but with another's validator (RFC 9111 §4.3.4).
    UnexpectedNotModified,
    /// The fetch this request waited for failed.
    LeaderFailed,
    /// The request waited for another's fetch for as long as it may, then went by itself.
    WaitTimeout,
    /// The store did not answer within its budget.
    StoreTimeout,
    /// The store refused, broke off, or answered nonsense.
    StoreError,
    /// The store is being left alone after a series of faults.
    StoreBreaker,
    /// The fleet's purges could not be heard for a while, so what is stored has to be validated.
    PurgesUnheard,
    /// Another fetch under this key was recently not storable, so nobody waits for this one.
    Uncacheable,
    /// The request has content, an upgrade, gRPC or a method override.
    UnsupportedRequest,
    /// Concurrent requests for different keys share a leader slot, or a rule switches collapsing
    /// off.
    NotCollapsed,
    /// Stale, and validated before it answers: the route changes the request, and a refresh would
    /// not take the route.
    RouteChangesRequest,
    /// The same, because it is not known whether the route changes the request.
    RouteUnknown,
    /// A request with credentials is not answered from what was stored for everybody.
    Authorization,
    /// A field for which the policy says so makes the request pass.
    UnkeyedField,
    /// Stale content was validated first: a refresh would have asked without what selected it, or
    /// for another host.
    NotRefreshed,
}

impl Detail {
    /// Every detail, for the documentation's test and the metrics.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::StaleWhileRevalidate,
            Self::StaleIfError,
            Self::MaxStale,
            Self::StaleForbidden,
            Self::OnlyIfCached,
            Self::MalformedOverride,
            Self::Purged,
            Self::NoOrigin,
            Self::OriginTimeout,
            Self::OriginBroken,
            Self::UnexpectedNotModified,
            Self::LeaderFailed,
            Self::WaitTimeout,
            Self::StoreTimeout,
            Self::StoreError,
            Self::StoreBreaker,
            Self::PurgesUnheard,
            Self::Uncacheable,
            Self::UnsupportedRequest,
            Self::NotCollapsed,
            Self::RouteChangesRequest,
            Self::RouteUnknown,
            Self::Authorization,
            Self::UnkeyedField,
            Self::NotRefreshed,
        ]
        .into_iter()
        .chain(NotStorable::ALL.into_iter().map(Self::NotStored))
    }

    /// The word after `detail=`.
    pub fn token(self) -> &'static str {
        match self {
            Self::NotStored(why) => why.detail(),
            Self::StaleWhileRevalidate => "stale-while-revalidate",
            Self::StaleIfError => "stale-if-error",
            Self::MaxStale => "max-stale",
            Self::StaleForbidden => "stale-forbidden",
            Self::OnlyIfCached => "only-if-cached",
            Self::MalformedOverride => "malformed-override",
            Self::Purged => "purged",
            Self::NoOrigin => "no-origin",
            Self::OriginTimeout => "origin-timeout",
            Self::OriginBroken => "origin-broken",
            Self::UnexpectedNotModified => "unexpected-304",
            Self::LeaderFailed => "leader-failed",
            Self::WaitTimeout => "wait-timeout",
            Self::StoreTimeout => "store-timeout",
            Self::StoreError => "store-error",
            Self::StoreBreaker => "store-breaker",
            Self::PurgesUnheard => "purges-unheard",
            Self::Uncacheable => "uncacheable",
            Self::UnsupportedRequest => "unsupported-request",
            Self::NotCollapsed => "not-collapsed",
            Self::RouteChangesRequest => "route-changes-request",
            Self::RouteUnknown => "route-unknown",
            Self::Authorization => "authorization",
            Self::UnkeyedField => "unkeyed-field",
            Self::NotRefreshed => "not-refreshed",
        }
    }
}

impl CacheStatus {
    /// A request that goes forward.
    pub fn forwarded(why: Forward) -> Self {
        Self {
            forward: Some(why),
            ..Self::default()
        }
    }

    /// The same with a detail.
    #[must_use]
    pub fn with_detail(self, detail: Detail) -> Self {
        Self {
            detail: Some(detail),
            ..self
        }
    }

    /// Writes one member of the `Cache-Status` list (RFC 9211 §2). By hand, for every hit carries
    /// one.
    pub fn write(&self, text: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        let mut say = |part: &str| text.extend_from_slice(part.as_bytes());
        say(CACHE_NAME);
        if self.hit {
            say("; hit");
        }
        if let Some(forward) = self.forward {
            say("; fwd=");
            say(forward.token());
        }
        if let Some(status) = self.forward_status {
            say("; fwd-status=");
            say(number.format(status));
        }
        if self.collapsed {
            say("; collapsed");
        }
        if self.stored {
            say("; stored");
        }
        if let Some(ttl) = self.ttl {
            say("; ttl=");
            say(number.format(ttl));
        }
        if let Some(detail) = self.detail {
            say("; detail=");
            say(detail.token());
        }
    }

    /// `HIT` when a stored response answered that the origin neither delivered nor confirmed for
    /// this request, else `MISS`.
    pub fn hit_or_miss(&self) -> &'static str {
        if self.hit || self.stale_on_error {
            "HIT"
        } else {
            "MISS"
        }
    }
}

impl fmt::Display for CacheStatus {
    /// As [`CacheStatus::write`] does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests;
