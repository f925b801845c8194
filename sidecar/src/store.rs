//! What a store can do. One contract, tested over every implementation (`tests/contract.rs`).

use std::future::Future;

use larder_contract::entry::Entry;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::purge::Purge;
use larder_contract::store_api::{Fence, LookUp, LookUpAnswer, Release, WriteAnswer};

pub mod memory;
pub mod redis;

/// What a look-up found, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The answer, as if no waiting was asked for.
    pub answer: LookUpAnswer,
    /// With `Held`: milliseconds until the lease lapses.
    pub lease_left_ms: u64,
    /// With `Held`: whether the entry that came along may be served meanwhile, so that nobody need
    /// wait.
    pub may_serve_stale: bool,
}

impl Found {
    pub(crate) fn now(answer: LookUpAnswer) -> Self {
        Self {
            answer,
            lease_left_ms: 0,
            may_serve_stale: false,
        }
    }
}

/// Where a purge lies that was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Nowhere else: this process takes it into its own log, behind this cursor.
    Here(String),
    /// In a log that all sidecars read, at this place: this process reads it there like the others.
    InSharedLog(String),
}

/// The store is in trouble. The filter goes on without it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// A place for entries, leases and marks. Everything in it is bounded and ends by itself.
pub trait Store: Send + Sync + 'static {
    /// Looks up, and takes the lease if it is asked for and free.
    fn look_up(&self, asked: &LookUp) -> impl Future<Output = Result<Found, Fault>> + Send;
    /// Stores an entry, ends the lease under which it was fetched, and wakes who waits elsewhere.
    fn write(
        &self,
        key: KeyDigest,
        fence: Option<&Fence>,
        entry: Entry,
    ) -> impl Future<Output = Result<WriteAnswer, Fault>> + Send;
    /// Ends a lease without an entry.
    fn release(&self, release: &Release) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Drops what was requested under some keys until `time`, or softly ends its freshness then.
    fn invalidate(
        &self,
        keys: &[KeyDigest],
        time: Timestamp,
        soft: bool,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Keeps a purge for sidecars that start later and tells those that run. Says where it lies
    /// now.
    fn announce(&self, purge: &Purge) -> impl Future<Output = Result<Announced, Fault>> + Send;
    /// By which connection the store was asked last, counted up whenever another is made. Behind
    /// another connection there may be another store, or the same with less in it.
    fn connection(&self) -> u64 {
        0
    }
    /// Whether the store answers.
    fn ping(&self) -> impl Future<Output = Result<(), Fault>> + Send;
    /// For people.
    fn describe(&self) -> String;
    /// How often each of its tables had no room for one more.
    fn crowded(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// How long an invalidation is remembered, so that a fetch begun before it is not stored after it.
pub const INVALIDATION_MEMORY_MS: u64 = larder_contract::purge::remembered::MEMORY_MS;

/// Whether what was requested then may be written now: not when that is longer ago than an
/// invalidation is remembered, for nobody knows whether it was made untrue since; and not when it
/// lies in the future, for its writer's clock is wrong, and no invalidation would ever be later.
pub(crate) fn is_timely(requested: Timestamp, now: Timestamp) -> bool {
    now.millis_since(requested) < INVALIDATION_MEMORY_MS
        && requested == requested.no_later_than(now)
}

/// What an entry that matches means for a look-up at `now`.
pub(crate) fn is_fresh(fresh_until: Timestamp, now: Timestamp) -> bool {
    now < fresh_until
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_nobody_can_vouch_for_is_refused() {
        let at = |millis: u64| Timestamp::from_millis(10_000_000 + millis);
        let now = at(INVALIDATION_MEMORY_MS);
        for (requested, timely) in [
            (at(0), false),
            (at(1), true),
            (now, true),
            (now.plus_millis(1_000), true),
            (now.plus_millis(1_001), false),
        ] {
            assert_eq!(is_timely(requested, now), timely, "{requested:?}");
        }
    }
}
