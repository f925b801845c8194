//! What the embedded store knows of keys beside their entries: leases, marks that they are not
//! storable, invalidations.
//!
//! Each table has a bound of its own, so that none fills another's place, and a full one never
//! keeps a client from its answer: without room for a lease whoever asks fetches without one,
//! without room for a mark it is not set, and the older half of the invalidations becomes one time
//! up to which late writes are refused.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::purge::remembered::Remembered;
use larder_contract::store_api::Fence;

use crate::clock;

/// Keys with leases, at most.
const MAX_LEASES: usize = 100_000;
/// Keys that are known to be not storable, at most.
const MAX_UNCACHEABLE: usize = 100_000;
/// Keys whose invalidation is remembered, at most: some 10 MB.
const MAX_INVALIDATIONS: usize = 100_000;
/// How often what has ended is swept out of a full table, and old invalidations are forgotten.
const SWEEP: Duration = Duration::from_secs(1);

/// Of all keys, what is known beside their entries.
#[derive(Debug)]
pub(super) struct KeyStates {
    pub(super) leases: HashMap<KeyDigest, Vec<Lease>>,
    pub(super) uncacheable: HashMap<KeyDigest, Instant>,
    invalidated: Remembered,
    swept: Option<Instant>,
    /// How often there was no room for a lease, and for a mark.
    full: [u64; 2],
}

/// One lease of a key: different variants have different ones.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) name: u64,
    pub(super) fence: Fence,
    pub(super) ends: Instant,
}

impl Default for KeyStates {
    fn default() -> Self {
        Self {
            leases: HashMap::new(),
            uncacheable: HashMap::new(),
            invalidated: Remembered::new(MAX_INVALIDATIONS),
            swept: None,
            full: [0; 2],
        }
    }
}

