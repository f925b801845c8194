//! Selecting fields as the store compares them: by tokens, so that it compares no values (RFC 9111
//! §4.1).
//!
//! What this decides: which of an entry's selectors match what a request presents ([`matches()`]).
//! What it leaves out: how values are normalised, and which fields select; that is `vary`.
//!
//! A token is a short hash that anybody can find collisions of. So what a store brings is a
//! proposal: whoever asked compares the values themselves before it answers. Two values with one
//! token cost a miss, never a wrong answer.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::as_text::hex_bytes;

/// Stands for the normalised value of one selecting field: its XXH3-128. 32 hex digits in JSON and
/// in Redis, 16 bytes in frames.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectorToken(pub [u8; 16]);

impl SelectorToken {
    /// The token of a normalised value.
    pub fn of(value: &[u8]) -> Self {
        Self(xxh3_128(value).to_be_bytes())
    }
}

hex_bytes!(SelectorToken, "a token is 32 hex digits");

/// What a request must have in one field to get an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// No such field. An empty text in JSON and in Redis.
    Absent,
    /// A value with this token.
    Is(SelectorToken),
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => serializer.serialize_str(""),
            Self::Is(token) => token.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::Absent);
        }
        let token = SelectorToken::parse(&text).map(Self::Is);
        token.ok_or_else(|| serde::de::Error::custom("a token is 32 hex digits, or none"))
    }
}

/// An entry's selecting fields as the store sees them: field name in lower case to selector.
pub type Selectors = BTreeMap<String, Selector>;

/// Tells the variants of one key apart: equal selectors, equal id. 32 hex digits.
pub fn variant_id(selectors: &Selectors) -> String {
    let mut hasher = Xxh3::new();
    for (name, selector) in selectors {
        hasher.update(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(name.as_bytes());
        match selector {
            Selector::Absent => hasher.update(&[0]),
            Selector::Is(token) => {
                hasher.update(&[1]);
                hasher.update(&token.0);
            }
        }
    }
    format!("{:032x}", hasher.digest128())
}

/// What a request presents: the tokens of its fields by their names in lower case, each name once,
/// in any order. The names lie in one text, for there are many fields and each would be a piece of
/// memory of its own.
#[derive(Clone, Default)]
pub struct Presented {
    names: String,
    fields: Vec<Field>,
}

/// Where a name lies, and the token of its value.
#[derive(Clone, Copy)]
struct Field {
    start: usize,
    end: usize,
    token: SelectorToken,
}

impl Field {
    fn name<'a>(&self, names: &'a str) -> &'a str {
        names.get(self.start..self.end).unwrap_or_default()
    }
}

