//! A single byte range of the content, where a behaviour asks for that (RFC 9110 §14).

use axum::http::{HeaderMap, header};

use crate::behaviour::Behaviour;

/// The part that `Range` asks for and its `Content-Range`; an empty part where there is no such
/// range. `None` without a range that counts.
pub(crate) fn part_of(
    behaviour: &Behaviour,
    headers: &HeaderMap,
    content: &[u8],
) -> Option<(Vec<u8>, String)> {
    let text = |name: header::HeaderName| headers.get(name)?.to_str().ok();
    let etag = behaviour
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("etag"))
        .map(|(_, etag)| etag.as_str());
    if text(header::IF_RANGE).is_some_and(|condition| Some(condition) != etag) {
        return None;
    }
    let length = content.len();
    let (first, last) = text(header::RANGE)?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Err(_), Ok(suffix)) if first.is_empty() => (length.saturating_sub(suffix), length),
        (Ok(start), Ok(last)) if start <= last => (start, last.saturating_add(1).min(length)),
        (Ok(start), Err(_)) if last.is_empty() => (start, length),
        _ => return None,
    };
    let part = content.get(start..end).unwrap_or_default();
    if part.is_empty() {
        return Some((Vec::new(), format!("bytes */{length}")));
    }
    Some((part.to_vec(), format!("bytes {start}-{}/{length}", end - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(pairs: &[(&'static str, &'static str)]) -> Option<(String, String)> {
        let headers = vec![("ETag".to_owned(), "\"1\"".to_owned())];
        let behaviour = Behaviour {
            ranges: true,
            headers,
            ..Behaviour::default()
        };
        let asked = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let (part, place) = part_of(&behaviour, &asked, b"0123456789")?;
        Some((String::from_utf8(part).unwrap(), place))
    }

    #[test]
    fn one_range_is_cut_out_and_anything_else_gets_the_whole() {
        for (range, expected, place) in [
            ("bytes=0-4", "01234", "bytes 0-4/10"),
            ("bytes=8-99", "89", "bytes 8-9/10"),
            ("bytes=5-", "56789", "bytes 5-9/10"),
            ("bytes=-2", "89", "bytes 8-9/10"),
            ("bytes=10-", "", "bytes */10"),
        ] {
            assert_eq!(
                part(&[("range", range)]),
                Some((expected.to_owned(), place.to_owned())),
                "{range}"
            );
        }
        for range in ["bytes=4-3", "bytes=0-1,3-4", "lines=0-1", "bytes=x-"] {
            assert_eq!(part(&[("range", range)]), None, "{range}");
        }
        assert_eq!(part(&[]), None);
    }

    #[test]
    fn if_range_needs_the_same_tag() {
        assert!(part(&[("range", "bytes=0-4"), ("if-range", "\"1\"")]).is_some());
        assert_eq!(part(&[("range", "bytes=0-4"), ("if-range", "\"2\"")]), None);
    }
}
