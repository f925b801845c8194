//! Following the purges of the whole fleet: one long poll for each Envoy, whichever VM makes it.
//!
//! What this decides: which VM follows, by a lease in shared data that it renews on tick (usually the main thread's VM,
//! which ticks first), and that nothing is lost when another takes over: the cursor lies in shared data too.
//! What it leaves out: what a purge does to level 1 (`l1`).

use larder_cache_core::collapse::message::Message;
use larder_cache_core::fields::Fields;
use larder_cache_core::http_time::Timestamp;
use larder_cache_core::store_api::{EVENTS_PATH, Events};

use crate::host::{Host, Map, Swap};
use crate::metrics;
use crate::store_client::head;
use crate::vm::{Call, Purpose, Vm};

/// How long the sidecar may hold the poll back.
const WAIT_MS: u64 = 20_000;
/// How long its answer may take on top.
const SLACK_MS: u64 = 2_000;
/// A VM that has not renewed its lease for so long follows no more.
const LEASE_MS: u64 = 3_000;
/// How often the lease is renewed.
const RENEW_MS: u64 = 1_000;
/// After a failure, how long until the next attempt.
const AGAIN_MS: u64 = 500;

const PLACE: &str = "larder/follower";

/// What this VM knows of following.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// The poll under way.
    token: Option<u32>,
    cursor: Option<String>,
    renewed: Timestamp,
    not_before: Timestamp,
}

impl<H: Host> Vm<H> {
    /// On tick: follow, if nobody does; renew the lease, if this VM does.
    pub(crate) fn follow(&mut self, now: Timestamp) {
        if self.config.as_ref().is_none_or(|config| !config.store_enabled) || now < self.following.not_before {
            return;
        }
        let polling = self.following.token.is_some();
        if polling && now.millis_since(self.following.renewed) < RENEW_MS {
            return;
        }
        if !self.hold_place(now) {
            // Another follows; it is asked again when its lease may have lapsed.
            self.following.not_before = now.plus_millis(RENEW_MS);
        } else if !polling {
            self.poll(now);
        }
    }

    /// Takes or renews the lease. Says whether it is ours.
    fn hold_place(&mut self, now: Timestamp) -> bool {
        let (held, version) = self.host.shared(PLACE);
        if let Some((owner, until, cursor)) = held.as_deref().and_then(read_place) {
            if owner != self.id && now < until {
                self.following.token = None;
                return false;
            }
            if owner != self.id {
                self.following.cursor = cursor;
            }
        }
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&now.plus_millis(LEASE_MS).as_millis().to_be_bytes());
        bytes.extend_from_slice(self.following.cursor.as_deref().unwrap_or_default().as_bytes());
        self.following.renewed = now;
        self.host.swap_shared(PLACE, &bytes, version) == Swap::Done
    }

    fn poll(&mut self, now: Timestamp) {
        let Some(config) = self.config.clone() else { return };
        let path = match &self.following.cursor {
            Some(cursor) => format!("{EVENTS_PATH}?wait_ms={WAIT_MS}&after={cursor}"),
            None => EVENTS_PATH.to_owned(),
        };
        match self.host.call(&config.store_cluster, &head(&config, "GET", &path), &[], WAIT_MS + SLACK_MS) {
            Ok(token) => {
                self.following.token = Some(token);
                self.calls.insert(token, Call { purpose: Purpose::Follow, holds: None, config, sent: now });
            }
            Err(_) => self.try_again_later(now),
        }
    }

    fn try_again_later(&mut self, now: Timestamp) {
        self.metrics.event(metrics::FOLLOW_FAULTS);
        self.following.token = None;
        self.following.not_before = now.plus_millis(AGAIN_MS);
    }

    /// The poll's answer.
    pub(crate) fn on_events(&mut self, token: u32, num_headers: usize, body_length: usize, now: Timestamp) {
        if self.following.token.take() != Some(token) {
            return; // another VM follows by now
        }
        let Some(events) = self.read_events(num_headers, body_length) else {
            if let Some((status, false)) = self.call_status() {
                self.is_refused(status, now);
            }
            self.try_again_later(now);
            return;
        };
        if events.reset {
            self.host.log(log::Level::Info, "larder: purges may have been missed; level 1 is emptied");
            self.l1.clear(now, now);
            self.tell_peers(&Message::Forget(now), now);
        }
        for purge in events.events {
            self.metrics.event(metrics::PURGES);
            self.l1.purge(&purge, now);
            self.tell_peers(&Message::Purge(purge), now);
        }
        self.following.cursor = Some(events.cursor);
        if self.hold_place(now) {
            self.poll(now);
        }
    }

    fn read_events(&self, num_headers: usize, body_length: usize) -> Option<Events> {
        let fields = if num_headers == 0 { Fields::default() } else { self.host.headers(Map::CallResponse).ok()? };
        // Without this field Envoy made the answer up.
        let real = fields.get(":status") == Some(b"200") && fields.contains("x-envoy-upstream-service-time");
        let body = self.host.call_body(body_length).ok().filter(|_| real)?;
        let events: Events = serde_json::from_slice(&body).ok()?;
        let safe = events.cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        safe.then_some(events)
    }
}

fn read_place(bytes: &[u8]) -> Option<(u64, Timestamp, Option<String>)> {
    let (owner, rest) = bytes.split_first_chunk::<8>()?;
    let (until, cursor) = rest.split_first_chunk::<8>()?;
    let cursor = std::str::from_utf8(cursor).ok()?;
    let cursor = (!cursor.is_empty()).then(|| cursor.to_owned());
    Some((u64::from_be_bytes(*owner), Timestamp::from_millis(u64::from_be_bytes(*until)), cursor))
}
