//! Counters, each named once, summed here and handed to Envoy on tick.
//!
//! `larder.requests.result.<hit|miss>.reason.<word>` becomes `larder_requests{result="…",reason="…"}` through the
//! `stats_tags` in `envoy.yaml`; the words are those of `Cache-Status`.

use std::collections::HashMap;

use larder_cache_core::cache_status::CacheStatus;

use crate::host::Host;

/// Counts that have not been handed over yet.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: HashMap<(bool, &'static str), u64>,
    events: HashMap<&'static str, u64>,
}

/// Look-ups that waited for another's fetch in this Envoy.
pub const FOLLOWERS: &str = "larder.followers";
/// Fetches that others could wait for.
pub const LEADERS: &str = "larder.leaders";
/// Background refreshes begun.
pub const REFRESHES: &str = "larder.refreshes";
/// Calls to the store that brought no usable answer.
pub const STORE_FAULTS: &str = "larder.store_faults";
/// Entries from the store that were damaged.
pub const STORE_DAMAGED: &str = "larder.store_damaged_entries";

/// Purges heard of.
pub const PURGES: &str = "larder.purges";
/// Long polls for purges that failed.
pub const FOLLOW_FAULTS: &str = "larder.follow_faults";

impl Metrics {
    /// One request, by how it ended.
    pub fn request(&mut self, status: &CacheStatus) {
        let hit = status.hit_or_miss() == "HIT";
        let word = match (status.detail, status.forward) {
            (Some(detail), _) => detail.token(),
            (None, Some(forward)) => forward.token(),
            (None, None) => "fresh",
        };
        *self.requests.entry((hit, word)).or_default() += 1;
    }

    /// One of the named events.
    pub fn event(&mut self, name: &'static str) {
        *self.events.entry(name).or_default() += 1;
    }

    /// Hands everything to Envoy.
    pub fn flush<H: Host>(&mut self, host: &H) {
        for ((hit, word), count) in self.requests.drain() {
            let result = if hit { "hit" } else { "miss" };
            host.count(&format!("larder.requests.result.{result}.reason.{word}"), count);
        }
        for (name, count) in self.events.drain() {
            host.count(name, count);
        }
    }
}
