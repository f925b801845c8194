//! Patterns with `*`, as operators write them: `utm_*`, `/a/*/b`.
//!
//! What this decides: `*` stands for any run of bytes, also an empty one; nothing else is special.
//! What it leaves out: what a pattern is matched with.

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// What stands before, between and behind the stars.
    parts: Box<[Box<[u8]>]>,
}

impl Glob {
    /// Reads a pattern. Every text is one.
    pub fn new(text: &str) -> Self {
        let parts = text.as_bytes().split(|&byte| byte == b'*');
        Self {
            parts: parts.map(Box::from).collect(),
        }
    }

    /// Whether it has no star, and so means one text.
    pub fn is_literal(&self) -> bool {
        self.parts.len() == 1
    }

    /// Whether all of `text` fits. No part is looked for twice, so a long text costs no more than
    /// its length times the longest part.
    pub fn matches(&self, text: &[u8]) -> bool {
        let [first, between @ .., last] = &*self.parts else {
            return self.parts.first().is_some_and(|only| **only == *text);
        };
        let Some(mut rest) = text
            .strip_prefix(&**first)
            .and_then(|rest| rest.strip_suffix(&**last))
        else {
            return false;
        };
        // Where a part stands first leaves most room for those behind it.
        for part in between.iter().filter(|part| !part.is_empty()) {
            let found = rest.windows(part.len()).position(|piece| *piece == **part);
            match found.and_then(|at| rest.get(at + part.len()..)) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_any_run_and_nothing_else_is_special() {
        for (glob, text) in [
            ("utm_*", "utm_source"),
            ("utm_*", "utm_"),
            ("*", ""),
            ("/a/*/b", "/a/x/y/b"),
            ("*.js", "a.js"),
            ("a**b", "ab"),
            ("a?[b", "a?[b"),
        ] {
            assert!(Glob::new(glob).matches(text.as_bytes()), "{glob} {text}");
        }
        for (glob, text) in [
            ("utm_*", "xutm_"),
            ("a", "ab"),
            ("a*a", "a"),
            ("*.js", "a.jsx"),
            ("a*b*b", "ab"),
            ("", "a"),
        ] {
            assert!(!Glob::new(glob).matches(text.as_bytes()), "{glob} {text}");
        }
    }

    proptest! {
        #[test]
        fn a_glob_says_what_the_regular_expression_says(glob in "[ab.*]{0,6}", text in "[ab.]{0,8}") {
            let regex = glob.split('*').map(regex_lite::escape).collect::<Vec<_>>().join(".*");
            let regex = regex_lite::Regex::new(&format!("^{regex}$")).unwrap();
            prop_assert_eq!(Glob::new(&glob).matches(text.as_bytes()), regex.is_match(&text));
        }
    }
}
