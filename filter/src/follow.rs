//! Following what the whole fleet purges and invalidates: one long poll for each Envoy, whichever
//! VM makes it.
//!
//! What this decides: which VM follows, by a lease in shared data that it renews on tick (usually
//! the main thread's VM, which ticks first); that nothing is lost when another takes over: the
//! cursor lies in shared data too; and up to when this Envoy has heard of everything, which lies
//! beside it for all VMs. What it leaves out: what a purge does to level 1 (`l1`), and what becomes
//! of answers when nothing is heard any more.

use std::rc::Rc;

use larder_contract::http_time::Timestamp;
use larder_contract::purge::Purge;
use larder_contract::store_api::Events;
use larder_contract::store_stream::{Answer, Question};

use crate::calls::{Errand, Outside, Purpose, Token};
use crate::config::Config;
use crate::host::Host;
use crate::metrics;
use crate::refused::is_refused;
use crate::store_client::{Answered, NoAnswer, StoreClient, status_of};

mod lease;

use lease::FollowerLease;

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

/// What this VM knows of following.
#[derive(Debug)]
pub(crate) struct Following {
    /// The worker's.
    id: u64,
    /// The poll under way.
    poll: Option<Poll>,
    cursor: Option<String>,
    renewed: Timestamp,
    not_before: Timestamp,
    /// Up to when this Envoy has heard of everything.
    heard: Timestamp,
    /// Whether it was said that the sidecar is of another version.
    told_of_version: bool,
}

#[derive(Clone, Copy, Debug)]
struct Poll {
    token: Token,
    sent: Timestamp,
    /// When Envoy must have answered it.
    until: Timestamp,
}

/// What has happened in the fleet since the poll before.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Whether some of it may have been missed.
    pub(crate) missed: bool,
    pub(crate) purges: Vec<Purge>,
    cursor: String,
    /// Up to when this is everything.
    until: Timestamp,
}

impl Following {
    /// Nothing is heard yet. `id` is the worker's.
    pub(crate) fn new(id: u64) -> Self {
        let zero = Timestamp::default();
        Self {
            id,
            poll: None,
            cursor: None,
            renewed: zero,
            not_before: zero,
            heard: zero,
            told_of_version: false,
        }
    }

    /// What was requested until then may have been purged without our hearing of it; `None` while
    /// all is heard.
    pub(crate) fn distrusted(
        &self,
        config: Option<&Rc<Config>>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let config =
            config.filter(|config| config.store_enabled && config.distrust_after_ms > 0)?;
        let deaf = now.millis_since(self.heard) >= config.distrust_after_ms;
        deaf.then(|| {
            Timestamp::from_millis(now.as_millis().saturating_sub(config.distrust_after_ms))
        })
    }

