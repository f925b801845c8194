//! Leases that could not be given back so far: nobody must wait for them until they lapse.

use std::collections::HashMap;
use std::rc::Rc;

use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::store_api::Fence;

use crate::config::Config;

/// How long after a failure a lease is given back again, in milliseconds.
const GIVE_BACK_MS: u64 = 500;
/// Leases remembered; beyond it one is left to lapse.
const MOST: usize = 1024;

/// A lease that could not be given back so far.
#[derive(Debug)]
struct LeaseLeft {
    due: Timestamp,
    /// When it must have lapsed by itself.
    until: Timestamp,
    config: Rc<Config>,
}

/// A lease: of which key, and by which token.
pub(super) type Lease = (KeyDigest, Fence);

/// Those of one worker.
#[derive(Debug, Default)]
pub(super) struct LeasesLeft(HashMap<Lease, LeaseLeft>);

impl LeasesLeft {
    /// A lease should have ended and may not have: it is given back a little later, or at once
    /// where it is known not to have.
    pub(super) fn add(&mut self, lease: Lease, config: Rc<Config>, at_once: bool, now: Timestamp) {
        if self.0.len() < MOST {
            let due = now.plus_millis(if at_once { 0 } else { GIVE_BACK_MS });
            let until = now.plus_millis(config.lease_ms);
            self.0
                .entry(lease)
                .or_insert(LeaseLeft { due, until, config });
        }
    }

    /// A lease has ended.
    pub(super) fn remove(&mut self, lease: &Lease) {
        self.0.remove(lease);
    }

    /// What is to be given back now; again a little later, until it must have lapsed.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<(Rc<Config>, Lease)> {
        self.0.retain(|_, left| now < left.until);
        let mut due = Vec::new();
        for (lease, left) in self.0.iter_mut().filter(|(_, left)| left.due <= now) {
            left.due = now.plus_millis(GIVE_BACK_MS);
            due.push((left.config.clone(), lease.clone()));
        }
        due
    }
}
