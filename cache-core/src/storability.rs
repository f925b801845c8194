//! May a response be stored, and which of its fields? (RFC 9111 §3, §3.1, §3.5)
//!
//! What this decides: yes or no, with the reason; and what is left out of what is kept. What it
//! leaves out: its size and completeness (`storing`) and which variant it is (`vary`).

use crate::cache_control::{FieldScope, RequestDirectives, ResponseDirectives};
use crate::fields::{Fields, are_safe_to_emit, connection_options, is_hop_by_hop, respaced};
use crate::freshness::{LifetimeSource, is_heuristically_cacheable};
use crate::message::{Request, ResponseHead};
use crate::policy::Policy;
use crate::vary::Vary;

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStorable {
    /// Only answers to GET are stored.
    Method,
    /// An interim, partial or "not modified" answer, or a status the policy does not store.
    Status,
    /// `no-store` in the response (RFC 9111 §5.2.2.5).
    NoStore,
    /// `no-store` in the request, by policy (RFC 9111 §5.2.1.5).
    AskedNoStore,
    /// `private` (RFC 9111 §5.2.2.7).
    Private,
    /// The request carried credentials and the response is not explicitly for everybody (RFC 9111
    /// §3.5).
    Authorization,
    /// `Set-Cookie`, and the policy does not share it.
    SetCookie,
    /// The request carried a cookie and the response is not explicitly public.
    Cookie,
    /// `Vary: *` (RFC 9111 §4.1).
    VaryStar,
    /// `must-understand` with a status this cache does not understand (RFC 9111 §5.2.2.3).
    MustUnderstand,
    /// Nothing says how long it is fresh, and nothing could validate it.
    NoFreshness,
    /// `Content-Range` outside a 206.
    Partial,
    /// A stream of a type that need not have an end, without a declared length.
    EventStream,
    /// Larger than the policy stores.
    TooLarge,
    /// A field that could split a message.
    UnsafeField,
    /// More or longer tags than can be purged.
    Tags,
}

impl NotStorable {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::Method,
        Self::Status,
        Self::NoStore,
        Self::AskedNoStore,
        Self::Private,
        Self::Authorization,
        Self::SetCookie,
        Self::Cookie,
        Self::VaryStar,
        Self::MustUnderstand,
        Self::NoFreshness,
        Self::Partial,
        Self::EventStream,
        Self::TooLarge,
        Self::UnsafeField,
        Self::Tags,
    ];

    /// The word after `detail=`.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::AskedNoStore => "request-no-store",
            Self::Private => "private",
            Self::Authorization => "authorization-response",
            Self::SetCookie => "set-cookie",
            Self::Cookie => "cookie",
            Self::VaryStar => "vary-star",
            Self::MustUnderstand => "must-understand",
            Self::NoFreshness => "no-freshness",
            Self::Partial => "partial",
            Self::EventStream => "event-stream",
            Self::TooLarge => "too-large",
            Self::UnsafeField => "unsafe-field",
            Self::Tags => "tags",
        }
    }
}

impl NotStorable {
    /// Whether the reason lies in the request alone: the same answer to another request might be
    /// stored.
    pub fn lies_in_the_request(self) -> bool {
        matches!(
            self,
            Self::Method | Self::AskedNoStore | Self::Authorization | Self::Cookie
        )
    }

    /// Whether a successful answer that is refused for this reason says itself that what was stored
    /// before has no successor. A cookie that it sets speaks of one client.
    pub fn is_said_by_the_response(self) -> bool {
        !(self.lies_in_the_request()
            || matches!(self, Self::Status | Self::SetCookie | Self::UnsafeField))
    }
}

/// Says whether the response may be stored by a shared cache under this policy.
pub fn storable(
    request: &Request,
    response: &ResponseHead,
    directives: &ResponseDirectives,
    source: LifetimeSource,
    policy: &Policy,
) -> Result<(), NotStorable> {
    let refuse = |refused: bool, why| if refused { Err(why) } else { Ok(()) };
    refuse(request.method() != b"GET", NotStorable::Method)?;
    check_status(response, directives, policy)?;
    // RFC 9110 §14.4: outside a 206 it says nothing that can be relied on; the content may be a
    // part or the whole.
    refuse(is_partial(response), NotStorable::Partial)?;
    // RFC 9111 §5.2.2.3: must-understand, where understood, silences no-store.
    refuse(
        directives.no_store && !directives.must_understand,
        NotStorable::NoStore,
    )?;
    let asked = RequestDirectives::of(&request.fields, &policy.request_directives);
    refuse(asked.no_store, NotStorable::AskedNoStore)?;
    refuse(
        directives.private == FieldScope::Whole,
        NotStorable::Private,
    )?;
    let credentials = request.is_credentialed(policy);
    refuse(
        credentials && !directives.allows_authorization(policy),
        NotStorable::Authorization,
    )?;
    refuse(
        !policy.store_set_cookie && !policy.strip_set_cookie && sets_cookie(response, directives),
        NotStorable::SetCookie,
    )?;
    let cookie = !policy.store_with_cookie && request.has_own_cookie(policy);
    refuse(
        cookie && !directives.is_explicitly_public(),
        NotStorable::Cookie,
    )?;
    refuse(
        Vary::of(&response.fields) == Vary::Any,
        NotStorable::VaryStar,
    )?;
    refuse(is_endless(&response.fields), NotStorable::EventStream)?;
    refuse(
        !are_safe_to_emit(&response.fields),
        NotStorable::UnsafeField,
    )?;
    refuse(
        source == LifetimeSource::None && !may_be_stored_stale(response, directives, policy),
        NotStorable::NoFreshness,
    )
}

