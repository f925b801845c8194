//! A client's own conditions and ranges, answered from a stored response (RFC 9111 §4.3.2, RFC 9110
//! §13, §14).
//!
//! What this decides: whole, not modified, a part, or no such part. What it leaves out: `If-Match`
//! and `If-Unmodified-Since`, which concern the origin's state; they are ignored on a stored
//! response, as RFC 9111 §4.3.2 says of fields a cache does not evaluate.

use larder_contract::http_time::Timestamp;

use crate::fields::list_members;
use crate::message::Request;
use crate::stored_response::StoredResponse;
use crate::validation::opaque_tag;

mod answer;
pub mod range;

pub use answer::{Answer, Piece, describes_whole_content, not_modified_fields};

/// Evaluates the request's conditions in the order of RFC 9110 §13.2.2.
pub fn evaluate(request: &Request, stored: &StoredResponse, max_ranges: u64) -> Answer {
    if (200..300).contains(&stored.status) && is_not_modified(request, stored) {
        return Answer::NotModified;
    }
    match ranges(request, stored) {
        Some(ranges) => range::evaluate(ranges, stored, max_ranges),
        None => Answer::Full,
    }
}

/// The request's `Range`, where it counts for this stored response (RFC 9110 §13.2.2, §14.2).
pub fn ranges<'a>(request: &'a Request, stored: &StoredResponse) -> Option<&'a [u8]> {
    let ranged = stored.status == 200 || stored.part.is_some();
    let ranges = request
        .fields
        .get("range")
        .filter(|_| ranged && request.method() == b"GET");
    ranges.filter(|_| if_range_holds(request, stored))
}

/// `If-None-Match` by weak comparison; only without it `If-Modified-Since` (RFC 9110 §13.1.2,
/// §13.1.3).
fn is_not_modified(request: &Request, stored: &StoredResponse) -> bool {
    if request.fields.contains("if-none-match") {
        let etag = stored.fields.get("etag").map(opaque_tag);
        return request
            .fields
            .list("if-none-match")
            .any(|member| member == b"*" || (etag.is_some() && Some(opaque_tag(member)) == etag));
    }
    let Some(since) = request
        .fields
        .get("if-modified-since")
        .and_then(Timestamp::parse_http_date)
    else {
        return false;
    };
    let modified = stored
        .fields
        .get("last-modified")
        .and_then(Timestamp::parse_http_date);
    // RFC 9111 §4.3.2: without Last-Modified, Date, else the time it was received.
    let modified = modified
        .or_else(|| {
            stored
                .fields
                .get("date")
                .and_then(Timestamp::parse_http_date)
        })
        .unwrap_or(stored.response_time);
    modified.as_secs() <= since.as_secs()
}

