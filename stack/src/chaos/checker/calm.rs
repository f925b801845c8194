//! When no fault was near.

use crate::chaos::history::{Micros, Span};

/// The times in which something was wrong, or had just been: sorted, and apart from each other.
#[derive(Debug)]
pub(crate) struct Calm(Vec<(Micros, Micros)>);

/// At the start connections are made.
const START: (Micros, Micros) = (0, 3_000_000);

impl Calm {
    /// From the faults, each of which goes on for `recovery` after its end.
    pub(crate) fn of(spans: &[Span], recovery: Micros) -> Self {
        let mut troubled: Vec<(Micros, Micros)> = spans
            .iter()
            .map(|span| (span.begin, span.end.saturating_add(recovery)))
            .collect();
        troubled.push(START);
        troubled.sort_unstable();
        let mut joined: Vec<(Micros, Micros)> = Vec::new();
        for (begin, end) in troubled {
            match joined.last_mut().filter(|last| begin <= last.1) {
                Some(last) => last.1 = last.1.max(end),
                None => joined.push((begin, end)),
            }
        }
        Self(joined)
    }

    /// Whether nothing was wrong from one moment to another.
    pub(crate) fn is_calm(&self, from: Micros, to: Micros) -> bool {
        let over = self.0.partition_point(|(_, end)| *end < from);
        self.0.get(over).is_none_or(|(begin, _)| *begin > to)
    }
}
