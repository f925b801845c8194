//! May a response be stored, and which of its fields? (RFC 9111 §3, §3.1, §3.5)
//!
//! What this decides: yes or no, with the reason; and what is left out of what is kept. What it leaves out: its size and
//! completeness (`storing`) and which variant it is (`vary`).

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
    /// The request carried credentials and the response is not explicitly for everybody (RFC 9111 §3.5).
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
    /// Whether the reason lies in the request alone: the same answer to another request might be stored.
    pub fn lies_in_the_request(self) -> bool {
        matches!(self, Self::Method | Self::AskedNoStore | Self::Authorization | Self::Cookie)
    }

    /// Whether a successful answer that is refused for this reason says itself that what was stored before has no
    /// successor. A cookie that it sets speaks of one client.
    pub fn is_said_by_the_response(self) -> bool {
        !(self.lies_in_the_request() || matches!(self, Self::Status | Self::SetCookie | Self::UnsafeField))
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
    // RFC 9110 §14.4: outside a 206 it says nothing that can be relied on; the content may be a part or the whole.
    refuse(is_partial(response), NotStorable::Partial)?;
    // RFC 9111 §5.2.2.3: must-understand, where understood, silences no-store.
    refuse(directives.no_store && !directives.must_understand, NotStorable::NoStore)?;
    let asked = RequestDirectives::of(&request.fields, &policy.request_directives);
    refuse(asked.no_store, NotStorable::AskedNoStore)?;
    refuse(directives.private == FieldScope::Whole, NotStorable::Private)?;
    let credentials = request.is_credentialed(policy);
    refuse(credentials && !directives.allows_authorization(policy), NotStorable::Authorization)?;
    refuse(!policy.store_set_cookie && sets_cookie(response, directives), NotStorable::SetCookie)?;
    let cookie = !policy.store_with_cookie && request.fields.contains("cookie");
    refuse(cookie && !directives.is_explicitly_public(), NotStorable::Cookie)?;
    refuse(Vary::of(&response.fields) == Vary::Any, NotStorable::VaryStar)?;
    refuse(is_endless(&response.fields), NotStorable::EventStream)?;
    refuse(!are_safe_to_emit(&response.fields), NotStorable::UnsafeField)?;
    refuse(
        source == LifetimeSource::None && !may_be_stored_stale(response, directives, policy),
        NotStorable::NoFreshness,
    )
}

/// Whether an answer that is no `206` carries, or claims to carry, parts. A field without the slash that stands in every
/// `Content-Range` claims nothing.
fn is_partial(response: &ResponseHead) -> bool {
    let content_type = response.fields.get("content-type").unwrap_or_default();
    let multipart = b"multipart/byteranges";
    let parts = content_type.get(..multipart.len()).is_some_and(|start| start.eq_ignore_ascii_case(multipart));
    response.fields.all("content-range").any(|value| value.contains(&b'/')) || parts
}

fn check_status(response: &ResponseHead, directives: &ResponseDirectives, policy: &Policy) -> Result<(), NotStorable> {
    let status = response.status;
    if !(200..=599).contains(&status) || matches!(status, 206 | 304) {
        return Err(NotStorable::Status);
    }
    if directives.must_understand && !is_understood(status) {
        return Err(NotStorable::MustUnderstand);
    }
    let named = policy.status_lifetimes.iter().any(|(statuses, _)| statuses.contains(status));
    if !policy.store_any_status && !named && !Policy::SAFE_STATUSES.contains(&status) {
        return Err(NotStorable::Status);
    }
    Ok(())
}