/// Whether an answer that is no `206` carries, or claims to carry, parts. A field without the slash
/// that stands in every `Content-Range` claims nothing.
fn is_partial(response: &ResponseHead) -> bool {
    let content_type = response.fields.get("content-type").unwrap_or_default();
    let multipart = b"multipart/byteranges";
    let parts = content_type
        .get(..multipart.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(multipart));
    response
        .fields
        .all("content-range")
        .any(|value| value.contains(&b'/'))
        || parts
}

fn check_status(
    response: &ResponseHead,
    directives: &ResponseDirectives,
    policy: &Policy,
) -> Result<(), NotStorable> {
    let status = response.status;
    if !(200..=599).contains(&status) || matches!(status, 206 | 304) {
        return Err(NotStorable::Status);
    }
    if directives.must_understand && !is_understood(status) {
        return Err(NotStorable::MustUnderstand);
    }
    let named = policy
        .status_lifetimes
        .iter()
        .any(|(statuses, _)| statuses.contains(status));
    if !policy.store_any_status && !named && !Policy::SAFE_STATUSES.contains(&status) {
        return Err(NotStorable::Status);
    }
    Ok(())
}

/// The statuses whose caching behaviour is known here (RFC 9110 §15).
fn is_understood(status: u16) -> bool {
    matches!(status, 200..=204 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// Whether the content is of a type that is sent bit by bit for as long as there is something to
/// say, and no length promises an end.
fn is_endless(fields: &Fields) -> bool {
    const STREAMS: [&[u8]; 8] = [
        b"text/event-stream",
        b"application/x-ndjson",
        b"application/ndjson",
        b"application/jsonl",
        b"application/stream+json",
        b"application/json-seq",
        b"application/x-json-stream",
        b"multipart/x-mixed-replace",
    ];
    let Some(value) = fields.get("content-type") else {
        return false;
    };
    let essence = value
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    let streams = STREAMS.contains(&&*essence) || essence.starts_with(b"application/grpc");
    streams && !fields.contains("content-length")
}

fn sets_cookie(response: &ResponseHead, directives: &ResponseDirectives) -> bool {
    // Where no-cache or private names the field, it is not stored anyway.
    let left_out = [&directives.no_cache, &directives.private]
        .iter()
        .any(|scope| scope.fields().iter().any(|name| name == b"set-cookie"));
    response.fields.contains("set-cookie") && !left_out
}

/// Without a lifetime, a response is worth storing only to be validated: with a validator, and
/// either `no-cache` or leave to guess; and it may be only if its status is heuristically cacheable
/// or it is `public` (RFC 9111 §3).
fn may_be_stored_stale(
    response: &ResponseHead,
    directives: &ResponseDirectives,
    policy: &Policy,
) -> bool {
    let validator = response.fields.contains("etag") || response.fields.contains("last-modified");
    let allowed = directives.public || is_heuristically_cacheable(response.status);
    validator
        && allowed
        && (directives.no_cache == FieldScope::Whole
            || directives.public
            || policy.heuristic_freshness)
}

/// Fields that `Connection` cannot take out of a stored response: without them it would be another
/// response (CVE-2022-45059).
const NOT_HOP_BY_HOP: [&str; 14] = [
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
    "pragma",
    "set-cookie",
    "vary",
];

/// The fields to keep (RFC 9111 §3.1): none of one connection, none that the response keeps for its
/// first recipient, none that is worked out anew for every answer.
pub fn storable_fields(response: &ResponseHead, directives: &ResponseDirectives) -> Fields {
    let listed = connection_options(&response.fields);
    let mut fields = response.fields.clone();
    fields.retain(|name, _| {
        let by_connection = listed.iter().any(|option| option == name)
            && !NOT_HOP_BY_HOP
                .iter()
                .any(|critical| critical.as_bytes() == name);
        let for_first_recipient = [&directives.no_cache, &directives.private]
            .iter()
            .any(|scope| scope.fields().iter().any(|f| f == name));
        !(name.starts_with(b":")
            || is_hop_by_hop(name)
            || by_connection
            || for_first_recipient
            || is_worked_out_anew(name))
    });
    if let Some(spaced) = fields.get("cache-control").and_then(respaced) {
        fields.set(b"cache-control", &spaced);
    }
    fields
}

/// Fields that are made for each answer. Envoy's own tell of one exchange with one upstream
/// (`x-envoy-attempt-count`, `x-envoy-upstream-service-time`) or of that host's health
/// (`x-envoy-degraded`, `x-envoy-immediate-health-check-fail`).
pub(crate) fn is_worked_out_anew(name: &[u8]) -> bool {
    matches!(
        name,
        b"age" | b"content-length" | b"cache-status" | b"x-cache-status"
    ) || name.starts_with(b"x-envoy-")
}

#[cfg(test)]
mod tests;