/// RFC 9110 §13.1.5: a range counts only while the representation is the same, by strong
/// comparison.
fn if_range_holds(request: &Request, stored: &StoredResponse) -> bool {
    let Some(condition) = request.fields.get("if-range") else {
        return true;
    };
    if condition.starts_with(b"\"") {
        return list_members(condition).count() == 1
            && stored.fields.get("etag") == Some(condition);
    }
    let modified = stored.fields.get("last-modified");
    modified.is_some()
        && modified.and_then(Timestamp::parse_http_date) == Timestamp::parse_http_date(condition)
        && Timestamp::parse_http_date(condition).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;

    fn answer(pairs: &[(&str, &str)]) -> Answer {
        let mut stored = StoredResponse::example();
        stored
            .fields
            .append(b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT");
        let request = pairs
            .iter()
            .fold(Request::new("GET", "a", "/"), |request, (name, value)| {
                request.with(name, value)
            });
        evaluate(&request, &stored, 8)
    }

    #[test]
    fn if_none_match_compares_weakly_and_in_lists() {
        for value in ["\"1\"", "W/\"1\"", "\"0\", \"1\"", "*", "\"a,b\" , W/\"1\""] {
            assert_eq!(
                answer(&[("if-none-match", value)]),
                Answer::NotModified,
                "{value}"
            );
        }
        for value in ["\"2\"", "1", "\"1", ""] {
            assert_eq!(answer(&[("if-none-match", value)]), Answer::Full, "{value}");
        }
    }

    #[test]
    fn if_modified_since_counts_only_without_if_none_match() {
        let since = ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(answer(&[since]), Answer::NotModified);
        assert_eq!(answer(&[since, ("if-none-match", "\"2\"")]), Answer::Full);
        assert_eq!(
            answer(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")]),
            Answer::Full
        );
        assert_eq!(answer(&[("if-modified-since", "rubbish")]), Answer::Full);
    }

    fn with_all_kinds_of_fields() -> StoredResponse {
        let pairs = [
            ("content-type", "text/plain"),
            ("content-encoding", "br"),
            ("content-language", "en"),
            ("content-md5", "x"),
            ("content-digest", "x"),
            ("digest", "x"),
            ("repr-digest", "x"),
            ("x-amz-checksum-crc32", "x"),
            ("x-goog-hash", "x"),
            ("x-goog-stored-content-length", "5"),
            ("etag", "\"1\""),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("expires", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("cache-control", "max-age=60"),
            ("cdn-cache-control", "max-age=60"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("vary", "origin"),
            ("access-control-allow-origin", "http://b.example"),
            ("access-control-expose-headers", "x-a"),
            ("timing-allow-origin", "*"),
            ("content-security-policy", "default-src 'self'"),
            ("x-a", "1"),
        ];
        StoredResponse {
            fields: Fields::from_pairs(pairs),
            ..StoredResponse::example()
        }
    }

    fn names(fields: &Fields) -> Vec<&str> {
        fields
            .iter()
            .map(|(name, _)| std::str::from_utf8(name).unwrap())
            .collect()
    }

    #[test]
    fn a_304_has_the_fields_of_the_200_but_for_those_that_describe_content() {
        let expected = [
            "etag",
            "last-modified",
            "expires",
            "cache-control",
            "cdn-cache-control",
            "date",
            "vary",
            "access-control-allow-origin",
            "access-control-expose-headers",
            "timing-allow-origin",
            "content-security-policy",
            "x-a",
        ];
        assert_eq!(
            names(&not_modified_fields(&with_all_kinds_of_fields())),
            expected
        );
    }

    #[test]
    fn a_206_has_no_field_that_is_true_of_the_whole_alone() {
        let stored = with_all_kinds_of_fields();
        for ranges in ["bytes=0-1", "bytes=0-0,3-4"] {
            let request = Request::new("GET", "a", "/").with("range", ranges);
            let Answer::Partial(piece) = evaluate(&request, &stored, 8) else {
                panic!("not partial")
            };
            let names = names(&piece.fields);
            for gone in [
                "content-md5",
                "content-digest",
                "digest",
                "x-amz-checksum-crc32",
                "x-goog-hash",
            ] {
                assert!(!names.contains(&gone), "{ranges}: {gone}");
            }
            for kept in [
                "repr-digest",
                "etag",
                "content-encoding",
                "cache-control",
                "access-control-allow-origin",
            ] {
                assert!(names.contains(&kept), "{ranges}: {kept}");
            }
        }
    }

    #[test]
    fn a_416_says_nothing_of_the_objects_caching_and_may_not_be_stored() {
        let request = Request::new("GET", "a", "/").with("range", "bytes=99-");
        let Answer::RangeNotSatisfiable(fields) =
            evaluate(&request, &with_all_kinds_of_fields(), 8)
        else {
            panic!("satisfiable");
        };
        let expected = [
            "date",
            "vary",
            "access-control-allow-origin",
            "access-control-expose-headers",
            "timing-allow-origin",
            "cache-control",
            "content-range",
        ];
        assert_eq!(names(&fields), expected);
        assert_eq!(fields.get("cache-control"), Some(&b"no-store"[..]));
        assert_eq!(fields.get("content-range"), Some(&b"bytes */5"[..]));
    }

    #[test]
    fn if_range_needs_the_very_same_representation() {
        let range = ("range", "bytes=0-1");
        assert!(matches!(
            answer(&[range, ("if-range", "\"1\"")]),
            Answer::Partial(_)
        ));
        assert!(matches!(
            answer(&[range, ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")]),
            Answer::Partial(_)
        ));
        for condition in [
            "\"2\"",
            "W/\"1\"",
            "Sun, 06 Nov 1994 08:49:38 GMT",
            "rubbish",
        ] {
            assert_eq!(
                answer(&[range, ("if-range", condition)]),
                Answer::Full,
                "{condition}"
            );
        }
    }
}
