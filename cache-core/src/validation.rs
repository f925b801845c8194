//! Asking the origin whether a stored response still holds (RFC 9111 §4.3).
//!
//! What this decides: which conditions go along, and what a `304` changes. What it leaves out: the
//! conditions of the client's own request (`preconditions`).

use larder_contract::http_time::Timestamp;
use larder_contract::ows::trim;

use crate::age;
use crate::field_names::FieldNames;
use crate::fields::{Fields, connection_options, is_hop_by_hop};
use crate::message::ResponseHead;
use crate::storability::is_worked_out_anew;
use crate::stored_response::StoredResponse;

/// The request fields that make a request conditional (RFC 9110 §13.1).
pub const PRECONDITIONS: [&str; 5] = [
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
];

/// What a stored response can be validated with (RFC 9110 §8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// The entity tag, quotes and weakness included.
    pub etag: Option<Vec<u8>>,
    /// `Last-Modified`, as received.
    pub last_modified: Option<Vec<u8>>,
}

impl Validators {
    /// The validators among some response fields.
    pub fn of(fields: &Fields) -> Self {
        let value = |name| {
            fields
                .get(name)
                .filter(|value| !value.is_empty())
                .map(<[u8]>::to_vec)
        };
        Self {
            etag: value("etag"),
            last_modified: value("last-modified"),
        }
    }
}

/// Makes a request conditional on the stored response having changed (RFC 9111 §4.3.1).
pub fn add_conditionals(validators: &Validators, request: &mut Fields) {
    if let Some(etag) = &validators.etag {
        request.set(b"if-none-match", etag);
    }
    if let Some(last_modified) = &validators.last_modified {
        request.set(b"if-modified-since", last_modified);
    }
}

/// The content codings that servers put behind an entity tag where they encode a response on the
/// fly.
const CODING_SUFFIXES: [&str; 10] = [
    "x-gzip", "gzip", "gz", "br", "zstd", "deflate", "compress", "identity", "dcb", "dcz",
];

/// Whether two entity tags are of the same representation but for weakness and for the mark of a
/// content coding: `"x"`, `"x-gzip"`, `"x--gzip"`, `"x;br"`. Servers that encode on the fly mark
/// the tag of the `200` and forget the mark in the `304`, or add it there. They have compared the
/// one tag that was sent, so what they confirm is what has that tag; only a tag that is another's
/// in more than this mark says otherwise (RFC 9111 §4.3.4).
fn is_confirmed_by(sent: &[u8], answered: &[u8]) -> bool {
    without_coding(sent) == without_coding(answered)
}

/// The opaque tag without its quotes and without the marks of content codings.
fn without_coding(etag: &[u8]) -> &[u8] {
    let tag = opaque_tag(trim(etag));
    let tag = tag.strip_prefix(b"\"").unwrap_or(tag);
    let mut tag = tag.strip_suffix(b"\"").unwrap_or(tag);
    while let Some(base) = CODING_SUFFIXES
        .iter()
        .find_map(|coding| without_mark(tag, coding.as_bytes()))
    {
        tag = base;
    }
    tag
}

/// `tag` without `coding` and the separators before it, if it ends so.
fn without_mark<'a>(tag: &'a [u8], coding: &[u8]) -> Option<&'a [u8]> {
    let is_separator = |byte: &u8| b"-;:._+".contains(byte);
    let (base, mark) = tag.split_at(tag.len().checked_sub(coding.len())?);
    let marked = mark.eq_ignore_ascii_case(coding) && base.last().is_some_and(is_separator);
    let end = base.iter().rposition(|byte| !is_separator(byte))?;
    base.get(..=end).filter(|_| marked)
}

/// A `304` that is about some other representation than the stored one: it must not update it (RFC
/// 9111 §4.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnexpectedNotModified;