impl KeyStates {
    /// Now and then: takes out what has ended, where it stands in the way.
    fn sweep(&mut self, now: Instant) {
        if self
            .swept
            .is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP)
        {
            return;
        }
        self.swept = Some(now);
        if self.leases.len() >= MAX_LEASES {
            self.leases
                .retain(|_, leases| leases.iter().any(|lease| lease.ends > now));
        }
        if self.uncacheable.len() >= MAX_UNCACHEABLE {
            self.uncacheable.retain(|_, ends| *ends > now);
        }
        self.invalidated.forget_old(clock::now());
    }

    /// For how many milliseconds the lease of that name is still held.
    pub(super) fn lease_left_ms(&self, key: &KeyDigest, name: u64, now: Instant) -> Option<u64> {
        let lease = self
            .leases
            .get(key)?
            .iter()
            .find(|lease| lease.name == name && lease.ends > now)?;
        Some(u64::try_from(lease.ends.duration_since(now).as_millis()).unwrap_or(0))
    }

    /// Somebody holds this lease from now on.
    pub(super) fn lease(&mut self, key: KeyDigest, lease: Lease, now: Instant) {
        let leases = self.leases.entry(key).or_default();
        leases.retain(|lease| lease.ends > now);
        leases.push(lease);
    }

    /// Whether one more key may have a lease.
    pub(super) fn has_room_for_lease(&mut self, key: &KeyDigest, now: Instant) -> bool {
        self.sweep(now);
        let has_room = self.leases.len() < MAX_LEASES || self.leases.contains_key(key);
        self.note(
            0,
            has_room,
            "leases are held than are kept: some keys are fetched by several Envoys at once",
        );
        has_room
    }

    pub(super) fn mark_uncacheable(&mut self, key: KeyDigest, ends: Instant, now: Instant) {
        self.sweep(now);
        let has_room =
            self.uncacheable.len() < MAX_UNCACHEABLE || self.uncacheable.contains_key(&key);
        self.note(
            1,
            has_room,
            "keys are not storable than are remembered: some are waited for in vain",
        );
        if has_room {
            self.uncacheable.insert(key, ends);
        }
    }

    pub(super) fn invalidate(&mut self, key: KeyDigest, time: Timestamp, now: Instant) {
        self.sweep(now);
        let before = self.invalidated.times_crowded();
        self.invalidated.add(key, time, false, clock::now());
        if before == 0 && self.invalidated.times_crowded() > 0 {
            tracing::warn!(
                "more keys are invalidated than are remembered: a fetch that takes long is not stored"
            );
        }
    }

    fn note(&mut self, table: usize, has_room: bool, meaning: &str) {
        if has_room {
            return;
        }
        if let Some(full) = self.full.get_mut(table) {
            if *full == 0 {
                tracing::warn!("more {meaning}");
            }
            *full += 1;
        }
    }

    /// Whether what was requested then was, or may have been, made untrue since.
    pub(super) fn is_untrue(&self, key: &KeyDigest, requested: Timestamp) -> bool {
        self.invalidated.of(key).last_reaching(requested).is_some()
            || self.invalidated.is_too_late(requested)
    }

    /// How often each table had no room for one more.
    pub(super) fn crowded(&self) -> [(&'static str, u64); 3] {
        let [leases, uncacheable] = self.full;
        [
            ("leases", leases),
            ("uncacheable", uncacheable),
            ("invalidations", self.invalidated.times_crowded()),
        ]
    }

    /// Ends the lease that `fence` holds, or whose holder it names, and says whether there was one.
    pub(super) fn end_lease(&mut self, key: KeyDigest, fence: &Fence, now: Instant) -> bool {
        let Some(leases) = self.leases.get_mut(&key) else {
            return false;
        };
        let held = leases
            .iter()
            .position(|lease| lease.ends > now && lease.fence.0.ends_with(&fence.0));
        if let Some(index) = held {
            leases.swap_remove(index);
        }
        if leases.is_empty() {
            self.leases.remove(&key);
        }
        held.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> KeyDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        KeyDigest(bytes)
    }

    fn at(millis: usize) -> Timestamp {
        Timestamp::from_millis(millis as u64)
    }

    #[test]
    fn however_many_keys_are_invalidated_leases_are_given_and_late_writes_refused() {
        let (mut states, now) = (KeyStates::default(), Instant::now());
        for n in 1..=210_000 {
            states.invalidate(key(n), at(n), now);
        }
        assert!(states.has_room_for_lease(&key(0), now));
        assert!(
            (1..=210_000)
                .step_by(7)
                .all(|n| states.is_untrue(&key(n), at(n))),
            "known, or too old to be believed"
        );
        assert!(
            !states.is_untrue(&key(0), at(210_000)),
            "what nobody invalidated is believed"
        );
        assert!(
            states
                .crowded()
                .iter()
                .all(|(table, times)| (*table == "invalidations") == (*times > 0))
        );
    }

    #[test]
    fn a_full_table_of_leases_refuses_one_more_until_they_lapse_and_leaves_the_others_alone() {
        let (mut states, now) = (KeyStates::default(), Instant::now());
        let ends = now + Duration::from_secs(30);
        for n in 0..MAX_LEASES {
            assert!(states.has_room_for_lease(&key(n), now));
            states.leases.insert(
                key(n),
                vec![Lease {
                    name: 1,
                    fence: Fence("1".into()),
                    ends,
                }],
            );
        }
        assert!(!states.has_room_for_lease(&key(MAX_LEASES), now));
        assert!(
            states.has_room_for_lease(&key(7), now),
            "another variant of a key with a lease"
        );
        states.mark_uncacheable(key(1), ends, now);
        assert_eq!(states.uncacheable.len(), 1);
        assert!(states.has_room_for_lease(&key(MAX_LEASES), ends + SWEEP));
        assert_eq!(
            states.crowded(),
            [("leases", 1), ("uncacheable", 0), ("invalidations", 0)]
        );
    }
}
