//! Following what the whole fleet purges and invalidates: one long poll for each Envoy, whichever VM makes it.
//!
//! What this decides: which VM follows, by a lease in shared data that it renews on tick (usually the main thread's VM,
//! which ticks first); that nothing is lost when another takes over: the cursor lies in shared data too; and up to when
//! this Envoy has heard of everything, which lies beside it for all VMs.
//! What it leaves out: what a purge does to level 1 (`l1`), and what becomes of answers when nothing is heard any more.

use larder_cache_core::collapse::message::Message;
use larder_contract::http_time::Timestamp;
use larder_contract::store_api::{Events, EventsSince, UNHEARD_FIELD};

use crate::calls::{CallAnswer, Errand, Letter, Purpose};
use crate::config::Config;
use crate::host::{Host, Swap};
use crate::metrics;
use crate::refused::is_refused;
use crate::vm::Vm;

/// How long the sidecar may hold the poll back, at most.
const WAIT_MS: u64 = 20_000;
/// How long its answer may take on top.
const SLACK_MS: u64 = 2_000;
/// A VM that has not renewed its lease for so long has lost it.
const LEASE_MS: u64 = 3_000;
/// How often the lease is renewed.
const RENEW_MS: u64 = 1_000;
/// After a failure, how long until the next attempt.
const AGAIN_MS: u64 = 500;

/// An Envoy that has forwarded no unsafe request for so long is none to which they are sent: should it be lost, nobody
/// expects it to have had something to tell.
const WRITER_MS: u64 = 3_600_000;

const PLACE: &str = "larder/follower";
const WROTE: &str = "larder/wrote";

/// What this VM knows of following.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// The poll under way.
    poll: Option<Poll>,
    cursor: Option<String>,
    renewed: Timestamp,
    not_before: Timestamp,
    /// Up to when this Envoy has heard of everything.
    heard: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Poll {
    token: u32,
    sent: Timestamp,
    /// When Envoy must have answered it.
    until: Timestamp,
}

impl<H: Host> Vm<H> {
    /// What was requested until then may have been purged without our hearing of it; `None` while all is heard.
    pub(crate) fn distrusted(&self, now: Timestamp) -> Option<Timestamp> {
        let config = self.config.as_ref().filter(|config| config.store_enabled && config.distrust_after_ms > 0)?;
        let deaf = now.millis_since(self.following.heard) >= config.distrust_after_ms;
        deaf.then(|| Timestamp::from_millis(now.as_millis().saturating_sub(config.distrust_after_ms)))
    }

    /// On tick: follow, if nobody does; renew the lease, if this VM does.
    pub(crate) fn follow(&mut self, now: Timestamp) {
        if self.config.as_ref().is_none_or(|config| !config.store_enabled) {
            return;
        }
        let place = self.read_place();
        if let Some(place) = &place {
            self.following.heard = self.following.heard.max(place.heard);
        }
        if now < self.following.not_before {
            return;
        }
        if self.following.poll.is_some_and(|poll| poll.until < now) {
            // Envoy answers every call in time, unless the root that made it is gone.
            self.give_up_poll(now);
            return;
        }
        let polling = self.following.poll.is_some();
        if polling && now.millis_since(self.following.renewed) < RENEW_MS {
            return;
        }
        if !self.hold_place(place, now) {
            // Another follows; its lease is looked at again when it may have lapsed.
            self.following.not_before = now.plus_millis(RENEW_MS);
        } else if !polling {
            self.poll(now);
        }
    }

    fn read_place(&self) -> Option<Place> {
        let (held, _) = self.host.shared(PLACE);
        Place::read(&held?)
    }

    /// Takes or renews the lease. Says whether it is ours.
    fn hold_place(&mut self, place: Option<Place>, now: Timestamp) -> bool {
        let (_, version) = self.host.shared(PLACE);
        if let Some(place) = place.filter(|place| place.owner != self.id) {
            if now < place.until {
                self.following.poll = None;
                return false;
            }
            self.following.cursor = place.cursor;
        }
        let (cursor, heard) = (self.following.cursor.clone(), self.following.heard);
        let place = Place { owner: self.id, until: now.plus_millis(LEASE_MS), heard, cursor };
        self.following.renewed = now;
        self.host.swap_shared(PLACE, &place.write(), version) == Swap::Done
    }

    fn poll(&mut self, now: Timestamp) {
        let Some(config) = self.config.clone() else { return };
        let wait_ms = wait_ms(&config);
        let asked = EventsSince {
            after: self.following.cursor.clone(),
            wait_ms,
            envoy: format!("{:016x}", self.store.envoy(&self.host)),
            writes: self.writes(now),
        };
        let path = asked.path();
        let head = self.store.head(&self.host, &config, ("GET", &path), now);
        let cluster = &config.store_cluster.clone();
        let letter = Letter { cluster, head: &head, body: &[], timeout_ms: wait_ms + SLACK_MS };
        let errand = Errand { purpose: Purpose::Follow, holds: None, config, now };
        match self.calls.make(&self.host, &letter, errand) {
            Ok(token) => {
                let until = now.plus_millis(wait_ms + 2 * SLACK_MS);
                self.following.poll = Some(Poll { token, sent: now, until });
            }
            Err(_) => self.try_again_later(now),
        }
    }

