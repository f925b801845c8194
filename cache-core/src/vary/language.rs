//! `Accept-Language` by what it says instead of how it is written (RFC 9110 §12.5.4), where the
//! policy asks for that.
//!
//! What this decides: two values that accept the same languages with the same weights are one, and
//! a response in the language that its request liked best answers every request that likes that
//! language best. A request carries both answers as pseudo-fields, which select like any other
//! field; so a response says only which of them selected it.

use larder_contract::ows::trim;

use crate::fields::{Fields, list_members, split_unquoted};

/// Pseudo-field: the accepted languages in a fixed order, with their weights. Empty where there is
/// no field.
pub const LANGUAGES_FIELD: &str = ":accept-language";
/// Pseudo-field: the language liked best, of several the first in the alphabet.
pub const LANGUAGE_FIELD: &str = ":language";

/// Adds both pseudo-fields to a request.
pub fn add_pseudo_fields(request: &mut Fields) {
    let languages = ranked(request);
    let mut list = Vec::new();
    for (weight, tag) in &languages {
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(tag);
        list.extend_from_slice(format!(";q={weight}").as_bytes());
    }
    request.append(LANGUAGES_FIELD.as_bytes(), &list);
    let best = languages
        .first()
        .filter(|(weight, tag)| *weight > 0 && tag != b"*");
    request.append(
        LANGUAGE_FIELD.as_bytes(),
        best.map_or(&[][..], |(_, tag)| tag.as_slice()),
    );
}

/// The field that selected a response which varies by `accept-language`: the language itself where
/// the response is in the one its request liked best, else the whole list; `accept-language` where
/// no pseudo-fields were added.
pub fn selecting_field(request: &Fields, response: &Fields) -> &'static str {
    let Some(best) = request.get(LANGUAGE_FIELD) else {
        return "accept-language";
    };
    let mut content = response.list("content-language");
    let is_best = content
        .next()
        .is_some_and(|language| !best.is_empty() && language.eq_ignore_ascii_case(best));
    if is_best && content.next().is_none() {
        LANGUAGE_FIELD
    } else {
        LANGUAGES_FIELD
    }
}

/// Languages with their weights in thousandths, the best first. One that is not acceptable counts
/// only beside a range that would take it in (RFC 4647 §3.3.1). What cannot be read is a language
/// of that name, so that it equals only itself.
fn ranked(request: &Fields) -> Vec<(u16, Vec<u8>)> {
    let mut languages: Vec<(u16, Vec<u8>)> = Vec::new();
    for member in request.all("accept-language").flat_map(list_members) {
        let text = member.to_ascii_lowercase();
        let mut parts = split_unquoted(&text, b';').map(trim);
        let tag = parts.next().unwrap_or_default();
        let weight = match (parts.next(), parts.next()) {
            (None, _) => Some(1000),
            (Some(parameter), None) => weight(parameter),
            _ => None,
        };
        let language = weight.map_or_else(|| (1000, text.clone()), |weight| (weight, tag.to_vec()));
        if !languages.contains(&language) {
            languages.push(language);
        }
    }
    let accepted: Vec<Vec<u8>> = languages
        .iter()
        .filter(|(weight, _)| *weight > 0)
        .map(|(_, range)| range.clone())
        .collect();
    let is_taken_in = |tag: &[u8]| accepted.iter().any(|range| takes_in(range, tag));
    languages.retain(|(weight, tag)| *weight > 0 || is_taken_in(tag));
    languages.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.cmp(y)));
    languages
}

fn takes_in(range: &[u8], tag: &[u8]) -> bool {
    range == b"*"
        || tag
            .strip_prefix(range)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
}

/// `q=0.8` as 800 (RFC 9110 §12.4.2).
pub(crate) fn weight(parameter: &[u8]) -> Option<u16> {
    let (whole, fraction) = match parameter.strip_prefix(b"q=")? {
        [whole @ (b'0' | b'1')] => (*whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] => (*whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| fraction.get(at).map_or(0, |byte| u16::from(byte - b'0'));
    let thousandths = u16::from(whole - b'0') * 1000 + digit(0) * 100 + digit(1) * 10 + digit(2);
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pseudo(value: &str) -> (String, String) {
        let mut fields = Fields::from_pairs([("accept-language", value)]);
        add_pseudo_fields(&mut fields);
        let text = |name| String::from_utf8(fields.get(name).unwrap().to_vec()).unwrap();
        (text(LANGUAGES_FIELD), text(LANGUAGE_FIELD))
    }

    #[test]
    fn order_case_and_spelling_of_weights_do_not_count() {
        let expected = pseudo("en, de");
        for same in [
            "de, en",
            "DE,eN",
            "en;q=1, de;q=1.000",
            "de ; q=1.0 , en",
            "en, de, fr;q=0",
        ] {
            assert_eq!(pseudo(same), expected, "{same}");
        }
        for other in [
            "en",
            "en, de;q=0.9",
            "en, de, fr",
            "",
            "en, de, de-at;q=0",
            "en, de, *;q=0.1, fr;q=0",
            "en, de;q=x",
        ] {
            assert_ne!(pseudo(other).0, expected.0, "{other}");
        }
        assert_ne!(pseudo("*, fr;q=0"), pseudo("*"));
        assert_ne!(pseudo("en;q=0.5, en"), pseudo("en;q=0.5"));
    }

    #[test]
    fn the_best_language_has_the_highest_weight() {
        for (value, best) in [
            ("fr;q=0.5, de;q=1.0", "de"),
            ("en, de", "de"),
            ("*", ""),
            ("", ""),
            ("fr;q=0.001, de;q=0", "fr"),
        ] {
            assert_eq!(pseudo(value).1, best, "{value}");
        }
    }

    #[test]
    fn a_response_in_the_best_language_is_selected_by_it_alone() {
        let mut request = Fields::from_pairs([("accept-language", "en;q=0.5, de")]);
        assert_eq!(
            selecting_field(&request, &Fields::default()),
            "accept-language"
        );
        add_pseudo_fields(&mut request);
        for (content, expected) in [
            (Some("de"), LANGUAGE_FIELD),
            (Some("DE"), LANGUAGE_FIELD),
            (Some("en"), LANGUAGES_FIELD),
            (None, LANGUAGES_FIELD),
            (Some("de, en"), LANGUAGES_FIELD),
        ] {
            let response =
                Fields::from_pairs(content.map(|language| ("content-language", language)));
            assert_eq!(
                selecting_field(&request, &response),
                expected,
                "{content:?}"
            );
        }
    }
}
