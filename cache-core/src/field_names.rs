//! Lists of field names that an operator may choose: exact names, and families such as `x-jwt-*`.
//!
//! What this decides: which names a list means. `_` counts as `-`, for CGI and its heirs hand both to an application under
//! one name, so `X_Forwarded_Host` says what `X-Forwarded-Host` says. What it leaves out: what follows from a match.

use crate::fields::{Fields, is_token};

/// One name, or a family of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPattern {
    /// In lower case, `-` for `_`; of a family what all its names begin with.
    text: Box<[u8]>,
    is_family: bool,
}

impl FieldPattern {
    /// Fewer letters than this before the `*` would be nearly every field.
    const SHORTEST_FAMILY: usize = 3;

    /// Reads `x-user` or `x-jwt-*`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, is_family) = text.strip_suffix('*').map_or((text, false), |begin| (begin, true));
        let fits = is_token(name.as_bytes()) && !name.contains('*');
        if !fits || (is_family && name.len() < Self::SHORTEST_FAMILY) {
            return None;
        }
        Some(Self { text: name.bytes().map(|byte| folded(byte.to_ascii_lowercase())).collect(), is_family })
    }

    /// Whether `name`, in lower case, is meant.
    pub fn matches(&self, name: &[u8]) -> bool {
        let fits = if self.is_family { name.len() >= self.text.len() } else { name.len() == self.text.len() };
        fits && name.iter().zip(&self.text).all(|(byte, known)| folded(*byte) == *known)
    }

    /// How much it says: of several that match, the one with the highest rank counts. An exact name says more than a
    /// family, and a longer family more than a shorter one.
    pub fn rank(&self) -> usize {
        if self.is_family { self.text.len() } else { usize::MAX }
    }

    fn mark(&self) -> usize {
        if self.is_family { family_mark(&self.text) } else { name_mark(&self.text) }
    }
}

/// A set of patterns that is asked about every field of every request: nearly free where nothing matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldNames {
    exact: Vec<FieldPattern>,
    families: Vec<FieldPattern>,
    /// A bit for each exact name, and for the beginning of each family.
    exact_marks: Marks,
    family_marks: Marks,
}

impl FieldNames {
    /// The set of `patterns`.
    pub fn new(patterns: impl IntoIterator<Item = FieldPattern>) -> Self {
        let mut names = Self::default();
        for pattern in patterns {
            if pattern.is_family {
                names.family_marks.set(pattern.mark());
                names.families.push(pattern);
            } else {
                names.exact_marks.set(pattern.mark());
                names.exact.push(pattern);
            }
        }
        names
    }

    /// The set of patterns as a person writes them; what is none is left out.
    pub fn of(patterns: &[&str]) -> Self {
        Self::new(patterns.iter().filter_map(|text| FieldPattern::parse(text)))
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.families.is_empty()
    }

    /// Whether `name`, in lower case, is meant.
    pub fn contains(&self, name: &[u8]) -> bool {
        (self.exact_marks.has(name_mark(name)) && self.exact.iter().any(|pattern| pattern.matches(name)))
            || (self.family_marks.has(family_mark(name)) && self.families.iter().any(|family| family.matches(name)))
    }

    /// Whether `fields` has a line of any of them.
    pub fn any_in(&self, fields: &Fields) -> bool {
        !self.is_empty() && fields.iter().any(|(name, _)| self.contains(name))
    }
}

/// 512 bits, so that a list of some dozens leaves most of them unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks([u64; 8]);

impl Marks {
    fn set(&mut self, mark: usize) {
        if let Some(word) = self.0.get_mut(mark / 64 % 8) {
            *word |= 1 << (mark % 64);
        }
    }

    fn has(&self, mark: usize) -> bool {
        self.0.get(mark / 64 % 8).is_some_and(|word| word & (1 << (mark % 64)) != 0)
    }
}

fn name_mark(name: &[u8]) -> usize {
    let ends = name.first().zip(name.last()).map_or(0, |(first, last)| mixed(&[*first, *last]));
    let middle = name.get(name.len() / 2).map_or(0, |byte| mixed(&[*byte]));
    ends.wrapping_add(middle.wrapping_mul(7)).wrapping_add(name.len().wrapping_mul(41))
}

fn family_mark(name: &[u8]) -> usize {
    name.get(..FieldPattern::SHORTEST_FAMILY).map_or(0, mixed)
}

fn mixed(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(usize::from(folded(*byte))))
}

fn folded(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_family_means_every_name_that_begins_so_and_an_underscore_is_a_hyphen() {
        let names = FieldNames::of(&["X-User", "x-jwt-*"]);
        for name in ["x-user", "x_user", "x-jwt-sub", "x_jwt_sub", "x-jwt-"] {
            assert!(names.contains(name.as_bytes()), "{name}");
        }
        for name in ["x-users", "x-use", "x-jwt", "jwt", "", ":path"] {
            assert!(!names.contains(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_is_neither_a_name_nor_a_family_is_refused() {
        for text in ["", "*", "x*", "x-*", "a*b", "a b", "x-a**", ":path"] {
            assert!(FieldPattern::parse(text).is_none(), "{text}");
        }
        assert!(FieldPattern::parse("hx-*").is_some());
    }

    #[test]
    fn an_exact_name_says_more_than_a_family_and_a_long_family_more_than_a_short_one() {
        let rank = |text| FieldPattern::parse(text).unwrap().rank();
        assert!(rank("hx-request") > rank("hx-request-*") && rank("hx-request-*") > rank("hx-*"));
    }

    proptest! {
        #[test]
        fn the_marks_hide_no_match(patterns in proptest::collection::vec("[a-c_-]{3,5}[*]?", 0..6), name in "[a-c_-]{0,7}") {
            let parsed: Vec<_> = patterns.iter().map(|text| FieldPattern::parse(text).unwrap()).collect();
            let matches = parsed.iter().any(|pattern| pattern.matches(name.as_bytes()));
            let names = FieldNames::new(parsed);
            prop_assert_eq!(names.contains(name.as_bytes()), matches);
            prop_assert_eq!(names.any_in(&Fields::from_pairs([(name.as_str(), "v")])), matches);
        }
    }
}
