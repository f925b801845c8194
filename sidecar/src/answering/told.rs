//! Lines that are logged once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// What was logged already: who is refused comes again, and so would the line.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashSet<String>>);

impl Told {
    /// More lines than this are not told apart; what comes then is not logged.
    const MOST: usize = 1024;

    /// Whether a line was not there before.
    pub(super) fn is_new(&self, line: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < Self::MOST && told.insert(line.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_new_once_and_they_are_bounded() {
        let told = Told::default();
        assert!(told.is_new("a") && told.is_new("b") && !told.is_new("a"));
        for n in 0..10_000 {
            let _ = told.is_new(&n.to_string());
        }
        assert!(told.0.lock().unwrap().len() <= Told::MOST);
    }
}