impl Presented {
    /// The token of a field; `None` where the request has no such field.
    pub fn get(&self, name: &str) -> Option<SelectorToken> {
        let is_meant = |field: &&Field| {
            field.end - field.start == name.len() && field.name(&self.names) == name
        };
        self.fields.iter().find(is_meant).map(|field| field.token)
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, SelectorToken)> {
        let named = |field: &Field| (field.name(&self.names), field.token);
        self.fields.iter().map(named)
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl PartialEq for Presented {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Presented {}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: AsRef<str>> FromIterator<(N, SelectorToken)> for Presented {
    /// Of a name that comes more than once the first counts.
    fn from_iter<I: IntoIterator<Item = (N, SelectorToken)>>(fields: I) -> Self {
        let fields = fields.into_iter();
        let mut names = String::with_capacity(16 * fields.size_hint().0);
        let place = |(name, token): (N, SelectorToken)| {
            let start = names.len();
            names.push_str(name.as_ref());
            let end = names.len();
            Field { start, end, token }
        };
        let fields = fields.map(place).collect();
        Self { names, fields }
    }
}

impl Serialize for Presented {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Presented {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = BTreeMap::<String, SelectorToken>::deserialize(deserializer)?;
        Ok(fields.into_iter().collect())
    }
}

/// Whether an entry with these selectors is to be proposed to a request that presents those: it has
/// the same token in each, or no such field where the selector says so.
pub fn matches(selectors: &Selectors, presented: &Presented) -> bool {
    selectors
        .iter()
        .all(|(name, selector)| match (selector, presented.get(name)) {
            (Selector::Absent, None) => true,
            (Selector::Is(wanted), Some(token)) => *wanted == token,
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(byte: u8) -> SelectorToken {
        SelectorToken([byte; 16])
    }

    fn selectors(pairs: &[(&str, Option<u8>)]) -> Selectors {
        let selector = |byte: Option<u8>| byte.map_or(Selector::Absent, |b| Selector::Is(token(b)));
        pairs
            .iter()
            .map(|(name, byte)| ((*name).to_owned(), selector(*byte)))
            .collect()
    }

    fn presented(pairs: &[(&str, u8)]) -> Presented {
        pairs
            .iter()
            .map(|(name, byte)| ((*name).to_owned(), token(*byte)))
            .collect()
    }

    #[test]
    fn an_entry_matches_the_same_tokens_and_the_same_absences() {
        let entry = selectors(&[("a", Some(1)), ("b", None)]);
        for (asking, expected) in [
            (&[("a", 1)][..], true),
            (&[("c", 3), ("a", 1)], true),
            (&[("a", 2)], false),
            (&[("a", 1), ("b", 1)], false),
            (&[], false),
        ] {
            assert_eq!(matches(&entry, &presented(asking)), expected, "{asking:?}");
        }
        assert!(matches(&selectors(&[]), &presented(&[("a", 1)])));
    }

    #[test]
    fn an_empty_value_is_not_an_absent_field() {
        let empty = SelectorToken::of(b"");
        let entry = selectors(&[("a", None)]);
        assert!(!matches(
            &entry,
            &[("a".to_owned(), empty)].into_iter().collect()
        ));
    }

    #[test]
    fn people_see_hex_digits_and_nothing_for_an_absent_field() {
        let json = serde_json::to_string(&selectors(&[("a", Some(0x0f)), ("b", None)])).unwrap();
        let digits = "0f".repeat(16);
        assert_eq!(json, format!(r#"{{"a":"{digits}","b":""}}"#));
        assert_eq!(
            serde_json::from_str::<Selectors>(&json).unwrap(),
            selectors(&[("a", Some(0x0f)), ("b", None)])
        );
        let json = serde_json::to_string(&presented(&[("b", 0x0f)])).unwrap();
        assert_eq!(json, format!(r#"{{"b":"{digits}"}}"#));
        assert_eq!(
            serde_json::from_str::<Presented>(&json).unwrap(),
            presented(&[("b", 0x0f)])
        );
        assert!(serde_json::from_str::<Presented>(r#"{"b":""}"#).is_err());
        assert!(serde_json::from_str::<Selectors>(r#"{"b":"0f"}"#).is_err());
    }

    #[test]
    fn of_a_name_that_comes_twice_the_first_counts() {
        let twice = presented(&[("b", 1), ("a", 2), ("b", 3)]);
        assert_eq!((twice.get("b"), twice.get("c")), (Some(token(1)), None));
    }

    #[test]
    fn variants_differ_by_selectors_and_not_by_where_a_name_ends() {
        let id = |pairs: &[(&str, Option<u8>)]| variant_id(&selectors(pairs));
        assert_ne!(id(&[("a", Some(1))]), id(&[("a", Some(2))]));
        assert_ne!(
            id(&[("ab", Some(1))]),
            id(&[("a", Some(1)), ("b", Some(1))])
        );
        assert_ne!(id(&[]), id(&[("a", None)]));
        assert_ne!(id(&[("a", None)]), id(&[("a", Some(0))]));
        assert_eq!(id(&[("a", Some(1))]), id(&[("a", Some(1))]));
    }
}
