//! The embedded store: entries in this process's memory, bounded in bytes, each with its own end
//! (`moka`, TinyLFU).
//!
//! Leases and marks lie under one lock, which also makes each operation atomic. No await is made
//! while it is held.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_contract::crowding::{self, Standing};
use larder_contract::entry::{self, Entry};
use larder_contract::http_time::Timestamp;
use larder_contract::key::{ALWAYS_SELECTING, KeyDigest};
use larder_contract::purge::Purge;
use larder_contract::purge::requested::{is_newer, may_reach};
use larder_contract::selectors::{Presented, Selectors, matches};
use larder_contract::store_api::{Fence, LookUp, LookUpAnswer, Release, WriteAnswer};
use moka::Expiry;
use moka::sync::Cache;

use super::{Announced, Fault, Found, Store, is_fresh};
use crate::clock;

mod key_state;

use key_state::{KeyStates, Lease};

/// What one entry costs besides its bytes.
const OVERHEAD: usize = 512;

/// The store.
#[derive(Debug)]
pub struct Memory {
    entries: Cache<KeyDigest, Arc<[Variant]>>,
    states: Mutex<KeyStates>,
    max_variants: usize,
    random: RandomState,
    /// Makes the cursors of this process unlike those of any other.
    instance: u64,
    announced: AtomicU64,
}

/// An entry in the frame in which it came, and of what it says only what is compared.
#[derive(Clone, Debug)]
struct Variant {
    frame: Arc<[u8]>,
    selectors: Arc<Selectors>,
    requested: Timestamp,
    received: Timestamp,
    fresh_until: Timestamp,
    serve_stale_until: Timestamp,
    ends: Instant,
    /// Look-ups it has answered, and writes that renewed it.
    uses: Arc<AtomicU32>,
}

impl Variant {
    fn new(entry: &Entry, now: Instant, uses: Arc<AtomicU32>) -> Self {
        let meta = entry.meta();
        Self {
            // Of its own: what came may be a part of a larger piece of memory.
            frame: entry.frame().into(),
            selectors: Arc::new(meta.selectors()),
            requested: meta.request_time_ms,
            received: meta.response_time_ms,
            fresh_until: meta.fresh_until_ms,
            serve_stale_until: meta.serve_stale_until_ms,
            ends: now + Duration::from_millis(meta.ttl_ms),
            uses,
        }
    }

    fn standing(&self) -> Standing {
        let uses = self.uses.load(Ordering::Relaxed);
        Standing {
            uses,
            received: self.received,
            spent: false,
        }
    }

    /// Whether what was made untrue at `time` may concern it.
    fn is_reached(&self, time: Timestamp) -> bool {
        may_reach(time, self.requested, clock::now())
    }

    fn end_freshness(&mut self, time: Timestamp) {
        if let Ok((mut meta, body_start)) = entry::decode_meta(&self.frame)
            && meta.end_freshness(time)
        {
            let body = self.frame.get(body_start..).unwrap_or_default();
            self.frame = entry::encode(&meta, body).into();
            self.fresh_until = meta.fresh_until_ms;
            self.serve_stale_until = meta.serve_stale_until_ms;
        }
    }
}

/// A key lives as long as its longest-lived variant.
#[derive(Debug)]
struct LongestVariant;

impl Expiry<KeyDigest, Arc<[Variant]>> for LongestVariant {
    fn expire_after_create(
        &self,
        _: &KeyDigest,
        variants: &Arc<[Variant]>,
        now: Instant,
    ) -> Option<Duration> {
        variants
            .iter()
            .map(|variant| variant.ends.saturating_duration_since(now))
            .max()
    }

    fn expire_after_update(
        &self,
        key: &KeyDigest,
        variants: &Arc<[Variant]>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, variants, now)
    }
}

impl Memory {
    /// Empty, with room for `bytes`, and for `max_variants` per key.
    pub fn new(bytes: u64, max_variants: usize) -> Self {
        let weigh = |_: &KeyDigest, variants: &Arc<[Variant]>| {
            let size: usize = variants
                .iter()
                .map(|variant| 2 * OVERHEAD + variant.frame.len())
                .sum();
            u32::try_from(size).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder()
            .max_capacity(bytes)
            .weigher(weigh)
            .expire_after(LongestVariant)
            .build();
        let random = RandomState::new();
        let instance = random.build_hasher().finish();
        let announced = AtomicU64::new(1);
        let states = Mutex::default();
        Self {
            entries,
            states,
            max_variants,
            random,
            instance,
            announced,
        }
    }

    /// The cursor before the first purge.
    pub fn first_cursor(&self) -> String {
        format!("{:x}-0", self.instance)
    }

    fn states(&self) -> MutexGuard<'_, KeyStates> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn variants(&self, key: &KeyDigest, now: Instant) -> Vec<Variant> {
        let variants = self.entries.get(key).unwrap_or_default();
        variants
            .iter()
            .filter(|variant| variant.ends > now)
            .cloned()
            .collect()
    }

    /// Requests for different variants have different leases, as far as the selecting fields are
    /// known.
    fn lease_name(&self, variants: &[Variant], presented: &Presented) -> u64 {
        let mut names: BTreeSet<&str> = variants
            .iter()
            .flat_map(|v| v.selectors.keys().map(String::as_str))
            .collect();
        names.extend(ALWAYS_SELECTING);
        let mut hasher = self.random.build_hasher();
        for name in names {
            hasher.write_usize(name.len());
            hasher.write(name.as_bytes());
            match presented.get(name) {
                Some(token) => {
                    hasher.write_u8(1);
                    hasher.write(&token.0);
                }
                None => hasher.write_u8(0),
            }
        }
        hasher.finish()
    }
}

