//! Counters, each named once, summed here and handed to Envoy on tick.
//!
//! `larder.requests.result.<hit|miss>.reason.<word>` becomes
//! `larder_requests{result="…",reason="…"}` through the `stats_tags` in `envoy.yaml`; the words are
//! those of `Cache-Status`.

use std::collections::HashMap;

use larder_cache_core::cache_status::CacheStatus;

use crate::host::Host;
use crate::l1::Level1;

/// Counts that have not been handed over yet.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Few and often the first: looked through, not hashed.
    requests: Vec<(bool, &'static str, u64)>,
    events: HashMap<&'static str, u64>,
    /// As it was handed over last.
    level_1_bytes: u64,
    /// The same of how often too many invalidations and purges had to be remembered.
    crowded: (u64, u64),
}

/// Look-ups that waited for another's fetch in this Envoy.
pub const FOLLOWERS: &str = "larder.followers";
/// Fetches that others could wait for.
pub const LEADERS: &str = "larder.leaders";
/// Background refreshes begun.
pub const REFRESHES: &str = "larder.refreshes";
/// Milliseconds that a request waited for another's fetch.
pub const WAIT_MS: &str = "larder.wait_ms";
/// Milliseconds until the store answered a look-up.
pub const STORE_MS: &str = "larder.store_ms";
/// Bytes held in level 1, over all workers.
pub const LEVEL_1_BYTES: &str = "larder.level1_bytes";
/// Entries that left level 1 for want of room.
pub const LEVEL_1_EVICTIONS: &str = "larder.level1_evictions";
/// Store streams open, over all workers: where there is none, calls take its place.
pub const STORE_STREAMS: &str = "larder.store_streams";
/// Store streams that ended while they were in use.
pub const STORE_STREAMS_LOST: &str = "larder.store_streams_lost";
/// Questions to the sidecar that went on a store stream.
pub const STORE_BY_STREAM: &str = "larder.store_questions.way.stream";
/// Questions to the sidecar that went in a call of their own.
pub const STORE_BY_CALL: &str = "larder.store_questions.way.call";
/// Entries that were not shared, for the sidecar did not read what it was sent.
pub const STORE_UNREAD: &str = "larder.store_unread";
/// Calls to the store that brought no usable answer.
pub const STORE_FAULTS: &str = "larder.store_faults";
/// Calls that the sidecar refused for want of the right token.
pub const STORE_REFUSED: &str = "larder.store_refused";
/// Entries from the store that were damaged.
pub const STORE_DAMAGED: &str = "larder.store_damaged_entries";

/// How often level 1 forgot the older half of the invalidations that it remembers, for there were
/// too many.
pub const CROWDED_INVALIDATIONS: &str = "larder.crowded_invalidations";
/// How often level 1 made one purge of everything of the oldest quarter of its marks, for there
/// were too many.
pub const CROWDED_PURGES: &str = "larder.crowded_purges";

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
        match self
            .requests
            .iter_mut()
            .find(|(known_hit, known, _)| *known_hit == hit && *known == word)
        {
            Some((.., count)) => *count += 1,
            None => self.requests.push((hit, word, 1)),
        }
    }

    /// One of the named events.
    pub fn event(&mut self, name: &'static str) {
        *self.events.entry(name).or_default() += 1;
    }

    /// Hands everything to Envoy, and what level 1 holds and has lost.
    pub fn flush<H: Host>(&mut self, host: &H, level_1: &Level1) {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = std::mem::replace(&mut self.level_1_bytes, level_1.bytes());
        host.move_gauge(LEVEL_1_BYTES, signed(self.level_1_bytes) - signed(before));
        host.count(LEVEL_1_EVICTIONS, level_1.take_evictions());
        self.flush_crowded(host, level_1.times_crowded());
        for (hit, word, count) in self.requests.iter_mut().filter(|(.., count)| *count > 0) {
            let result = if *hit { "hit" } else { "miss" };
            host.count(
                &format!("larder.requests.result.{result}.reason.{word}"),
                std::mem::take(count),
            );
        }
        for (name, count) in self.events.drain() {
            host.count(name, count);
        }
    }

    /// Tables that have reached their bound are counted, and said the first time.
    fn flush_crowded<H: Host>(&mut self, host: &H, now: (u64, u64)) {
        let before = std::mem::replace(&mut self.crowded, now);
        let tables = [
            (
                CROWDED_INVALIDATIONS,
                before.0,
                now.0,
                "invalidations came than level 1 remembers: a fetch that takes long is not kept",
            ),
            (
                CROWDED_PURGES,
                before.1,
                now.1,
                "purges came than level 1 remembers: what is older than the oldest of them is gone",
            ),
        ];
        for (name, before, now, meaning) in tables
            .into_iter()
            .filter(|(_, before, now, _)| before != now)
        {
            host.count(name, now - before);
            if before == 0 {
                host.log(log::Level::Warn, &format!("larder: more {meaning}"));
            }
        }
    }
}
