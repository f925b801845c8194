//! Where everybody writes down what happened.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::history::{Got, History, Micros, Purge, Put, Read, Span};
use super::schedule::Fault;

/// The history of a run under way.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<History>);

impl Recorder {
    fn history(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self, read: Read) {
        self.history().reads.push(read);
    }

    pub(crate) fn put(&self, put: Put) {
        self.history().puts.push(put);
    }

    pub(crate) fn purge(&self, purge: Purge) {
        self.history().purges.push(purge);
    }

    /// Gives the number under which its end is told.
    pub(crate) fn fault_begins(&self, fault: Fault, now: Micros) -> usize {
        let mut history = self.history();
        history.spans.push(Span {
            fault,
            begin: now,
            end: Micros::MAX,
        });
        history.spans.len() - 1
    }

    pub(crate) fn fault_ends(&self, number: usize, now: Micros) {
        if let Some(span) = self.history().spans.get_mut(number) {
            span.end = now;
        }
    }

    /// Reads, hits, PUTs, purges, faults so far, and the faults under way.
    pub(crate) fn so_far(&self) -> ([usize; 5], Vec<Fault>) {
        let history = self.history();
        let hits = history
            .reads
            .iter()
            .filter(|read| matches!(&read.got, Got::Version(answer) if answer.hit))
            .count();
        let under_way = history
            .spans
            .iter()
            .filter(|span| span.end == Micros::MAX)
            .map(|span| span.fault)
            .collect();
        let counts = [
            history.reads.len(),
            hits,
            history.puts.len(),
            history.purges.len(),
            history.spans.len(),
        ];
        (counts, under_way)
    }

    /// All of it.
    pub(crate) fn take(&self) -> History {
        std::mem::take(&mut self.history())
    }
}