impl Store for Memory {
    async fn look_up(&self, asked: &LookUp) -> Result<Found, Fault> {
        let now = Instant::now();
        let mut states = self.states();
        let variants = self.variants(&asked.key, now);
        let matching = variants
            .iter()
            .filter(|variant| matches(&variant.selectors, &asked.presented));
        let found = matching.max_by_key(|variant| variant.received);
        if let Some(variant) = found {
            variant.uses.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(variant) = found
            && (asked.lease.is_none() || is_fresh(variant.fresh_until, asked.now_ms))
        {
            return Ok(Found::now(LookUpAnswer::Entry(variant.frame.to_vec())));
        }
        let Some(terms) = asked.lease else {
            return Ok(Found::now(LookUpAnswer::Nothing { uncacheable: false }));
        };
        if found.is_none()
            && states
                .uncacheable
                .get(&asked.key)
                .is_some_and(|ends| *ends > now)
        {
            return Ok(Found::now(LookUpAnswer::Nothing { uncacheable: true }));
        }
        let bytes = found.map(|variant| variant.frame.to_vec());
        let name = self.lease_name(&variants, &asked.presented);
        if let Some(lease_left_ms) = states.lease_left_ms(&asked.key, name, now) {
            let may_serve_stale =
                found.is_some_and(|variant| asked.now_ms < variant.serve_stale_until);
            return Ok(Found {
                answer: LookUpAnswer::Held { stale: bytes },
                lease_left_ms,
                may_serve_stale,
            });
        }
        if !states.has_room_for_lease(&asked.key, now) {
            return Ok(Found::now(match bytes {
                Some(bytes) => LookUpAnswer::Entry(bytes),
                None => LookUpAnswer::Nothing { uncacheable: false },
            }));
        }
        let fence = Fence(format!("{name:016x}{}", terms.holder));
        let ends = now + Duration::from_millis(terms.lease_ms);
        states.lease(
            asked.key,
            Lease {
                name,
                fence: fence.clone(),
                ends,
            },
            now,
        );
        Ok(Found::now(LookUpAnswer::Lease {
            fence,
            stale: bytes,
        }))
    }

    async fn write(
        &self,
        key: KeyDigest,
        fence: Option<&Fence>,
        entry: Entry,
    ) -> Result<WriteAnswer, Fault> {
        let now = Instant::now();
        let mut states = self.states();
        let is_untrue = states.is_untrue(&key, entry.meta().request_time_ms);
        let holds = match fence {
            Some(fence) => states.end_lease(key, fence, now),
            None => true,
        };
        if !holds || is_untrue {
            return Ok(WriteAnswer::Fenced);
        }
        if fence.is_none() {
            // Whoever holds a lease now waits for what is here already.
            states.leases.remove(&key);
        }
        states.uncacheable.remove(&key);
        let mut variants = self.variants(&key, now);
        let mut written = Variant::new(&entry, now, Arc::default());
        let renewed = variants
            .iter()
            .position(|variant| variant.selectors == written.selectors);
        let is_later = |held: &Variant| is_newer(held.requested, written.requested, clock::now());
        if renewed
            .and_then(|at| variants.get(at))
            .is_some_and(is_later)
        {
            return Ok(WriteAnswer::Fenced); // what is there was asked for later
        }
        if let Some(at) = renewed {
            written.uses = variants.remove(at).uses;
            written.uses.fetch_add(1, Ordering::Relaxed);
        }
        while variants.len() >= self.max_variants.max(1) {
            let standings: Vec<Standing> = variants.iter().map(Variant::standing).collect();
            let Some(goes) = crowding::first_to_go(&standings) else {
                break;
            };
            variants.remove(goes);
        }
        variants.push(written);
        self.entries.insert(key, variants.into());
        Ok(WriteAnswer::Stored)
    }

    async fn release(&self, release: &Release) -> Result<(), Fault> {
        let now = Instant::now();
        let mut states = self.states();
        if states.end_lease(release.key, &release.fence, now) && release.uncacheable_ms > 0 {
            states.mark_uncacheable(
                release.key,
                now + Duration::from_millis(release.uncacheable_ms),
                now,
            );
        }
        Ok(())
    }

    async fn invalidate(
        &self,
        keys: &[KeyDigest],
        time: Timestamp,
        soft: bool,
    ) -> Result<(), Fault> {
        let now = Instant::now();
        let mut states = self.states();
        for key in keys {
            let mut variants = self.variants(key, now);
            // What was requested later is the news itself: it may have been faster.
            if soft {
                let reached = variants
                    .iter_mut()
                    .filter(|variant| variant.is_reached(time));
                reached.for_each(|variant| variant.end_freshness(time));
            } else {
                variants.retain(|variant| !variant.is_reached(time));
            }
            if variants.is_empty() {
                self.entries.invalidate(key);
            } else {
                self.entries.insert(*key, variants.into());
            }
            states.uncacheable.remove(key);
            states.invalidate(*key, time, now);
        }
        Ok(())
    }

    async fn announce(&self, _purge: &Purge) -> Result<Announced, Fault> {
        // The memory ends with the process, and its cursors with it.
        let number = self.announced.fetch_add(1, Ordering::Relaxed);
        Ok(Announced::Here(format!("{:x}-{number}", self.instance)))
    }

    async fn ping(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn crowded(&self) -> Vec<(&'static str, u64)> {
        self.states().crowded().to_vec()
    }
}
