//! Selecting fields (RFC 9111 §4.1): which request fields select among the variants of a resource,
//! and what matches.
//!
//! What this decides: how values are normalised before they are compared. What it leaves out: which
//! of several matches counts (`variants`); the store compares tokens instead of values
//! ([`SelectingFields::selectors`]) and knows no rule.
//!
//! Normalisation may only join what means the same (RFC 9111 §4.1): white space around commas goes,
//! and `accept-encoding` is read as the list of codings with weights that it is (`vary::coding`).

use std::borrow::Cow;

use larder_contract::entry::Selecting;
use larder_contract::key::{ALWAYS_SELECTING, OVERRIDE_FIELD, UNKEYED_FIELD};
use larder_contract::latin1::{in_ascii, widen};
use larder_contract::ows::trim;
use larder_contract::selectors::{Presented, SelectorToken, Selectors};

use crate::fields::{Fields, is_hop_by_hop, is_token, split_unquoted};
use crate::message::Request;

mod coding;
pub mod language;
pub mod unkeyed;

/// More selecting fields than this count as `Vary: *`.
pub const MAX_FIELDS: usize = 32;

/// Pseudo-fields that select although no origin names them.
const SELECTING_PSEUDO_FIELDS: [&str; 4] = [
    OVERRIDE_FIELD,
    UNKEYED_FIELD,
    language::LANGUAGES_FIELD,
    language::LANGUAGE_FIELD,
];

/// What a response says about its variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// `*`, in whatever position and line: no other request ever matches.
    Any,
    /// These fields select, in lower case; possibly none.
    Fields(Vec<Vec<u8>>),
}

impl Vary {
    /// Reads `Vary` (RFC 9110 §12.5.5). A content coding without `Vary` selects by
    /// `accept-encoding` all the same: coded bytes must not reach a client that cannot read them.
    pub fn of(response: &Fields) -> Self {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for member in response.list("vary") {
            // What is no name cannot be compared, so no other request is known to match.
            if member == b"*" || !is_token(member) {
                return Self::Any;
            }
            let name = member.to_ascii_lowercase();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() && response.contains("content-encoding") {
            names.push(b"accept-encoding".to_vec());
        }
        if names.len() > MAX_FIELDS {
            Self::Any
        } else {
            Self::Fields(names)
        }
    }
}

/// The request fields that selected a stored response, with their normalised values; `None` where
/// absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectingFields(Selecting);

impl From<Selecting> for SelectingFields {
    fn from(selecting: Selecting) -> Self {
        Self(selecting)
    }
}

impl From<SelectingFields> for Selecting {
    fn from(fields: SelectingFields) -> Self {
        fields.0
    }
}

impl SelectingFields {
    /// The fields that selected `response` for `request`: those that `Vary` names, the override,
    /// what selects unnamed, and `Origin` where the response names it back. `None` when no other
    /// request can match (RFC 9111 §4.1).
    pub fn of_response(request: &Request, response: &Fields) -> Option<Self> {
        let Vary::Fields(mut names) = Vary::of(response) else {
            return None;
        };
        for name in names.iter_mut().filter(|name| *name == b"accept-language") {
            *name = language::selecting_field(&request.fields, response)
                .as_bytes()
                .to_vec();
        }
        if reflects_origin(request, response) && !names.iter().any(|name| name == b"origin") {
            names.push(b"origin".to_vec());
        }
        names.extend(ALWAYS_SELECTING.map(|name| name.as_bytes().to_vec()));
        Self::of(&names, request)
    }

    /// The values `request` has for `names`. `None` when there are more than [`MAX_FIELDS`] and
    /// those that always select.
    pub fn of(names: &[Vec<u8>], request: &Request) -> Option<Self> {
        if names.len() > MAX_FIELDS + ALWAYS_SELECTING.len() {
            return None;
        }
        let pair = |name: &Vec<u8>| {
            (
                name.as_slice().into(),
                normalised(name, &request.fields).map(Into::into),
            )
        };
        Some(Self(Selecting(names.iter().map(pair).collect())))
    }

