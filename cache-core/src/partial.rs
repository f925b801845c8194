//! Parts of a representation: storing, reusing and completing them (RFC 9111 §3.3–3.4; RFC 9110
//! §14.4, §15.3.7).
//!
//! What this decides: which part a `206` holds, whether a request lies within it, what is asked for
//! to complete it, and when two parts may be joined: only with one strong validator. What it leaves
//! out: whether parts are stored at all (`policy`), and how ranges of what is held are sent
//! (`preconditions::range`).

use std::sync::Arc;

use crate::fields::Fields;
use crate::message::ResponseHead;
use crate::preconditions::range;
use crate::stored_response::StoredResponse;
use crate::validation;

pub(crate) mod part;

pub use part::{ContentRange, Part};

/// Whether `stored` holds all that this `Range` asks for. A complete response does.
pub fn covers(stored: &StoredResponse, ranges: Option<&[u8]>, max_ranges: u64) -> bool {
    let Some(part) = stored.part else { return true };
    let Some(ranges) = ranges else { return false };
    let held = part.first..part.first.saturating_add(stored.body.len() as u64);
    match range::parse(ranges, part.complete, max_ranges) {
        range::Asked::Ranges(asked) => asked
            .iter()
            .all(|one| held.start <= one.start && one.end <= held.end),
        range::Asked::Unsatisfiable => true,
        range::Asked::Whole => false,
    }
}

/// The fields that ask for the rest of a part, so that a changed representation comes whole (RFC
/// 9110 §13.1.5). `None` where the part does not begin at the beginning, or has no strong validator
/// with which the rest could be joined.
pub fn rest_conditions(stored: &StoredResponse) -> Option<Fields> {
    let part = stored.part?;
    let etag = strong_etag(&stored.fields)?;
    let held = stored.body.len() as u64;
    if part.first != 0 || held >= part.complete {
        return None;
    }
    let mut fields = Fields::default();
    fields.append(b"range", format!("bytes={held}-").as_bytes());
    fields.append(b"if-range", etag);
    Some(fields)
}

/// Joins a stored part with a newer one, if both have the same strong validator and nothing lies
/// between them (RFC 9111 §3.4). The newer one's fields count. Complete when it covers everything.
pub fn join(older: &StoredResponse, newer: StoredResponse) -> StoredResponse {
    let joined = (|| {
        let (old, new) = (older.part?, newer.part?);
        let same = strong_etag(&older.fields)? == strong_etag(&newer.fields)?;
        if !same || old.complete != new.complete || older.selecting != newer.selecting {
            return None;
        }
        let first = old.first.min(new.first);
        let end = |part: Part, body: &[u8]| part.first + body.len() as u64;
        let gap = new.first > end(old, &older.body) || old.first > end(new, &newer.body);
        if gap {
            return None;
        }
        let last = end(old, &older.body).max(end(new, &newer.body));
        let mut body = vec![0; usize::try_from(last - first).ok()?];
        for (part, held) in [(old, &older.body), (new, &newer.body)] {
            let at = usize::try_from(part.first - first).ok()?;
            body.get_mut(at..at + held.len())?.copy_from_slice(held);
        }
        Some((first, body, old.complete))
    })();
    let Some((first, body, complete)) = joined else {
        return newer;
    };
    let whole = body.len() as u64 == complete;
    let part = if whole {
        None
    } else {
        Some(Part { first, complete })
    };
    let status = if whole { 200 } else { newer.status };
    StoredResponse {
        status,
        part,
        body: Arc::from(body),
        ..newer
    }
}

/// How many bytes follow this head, if it is that of the rest that [`rest_conditions`] asked for:
/// all that is missing, of the same representation.
pub fn rest_length(stored: &StoredResponse, head: &ResponseHead) -> Option<u64> {
    let (claimed, part) = (ContentRange::of(&head.fields)?, stored.part?);
    let length = part.complete.checked_sub(claimed.first)?;
    let is_all_that_is_missing = claimed.first == stored.body.len() as u64
        && claimed.complete == Some(part.complete)
        && claimed.last.checked_add(1) == Some(part.complete);
    let declared = head.fields.get("content-length");
    let as_declared = declared.is_none_or(|declared| declared == length.to_string().as_bytes());
    let same =
        strong_etag(&head.fields).is_some_and(|etag| stored.fields.get("etag") == Some(etag));
    (head.status == 206 && is_all_that_is_missing && as_declared && same).then_some(length)
}

