//! Whether a route sends to the origin what the client sent: path, host and fields.
//!
//! A background refresh either takes the same routes as any request, or it goes straight to the
//! cluster that the route picked. In the second case what the route would have done to the request,
//! and to its answer, does not happen.
//!
//! What this decides: which stored responses may be refreshed straight, and which answers to that
//! are believed. What it leaves out: how the shell learns what was sent.

use larder_contract::http_time::{DeltaSeconds, Timestamp};
use xxhash_rust::xxh3::Xxh3Default;

use crate::cache_status::Detail;
use crate::exchange::effect::ForwardedRequest;
use crate::fields::{Fields, is_hop_by_hop};
use crate::message::Request;
use crate::stored_response::StoredResponse;

pub(crate) mod note;

pub use note::{RefreshPath, RouteNote};

/// For how long a route is believed to do what it was seen to do: nobody tells a filter that its
/// routes have changed.
const BELIEVED: DeltaSeconds = DeltaSeconds::new(300);

/// Why `stored` must not be refreshed in the background, if so: then it is validated before it
/// answers.
pub fn forbids_refresh(
    stored: &StoredResponse,
    path: RefreshPath,
    now: Timestamp,
) -> Option<Detail> {
    match (path, stored.route.seen()) {
        (RefreshPath::Routed, _) => None,
        (RefreshPath::Straight, Some(seen)) if seen.changes => Some(Detail::RouteChangesRequest),
        (RefreshPath::Straight, Some(seen))
            if now.millis_since(seen.at_ms) < BELIEVED.as_millis() =>
        {
            None
        }
        (RefreshPath::Straight, _) => Some(Detail::RouteUnknown),
    }
}

/// Whether a refresh that went straight brought what the route would have brought: the same fields,
/// and the same word about reuse. Else the route may add or take away some of them.
pub fn is_as_routed(stored: &StoredResponse, refreshed: &StoredResponse) -> bool {
    let covers = |one: &Fields, other: &Fields| {
        other
            .iter()
            .all(|(name, _)| comes_and_goes(name) || one.iter().any(|(known, _)| known == name))
    };
    let (old, new) = (&stored.fields, &refreshed.fields);
    covers(old, new) && covers(new, old) && old.all("cache-control").eq(new.all("cache-control"))
}

/// Fields that an origin sends with one content and not with the next.
fn comes_and_goes(name: &[u8]) -> bool {
    const FIELDS: [&[u8]; 8] = [
        b"age",
        b"content-encoding",
        b"content-length",
        b"date",
        b"etag",
        b"expires",
        b"last-modified",
        b"set-cookie",
    ];
    FIELDS.contains(&name) || is_hop_by_hop(name) || name.starts_with(b"x-envoy-")
}

/// What of a request counts when the one that the client sent is compared with the one that the
/// origin got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent(u64);

impl Sent {
    /// Of a request's head as it is.
    pub fn of(fields: &Fields) -> Self {
        Self(
            fields
                .iter()
                .filter(|(name, _)| counts(name))
                .map(line)
                .fold(0, u64::wrapping_add),
        )
    }

    /// Of `request` as the cache let it go on, changed so.
    pub fn by(request: &Request, change: &ForwardedRequest) -> Self {
        let mut fields = request.fields.clone();
        if let Some(path) = &change.path {
            fields.set(b":path", path);
        }
        for name in &change.remove {
            fields.remove(name);
        }
        for (name, value) in change.set.iter() {
            fields.set(name, value);
        }
        Self::of(&fields)
    }
}

/// In whatever order the fields come, the sum is the same.
fn line((name, value): (&[u8], &[u8])) -> u64 {
    let mut hash = Xxh3Default::new();
    hash.update(name);
    hash.update(b"\0");
    hash.update(value);
    hash.digest()
}