    /// Whether this Envoy has forwarded an unsafe request lately: it may then have invalidated what it could tell nobody.
    fn writes(&self, now: Timestamp) -> bool {
        let wrote = self.host.shared(WROTE).0.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        wrote.is_some_and(|wrote| now.millis_since(Timestamp::from_millis(wrote)) < WRITER_MS)
    }

    /// An unsafe request was forwarded, in whichever VM.
    pub(crate) fn note_writing(&self, now: Timestamp) {
        self.host.set_shared(WROTE, &now.as_millis().to_be_bytes());
    }

    fn give_up_poll(&mut self, now: Timestamp) {
        if let Some(poll) = self.following.poll {
            self.calls.take(poll.token);
        }
        self.try_again_later(now);
    }

    /// The poll went with the root that made it. That says nothing against the store, so the next tick makes another:
    /// until then this Envoy hears of no purge.
    pub(crate) fn forget_poll(&mut self, token: u32) {
        self.following.poll.take_if(|poll| poll.token == token);
    }

    fn try_again_later(&mut self, now: Timestamp) {
        self.metrics.event(metrics::FOLLOW_FAULTS);
        self.following.poll = None;
        self.following.not_before = now.plus_millis(AGAIN_MS);
    }

    /// The poll's answer.
    pub(crate) fn on_events(&mut self, token: u32, answer: CallAnswer, now: Timestamp) {
        let Some(poll) = self.following.poll.take_if(|poll| poll.token == token) else {
            return; // another VM follows by now
        };
        let Some((events, unheard_ms)) = self.read_events(&answer) else {
            if let Some(status) = answer.upstream_status() {
                is_refused(&self.host, &mut self.metrics, status, now);
            }
            self.try_again_later(now);
            return;
        };
        // Without a cursor nothing is known of what came before: as if it had been missed.
        if events.reset || self.following.cursor.is_none() {
            self.host.log(log::Level::Info, "larder: purges may have been missed; level 1 is emptied");
            self.l1.clear(now, now);
            self.tell_peers(&Message::Forget(now), now);
        }
        for purge in &events.events {
            self.metrics.event(metrics::PURGES);
            self.l1.purge(purge, now);
        }
        if !events.events.is_empty() {
            self.tell_peers(&Message::Purges(events.events), now);
        }
        self.following.cursor = Some(events.cursor);
        // The workers find their inboxes filled before they read that everything has been heard.
        let heard = Timestamp::from_millis(poll.sent.as_millis().saturating_sub(unheard_ms));
        self.following.heard = self.following.heard.max(heard);
        let place = self.read_place();
        if self.hold_place(place, now) {
            self.poll(now);
        }
    }

    /// The events, and for how many milliseconds before the poll the sidecar may have missed some.
    fn read_events(&mut self, answer: &CallAnswer) -> Option<(Events, u64)> {
        let body = answer.body.as_ref().ok().filter(|_| answer.upstream_status() == Some(200))?;
        let events: Events = match serde_json::from_slice(body) {
            Ok(events) => events,
            Err(error) => {
                if !std::mem::replace(&mut self.told_of_versions, true) {
                    let line = format!(
                        "larder: the sidecar tells of purges in a way that is not understood ({error}); use sidecars of the filter's version"
                    );
                    self.host.log(log::Level::Error, &line);
                }
                return None;
            }
        };
        let safe = events.cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let unheard = match answer.fields.get(UNHEARD_FIELD) {
            None => 0,
            Some(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
        };
        safe.then_some((events, unheard))
    }
}

/// An answer says that everything has been heard up to when it was asked for: so there has to be one well before level 1 is
/// distrusted.
fn wait_ms(config: &Config) -> u64 {
    if config.distrust_after_ms == 0 { WAIT_MS } else { (config.distrust_after_ms / 4).clamp(1, WAIT_MS) }
}

/// What lies in shared data: owner 8, until 8, heard 8, cursor. Numbers are big-endian.
#[derive(Debug)]
struct Place {
    owner: u64,
    until: Timestamp,
    heard: Timestamp,
    cursor: Option<String>,
}

impl Place {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (owner, rest) = bytes.split_first_chunk::<8>()?;
        let (until, rest) = rest.split_first_chunk::<8>()?;
        let (heard, cursor) = rest.split_first_chunk::<8>()?;
        let cursor = std::str::from_utf8(cursor).ok()?;
        let time = |bytes: &[u8; 8]| Timestamp::from_millis(u64::from_be_bytes(*bytes));
        let cursor = (!cursor.is_empty()).then(|| cursor.to_owned());
        Some(Self { owner: u64::from_be_bytes(*owner), until: time(until), heard: time(heard), cursor })
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = self.owner.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.until.as_millis().to_be_bytes());
        bytes.extend_from_slice(&self.heard.as_millis().to_be_bytes());
        bytes.extend_from_slice(self.cursor.as_deref().unwrap_or_default().as_bytes());
        bytes
    }
}
