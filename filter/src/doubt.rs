//! Unsafe requests whose answer nobody saw: the origin may still be carrying them out.
//!
//! What this decides: when their targets are dropped once more. That they are, and how often, is
//! the core's word (`exchange::SETTLED_AFTER_MS`).

use std::collections::VecDeque;
use std::rc::Rc;

use larder_cache_core::exchange::SETTLED_AFTER_MS;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;

use crate::config::Config;

/// Doubts remembered; one more settles the oldest at once.
const MOST: usize = 1024;

/// What is to be dropped once more, and when.
#[derive(Debug)]
pub(crate) struct Doubt {
    due: Timestamp,
    pub(crate) config: Rc<Config>,
    pub(crate) keys: Vec<KeyDigest>,
}

/// The doubts of one VM: a queue for each delay, so that each is in the order of time.
#[derive(Debug, Default)]
pub(crate) struct Doubts([VecDeque<Doubt>; SETTLED_AFTER_MS.len()]);

impl Doubts {
    /// Remembers what an unsafe request may have changed, to be dropped once more when the origin
    /// must have finished. Gives what there is no more room for: it is to be dropped at once.
    pub(crate) fn add(
        &mut self,
        config: &Rc<Config>,
        keys: &[KeyDigest],
        now: Timestamp,
    ) -> Vec<Doubt> {
        let mut settled = Vec::new();
        for (queue, delay) in self.0.iter_mut().zip(SETTLED_AFTER_MS) {
            if queue.len() >= MOST {
                settled.extend(queue.pop_front());
            }
            queue.push_back(Doubt {
                due: now.plus_millis(delay),
                config: config.clone(),
                keys: keys.to_vec(),
            });
        }
        settled
    }

    /// Takes what is to be dropped now.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<Doubt> {
        let mut due = Vec::new();
        for queue in &mut self.0 {
            while queue.front().is_some_and(|doubt| doubt.due <= now) {
                due.extend(queue.pop_front());
            }
        }
        due
    }
}
