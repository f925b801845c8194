//! Conditions on a request's path.

use larder_contract::path::canonical_path;
use regex_lite::{Regex, RegexBuilder};

use crate::glob::Glob;

/// A compiled expression larger than this, in bytes, is refused: it would take memory in every
/// worker and time with every request.
const MAX_EXPRESSION_BYTES: usize = 64 << 10;

/// What a path has to be. All but a prefix are held against the path without its query.
#[derive(Clone, Debug)]
pub enum PathCondition {
    /// All of it.
    Exact(Vec<u8>),
    /// What path and query begin with.
    Prefix(Vec<u8>),
    /// What the path ends with.
    Suffix(Vec<u8>),
    /// A glob that all of it fits.
    Glob(String, Glob),
    /// A regular expression that fits somewhere in it. It takes time in proportion to the path's
    /// length, whatever the expression.
    Expression(Regex),
}

impl PathCondition {
    /// All of a path, its hex digits in any case.
    pub fn exact(text: &str) -> Self {
        Self::Exact(canonical(text))
    }

    /// What a path begins with.
    pub fn prefix(text: &str) -> Self {
        Self::Prefix(canonical(text))
    }

    /// What a path ends with.
    pub fn suffix(text: &str) -> Self {
        Self::Suffix(canonical(text))
    }

    /// A glob.
    pub fn glob(text: &str) -> Self {
        let text = String::from_utf8_lossy(&canonical(text)).into_owned();
        let glob = Glob::new(&text);
        Self::Glob(text, glob)
    }

    /// A regular expression. The error says in words what is wrong.
    pub fn expression(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text)
            .size_limit(MAX_EXPRESSION_BYTES)
            .build();
        built
            .map(Self::Expression)
            .map_err(|error| error.to_string())
    }

    /// Whether a canonical path, with and without its query, fits.
    pub(super) fn matches(&self, path: &[u8], without_query: &[u8]) -> bool {
        match self {
            Self::Exact(text) => without_query == text,
            Self::Prefix(text) => path.starts_with(text),
            Self::Suffix(text) => without_query.ends_with(text),
            Self::Glob(_, glob) => glob.matches(without_query),
            Self::Expression(expression) => {
                std::str::from_utf8(without_query).is_ok_and(|text| expression.is_match(text))
            }
        }
    }

    /// Whether no path fits both.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(path), Self::Prefix(begin)) | (Self::Prefix(begin), Self::Exact(path)) => {
                let query = begin.strip_prefix(path.as_slice());
                !path.starts_with(begin) && !query.is_some_and(|rest| rest.starts_with(b"?"))
            }
            (Self::Exact(path), other) | (other, Self::Exact(path)) => !other.matches(path, path),
            (Self::Prefix(one), Self::Prefix(other)) => {
                !one.starts_with(other) && !other.starts_with(one)
            }
            (Self::Suffix(one), Self::Suffix(other)) => {
                !one.ends_with(other) && !other.ends_with(one)
            }
            _ => false,
        }
    }

    /// Whether every path that fits `other` fits this too, as far as can be seen.
    pub(super) fn follows_from(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Prefix(begin), Self::Prefix(longer)) => longer.starts_with(begin),
            (Self::Suffix(end), Self::Suffix(longer)) => longer.ends_with(end),
            (Self::Glob(one, _), Self::Glob(other, _)) => one == other,
            (Self::Expression(one), Self::Expression(other)) => one.as_str() == other.as_str(),
            (condition, Self::Exact(path)) => condition.matches(path, path),
            _ => false,
        }
    }
}

fn canonical(text: &str) -> Vec<u8> {
    canonical_path(text.as_bytes()).into_owned()
}

/// Whether an origin may read the path otherwise than it is written, and so take what one rule was
/// written for as something else: encoded dots, slashes, separators, control characters or
/// percent signs, and `;` ("web cache deception"). `path` is canonical.
pub fn is_oddly_spelled(path: &[u8]) -> bool {
    let without_query = path.split(|&byte| byte == b'?').next().unwrap_or_default();
    let is_odd = |digits: &[u8]| {
        let mut byte = [0; 1];
        hex::decode_to_slice(digits, &mut byte).is_ok()
            && byte
                .iter()
                .all(|byte| byte.is_ascii_control() || b"./\\;?#%&=".contains(byte))
    };
    without_query
        .iter()
        .any(|&byte| matches!(byte, b';' | b'\\') || byte.is_ascii_control())
        || without_query
            .windows(3)
            .any(|three| three.strip_prefix(b"%").is_some_and(is_odd))
}
