//! Lists of field names that an operator may choose: exact names, and families such as `x-jwt-*`.
//!
//! What this decides: which names a list means. `_` counts as `-`, for CGI and its heirs hand both
//! to an application under one name, so `X_Forwarded_Host` says what `X-Forwarded-Host` says. What
//! it leaves out: what follows from a match.

use crate::fields::{Fields, NameMarks, is_token};

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
        let (name, is_family) = text
            .strip_suffix('*')
            .map_or((text, false), |begin| (begin, true));
        let fits = is_token(name.as_bytes()) && !name.contains('*');
        if !fits || (is_family && name.len() < Self::SHORTEST_FAMILY) {
            return None;
        }
        Some(Self {
            text: name
                .bytes()
                .map(|byte| folded(byte.to_ascii_lowercase()))
                .collect(),
            is_family,
        })
    }

    /// Whether `name`, in lower case, is meant.
    pub fn matches(&self, name: &[u8]) -> bool {
        let fits = if self.is_family {
            name.len() >= self.text.len()
        } else {
            name.len() == self.text.len()
        };
        fits && name
            .iter()
            .zip(&self.text)
            .all(|(byte, known)| folded(*byte) == *known)
    }

    /// How much it says: of several that match, the one with the highest rank counts. An exact name
    /// says more than a family, and a longer family more than a shorter one.
    pub fn rank(&self) -> usize {
        if self.is_family {
            self.text.len()
        } else {
            usize::MAX
        }
    }
}

/// A set of patterns that is asked about every field of every request: nearly free where nothing
/// matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldNames {
    exact: Marked,
    families: Marked,
}

impl FieldNames {
    /// The set of `patterns`.
    pub fn new(patterns: impl IntoIterator<Item = FieldPattern>) -> Self {
        let (families, exact) = patterns.into_iter().partition(|pattern| pattern.is_family);
        Self {
            exact: Marked::new(exact, |pattern| NameMarks::of(&pattern.text).whole),
            families: Marked::new(families, |pattern| NameMarks::of(&pattern.text).begin),
        }
    }

    /// The set of patterns as a person writes them; what is none is left out.
    pub fn of(patterns: &[&str]) -> Self {
        Self::new(patterns.iter().filter_map(|text| FieldPattern::parse(text)))
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.exact.patterns.is_empty() && self.families.patterns.is_empty()
    }

    /// Whether `name`, in lower case, is meant.
    pub fn contains(&self, name: &[u8]) -> bool {
        let marks = NameMarks::of(name);
        self.exact.matches(marks.whole, name) || self.families.matches(marks.begin, name)
    }

    /// Whether a name with these marks may be meant.
    fn may_contain(&self, marks: NameMarks) -> bool {
        self.exact.has(marks.whole) || self.families.has(marks.begin)
    }

    /// The lines of `fields` that are meant, in order.
    pub fn lines<'a>(&'a self, fields: &'a Fields) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        fields
            .marked(|marks| self.may_contain(marks))
            .filter(|(name, _)| self.contains(name))
    }

    /// Whether `fields` has a line of any of them.
    pub fn any_in(&self, fields: &Fields) -> bool {
        self.lines(fields).next().is_some()
    }
}

/// Patterns by one of their marks, and a bit for each mark, so that hardly any name is compared
/// with any pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marked {
    patterns: Vec<(u16, FieldPattern)>,
    bits: [u64; NameMarks::RANGE / 64],
}

impl Default for Marked {
    fn default() -> Self {
        Self {
            patterns: Vec::new(),
            bits: [0; NameMarks::RANGE / 64],
        }
    }
}

impl Marked {
    fn new(patterns: Vec<FieldPattern>, mark: impl Fn(&FieldPattern) -> u16) -> Self {
        let mut patterns: Vec<_> = patterns
            .into_iter()
            .map(|pattern| (mark(&pattern), pattern))
            .collect();
        patterns.sort_by_key(|(mark, _)| *mark);
        let mut bits = [0; NameMarks::RANGE / 64];
        for (mark, _) in &patterns {
            if let Some(word) = bits.get_mut(usize::from(mark / 64)) {
                *word |= 1 << (mark % 64);
            }
        }
        Self { patterns, bits }
    }

    fn has(&self, mark: u16) -> bool {
        self.bits
            .get(usize::from(mark / 64))
            .is_some_and(|word| word & (1 << (mark % 64)) != 0)
    }

    fn matches(&self, mark: u16, name: &[u8]) -> bool {
        let first = self.patterns.partition_point(|(known, _)| *known < mark);
        let same = self
            .patterns
            .iter()
            .skip(first)
            .take_while(|(known, _)| *known == mark);
        same.map(|(_, pattern)| pattern)
            .any(|pattern| pattern.matches(name))
    }
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
