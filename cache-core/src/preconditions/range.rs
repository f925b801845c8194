//! Byte ranges of a stored response (RFC 9110 §14, §15.3.7).
//!
//! What this decides: one range becomes a `206`, several a `206` of several parts, up to the
//! policy's number; more than that, or a form that is not understood, gets the whole response,
//! which RFC 9110 §14.2 always allows. What it leaves out: whether a stored part holds what is
//! asked for (`partial`).

use std::ops::Range;
use std::sync::Arc;

use larder_contract::ows::trim;
use sha2::{Digest, Sha256};

use super::answer::{Answer, Piece, not_satisfiable_fields, partial_fields};
use crate::fields::list_members;
use crate::stored_response::StoredResponse;

/// What a `Range` value asks of a representation of some length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// These bytes, none empty, in the order asked for; where they overlap or touch, joined.
    Ranges(Vec<Range<u64>>),
    /// Only bytes that are not there.
    Unsatisfiable,
    /// Everything.
    Whole,
}

/// Reads a `Range` value for a representation of `length` bytes.
pub fn parse(value: &[u8], length: u64, max_ranges: u64) -> Asked {
    let value = trim(value);
    let Some(unit) = value
        .get(..6)
        .filter(|unit| unit.eq_ignore_ascii_case(b"bytes="))
    else {
        return Asked::Whole;
    };
    let (mut ranges, mut count): (Vec<Range<u64>>, u64) = (Vec::new(), 0);
    for member in list_members(value.get(unit.len()..).unwrap_or_default()) {
        count += 1;
        match one(member, length) {
            One::Bytes(range) => add(&mut ranges, range),
            One::NotThere => {}
            One::Malformed => return Asked::Whole,
        }
        if count > max_ranges {
            return Asked::Whole;
        }
    }
    match ranges.is_empty() {
        true if count > 0 => Asked::Unsatisfiable,
        true => Asked::Whole,
        false => Asked::Ranges(ranges),
    }
}

enum One {
    Bytes(Range<u64>),
    NotThere,
    Malformed,
}

/// `0-4`, `5-` or `-5` (RFC 9110 §14.1.2).
fn one(member: &[u8], length: u64) -> One {
    let Some(dash) = member.iter().position(|&byte| byte == b'-') else {
        return One::Malformed;
    };
    let (first, last) = member.split_at(dash);
    let last = last.get(1..).unwrap_or_default();
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => match suffix.min(length) {
            0 => One::NotThere,
            suffix => One::Bytes(length - suffix..length),
        },
        (Some(first), None) if last.is_empty() => {
            if first < length {
                One::Bytes(first..length)
            } else {
                One::NotThere
            }
        }
        (Some(first), Some(last)) if first <= last => {
            if first < length {
                One::Bytes(first..last.saturating_add(1).min(length))
            } else {
                One::NotThere
            }
        }
        _ => One::Malformed,
    }
}

/// Overlapping ranges would let a small request fetch the same bytes many times over (RFC 9110
/// §17.15).
fn add(ranges: &mut Vec<Range<u64>>, mut range: Range<u64>) {
    while let Some(at) = ranges
        .iter()
        .position(|known| known.start <= range.end && range.start <= known.end)
    {
        let known = ranges.remove(at);
        range = known.start.min(range.start)..known.end.max(range.end);
    }
    ranges.push(range);
}

/// Digits only; a number too large is past any end.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0u64, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}

/// Answers a `Range` from a stored `200`, or from a part that holds what is asked for.
pub(super) fn evaluate(value: &[u8], stored: &StoredResponse, max_ranges: u64) -> Answer {
    let length = stored
        .part
        .map_or(stored.body.len() as u64, |part| part.complete);
    match parse(value, length, max_ranges) {
        Asked::Whole => Answer::Full,
        Asked::Unsatisfiable => Answer::RangeNotSatisfiable(not_satisfiable_fields(stored, length)),
        Asked::Ranges(ranges) => match ranges.as_slice() {
            [range] => {
                let mut fields = partial_fields(stored);
                fields.set(b"content-range", content_range(range, length).as_bytes());
                Answer::Partial(Piece {
                    fields,
                    body: Arc::from(bytes(stored, range)),
                })
            }
            ranges => multipart(stored, ranges, length),
        },
    }
}

fn content_range(range: &Range<u64>, length: u64) -> String {
    format!(
        "bytes {}-{}/{length}",
        range.start,
        range.end.saturating_sub(1)
    )
}

fn bytes<'a>(stored: &'a StoredResponse, range: &Range<u64>) -> &'a [u8] {
    let first = stored.part.map_or(0, |part| part.first);
    let at = |offset: u64| usize::try_from(offset.saturating_sub(first)).unwrap_or(usize::MAX);
    stored
        .body
        .get(at(range.start)..at(range.end))
        .unwrap_or_default()
}

