//! The store as the filter uses it: look-ups within a budget, everything else told and forgotten,
//! and a breaker.
//!
//! What this decides: which failure is which fault, and when the store is left alone. A fault never
//! reaches a client.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::codec;
use larder_cache_core::exchange::{StoreAnswer, StoreFault, StoreQuestion};
use larder_cache_core::fields::Fields;
use larder_cache_core::policy::Policy;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::entry;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::store_api::{
    CLOCK_FIELD, ClockReading, ENTRIES_PATH, FENCE_FIELD, Fence, Holder, LOOK_UP_PATH, LeaseTerms,
    LookUp, RELEASE_PATH, Release, WriteAnswer,
};
use serde::Serialize;

use crate::breaker::Breaker;
use crate::calls::{Call, CallAnswer, Errand, Letter, Outside, Purpose};
use crate::config::Config;
use crate::host::Host;
use crate::metrics;
use crate::refused::is_refused;
use crate::shared_number::SharedNumber;

mod call;
mod leases;
mod reading;

pub(crate) use call::StoreCall;
use leases::LeasesLeft;
pub(crate) use reading::{Told, told};

/// Writes are not waited for; they may take this long, in milliseconds.
const WRITE_TIMEOUT_MS: u64 = 5_000;
/// In shared data: who this Envoy is among its peers.
const ENVOY: &str = "larder/envoy";
/// Calls waiting to be sent; beyond it the oldest is dropped (an entry not shared, a lease left to
/// lapse).
const MAX_OUTBOX: usize = 1024;

/// The store, as one worker uses it.
#[derive(Debug)]
pub(crate) struct StoreClient {
    /// Who this Envoy is among its peers.
    envoy: SharedNumber,
    breaker: Breaker,
    /// What the store is to be told.
    outbox: VecDeque<(Rc<Config>, StoreCall)>,
    leases_left: LeasesLeft,
    /// Whether it was said that the store takes smaller entries than the rules allow.
    told_of_size: bool,
    /// The entry that was encoded last: what is handed over is written to the store next.
    encoded: Option<(Arc<StoredResponse>, Rc<Vec<u8>>)>,
}

impl StoreClient {
    /// Nothing is known of the store yet.
    pub(crate) fn new() -> Self {
        Self {
            envoy: SharedNumber::named(ENVOY),
            breaker: Breaker::default(),
            outbox: VecDeque::new(),
            leases_left: LeasesLeft::default(),
            told_of_size: false,
            encoded: None,
        }
    }

    /// Sends a look-up, unless the store is left alone.
    pub(crate) fn ask<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        config: &Rc<Config>,
        question: &StoreQuestion,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<(), StoreFault> {
        if !self.breaker.allows(now) {
            return Err(StoreFault::Breaker);
        }
        let wait_ms = if question.wait {
            config.store_wait_ms
        } else {
            0
        };
        let holder = Holder(outside.host.random());
        let lease = question.lease.then_some(LeaseTerms {
            holder,
            lease_ms: config.lease_ms,
            wait_ms,
        });
        let look_up = LookUp {
            key: question.key,
            presented: question.presented.clone(),
            now_ms: now,
            lease,
        };
        let body = serde_json::to_vec(&look_up).unwrap_or_default();
        let head = self.head(&outside.host, config, ("POST", LOOK_UP_PATH), now);
        let letter = Letter {
            cluster: &config.store_cluster,
            head: &head,
            body: &body,
            timeout_ms: config.store_timeout_ms + wait_ms,
        };
        let holds = lease.map(|terms| (question.key, terms.holder.as_fence()));
        let errand = Errand {
            purpose,
            holds,
            config: config.clone(),
            now,
        };
        outside
            .calls
            .make(&outside.host, &letter, errand)
            .map(drop)
            .map_err(|refused| {
                self.failed(
                    outside,
                    StoreFault::Error,
                    now,
                    &format!("call refused with status {}", refused.0),
                );
                StoreFault::Error
            })
    }

