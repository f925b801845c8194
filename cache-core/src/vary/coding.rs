//! `Accept-Encoding` by what it says (RFC 9110 §12.5.3).
//!
//! What this decides: two values are one where they accept the same codings with the same weights,
//! however they are written: letters, white space, order, repeats, `x-gzip` for `gzip`, `q=1`,
//! zeros at a weight's end. A coding that this cache has never heard of counts like any other
//! (`dcb` is readable only for who named it), and so does a member that cannot be read. An empty
//! value accepts no coding, which is not what an absent field says.

use larder_contract::ows::trim;

use crate::fields::{list_members, split_unquoted};

/// The members in one order and spelling.
pub(super) fn normalised<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut members: Vec<Member> = lines.flat_map(list_members).map(Member::read).collect();
    members.sort();
    members.dedup();
    // What is not named is not acceptable either (§12.5.3), but for `identity`, and unless `*`
    // speaks for it.
    let names_all = members.iter().any(|member| member.coding == b"*");
    members.retain(|member| member.weight != b"0" || names_all || member.coding == b"identity");
    let mut value = Vec::new();
    for Member { coding, weight } in members {
        if !value.is_empty() {
            value.push(b',');
        }
        value.extend_from_slice(&coding);
        if !weight.is_empty() {
            value.extend_from_slice(b";q=");
            value.extend_from_slice(&weight);
        }
    }
    value
}

/// One coding. What cannot be read as one with a weight is a coding of that name, so that it equals
/// only itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    coding: Vec<u8>,
    /// As short as it can be written; empty for 1.
    weight: Vec<u8>,
}

impl Member {
    fn read(text: &[u8]) -> Self {
        let text = text.to_ascii_lowercase();
        let mut parts = split_unquoted(&text, b';').map(trim);
        let coding = parts.next().unwrap_or_default();
        let weight = match (parts.next(), parts.next()) {
            (None, _) => Some(Vec::new()),
            (Some(parameter), None) => parameter.strip_prefix(b"q=").and_then(shortest),
            _ => None,
        };
        let Some(weight) = weight else {
            return Self {
                coding: text.clone(),
                weight: Vec::new(),
            };
        };
        // RFC 9110 §8.4.1.1, §8.4.1.3.
        let coding: &[u8] = match coding {
            b"x-gzip" => b"gzip",
            b"x-compress" => b"compress",
            coding => coding,
        };
        Self {
            coding: coding.to_vec(),
            weight,
        }
    }
}

/// A weight (RFC 9110 §12.4.2) without needless zeros: empty for 1, `0`, or `0.` with up to three
/// digits.
fn shortest(weight: &[u8]) -> Option<Vec<u8>> {
    let (whole, fraction) = match weight.split_first()? {
        (whole @ (b'0' | b'1'), []) => (*whole, &[][..]),
        (whole @ (b'0' | b'1'), [b'.', fraction @ ..]) => (*whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let significant = fraction
        .iter()
        .rposition(|&digit| digit != b'0')
        .map_or(0, |last| last + 1);
    match (whole, fraction.get(..significant)?) {
        (b'1', []) => Some(Vec::new()),
        (b'1', _) => None,
        (_, []) => Some(b"0".to_vec()),
        (_, digits) => Some([b"0.", digits].concat()),
    }
}

#[cfg(test)]
mod tests {
    fn value(text: &str) -> String {
        String::from_utf8(super::normalised([text.as_bytes()].into_iter())).unwrap()
    }

    #[test]
    fn what_means_the_same_is_one_value() {
        for (text, expected) in [
            ("gzip, deflate, br", "br,deflate,gzip"),
            ("BR;q=1.0, x-gzip", "br,gzip"),
            ("gzip , gzip,, x-GZIP;Q=1", "gzip"),
            ("gzip;q=0, br;q=0.000", ""),
            ("gzip; q=0.500", "gzip;q=0.5"),
            ("gzip;q=0.001", "gzip;q=0.001"),
            ("", ""),
            ("*", "*"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn what_means_something_else_is_another_value() {
        for (one, other) in [
            ("gzip, dcb", "gzip"),
            ("gzip;q=0, *", "*"),
            ("gzip, identity;q=0", "gzip"),
            ("gzip;q=0.5, br", "gzip, br;q=0.5"),
            ("gzip;q=0.5", "gzip"),
            ("gzip, *;q=0", "gzip, *"),
            ("gzip;q=2", "gzip"),
            ("gzip;q=0.0001", "gzip;q=0"),
            ("gzip;q=1.5", "gzip"),
            ("gzip;level=9", "gzip"),
            ("gzip;q=0.5;q=1", "gzip;q=0.5"),
            ("\"gzip", "gzip"),
        ] {
            assert_ne!(value(one), value(other), "{one}");
        }
    }
}
