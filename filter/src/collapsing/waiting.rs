//! Streams of this worker that wait for another's fetch, and those of them that are to be told how
//! it ended.

use std::collections::{HashMap, VecDeque};

use larder_cache_core::collapse::CollapseKey;
use larder_cache_core::exchange::Outcome;
use larder_contract::http_time::Timestamp;

use crate::host::Host;
use crate::metrics;

/// A stream that waits for another's fetch.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    stream: u32,
    since: Timestamp,
    deadline: Timestamp,
}

/// All that wait in one worker.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    waiting: HashMap<CollapseKey, VecDeque<Waiter>>,
    /// Streams to be told how their leader's fetch ended.
    woken: VecDeque<(u32, Outcome)>,
}

impl Waiting {
    /// A stream begins to wait, until `deadline` at the latest.
    pub(crate) fn begin(
        &mut self,
        key: CollapseKey,
        stream: u32,
        since: Timestamp,
        deadline: Timestamp,
    ) {
        self.waiting.entry(key).or_default().push_back(Waiter {
            stream,
            since,
            deadline,
        });
    }

    /// A stream waits no more.
    pub(crate) fn leave(&mut self, stream: u32) {
        for waiters in self.waiting.values_mut() {
            waiters.retain(|waiter| waiter.stream != stream);
        }
        self.waiting.retain(|_, waiters| !waiters.is_empty());
    }

    /// Notes down everyone who waits under `key`; they are answered on a fresh stack.
    pub(crate) fn wake<H: Host>(&mut self, host: &H, key: &CollapseKey, outcome: &Outcome) {
        let Some(waiters) = self.waiting.remove(key) else {
            return;
        };
        let now = host.now();
        for waiter in &waiters {
            host.record(metrics::WAIT_MS, now.millis_since(waiter.since));
        }
        self.woken.extend(
            waiters
                .into_iter()
                .map(|waiter| (waiter.stream, outcome.clone())),
        );
    }

    /// Whether somebody is to be told something.
    pub(crate) fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Takes the next that is to be told.
    pub(crate) fn next_woken(&mut self) -> Option<(u32, Outcome)> {
        self.woken.pop_front()
    }

    /// Takes those whose deadline has passed, `most` of them.
    pub(crate) fn take_overdue(&mut self, now: Timestamp, most: usize) -> Vec<u32> {
        let mut overdue = Vec::new();
        for waiters in self.waiting.values_mut() {
            waiters.retain(|waiter| {
                let waits = waiter.deadline > now || overdue.len() >= most;
                if !waits {
                    overdue.push(waiter.stream);
                }
                waits
            });
        }
        self.waiting.retain(|_, waiters| !waiters.is_empty());
        overdue
    }
}