/// The stored response as a `304` renews it (RFC 9111 §4.3.4, §3.2). `terms` stay; the caller works
/// them out anew. The fields in `kept` stay as they are stored.
pub fn freshen(
    stored: &StoredResponse,
    not_modified: &ResponseHead,
    request_time: Timestamp,
    response_time: Timestamp,
    kept: &FieldNames,
) -> Result<StoredResponse, UnexpectedNotModified> {
    if let (Some(new), Some(old)) = (not_modified.fields.get("etag"), stored.fields.get("etag"))
        && !is_confirmed_by(old, new)
    {
        return Err(UnexpectedNotModified);
    }
    let mut fields = stored.fields.clone();
    let listed = connection_options(&not_modified.fields);
    // The tag under which the stored bytes came goes on naming them.
    let has_tag = stored.fields.contains("etag");
    let updates = |name: &[u8]| {
        (name != b"etag" || !has_tag)
            && !name.starts_with(b":")
            && !is_hop_by_hop(name)
            && !listed.iter().any(|option| option == name)
            && !describes_content(name)
            && !kept.contains(name)
    };
    fields.retain(|name, _| {
        !(updates(name) && not_modified.fields.iter().any(|(new, _)| new == name))
    });
    for (name, value) in not_modified.fields.iter().filter(|(name, _)| updates(name)) {
        fields.append(name, value);
    }
    Ok(StoredResponse {
        fields,
        request_time,
        response_time,
        initial_age: age::corrected_initial_age(&not_modified.fields, request_time, response_time),
        ..stored.clone()
    })
}

/// The stored response as the answer to a HEAD renews it (RFC 9111 §4.3.5): where each validator
/// and the length it carries are the stored ones, it is about the same representation.
pub fn freshen_by_head(
    stored: &StoredResponse,
    head: &ResponseHead,
    request_time: Timestamp,
    response_time: Timestamp,
    kept: &FieldNames,
) -> Result<StoredResponse, UnexpectedNotModified> {
    let same = |name| {
        head.fields
            .get(name)
            .is_none_or(|value| stored.fields.get(name) == Some(value))
    };
    let length = head
        .fields
        .get("content-length")
        .map(|value| value == stored.body.len().to_string().as_bytes());
    if stored.status != 200 || !same("etag") || !same("last-modified") || length == Some(false) {
        return Err(UnexpectedNotModified);
    }
    freshen(stored, head, request_time, response_time, kept)
}

/// Fields that say how the stored bytes are to be read stay with these bytes (RFC 9111 §3.2);
/// fields that are worked out anew for each answer are not stored at all.
fn describes_content(name: &[u8]) -> bool {
    matches!(
        name,
        b"content-digest" | b"content-encoding" | b"content-range"
    ) || is_worked_out_anew(name)
}

