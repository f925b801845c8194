//! Invalidation of stored responses by unsafe methods (RFC 9111 §4.4).
//!
//! What this decides: which methods are unsafe, and which URIs their success concerns. What it
//! leaves out: how stored responses are found and dropped.

use larder_contract::key::{canonical_authority, canonical_scheme};
use larder_contract::ows::trim;
use larder_contract::path::path_as_requested;

use crate::message::{Request, ResponseHead};

/// A URI whose stored responses are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Scheme.
    pub scheme: Vec<u8>,
    /// Host and port.
    pub authority: Vec<u8>,
    /// Path and query.
    pub path: Vec<u8>,
}

impl Target {
    /// What `request` is about.
    pub fn of(request: &Request) -> Self {
        Self::at(request, request.path())
    }

    /// A path at the origin of `request`.
    fn at(request: &Request, path: &[u8]) -> Self {
        let (scheme, authority) = (request.scheme().to_vec(), request.authority().to_vec());
        Self {
            scheme,
            authority,
            path: path.to_vec(),
        }
    }
}

/// Whether the method may change something. Unknown methods may (RFC 9111 §4.4).
pub fn is_unsafe(method: &[u8]) -> bool {
    !matches!(
        method,
        b"GET"
            | b"HEAD"
            | b"OPTIONS"
            | b"TRACE"
            | b"PROPFIND"
            | b"REPORT"
            | b"SEARCH"
            | b"QUERY"
            | b"CONNECT"
    )
}

/// On a non-error answer the target URI, and the one in `Content-Location`; the one in `Location`
/// with a success, where it names what was made (RFC 9110 §10.2.2): with a redirect it is where the
/// client goes next, and anybody who logs in would flush that page. Both only at the same origin:
/// another origin's URIs are not ours to drop.
///
/// A `502` or `504` is a gateway's word that it lost the answer: what was asked for may have
/// happened, so the target goes. Any other error is the origin's own word that it did not.
pub fn targets(request: &Request, response: &ResponseHead) -> Vec<Target> {
    let lost = matches!(response.status, 502 | 504);
    if !is_unsafe(request.method()) || !(lost || (200..400).contains(&response.status)) {
        return Vec::new();
    }
    let mut targets = vec![Target::of(request)];
    let named: &[&str] = match response.status {
        200..300 => &["location", "content-location"],
        300..400 => &["content-location"],
        _ => &[],
    };
    for name in named {
        let resolved = response
            .fields
            .get(name)
            .and_then(|reference| resolve(trim(reference), request));
        targets.extend(
            resolved
                .map(|path| Target::at(request, &path))
                .filter(|found| found.path != request.path()),
        );
    }
    targets.dedup();
    targets
}

/// What an unsafe method may have changed although nobody saw its answer: its client left, the
/// connection broke, or the time was up.
pub fn doubtful_target(request: &Request) -> Option<Target> {
    is_unsafe(request.method()).then(|| Target::of(request))
}

/// Whether an answer with this status that is not stored ends what is stored: a success that
/// replaces it, or word that the resource is gone (RFC 9110 §15.5.5, §15.5.11).
pub fn ends_what_is_stored(status: u16) -> bool {
    (200..300).contains(&status) || matches!(status, 404 | 410)
}

/// The path and query that `Content-Location` names, if it lies at the request's origin (RFC 9110
/// §8.7).
pub fn content_location(request: &Request, response: &ResponseHead) -> Option<Vec<u8>> {
    response
        .fields
        .get("content-location")
        .and_then(|reference| resolve(trim(reference), request))
}

