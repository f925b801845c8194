//! Request fields that count by a few values an operator names: `Accept`, `Accept-Encoding` and
//! `Accept-Language` differ with every browser, and an origin tells apart a few.
//!
//! What this decides: which bucket a request falls into. Of `accept` and `accept-encoding` the
//! first one all of whose members the client names; of `accept-language` the one the client likes
//! best. What it leaves out: that the origin gets the bucket's text in place of the client's.

use larder_contract::ows::trim;

use crate::fields::{Fields, list_members, split_unquoted};
use crate::vary::language::weight;

/// The fields that may be put into buckets.
pub const FIELDS: [&str; 3] = ["accept", "accept-encoding", "accept-language"];

/// The buckets of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    field: &'static str,
    texts: Vec<Box<[u8]>>,
}

impl Buckets {
    /// Buckets by their texts, each a list as the field itself is one, the preferred first. `None`
    /// for a field that is none of [`FIELDS`].
    pub fn new<'a>(field: &str, texts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        Some(Self {
            field: FIELDS.into_iter().find(|known| *known == field)?,
            texts: texts
                .into_iter()
                .map(|text| text.as_bytes().into())
                .collect(),
        })
    }

    /// The field, in lower case.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The value that stands for the request's own. `None` where it has none then: no bucket fits,
    /// and the field says nothing.
    pub fn choose(&self, fields: &Fields) -> Option<&[u8]> {
        let asked: Vec<(Vec<u8>, u16)> = fields
            .all(self.field)
            .flat_map(list_members)
            .map(|member| self.read(member))
            .filter(|(_, weight)| *weight > 0)
            .collect();
        let chosen = if self.field == "accept-language" {
            self.best_language(asked)
        } else {
            let is_named = |member: &[u8]| {
                let (name, _) = self.read(member);
                is_everything(&name) || asked.iter().any(|(known, _)| *known == name)
            };
            self.texts().find(|text| list_members(text).all(is_named))
        };
        // Without the field an origin may choose any coding (RFC 9110 §12.5.3).
        let none = (self.field == "accept-encoding").then_some(&b"identity"[..]);
        chosen.or(none)
    }

    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.texts.iter().map(|text| &**text)
    }

    /// RFC 4647 §3.4: `de-AT` is answered by `de`.
    fn best_language(&self, mut asked: Vec<(Vec<u8>, u16)>) -> Option<&[u8]> {
        asked.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        asked.iter().find_map(|(range, _)| {
            self.texts().find(|text| {
                let first = list_members(text).next().unwrap_or_default();
                let (tag, _) = self.read(first);
                range
                    .strip_prefix(&*tag)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
            })
        })
    }

    /// A member's name in lower case and its weight in thousandths. What cannot be read weighs
    /// nothing: no bucket is given to who may not understand it.
    fn read(&self, member: &[u8]) -> (Vec<u8>, u16) {
        let text = member.to_ascii_lowercase();
        let mut parts = split_unquoted(&text, b';').map(trim);
        let name = parts.next().unwrap_or_default();
        let name: &[u8] = match (self.field, name) {
            ("accept-encoding", b"x-gzip") => b"gzip",
            (_, name) => name,
        };
        let mut weight_of = 1000;
        for parameter in parts {
            match (weight(parameter), parameter.starts_with(b"q=")) {
                (Some(read), _) => weight_of = read,
                (None, true) => weight_of = 0,
                // `text/html;level=1` is not every `text/html`.
                (None, false) => return (text.clone(), weight_of),
            }
        }
        (name.to_vec(), weight_of)
    }
}

fn is_everything(name: &[u8]) -> bool {
    matches!(name, b"*" | b"*/*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(field: &str, texts: &[&str], value: Option<&str>) -> Option<String> {
        let buckets = Buckets::new(field, texts.iter().copied()).unwrap();
        let fields = Fields::from_pairs(value.map(|value| (field, value)));
        let chosen = buckets.choose(&fields);
        chosen.map(|text| String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn the_first_bucket_that_the_client_names_whole_counts() {
        let codings = ["br, gzip", "gzip"];
        for (value, expected) in [
            (Some("gzip, deflate, br, zstd"), "br, gzip"),
            (Some("GZIP;q=0.5, br;q=0"), "gzip"),
            (Some("x-gzip"), "gzip"),
            (Some("*"), "identity"),
            (Some("gzip;q=0.0"), "identity"),
            (Some("gzip;q=x"), "identity"),
            (Some(""), "identity"),
            (None, "identity"),
        ] {
            let chosen = chosen("accept-encoding", &codings, value);
            assert_eq!(chosen.as_deref(), Some(expected), "{value:?}");
        }
        let types = ["image/avif, image/webp, */*", "image/webp, */*"];
        for (value, expected) in [
            ("image/avif,image/webp,*/*;q=0.8", Some(types[0])),
            ("text/html,image/webp", Some(types[1])),
            ("*/*", None),
            ("image/*", None),
        ] {
            let chosen = chosen("accept", &types, Some(value));
            assert_eq!(chosen.as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn of_languages_the_one_that_the_client_likes_best_counts() {
        for (value, expected) in [
            ("en, de;q=0.9", Some("en")),
            ("de-AT, en;q=0.9", Some("de")),
            ("fr, en;q=0.1, de;q=0.2", Some("de")),
            ("fr", None),
            ("den", None),
            ("en;q=0", None),
        ] {
            let chosen = chosen("accept-language", &["de", "en"], Some(value));
            assert_eq!(chosen.as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_field_of_another_meaning_has_no_buckets() {
        assert!(Buckets::new("user-agent", ["mobile"]).is_none());
    }
}
