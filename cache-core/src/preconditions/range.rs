//! Byte ranges of a complete stored response (RFC 9110 §14).
//!
//! What this decides: one range becomes a `206`; several, or a form that is not understood, the whole response, which
//! RFC 9110 §14.2 always allows. What it leaves out: `multipart/byteranges`.

use std::ops::Range;
use std::sync::Arc;

use super::{Answer, Part};
use crate::fields::{list_members, trim};
use crate::stored_response::StoredResponse;

/// What a `Range` value asks of content of some length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// These bytes; never empty.
    Bytes(Range<usize>),
    /// Bytes that are not there.
    Unsatisfiable,
    /// Everything: not a single byte range.
    Whole,
}

/// Reads a `Range` value for content of `length` bytes.
pub fn parse(value: &[u8], length: usize) -> Asked {
    let Some(set) = trim(value).get(..6).filter(|unit| unit.eq_ignore_ascii_case(b"bytes=")) else {
        return Asked::Whole;
    };
    let set = trim(value).get(set.len()..).unwrap_or_default();
    let mut members = list_members(set);
    let (Some(member), None) = (members.next(), members.next()) else { return Asked::Whole };
    let Some(dash) = member.iter().position(|&byte| byte == b'-') else { return Asked::Whole };
    let (first, last) = member.split_at(dash);
    let last = last.get(1..).unwrap_or_default();
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => match suffix.min(length) {
            0 => Asked::Unsatisfiable,
            suffix => Asked::Bytes(length - suffix..length),
        },
        (Some(first), None) if last.is_empty() && first < length => Asked::Bytes(first..length),
        (Some(first), Some(last)) if first <= last && first < length => {
            Asked::Bytes(first..last.saturating_add(1).min(length))
        }
        (Some(_), None) if last.is_empty() => Asked::Unsatisfiable,
        (Some(first), Some(last)) if first <= last => Asked::Unsatisfiable,
        _ => Asked::Whole,
    }
}

/// Digits only; a number too large is past any end.
fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0usize, |sum, digit| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'))))
}

/// Answers a `Range` from a complete `200`.
pub(super) fn evaluate(value: &[u8], stored: &StoredResponse) -> Answer {
    let length = stored.body.len();
    match parse(value, length) {
        Asked::Whole => Answer::Full,
        Asked::Unsatisfiable => {
            let mut fields = super::not_modified_fields(stored);
            fields.append(b"content-range", format!("bytes */{length}").as_bytes());
            Answer::RangeNotSatisfiable(fields)
        }
        Asked::Bytes(range) => {
            let mut fields = stored.fields.clone();
            let (first, last) = (range.start, range.end.saturating_sub(1));
            fields.set(b"content-range", format!("bytes {first}-{last}/{length}").as_bytes());
            Answer::Partial(Part { fields, body: Arc::from(stored.body.get(range).unwrap_or_default()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn single_ranges_are_read_in_all_three_forms() {
        for (value, asked) in [
            ("bytes=0-0", Asked::Bytes(0..1)),
            ("bytes=2-", Asked::Bytes(2..10)),
            ("bytes=-3", Asked::Bytes(7..10)),
            ("bytes=-99", Asked::Bytes(0..10)),
            ("Bytes=8-99999999999999999999999", Asked::Bytes(8..10)),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=10-12", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=3-2", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("lines=0-1", Asked::Whole),
            ("", Asked::Whole),
        ] {
            assert_eq!(parse(value.as_bytes(), 10), asked, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_range_lies_within_the_content_and_is_not_empty(value in "bytes=[0-9,-]{0,8}", length in 0usize..20) {
            if let Asked::Bytes(range) = parse(value.as_bytes(), length) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }
    }
}