/// The path and query a reference means (RFC 3986 §5.2), as a client would ask for them through
/// Envoy, if it lies at the request's origin.
fn resolve(reference: &[u8], request: &Request) -> Option<Vec<u8>> {
    let reference = reference
        .split(|&byte| byte == b'#')
        .next()
        .unwrap_or_default();
    if reference.is_empty() {
        return None;
    }
    let has_scheme = reference.windows(3).position(|three| three == b"://");
    let rest = match has_scheme {
        Some(colon) => {
            let (scheme, rest) = reference.split_at(colon);
            if !scheme.eq_ignore_ascii_case(request.scheme()) {
                return None;
            }
            rest.get(3..)
        }
        None => reference.strip_prefix(b"//"),
    };
    if let Some(rest) = rest {
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let scheme = canonical_scheme(request.scheme());
        if canonical_authority(&scheme, authority)
            != canonical_authority(&scheme, request.authority())
        {
            return None;
        }
        return Some(path_as_requested(path));
    }
    if reference.starts_with(b"/") {
        return Some(path_as_requested(reference));
    }
    let base = request
        .path()
        .split(|&byte| byte == b'?')
        .next()
        .unwrap_or_default();
    if reference.starts_with(b"?") {
        return Some(path_as_requested(&[base, reference].concat()));
    }
    let folder = base
        .iter()
        .rposition(|&byte| byte == b'/')
        .and_then(|slash| base.get(..=slash))
        .unwrap_or(b"/");
    Some(path_as_requested(&[folder, reference].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(method: &str, status: u16, pairs: &[(&str, &str)]) -> Vec<String> {
        let request = Request::new(method, "a.example", "/d/e?x=1");
        let targets = targets(&request, &ResponseHead::new(status, pairs));
        targets
            .into_iter()
            .map(|target| String::from_utf8(target.path).unwrap())
            .collect()
    }

    #[test]
    fn a_successful_unsafe_method_drops_its_target() {
        for method in ["PUT", "POST", "DELETE", "PATCH", "M-SEARCH", "FOO"] {
            assert_eq!(paths(method, 204, &[]), ["/d/e?x=1"], "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(paths(method, 200, &[]).is_empty(), "{method}");
        }
    }

    #[test]
    fn an_error_drops_nothing() {
        for status in [400, 404, 500, 503] {
            assert!(
                paths("PUT", status, &[("location", "/x")]).is_empty(),
                "{status}"
            );
        }
    }

    #[test]
    fn a_gateway_that_lost_the_answer_leaves_the_target_in_doubt() {
        for status in [502, 504] {
            let pairs = [("location", "/x"), ("content-location", "/x")];
            assert_eq!(paths("PUT", status, &pairs), ["/d/e?x=1"], "{status}");
            assert!(paths("GET", status, &pairs).is_empty(), "{status}");
        }
    }

    #[test]
    fn location_counts_with_a_success_and_not_where_the_client_is_sent_on() {
        for status in [300, 301, 302, 303, 307, 308] {
            assert_eq!(
                paths("POST", status, &[("location", "/home")]),
                ["/d/e?x=1"],
                "{status}"
            );
            assert_eq!(
                paths("POST", status, &[("content-location", "/home")]),
                ["/d/e?x=1", "/home"],
                "{status}"
            );
        }
    }

    #[test]
    fn location_and_content_location_of_the_same_origin_are_dropped_too() {
        for (reference, path) in [
            ("/x", "/x"),
            ("x", "/d/x"),
            ("../x?y#z", "/x?y"),
            ("?y", "/d/e?y"),
            ("./", "/d/"),
            ("//a.example/x", "/x"),
            ("http://A.example/x/../y", "/y"),
            ("http://a.example", "/"),
            ("HTTP://A.example:80/x", "/x"),
            ("/x/%2e%2e/%79/%c3%a9?%e2", "/y/%C3%A9?%E2"),
            ("http://a.example?%e2", "/?%E2"),
            ("/x//y%2fz", "/x//y%2Fz"),
            ("%61", "/d/a"),
        ] {
            assert_eq!(
                paths("POST", 201, &[("location", reference)]),
                ["/d/e?x=1", path],
                "{reference}"
            );
            assert_eq!(
                paths("POST", 201, &[("content-location", reference)]),
                ["/d/e?x=1", path],
                "{reference}"
            );
        }
        for reference in [
            "http://b.example/x",
            "https://a.example/x",
            "//a.example:81/x",
            "",
            "#z",
        ] {
            assert_eq!(
                paths("POST", 201, &[("location", reference)]),
                ["/d/e?x=1"],
                "{reference}"
            );
        }
    }
}
