//! The last purges in their order, as those who follow are told of them.

use std::collections::VecDeque;

use larder_contract::purge::Purge;
use larder_contract::store_api::Events;

/// Purges in the log; whoever is further behind starts anew. Each takes as much as the tag or
/// prefix that it names: some 200 bytes, at most 2 KB.
pub const LOG_LENGTH: usize = 4096;

/// The last purges, each with the cursor behind it.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The cursor before the first.
    base: String,
    /// How many purges came before the first. Never goes back, whatever becomes of the cursors.
    before: u64,
    purges: VecDeque<(String, Purge)>,
}

impl Log {
    /// The cursor behind the last.
    pub(super) fn last(&self) -> &str {
        self.purges.back().map_or(&self.base, |(cursor, _)| cursor)
    }

    /// How many purges lie before a cursor. `None` when it is not known, or not any more.
    pub(super) fn count(&self, cursor: &str) -> Option<u64> {
        // Most ask for the end.
        match self.purges.iter().rposition(|(known, _)| known == cursor) {
            Some(at) => Some(self.before + at as u64 + 1),
            None => (cursor == self.base).then_some(self.before),
        }
    }

    /// What came since a cursor, or that it is not known any more.
    pub(super) fn since(&self, after: Option<&str>) -> Events {
        let nothing = |reset| Events {
            cursor: self.last().to_owned(),
            reset,
            events: Vec::new(),
        };
        let Some(after) = after else {
            return nothing(false);
        };
        let Some(count) = self.count(after) else {
            return nothing(true);
        };
        let behind = usize::try_from(count - self.before).unwrap_or(usize::MAX);
        let given: Vec<&(String, Purge)> =
            self.purges.iter().skip(behind).take(Events::MOST).collect();
        let cursor = given
            .last()
            .map_or_else(|| after.to_owned(), |(cursor, _)| cursor.clone());
        Events {
            cursor,
            reset: false,
            events: given.into_iter().map(|(_, purge)| purge.clone()).collect(),
        }
    }

    /// One more. The oldest goes when there are too many.
    pub(super) fn push(&mut self, cursor: String, purge: Purge) {
        self.purges.push_back((cursor, purge));
        if self.purges.len() > LOG_LENGTH
            && let Some((cursor, _)) = self.purges.pop_front()
        {
            self.base = cursor;
            self.before += 1;
        }
    }

    /// Empties it and lets it begin behind a cursor.
    pub(super) fn begin_at(&mut self, cursor: String) {
        // Who has heard of everything so far has not heard of what this begins with.
        let before = self.before + self.purges.len() as u64 + 1;
        *self = Self {
            base: cursor,
            before,
            purges: VecDeque::new(),
        };
    }
}