/// The statuses whose caching behaviour is known here (RFC 9110 §15).
fn is_understood(status: u16) -> bool {
    matches!(status, 200..=204 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// Whether the content is of a type that is sent bit by bit for as long as there is something to say, and no length
/// promises an end.
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
    let Some(value) = fields.get("content-type") else { return false };
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
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

/// Without a lifetime, a response is worth storing only to be validated: with a validator, and either `no-cache` or
/// leave to guess; and it may be only if its status is heuristically cacheable or it is `public` (RFC 9111 §3).
fn may_be_stored_stale(response: &ResponseHead, directives: &ResponseDirectives, policy: &Policy) -> bool {
    let validator = response.fields.contains("etag") || response.fields.contains("last-modified");
    let allowed = directives.public || is_heuristically_cacheable(response.status);
    validator
        && allowed
        && (directives.no_cache == FieldScope::Whole || directives.public || policy.heuristic_freshness)
}

/// Fields that `Connection` cannot take out of a stored response: without them it would be another response
/// (CVE-2022-45059).
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

/// The fields to keep (RFC 9111 §3.1): none of one connection, none that the response keeps for its first recipient, none
/// that is worked out anew for every answer.
pub fn storable_fields(response: &ResponseHead, directives: &ResponseDirectives) -> Fields {
    let listed = connection_options(&response.fields);
    let mut fields = response.fields.clone();
    fields.retain(|name, _| {
        let by_connection = listed.iter().any(|option| option == name)
            && !NOT_HOP_BY_HOP.iter().any(|critical| critical.as_bytes() == name);
        let for_first_recipient =
            [&directives.no_cache, &directives.private].iter().any(|scope| scope.fields().iter().any(|f| f == name));
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

/// Fields that are made for each answer. Envoy's own tell of one exchange with one upstream (`x-envoy-attempt-count`,
/// `x-envoy-upstream-service-time`) or of that host's health (`x-envoy-degraded`, `x-envoy-immediate-health-check-fail`).
pub(crate) fn is_worked_out_anew(name: &[u8]) -> bool {
    matches!(name, b"age" | b"content-length" | b"cache-status" | b"x-cache-status") || name.starts_with(b"x-envoy-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freshness;
    use larder_contract::http_time::Timestamp;

    fn judge(policy: &Policy, request: &Request, status: u16, pairs: &[(&str, &str)]) -> Result<(), NotStorable> {
        let response = ResponseHead::new(status, pairs);
        let directives = ResponseDirectives::of(&response.fields, policy);
        let (_, source) = freshness::freshness_lifetime(&response, &directives, Timestamp::default(), policy);
        storable(request, &response, &directives, source, policy)
    }

    fn get() -> Request {
        Request::new("GET", "a", "/")
    }

    fn by_default(pairs: &[(&str, &str)]) -> Result<(), NotStorable> {
        judge(&Policy::default(), &get(), 200, pairs)
    }

    #[test]
    fn an_explicit_lifetime_makes_a_plain_response_storable() {
        assert_eq!(by_default(&[("cache-control", "max-age=1")]), Ok(()));
        assert_eq!(by_default(&[("expires", "Sun, 06 Nov 1994 08:49:37 GMT")]), Ok(()));
        assert_eq!(by_default(&[]), Err(NotStorable::NoFreshness));
        assert_eq!(by_default(&[("etag", "\"1\"")]), Err(NotStorable::NoFreshness));
        assert_eq!(by_default(&[("etag", "\"1\""), ("cache-control", "no-cache")]), Ok(()));
    }

    #[test]
    fn what_the_origin_forbids_is_not_stored() {
        for (value, why) in [
            ("max-age=1, no-store", NotStorable::NoStore),
            ("max-age=1, private", NotStorable::Private),
            ("max-age=1, PRIVATE", NotStorable::Private),
        ] {
            assert_eq!(by_default(&[("cache-control", value)]), Err(why), "{value}");
        }
        assert_eq!(by_default(&[("cache-control", "max-age=1"), ("vary", "a, *")]), Err(NotStorable::VaryStar));
    }

    #[test]
    fn credentials_need_a_response_that_is_explicitly_for_everybody() {
        let request = get().with("authorization", "Basic x");
        for (value, expected) in
            [("max-age=1", Err(NotStorable::Authorization)), ("max-age=1, public", Ok(())), ("s-maxage=1", Ok(()))]
        {
            let verdict = judge(&Policy::default(), &request, 200, &[("cache-control", value)]);
            assert_eq!(verdict, expected, "{value}");
        }
    }

    #[test]
    fn must_revalidate_opens_a_response_with_credentials_only_to_the_letter_of_the_rfc() {
        let request = get().with("authorization", "Basic x");
        let pairs = [("cache-control", "max-age=9, must-revalidate")];
        assert_eq!(judge(&Policy::default(), &request, 200, &pairs), Err(NotStorable::Authorization));
        assert_eq!(judge(&Policy::strict(), &request, 200, &pairs), Ok(()));
    }

    #[test]
    fn an_operator_may_give_a_lifetime_to_a_status_that_names_none() {
        use crate::policy::StatusRange;
        use larder_contract::http_time::DeltaSeconds;
        let lifetimes = [("404", 10), ("5xx", 1)];
        let status_lifetimes =
            lifetimes.map(|(name, secs)| (StatusRange::parse(name).unwrap(), DeltaSeconds::new(secs))).to_vec();
        let policy = Policy { status_lifetimes, ..Policy::default() };
        assert_eq!(judge(&policy, &get(), 404, &[]), Ok(()));
        assert_eq!(judge(&policy, &get(), 503, &[]), Ok(()));
        assert_eq!(judge(&policy, &get(), 503, &[("cache-control", "no-store")]), Err(NotStorable::NoStore));
        assert_eq!(judge(&policy, &get(), 403, &[("cache-control", "max-age=9")]), Err(NotStorable::Status));
        assert_eq!(judge(&policy, &get(), 200, &[]), Err(NotStorable::NoFreshness));
        assert!(
            ["4", "40", "6xx", "0xx", "4xxx", "xx", "abc", "1xx", ""].iter().all(|t| StatusRange::parse(t).is_none())
        );
    }

    #[test]
    fn a_class_of_statuses_leaves_out_what_one_clients_request_brought_about() {
        use crate::policy::StatusRange;
        use larder_contract::http_time::DeltaSeconds;
        let policy = |names: &[&str]| {
            let lifetime = |name: &&str| (StatusRange::parse(name).unwrap(), DeltaSeconds::new(9));
            Policy { status_lifetimes: names.iter().map(lifetime).collect(), ..Policy::default() }
        };
        let own = [400, 405, 408, 421].into_iter().chain(411..=417).chain(422..=431);
        for status in own {
            assert!(judge(&policy(&["4xx"]), &get(), status, &[]).is_err(), "{status}");
            let explicit = [("cache-control", "max-age=9")];
            assert_eq!(judge(&policy(&["4xx"]), &get(), status, &explicit), Err(NotStorable::Status), "{status}");
            assert_eq!(judge(&policy(&["4xx", &status.to_string()]), &get(), status, &[]), Ok(()), "{status}");
        }
        for status in [401, 403, 404, 406, 409, 410, 418, 451] {
            assert_eq!(judge(&policy(&["4xx"]), &get(), status, &[]), Ok(()), "{status}");
        }
    }

    #[test]
    fn a_stream_without_a_declared_length_is_not_stored_whatever_its_lifetime() {
        let policy =
            Policy { default_lifetime: Some(larder_contract::http_time::DeltaSeconds::new(60)), ..Policy::default() };
        for name in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "application/x-ndjson ;a=b",
            "multipart/x-mixed-replace; boundary=x",
            "application/json-seq",
            "application/stream+json",
            "application/grpc-web+proto",
        ] {
            let fields = [("content-type", name), ("cache-control", "max-age=9")];
            assert_eq!(judge(&policy, &get(), 200, &fields[..1]), Err(NotStorable::EventStream), "{name}");
            assert_eq!(by_default(&fields), Err(NotStorable::EventStream), "{name}");
            assert_eq!(by_default(&[fields[0], fields[1], ("content-length", "9")]), Ok(()), "{name} has an end");
        }
        for name in ["application/json", "text/event-stream-not", "multipart/mixed"] {
            assert_eq!(by_default(&[("content-type", name), ("cache-control", "max-age=9")]), Ok(()), "{name}");
        }
    }

    #[test]
    fn cookies_are_not_shared_by_default() {
        let fresh = ("cache-control", "max-age=1");
        assert_eq!(by_default(&[fresh, ("set-cookie", "a=b")]), Err(NotStorable::SetCookie));
        let request = get().with("cookie", "a=b");
        assert_eq!(judge(&Policy::default(), &request, 200, &[fresh]), Err(NotStorable::Cookie));
        assert_eq!(judge(&Policy::strict(), &request, 200, &[fresh, ("set-cookie", "a=b")]), Ok(()));
    }

    #[test]
    fn errors_need_an_operator_who_wants_them() {
        let fresh = [("cache-control", "max-age=1")];
        for status in [400, 403, 405, 414, 431, 500, 503] {
            assert_eq!(judge(&Policy::default(), &get(), status, &fresh), Err(NotStorable::Status), "{status}");
            assert_eq!(judge(&Policy::strict(), &get(), status, &fresh), Ok(()), "{status}");
        }
        for status in [100, 101, 206, 304, 600, 999] {
            assert_eq!(judge(&Policy::strict(), &get(), status, &fresh), Err(NotStorable::Status), "{status}");
        }
    }

    #[test]
    fn without_a_lifetime_only_statuses_that_may_be_guessed_at_are_stored() {
        let validator = ("etag", "\"1\"");
        for (status, expected) in
            [(200, Ok(())), (404, Ok(())), (302, Err(NotStorable::NoFreshness)), (503, Err(NotStorable::NoFreshness))]
        {
            assert_eq!(judge(&Policy::strict(), &get(), status, &[validator]), expected, "{status}");
            assert_eq!(judge(&Policy::strict(), &get(), status, &[validator, ("cache-control", "no-cache")]), expected);
            assert_eq!(judge(&Policy::strict(), &get(), status, &[validator, ("cache-control", "public")]), Ok(()));
        }
    }

    #[test]
    fn a_content_range_outside_a_206_is_not_stored() {
        let fresh = ("cache-control", "max-age=1");
        for status in [200, 203, 404, 410, 416] {
            for partial in
                [("content-range", "bytes 0-1/5"), ("content-range", "bytes */5"), ("content-range", "x 1/2")]
            {
                let verdict = judge(&Policy::strict(), &get(), status, &[fresh, partial]);
                assert_eq!(verdict, Err(NotStorable::Partial), "{status} {partial:?}");
            }
        }
        assert_eq!(by_default(&[fresh, ("content-range", "rubbish")]), Ok(()));
        let parts = ("content-type", "Multipart/byteranges; boundary=x");
        assert_eq!(judge(&Policy::default(), &get(), 200, &[fresh, parts]), Err(NotStorable::Partial));
    }

    #[test]
    fn only_get_is_stored() {
        for method in ["HEAD", "POST", "get", ""] {
            let verdict =
                judge(&Policy::strict(), &Request::new(method, "a", "/"), 200, &[("cache-control", "max-age=1")]);
            assert_eq!(verdict, Err(NotStorable::Method), "{method}");
        }
    }

    #[test]
    fn must_understand_overrules_no_store_where_the_status_is_understood() {
        let pairs = [("cache-control", "max-age=1, no-store, must-understand")];
        assert_eq!(judge(&Policy::strict(), &get(), 200, &pairs), Ok(()));
        assert_eq!(judge(&Policy::strict(), &get(), 599, &pairs), Err(NotStorable::MustUnderstand));
    }

    #[test]
    fn fields_of_one_connection_or_one_recipient_are_left_out() {
        let response = ResponseHead::new(
            200,
            &[
                ("connection", "x-hop, ETag"),
                ("x-hop", "1"),
                ("etag", "\"1\""),
                ("keep-alive", "1"),
                ("x-mine", "1"),
                ("age", "1"),
                ("x-envoy-upstream-service-time", "3"),
                ("x-envoy-attempt-count", "2"),
                ("x-envoy-degraded", "1"),
                ("x-kept", "1"),
                ("cache-control", "private=\"x-mine\", max-age=1"),
            ],
        );
        let directives = ResponseDirectives::of(&response.fields, &Policy::default());
        let kept = storable_fields(&response, &directives);
        let names: Vec<_> = kept.iter().map(|(name, _)| std::str::from_utf8(name).unwrap()).collect();
        assert_eq!(names, ["etag", "x-kept", "cache-control"]);
    }
}