/// An entity tag without its weakness: what weak comparison compares (RFC 9110 §8.8.3.2).
pub fn opaque_tag(etag: &[u8]) -> &[u8] {
    etag.strip_prefix(b"W/").unwrap_or(etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freshened(pairs: &[(&str, &str)]) -> Result<StoredResponse, UnexpectedNotModified> {
        let at = Timestamp::from_millis(2_000_000_000);
        freshen(
            &StoredResponse::example(),
            &ResponseHead::new(304, pairs),
            at,
            at,
            &FieldNames::default(),
        )
    }

    #[test]
    fn a_304_replaces_the_fields_it_carries_and_adds_new_ones() {
        let stored = freshened(&[
            ("etag", "\"1\""),
            ("cache-control", "max-age=9"),
            ("x-new", "1"),
            ("x-new", "2"),
        ])
        .unwrap();
        assert_eq!(stored.fields.get("cache-control"), Some(&b"max-age=9"[..]));
        assert_eq!(stored.fields.all("x-new").count(), 2);
        assert_eq!(stored.fields.all("etag").count(), 1);
        assert_eq!(&*stored.body, b"hello");
        assert_eq!(stored.response_time, Timestamp::from_millis(2_000_000_000));
    }

    #[test]
    fn a_304_leaves_alone_what_the_operator_keeps() {
        let mut stored = StoredResponse::example();
        let policy = |nonce: &str| format!("script-src 'nonce-{nonce}'");
        let csp = "content-security-policy";
        stored.fields.set(csp.as_bytes(), policy("1").as_bytes());
        let answer = ResponseHead::new(304, &[(csp, &policy("2")), ("x-frame-options", "DENY")]);
        let at = Timestamp::from_millis(2_000_000_000);
        let kept = FieldNames::of(&[csp, "x-frame-*"]);
        let fresh = freshen(&stored, &answer, at, at, &kept).unwrap();
        assert_eq!(fresh.fields.get(csp), Some(policy("1").as_bytes()));
        assert!(!fresh.fields.contains("x-frame-options"));
    }

    #[test]
    fn a_304_may_correct_the_content_type() {
        let stored = freshened(&[("content-type", "text/plain;charset=utf-8")]).unwrap();
        assert_eq!(
            stored.fields.all("content-type").collect::<Vec<_>>(),
            [b"text/plain;charset=utf-8"]
        );
    }

    #[test]
    fn a_304_does_not_change_how_the_stored_bytes_are_read() {
        let stored = freshened(&[
            ("content-length", "9"),
            ("content-encoding", "br"),
            ("connection", "x-a"),
            ("x-a", "1"),
        ])
        .unwrap();
        assert_eq!(stored.fields, StoredResponse::example().fields);
    }

    #[test]
    fn a_304_about_another_representation_is_not_used() {
        assert_eq!(freshened(&[("etag", "\"2\"")]), Err(UnexpectedNotModified));
        assert!(freshened(&[("etag", "W/\"1\"")]).is_ok());
    }

    #[test]
    fn a_304_whose_tag_has_lost_or_changed_its_coding_mark_confirms_what_was_sent() {
        let at = Timestamp::from_millis(2_000_000_000);
        let confirmed = |sent: &str, answered: &str| {
            let mut stored = StoredResponse::example();
            stored.fields.set(b"etag", sent.as_bytes());
            let fresh = freshen(
                &stored,
                &ResponseHead::new(304, &[("etag", answered)]),
                at,
                at,
                &FieldNames::default(),
            );
            fresh
                .map(|fresh| String::from_utf8(fresh.fields.get("etag").unwrap().to_vec()).unwrap())
        };
        for (sent, answered) in [
            ("\"x--gzip\"", "\"x\""),
            ("\"x-gzip\"", "\"x\""),
            ("\"x;gzip\"", "\"x\""),
            ("\"x-br\"", "W/\"x\""),
            ("W/\"x\"", "\"x-gzip\""),
            ("\"x\"", "\"x--gzip\""),
            ("\"x-gzip\"", "\"x-br\""),
            ("\"x\"", "W/\"x\""),
            ("\"x-gzip\"", "\"x-gzip-gzip\""),
            ("\"x\"", "x"),
        ] {
            assert_eq!(
                confirmed(sent, answered).as_deref(),
                Ok(sent),
                "{sent} {answered}"
            );
        }
        for (sent, answered) in [
            ("\"x-gzip\"", "\"y\""),
            ("\"x-gzip\"", "\"y-gzip\""),
            ("\"gzip\"", "\"br\""),
            ("\"xgzip\"", "\"x\""),
        ] {
            assert_eq!(
                confirmed(sent, answered),
                Err(UnexpectedNotModified),
                "{sent} {answered}"
            );
        }
    }

    #[test]
    fn a_head_renews_what_it_agrees_with_and_nothing_else() {
        let at = Timestamp::from_millis(2_000_000_000);
        let renewed = |pairs: &[(&str, &str)]| {
            freshen_by_head(
                &StoredResponse::example(),
                &ResponseHead::new(200, pairs),
                at,
                at,
                &FieldNames::default(),
            )
        };
        for agreeing in [
            &[][..],
            &[("etag", "\"1\"")],
            &[("content-length", "5"), ("x-new", "1")],
        ] {
            let stored = renewed(agreeing).unwrap();
            assert_eq!(
                (stored.response_time, &*stored.body),
                (at, &b"hello"[..]),
                "{agreeing:?}"
            );
        }
        for other in [
            ("etag", "\"2\""),
            ("etag", "W/\"1\""),
            ("content-length", "6"),
            ("last-modified", "x"),
        ] {
            assert!(renewed(&[other]).is_err(), "{other:?}");
        }
    }

    #[test]
    fn both_validators_go_along() {
        let validators = Validators::of(&Fields::from_pairs([
            ("etag", "W/\"1\""),
            ("last-modified", "x"),
        ]));
        let mut fields = Fields::default();
        add_conditionals(&validators, &mut fields);
        assert_eq!(
            fields,
            Fields::from_pairs([("if-none-match", "W/\"1\""), ("if-modified-since", "x")])
        );
    }
}
