//! The simulated store of a fleet: entries, leases with fences and an end, marks and invalidations.

use std::collections::HashMap;
use std::sync::Arc;

use larder_cache_core::exchange::{StoreAnswer, StoreQuestion};
use larder_cache_core::reuse;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::selectors;
use larder_contract::store_api::Fence;

/// After so long without a write a lease lapses.
pub(crate) const LEASE_MS: u64 = 30_000;

#[derive(Default)]
pub(crate) struct Store {
    entries: HashMap<KeyDigest, Vec<Arc<StoredResponse>>>,
    leases: HashMap<KeyDigest, (Fence, Timestamp)>,
    invalidated: HashMap<KeyDigest, Timestamp>,
    uncacheable: HashMap<KeyDigest, Timestamp>,
    /// Leases given so far.
    pub(crate) granted: u64,
    /// Writes refused, for their fence or an invalidation.
    pub(crate) refused: usize,
}

impl Store {
    /// What the store says now, and when the lease lapses that is in the way.
    pub(crate) fn look_up(
        &mut self,
        asked: &StoreQuestion,
        now: Timestamp,
    ) -> (StoreAnswer, Option<Timestamp>) {
        let matches = |stored: &&Arc<StoredResponse>| {
            selectors::matches(&stored.selecting.selectors(), &asked.presented)
        };
        let found = self
            .entries
            .get(&asked.key)
            .and_then(|all| all.iter().rev().find(matches))
            .cloned();
        match found {
            Some(found) if !asked.lease || reuse::remaining_millis(&found, now) > 0 => {
                (StoreAnswer::Entry(found), None)
            }
            None if !asked.lease => (StoreAnswer::Nothing { uncacheable: false }, None),
            None if self
                .uncacheable
                .get(&asked.key)
                .is_some_and(|until| now < *until) =>
            {
                (StoreAnswer::Nothing { uncacheable: true }, None)
            }
            stale => match self.leases.get(&asked.key).filter(|(_, ends)| now < *ends) {
                Some((_, ends)) => (StoreAnswer::Held(stale), Some(*ends)),
                None => {
                    self.granted += 1;
                    let fence = Fence(format!("{:x}", self.granted));
                    self.leases
                        .insert(asked.key, (fence.clone(), now.plus_millis(LEASE_MS)));
                    (StoreAnswer::Lease(fence, stale), None)
                }
            },
        }
    }

    pub(crate) fn write(
        &mut self,
        key: KeyDigest,
        stored: Arc<StoredResponse>,
        fence: Option<&Fence>,
        now: Timestamp,
    ) {
        let is_untrue = self
            .invalidated
            .get(&key)
            .is_some_and(|time| stored.request_time <= *time);
        let holds = fence.is_none_or(|fence| self.end_lease(key, fence, now));
        if is_untrue || !holds {
            self.refused += 1;
            return;
        }
        self.leases.remove(&key);
        self.uncacheable.remove(&key);
        let variants = self.entries.entry(key).or_default();
        variants.retain(|held| held.selecting != stored.selecting);
        variants.push(stored);
    }

    pub(crate) fn release(
        &mut self,
        key: KeyDigest,
        fence: &Fence,
        uncacheable_ms: u64,
        now: Timestamp,
    ) {
        if self.end_lease(key, fence, now) && uncacheable_ms > 0 {
            self.uncacheable
                .insert(key, now.plus_millis(uncacheable_ms));
        }
    }

    pub(crate) fn invalidate(&mut self, key: KeyDigest, now: Timestamp) {
        self.entries.remove(&key);
        self.invalidated.insert(key, now);
    }

    /// Whether `fence` held the lease, which is over now.
    fn end_lease(&mut self, key: KeyDigest, fence: &Fence, now: Timestamp) -> bool {
        let holds = self
            .leases
            .get(&key)
            .is_some_and(|(held, ends)| held == fence && now < *ends);
        if holds {
            self.leases.remove(&key);
        }
        holds
    }
}