    /// On tick: follow, if nobody does; renew the lease, if this VM does.
    pub(crate) fn follow<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        store: &mut StoreClient,
        config: &Rc<Config>,
        now: Timestamp,
    ) {
        if !config.store_enabled {
            return;
        }
        let (lease, version) = FollowerLease::lying(&outside.host);
        if let Some(lease) = &lease {
            self.heard = self.heard.max(lease.heard);
        }
        if now < self.not_before {
            return;
        }
        if self.poll.is_some_and(|poll| poll.until < now) {
            // Envoy answers every call in time, unless the root that made it is gone.
            self.give_up_poll(outside, now);
            return;
        }
        let polling = self.poll.is_some();
        if polling && now.millis_since(self.renewed) < RENEW_MS {
            return;
        }
        if !self.hold_lease(&outside.host, lease, version, now) {
            // Another follows; its lease is looked at again when it may have lapsed.
            self.not_before = now.plus_millis(RENEW_MS);
        } else if !polling {
            self.poll(outside, store, config, now);
        }
    }

    /// Takes or renews the lease, if it is still as it was read. Says whether it is ours.
    fn hold_lease<H: Host>(
        &mut self,
        host: &H,
        lease: Option<FollowerLease>,
        version: Option<u32>,
        now: Timestamp,
    ) -> bool {
        if let Some(lease) = lease.filter(|lease| lease.owner != self.id) {
            if now < lease.until {
                self.poll = None;
                return false;
            }
            self.cursor = lease.cursor;
        }
        let (cursor, heard) = (self.cursor.clone(), self.heard);
        let lease = FollowerLease {
            owner: self.id,
            until: now.plus_millis(LEASE_MS),
            heard,
            cursor,
        };
        self.renewed = now;
        lease.put(host, version)
    }

    fn poll<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        store: &mut StoreClient,
        config: &Rc<Config>,
        now: Timestamp,
    ) {
        let wait_ms = wait_ms(config);
        let question = Question::Follow {
            after: self.cursor.clone(),
            wait_ms,
        };
        let errand = Errand {
            purpose: Purpose::Follow,
            holds: None,
            config: config.clone(),
            now,
        };
        match store.send(outside, question, errand, wait_ms + SLACK_MS) {
            Ok(token) => {
                let until = now.plus_millis(wait_ms + 2 * SLACK_MS);
                self.poll = Some(Poll {
                    token,
                    sent: now,
                    until,
                });
            }
            Err(_) => self.try_again_later(outside, now),
        }
    }

    fn give_up_poll<H: Host>(&mut self, outside: &mut Outside<H>, now: Timestamp) {
        if let Some(poll) = self.poll {
            outside.calls.take(poll.token);
        }
        self.try_again_later(outside, now);
    }

    /// The poll went with the root that made it, or with the store stream. That says nothing
    /// against the store, so the next tick makes another: until then this Envoy hears of no purge.
    pub(crate) fn forget_poll(&mut self, token: Token) {
        self.poll.take_if(|poll| poll.token == token);
    }

    fn try_again_later<H: Host>(&mut self, outside: &mut Outside<H>, now: Timestamp) {
        outside.metrics.event(metrics::FOLLOW_FAULTS);
        self.poll = None;
        self.not_before = now.plus_millis(AGAIN_MS);
    }

    /// The poll's answer, if it tells of anything. What has been heard is to take effect, here and
    /// in the other workers, before [`Following::go_on`].
    pub(crate) fn on_events<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        token: Token,
        answered: Answered,
        now: Timestamp,
    ) -> Option<Heard> {
        // Else another VM follows by now.
        let poll = self.poll.take_if(|poll| poll.token == token)?;
        match read_events(answered) {
            Ok((events, unheard_ms)) => Some(Heard {
                // Without a cursor nothing is known of what came before: as if it had been missed.
                missed: events.reset || self.cursor.is_none(),
                purges: events.events,
                cursor: events.cursor,
                until: Timestamp::from_millis(poll.sent.as_millis().saturating_sub(unheard_ms)),
            }),
            Err(answered) => {
                if let Some(status) = status_of(&answered) {
                    is_refused(&outside.host, &mut outside.metrics, status, now);
                }
                self.try_again_later(outside, now);
                if let Err(NoAnswer::NotUnderstood(error)) = answered
                    && !std::mem::replace(&mut self.told_of_version, true)
                {
                    let line = format!(
                        "larder: the sidecar tells of purges in a way that is not understood ({error}); use sidecars of the filter's version"
                    );
                    outside.host.log(log::Level::Error, &line);
                }
                None
            }
        }
    }

    /// What was heard has taken effect, or lies in the inboxes of the other workers: they find
    /// these filled before they read that everything has been heard. Goes on listening, if that is
    /// still ours to do.
    pub(crate) fn go_on<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        store: &mut StoreClient,
        config: Option<&Rc<Config>>,
        heard: Heard,
        now: Timestamp,
    ) {
        self.cursor = Some(heard.cursor);
        self.heard = self.heard.max(heard.until);
        let (lease, version) = FollowerLease::lying(&outside.host);
        if self.hold_lease(&outside.host, lease, version, now)
            && let Some(config) = config
        {
            self.poll(outside, store, config, now);
        }
    }
}

/// The events, and for how many milliseconds before the poll the sidecar may have missed some; or
/// the answer, if it is none that says so.
fn read_events(answered: Answered) -> Result<(Events, u64), Answered> {
    let Ok(Answer::Purges { events, unheard_ms }) = answered else {
        return Err(answered);
    };
    // The cursor becomes part of a path.
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if events.cursor.bytes().all(is_safe) {
        Ok((events, unheard_ms))
    } else {
        Err(Err(NoAnswer::Lost))
    }
}

/// An answer says that everything has been heard up to when it was asked for: so there has to be
/// one well before level 1 is distrusted.
fn wait_ms(config: &Config) -> u64 {
    if config.distrust_after_ms == 0 {
        WAIT_MS
    } else {
        (config.distrust_after_ms / 4).clamp(1, WAIT_MS)
    }
}