/// `multipart/byteranges` (RFC 9110 §14.6). The boundary is a digest, so it occurs in no content
/// but on purpose, and whoever could place it there could as well have sent that content.
fn multipart(stored: &StoredResponse, ranges: &[Range<u64>], length: u64) -> Answer {
    let mut boundary = hex::encode(Sha256::digest(&stored.body));
    boundary.truncate(32);
    let content_type = stored.fields.get("content-type");
    let mut body = Vec::new();
    for range in ranges {
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        if let Some(content_type) = content_type {
            body.extend_from_slice(b"Content-Type: ");
            body.extend_from_slice(content_type);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(
            format!("Content-Range: {}\r\n\r\n", content_range(range, length)).as_bytes(),
        );
        body.extend_from_slice(bytes(stored, range));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let mut fields = partial_fields(stored);
    // RFC 9110 §15.3.7.2: the ranges stand in the parts alone.
    fields.remove(b"content-range");
    fields.set(
        b"content-type",
        format!("multipart/byteranges; boundary={boundary}").as_bytes(),
    );
    Answer::Partial(Piece {
        fields,
        body: Arc::from(body),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(ranges: &[(u64, u64)]) -> Asked {
        Asked::Ranges(ranges.iter().map(|(start, end)| *start..*end).collect())
    }

    #[test]
    fn ranges_are_read_in_all_three_forms() {
        for (value, asked) in [
            ("bytes=0-0", ranges(&[(0, 1)])),
            ("bytes=2-", ranges(&[(2, 10)])),
            ("bytes=-3", ranges(&[(7, 10)])),
            ("bytes=-99", ranges(&[(0, 10)])),
            ("Bytes=8-99999999999999999999999", ranges(&[(8, 10)])),
            ("bytes=0-1,3-4", ranges(&[(0, 2), (3, 5)])),
            ("bytes=6-7, 0-1 ,-1", ranges(&[(6, 8), (0, 2), (9, 10)])),
            ("bytes=0-1,99-,3-4", ranges(&[(0, 2), (3, 5)])),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=10-12,20-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=3-2", Asked::Whole),
            ("bytes=0-1,3-2", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("lines=0-1", Asked::Whole),
            ("", Asked::Whole),
        ] {
            assert_eq!(parse(value.as_bytes(), 10, 8), asked, "{value}");
        }
    }

    #[test]
    fn ranges_that_overlap_or_touch_become_one() {
        assert_eq!(parse(b"bytes=0-4,2-6,7-8", 10, 8), ranges(&[(0, 9)]));
        assert_eq!(parse(b"bytes=8-9,0-1,2-7", 10, 8), ranges(&[(0, 10)]));
    }

    #[test]
    fn more_ranges_than_the_policy_allows_get_the_whole() {
        assert_eq!(
            parse(b"bytes=0-0,2-2,4-4", 10, 3),
            ranges(&[(0, 1), (2, 3), (4, 5)])
        );
        assert_eq!(parse(b"bytes=0-0,2-2,4-4", 10, 2), Asked::Whole);
        assert_eq!(parse(b"bytes=0-0", 10, 0), Asked::Whole);
        let many = format!("bytes={}", vec!["0-0"; 5000].join(","));
        assert_eq!(parse(many.as_bytes(), 10, 8), Asked::Whole);
    }

    #[test]
    fn several_ranges_come_as_parts_each_with_its_place() {
        let stored = StoredResponse::example();
        let Answer::Partial(piece) = evaluate(b"bytes=0-0,3-4", &stored, 8) else {
            panic!("not partial")
        };
        let content_type =
            String::from_utf8(piece.fields.get("content-type").unwrap().to_vec()).unwrap();
        let boundary = content_type
            .strip_prefix("multipart/byteranges; boundary=")
            .unwrap();
        let expected = format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-0/5\r\n\r\nh\r\n\
             --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 3-4/5\r\n\r\nlo\r\n--{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8(piece.body.to_vec()).unwrap(), expected);
        assert!(!piece.fields.contains("content-range"));
    }

    proptest! {
        #[test]
        fn every_range_lies_within_the_content(value in "bytes=[0-9,-]{0,24}", length in 0u64..100) {
            if let Asked::Ranges(ranges) = parse(value.as_bytes(), length, 64) {
                prop_assert!(!ranges.is_empty());
                for range in ranges {
                    prop_assert!(range.start < range.end && range.end <= length);
                }
            }
        }

        #[test]
        fn never_more_is_sent_than_there_is(value in "bytes=([0-9]?-[0-9]?,){0,9}") {
            if let Asked::Ranges(ranges) = parse(value.as_bytes(), 10, 64) {
                prop_assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= 10);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(value in proptest::collection::vec(any::<u8>(), 0..64), length: u64) {
            let _ = parse(&value, length, 8);
        }
    }
}