/// RFC 9110 §8.8.1: a weak one does not tell two sequences of bytes apart.
fn strong_etag(fields: &Fields) -> Option<&[u8]> {
    fields
        .get("etag")
        .filter(|etag| etag.starts_with(b"\"") && validation::opaque_tag(etag) == *etag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content_range(value: &str) -> Option<ContentRange> {
        ContentRange::of(&Fields::from_pairs([("content-range", value)]))
    }

    fn part(first: u64, body: &[u8], complete: u64) -> StoredResponse {
        StoredResponse {
            status: 206,
            body: Arc::from(body),
            part: Some(Part { first, complete }),
            ..StoredResponse::example()
        }
    }

    #[test]
    fn a_content_range_is_read_or_left_alone() {
        assert_eq!(
            content_range("bytes 4-9/10"),
            Some(ContentRange {
                first: 4,
                last: 9,
                complete: Some(10)
            })
        );
        assert_eq!(
            content_range(" Bytes 0-0/*"),
            Some(ContentRange {
                first: 0,
                last: 0,
                complete: None
            })
        );
        for bad in [
            "bytes */10",
            "bytes 4-3/10",
            "bytes 4-10/10",
            "lines 0-1/2",
            "bytes 0-1",
            "bytes=0-1/2",
            "bytes +0-1/2",
            "",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_content_says_where_a_part_ends() {
        let claimed = content_range("bytes 4-9/10").unwrap();
        assert_eq!(
            Part::of(claimed, 6),
            Some(Part {
                first: 4,
                complete: 10
            })
        );
        assert_eq!(
            Part::of(claimed, 5),
            Some(Part {
                first: 4,
                complete: 9
            })
        );
        assert_eq!(Part::of(claimed, 7), None);
        assert_eq!(Part::of(claimed, 0), None);
        assert_eq!(Part::of(content_range("bytes 4-9/*").unwrap(), 6), None);
    }

    #[test]
    fn a_part_covers_what_lies_within_it() {
        let stored = part(4, b"01234", 9);
        for (ranges, covered) in [
            ("bytes=-5", true),
            ("bytes=6-8", true),
            ("bytes=6-", true),
            ("bytes=-1", true),
            ("bytes=3-5", false),
            ("bytes=-6", false),
            ("bytes=4-4,6-7", true),
            ("bytes=0-0,6-7", false),
            ("bytes=99-", true),
            ("rubbish", false),
        ] {
            assert_eq!(
                covers(&stored, Some(ranges.as_bytes()), 8),
                covered,
                "{ranges}"
            );
        }
        assert!(!covers(&stored, None, 8));
        assert!(covers(&StoredResponse::example(), None, 8));
    }

    #[test]
    fn only_a_beginning_with_a_strong_validator_is_completed() {
        let fields = rest_conditions(&part(0, b"01234", 10)).unwrap();
        assert_eq!(
            fields,
            Fields::from_pairs([("range", "bytes=5-"), ("if-range", "\"1\"")])
        );
        assert_eq!(rest_conditions(&part(1, b"01234", 10)), None);
        let mut weak = part(0, b"01234", 10);
        weak.fields.set(b"etag", b"W/\"1\"");
        assert_eq!(rest_conditions(&weak), None);
    }

    #[test]
    fn parts_of_different_representations_are_not_joined() {
        let mut other = part(5, b"56789", 10);
        other.fields.set(b"etag", b"\"2\"");
        assert_eq!(join(&part(0, b"01234", 10), other.clone()), other);
        let apart = part(6, b"6789", 10);
        assert_eq!(join(&part(0, b"01234", 10), apart.clone()), apart);
    }

    proptest! {
        #[test]
        fn joined_parts_are_the_bytes_they_were(
            whole in proptest::collection::vec(any::<u8>(), 2..40), cuts in (0usize..40, 0usize..40, 0usize..40, 0usize..40),
        ) {
            let cut = |at: usize| at % whole.len();
            let (a, b, c, d) = (cut(cuts.0), cut(cuts.1), cut(cuts.2), cut(cuts.3));
            let (old, new) = ((a.min(b), a.max(b) + 1), (c.min(d), c.max(d) + 1));
            let stored = |(from, to): (usize, usize)| part(from as u64, &whole[from..to], whole.len() as u64);
            let joined = join(&stored(old), stored(new));
            let first = joined.part.map_or(0, |part| part.first) as usize;
            prop_assert_eq!(&*joined.body, &whole[first..first + joined.body.len()]);
            if joined.part.is_none() {
                prop_assert_eq!(joined.body.len(), whole.len());
                prop_assert_eq!(joined.status, 200);
            }
        }
    }
}