    fn failed<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        fault: StoreFault,
        now: Timestamp,
        why: &str,
    ) {
        outside.metrics.event(metrics::STORE_FAULTS);
        if self.breaker.failed(fault, now) {
            outside.host.log(
                log::Level::Warn,
                &format!("larder: store left alone after repeated faults, last: {why}"),
            );
        }
    }

    /// A write or release has been answered, or not: a lease that it should have ended is given
    /// back a little later.
    pub(crate) fn on_told<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        call: Call,
        answer: &CallAnswer,
        now: Timestamp,
    ) {
        let refused = answer.upstream_status() == Some(WriteAnswer::TooLarge.status());
        if refused && !std::mem::replace(&mut self.told_of_size, true) {
            let line = "larder: the sidecar refuses entries that max_object_bytes allows; raise LARDER_MAX_ENTRY_BYTES";
            outside.host.log(log::Level::Warn, line);
        }
        if told(outside, answer, now) == Told::Accepted {
            if let Some(lease) = call.holds {
                self.leases_left.remove(&lease);
            }
            return;
        }
        outside.metrics.event(metrics::STORE_FAULTS);
        if let Some(lease) = call.holds {
            self.leases_left.add(lease, call.config, refused, now);
        }
    }

    /// On tick: gives back what could not be given back at once, until it must have lapsed. Says
    /// whether there is any.
    pub(crate) fn give_back_leases(&mut self, now: Timestamp) -> bool {
        let due = self.leases_left.due(now).into_iter();
        due.fold(false, |any, (config, (key, fence))| {
            self.tell(&config, StoreCall::Release(Release::of(key, fence))) || any
        })
    }

    /// What a look-up brought.
    pub(crate) fn read_answer<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        answer: CallAnswer,
        now: Timestamp,
    ) -> StoreAnswer {
        let CallAnswer {
            status,
            from_upstream,
            ..
        } = answer;
        if !from_upstream {
            let fault = if status == 504 {
                StoreFault::Timeout
            } else {
                StoreFault::Error
            };
            let slow = fault == StoreFault::Timeout;
            self.failed(
                outside,
                fault,
                now,
                if slow {
                    "no answer in time"
                } else {
                    "no connection or a broken answer"
                },
            );
            return StoreAnswer::Fault(fault);
        }
        if is_refused(&outside.host, &mut outside.metrics, status, now) {
            self.breaker.refused(now);
            return StoreAnswer::Fault(StoreFault::Error);
        }
        let Some(answer) = reading::look_up_answer(outside, answer) else {
            self.failed(
                outside,
                StoreFault::Error,
                now,
                &format!("answered with status {status}"),
            );
            return StoreAnswer::Fault(StoreFault::Error);
        };
        if self.breaker.succeeded(now) {
            outside
                .host
                .log(log::Level::Info, "larder: store answers again");
        }
        answer
    }

    /// Tells the store something, soon: from a callback that outlives the stream. Says whether such
    /// a callback is needed.
    pub(crate) fn tell(&mut self, config: &Rc<Config>, call: StoreCall) -> bool {
        if !config.store_enabled {
            return false;
        }
        if self.outbox.len() >= MAX_OUTBOX {
            self.outbox.pop_front();
        }
        self.outbox.push_back((config.clone(), call));
        true
    }

    /// Takes back the write of `stored`, if that is what the store was to be told last.
    pub(crate) fn take_write_of(
        &mut self,
        stored: &Arc<StoredResponse>,
    ) -> Option<(Rc<Config>, StoreCall)> {
        self.outbox.pop_back_if(
            |(_, call)| matches!(call, StoreCall::Write { stored: written, .. } if Arc::ptr_eq(written, stored)),
        )
    }

    /// Sends all that the store is to be told.
    pub(crate) fn send_outbox<H: Host>(&mut self, outside: &mut Outside<H>) {
        while let Some((config, call)) = self.outbox.pop_front() {
            let now = outside.host.now();
            // What ends a lease goes in any case: others would wait for it until it lapses.
            if call.lease().is_none() && !self.breaker.allows(now) {
                continue;
            }
            let holds = call.lease();
            let (head, body) = match &call {
                StoreCall::Write {
                    key,
                    stored,
                    fence,
                    policy,
                } => (
                    self.write_head(&outside.host, &config, key, fence.as_ref(), now),
                    self.encode(stored, policy, now),
                ),
                StoreCall::Release(release) => (
                    self.head(&outside.host, &config, ("POST", RELEASE_PATH), now),
                    json(release),
                ),
            };
            let cluster = &config.store_cluster.clone();
            let letter = Letter {
                cluster,
                head: &head,
                body: &body,
                timeout_ms: WRITE_TIMEOUT_MS,
            };
            let errand = Errand {
                purpose: Purpose::Tell,
                holds,
                config,
                now,
            };
            if let Err(refused) = outside.calls.make(&outside.host, &letter, errand) {
                self.failed(
                    outside,
                    StoreFault::Error,
                    now,
                    &format!("call refused with status {}", refused.0),
                );
            }
        }
        self.encoded = None;
    }

    fn write_head<H: Host>(
        &mut self,
        host: &H,
        config: &Config,
        key: &KeyDigest,
        fence: Option<&Fence>,
        now: Timestamp,
    ) -> Fields {
        let mut head = self.head(host, config, ("PUT", &format!("{ENTRIES_PATH}{key}")), now);
        if let Some(fence) = fence {
            head.append(FENCE_FIELD.as_bytes(), fence.0.as_bytes());
        }
        head
    }

    /// The head of a call, which says what time it is here.
    pub(crate) fn head<H: Host>(
        &mut self,
        host: &H,
        config: &Config,
        (method, path): (&str, &str),
        now: Timestamp,
    ) -> Fields {
        let content_type = if method == "PUT" {
            "application/octet-stream"
        } else {
            "application/json"
        };
        let mut head = Fields::from_pairs([
            (":method", method),
            (":scheme", "http"),
            (":authority", "larder-sidecar"),
            (":path", path),
            ("content-type", content_type),
        ]);
        let reading = ClockReading {
            envoy: self.envoy(host),
            now,
        };
        head.append(CLOCK_FIELD.as_bytes(), reading.to_string().as_bytes());
        if let Some(token) = &config.store_token {
            head.append(b"authorization", token.authorization().as_bytes());
        }
        head
    }

    /// Who this Envoy is among its peers.
    pub(crate) fn envoy<H: Host>(&mut self, host: &H) -> u64 {
        self.envoy.get(host)
    }

    /// The bytes of an entry, made once for the other workers and for the store.
    pub(crate) fn encode(
        &mut self,
        stored: &Arc<StoredResponse>,
        policy: &Policy,
        now: Timestamp,
    ) -> Rc<Vec<u8>> {
        match &self.encoded {
            Some((known, bytes)) if Arc::ptr_eq(known, stored) => bytes.clone(),
            _ => {
                let bytes = Rc::new(entry::encode(
                    &codec::to_meta(stored, policy, now),
                    &stored.body,
                ));
                self.encoded = Some((stored.clone(), bytes.clone()));
                bytes
            }
        }
    }

    /// More is known of `stored` than when it was encoded.
    pub(crate) fn forget_encoded(&mut self, stored: &Arc<StoredResponse>) {
        self.encoded
            .take_if(|(known, _)| Arc::ptr_eq(known, stored));
    }
}

pub(crate) fn json(message: &impl Serialize) -> Rc<Vec<u8>> {
    Rc::new(serde_json::to_vec(message).unwrap_or_default())
}
