//! Unsafe requests whose answer nobody saw: the origin may still be carrying them out.
//!
//! What this decides: when their targets are dropped once more. That they are, and how often, is the core's word
//! (`exchange::SETTLED_AFTER_MS`).

use std::collections::VecDeque;
use std::rc::Rc;

use larder_cache_core::exchange::SETTLED_AFTER_MS;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;

use crate::config::Config;
use crate::host::Host;
use crate::vm::Vm;

/// Doubts remembered; one more settles the oldest at once.
const MOST: usize = 1024;

/// What is to be dropped once more, and when.
#[derive(Debug)]
struct Doubt {
    due: Timestamp,
    config: Rc<Config>,
    keys: Vec<KeyDigest>,
}

/// The doubts of one VM: a queue for each delay, so that each is in the order of time.
#[derive(Debug, Default)]
pub(crate) struct Doubts([VecDeque<Doubt>; SETTLED_AFTER_MS.len()]);

impl<H: Host> Vm<H> {
    /// Drops what an unsafe request may have changed: now, and when the origin must have finished.
    pub(crate) fn doubt(&mut self, config: &Rc<Config>, keys: Vec<KeyDigest>, now: Timestamp) {
        self.invalidate(config, &keys, now);
        let mut settled = Vec::new();
        for (queue, delay) in self.doubts.0.iter_mut().zip(SETTLED_AFTER_MS) {
            if queue.len() >= MOST {
                settled.extend(queue.pop_front());
            }
            queue.push_back(Doubt { due: now.plus_millis(delay), config: config.clone(), keys: keys.clone() });
        }
        self.settle(settled, now);
    }

    /// On tick: drops once more what is due.
    pub(crate) fn settle_doubts(&mut self, now: Timestamp) {
        let mut due = Vec::new();
        for queue in &mut self.doubts.0 {
            while queue.front().is_some_and(|doubt| doubt.due <= now) {
                due.extend(queue.pop_front());
            }
        }
        self.settle(due, now);
    }

    fn settle(&mut self, doubts: Vec<Doubt>, now: Timestamp) {
        for Doubt { config, keys, .. } in doubts {
            self.invalidate(&config, &keys, now);
        }
    }
}