    /// Whether `request` has the same values (RFC 9111 §4.1).
    pub fn matches(&self, request: &Request) -> bool {
        let knows_unkeyed = || self.names().any(|name| name == UNKEYED_FIELD.as_bytes());
        if request.fields.contains(UNKEYED_FIELD) && !knows_unkeyed() {
            return false;
        }
        self.iter().all(|(name, value)| match value {
            None => request.fields.all_bytes(name).next().is_none(),
            Some(value) => normalised(name, &request.fields).as_deref() == Some(value),
        })
    }

    /// The names, in lower case.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.iter().map(|(name, _)| name)
    }

    /// The names, in lower case, with the normalised values that were asked for.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter()
    }

    /// As the store compares them.
    pub fn selectors(&self) -> Selectors {
        self.0.selectors()
    }
}

/// Tokens of every field of `request` that could select a variant: of all that the origin sees,
/// for it may name any of them in `Vary`. Left out are fields of one connection and pseudo-fields
/// that select nothing.
pub fn presented_selectors(request: &Request) -> Presented {
    let fields = &request.fields;
    let mut tokens = Vec::with_capacity(fields.len());
    let mut value = Vec::with_capacity(256);
    for (name, line, has_more) in fields.firsts() {
        if may_select(name) {
            value.clear();
            if has_more {
                normalise(name, fields.all_bytes(name), &mut value);
            } else {
                normalise(name, std::iter::once(line), &mut value);
            }
            tokens.push((as_text(name), SelectorToken::of(&value)));
        }
    }
    tokens.into_iter().collect()
}

fn may_select(name: &[u8]) -> bool {
    let is = |known: &str| known.as_bytes() == name;
    if name.starts_with(b":") {
        SELECTING_PSEUDO_FIELDS.into_iter().any(is)
    } else {
        !is_hop_by_hop(name)
    }
}

fn as_text(name: &[u8]) -> Cow<'_, str> {
    in_ascii(name).map_or_else(|| Cow::Owned(widen(name)), Cow::Borrowed)
}

/// Whether the response allows just the origin that asked. Who answers so has to say `Vary: Origin`
/// (Fetch standard, "CORS protocol and HTTP caches") and often does not; without it one site's
/// permission would be another's refusal.
fn reflects_origin(request: &Request, response: &Fields) -> bool {
    let Some(origin) = request.fields.get("origin") else {
        return false;
    };
    response
        .all("access-control-allow-origin")
        .any(|allowed| trim(allowed).eq_ignore_ascii_case(trim(origin)))
}

fn normalised(name: &[u8], fields: &Fields) -> Option<Vec<u8>> {
    let mut lines = fields.all_bytes(name).peekable();
    lines.peek()?;
    let mut value = Vec::new();
    normalise(name, lines, &mut value);
    Some(value)
}