/// A proxy's own fields, about the call and for tracing, are added to every request, refreshes
/// included.
fn counts(name: &[u8]) -> bool {
    const PROXYS: [&[u8]; 11] = [
        b"b3",
        b"baggage",
        b"grpc-trace-bin",
        b"sw8",
        b"traceparent",
        b"tracestate",
        b"uber-trace-id",
        b"x-amzn-trace-id",
        b"x-cloud-trace-context",
        b"x-ot-span-context",
        b"x-request-id",
    ];
    const FAMILIES: [&[u8]; 3] = [b"x-b3-", b"x-datadog-", b"x-envoy-"];
    if name.starts_with(b":") {
        return name == b":path" || name == b":authority";
    }
    !is_hop_by_hop(name)
        && !PROXYS.contains(&name)
        && !FAMILIES.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {
    use larder_contract::entry::RouteSeen;

    use super::*;

    fn sent(fields: &[(&str, &str)]) -> Sent {
        Sent::of(&Fields::from_pairs(fields.iter().copied()))
    }

    #[test]
    fn what_a_route_changes_is_noticed_and_what_every_proxy_adds_is_not() {
        const PLAIN: [(&str, &str); 4] = [
            (":method", "GET"),
            (":authority", "a"),
            (":path", "/v2/x"),
            ("accept", "text/html"),
        ];
        let with = |more: &[(&str, &str)]| sent(&[&PLAIN, more].concat());
        for added in [
            ("x-request-id", "1"),
            ("x-envoy-expected-rq-timeout-ms", "15000"),
            ("x-envoy-original-path", "/x"),
            ("traceparent", "00-1-2-01"),
            ("x-b3-traceid", "1"),
            (":scheme", "http"),
        ] {
            assert_eq!(with(&[added]), sent(&PLAIN), "{added:?}");
        }
        for added in [
            ("authorization", "Bearer x"),
            ("x-tenant", "1"),
            ("accept", "text/html"),
        ] {
            assert_ne!(with(&[added]), sent(&PLAIN), "{added:?}");
        }
        for (from, to) in [("/v2/x", "/x"), ("a", "b.example"), ("text/html", "*/*")] {
            let changed = PLAIN.map(|(name, value)| (name, if value == from { to } else { value }));
            assert_ne!(sent(&changed), sent(&PLAIN), "{to}");
        }
        assert_ne!(sent(&PLAIN[..3]), sent(&PLAIN), "a field is missing");
        let mut turned = PLAIN;
        turned.reverse();
        assert_eq!(sent(&turned), sent(&PLAIN));
    }

    #[test]
    fn what_the_cache_itself_changed_is_no_change_of_the_route() {
        let request = Request {
            reduced: Vec::new(),
            fields: Fields::from_pairs([
                (":authority", "a"),
                (":path", "/x?cache-control=max-age=1"),
                (":override", "max-age=1"),
                ("if-none-match", "\"0\""),
                ("accept", "a"),
            ]),
            has_content: false,
            is_identified: false,
        };
        let change = ForwardedRequest {
            path: Some(b"/x".to_vec()),
            validates: None,
            remove: vec![b"if-none-match".to_vec()],
            set: Fields::from_pairs([("if-none-match", "\"1\"")]),
        };
        let gone_on = [
            (":authority", "a"),
            (":path", "/x"),
            ("accept", "a"),
            ("if-none-match", "\"1\""),
        ];
        assert_eq!(Sent::by(&request, &change), sent(&gone_on));
    }

    #[test]
    fn a_straight_refresh_needs_a_route_that_was_seen_lately_to_change_nothing() {
        let at_ms = Timestamp::from_millis(1_000_000);
        let reason = |seen: Option<RouteSeen>, path, after_s: u64| {
            let stored = StoredResponse {
                route: seen.into(),
                ..StoredResponse::example()
            };
            forbids_refresh(&stored, path, at_ms.plus_millis(after_s * 1_000))
        };
        let seen = |changes| Some(RouteSeen { at_ms, changes });
        assert_eq!(reason(None, RefreshPath::Routed, 0), None);
        assert_eq!(reason(seen(true), RefreshPath::Routed, 0), None);
        assert_eq!(
            reason(None, RefreshPath::Straight, 0),
            Some(Detail::RouteUnknown)
        );
        assert_eq!(
            reason(seen(true), RefreshPath::Straight, 0),
            Some(Detail::RouteChangesRequest)
        );
        assert_eq!(reason(seen(false), RefreshPath::Straight, 299), None);
        assert_eq!(
            reason(seen(false), RefreshPath::Straight, 300),
            Some(Detail::RouteUnknown)
        );
    }

    #[test]
    fn an_answer_without_what_the_route_adds_or_with_what_it_takes_away_is_not_as_routed() {
        let of = |fields: &[(&str, &str)]| StoredResponse {
            fields: Fields::from_pairs(fields.iter().copied()),
            ..StoredResponse::example()
        };
        let stored = of(&[
            ("cache-control", "max-age=1"),
            ("etag", "\"1\""),
            ("x-added", "1"),
            ("date", "a"),
        ]);
        let same = of(&[
            ("date", "b"),
            ("cache-control", "max-age=1"),
            ("x-added", "2"),
            ("last-modified", "c"),
        ]);
        assert!(is_as_routed(&stored, &same));
        for other in [
            &[("cache-control", "max-age=1"), ("etag", "\"1\"")][..],
            &[
                ("cache-control", "max-age=1"),
                ("x-added", "1"),
                ("x-secret", "1"),
            ],
            &[("cache-control", "max-age=60"), ("x-added", "1")],
            &[("x-added", "1")],
        ] {
            assert!(!is_as_routed(&stored, &of(other)), "{other:?}");
        }
    }
}
