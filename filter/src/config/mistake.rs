//! What is wrong with a document.

use std::fmt;

/// One mistake, or one warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where: members by their names, rules by their places (`rules[0].match.host`); `the document`
    /// for all of it.
    pub path: String,
    /// What is wrong, or to be thought of, in words that follow the path.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.problem)
    }
}

/// Why a document is no configuration.
#[derive(Debug)]
pub enum Refused {
    /// It is not JSON. The error has line and column.
    NotJson(serde_json::Error),
    /// It is, and these are its mistakes: all of them, so that one edit mends them.
    Mistakes(Vec<Mistake>),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(error) => write!(f, "not JSON: {error}"),
            Self::Mistakes(mistakes) => {
                let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
                f.write_str(&lines.join("; "))
            }
        }
    }
}