/// Writes the normalised value of a field with these lines into `value`, which is empty.
fn normalise<'a>(name: &[u8], lines: impl Iterator<Item = &'a [u8]>, value: &mut Vec<u8>) {
    if name == b"accept-encoding" {
        value.append(&mut coding::normalised(lines));
        return;
    }
    let mut add = |member: &[u8]| {
        if !value.is_empty() {
            value.push(b',');
        }
        value.extend_from_slice(trim(member));
    };
    for line in lines {
        // Looking for a byte is far quicker than looking for one outside quotes.
        if !line.contains(&b',') {
            add(line);
        } else if !line.contains(&b'"') {
            line.split(|byte| *byte == b',').for_each(&mut add);
        } else {
            split_unquoted(line, b',').for_each(&mut add);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_contract::selectors;
    use proptest::prelude::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        Fields::from_pairs(pairs.iter().copied())
    }

    fn request(pairs: &[(&str, &str)]) -> Request {
        pairs
            .iter()
            .fold(Request::new("GET", "a", "/"), |request, (name, value)| {
                request.with(name, value)
            })
    }

    fn names(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_star_anywhere_means_that_nothing_matches() {
        for value in [
            &["*"][..],
            &["a, *"],
            &["*, a"],
            &["a", "*"],
            &[" * "],
            &["\"a\""],
            &["a b"],
            &["a;q=1"],
        ] {
            let pairs: Vec<_> = value.iter().map(|value| ("vary", *value)).collect();
            assert_eq!(Vary::of(&fields(&pairs)), Vary::Any, "{value:?}");
        }
    }

    #[test]
    fn names_are_lower_case_and_said_once() {
        let vary = Vary::of(&fields(&[
            ("vary", "Accept-Encoding, , X-A"),
            ("vary", "x-a"),
        ]));
        assert_eq!(vary, Vary::Fields(names(&["accept-encoding", "x-a"])));
    }

    #[test]
    fn a_content_coding_selects_by_accept_encoding_without_being_told() {
        assert_eq!(
            Vary::of(&fields(&[("content-encoding", "gzip")])),
            Vary::Fields(names(&["accept-encoding"]))
        );
    }

    #[test]
    fn a_variant_matches_the_same_values_and_the_same_absences() {
        let selecting =
            SelectingFields::of(&names(&["x-a", "x-b"]), &request(&[("x-a", "1, 2")])).unwrap();
        for (pairs, matches) in [
            (&[("x-a", "1, 2")][..], true),
            (&[("x-a", "1"), ("x-a", "2")], true),
            (&[("x-a", "1 ,2"), ("x-c", "z")], true),
            (&[("x-a", "2, 1")], false),
            (&[("x-a", "1, 2"), ("x-b", "")], false),
            (&[], false),
        ] {
            assert_eq!(selecting.matches(&request(pairs)), matches, "{pairs:?}");
        }
    }

    #[test]
    fn presented_tokens_leave_out_pseudo_and_connection_fields() {
        let presented = presented_selectors(&request(&[
            ("te", "trailers"),
            ("x-a", "1"),
            (":override", "max-age=1"),
        ]));
        let names: Vec<_> = presented.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["x-a", ":override"]);
    }

    #[test]
    fn what_was_stored_before_unnamed_fields_selected_matches_no_request_that_has_any() {
        let old = SelectingFields::of(&names(&[":override"]), &request(&[])).unwrap();
        assert!(
            old.matches(&request(&[])) && !old.matches(&request(&[(":unkeyed", "6:x-host1:a")]))
        );
    }

    proptest! {
        #[test]
        fn a_value_is_its_members_without_the_white_space_around_them(
            lines in proptest::collection::vec("[ab, \\\\\"]{0,6}", 1..3),
        ) {
            let lines: Vec<_> = lines.iter().map(String::as_bytes).collect();
            let mut expected = Vec::new();
            for member in lines.iter().flat_map(|line| split_unquoted(line, b',')) {
                if !expected.is_empty() {
                    expected.push(b',');
                }
                expected.extend_from_slice(trim(member));
            }
            let mut value = Vec::new();
            normalise(b"x", lines.into_iter(), &mut value);
            prop_assert_eq!(value, expected);
        }

        #[test]
        fn the_store_sees_a_match_exactly_when_there_is_one(
            stored in proptest::collection::vec(("x-[ab]", "[ab, ]{0,4}"), 0..4),
            asking in proptest::collection::vec(("x-[ab]", "[ab, ]{0,4}"), 0..4),
        ) {
            let build = |pairs: &[(String, String)]| {
                pairs.iter().fold(Request::new("GET", "a", "/"), |request, (name, value)| request.with(name, value))
            };
            let selecting = SelectingFields::of(&names(&["x-a", "x-b"]), &build(&stored)).unwrap();
            let presented = presented_selectors(&build(&asking));
            let store_matches = selectors::matches(&selecting.selectors(), &presented);
            prop_assert_eq!(store_matches, selecting.matches(&build(&asking)));
        }
    }
}
