//! The store as the filter uses it: look-ups within a budget, everything else told and forgotten,
//! and a breaker.
//!
//! What this decides: by which way a question goes, which failure is which fault, and when the store
//! is left alone. A fault never reaches a client.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::codec;
use larder_cache_core::exchange::{StoreAnswer, StoreFault, StoreQuestion};
use larder_cache_core::policy::Policy;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::entry;
use larder_contract::http_time::Timestamp;
use larder_contract::store_api::{ClockReading, Holder, LeaseTerms, LookUp, Release, WriteAnswer};
use larder_contract::store_stream::{Answer, Question};

use crate::breaker::Breaker;
use crate::calls::{Call, CallAnswer, Errand, Letter, Outside, Purpose, Token};
use crate::config::Config;
use crate::host::{Host, Refused};
use crate::metrics;
use crate::refused::is_refused;
use crate::shared_number::SharedNumber;

mod by_call;
mod call;
mod leases;
mod line;
mod reading;

pub(crate) use call::StoreCall;
use leases::LeasesLeft;
pub(crate) use line::{Came, Line};
pub(crate) use reading::{Answered, NoAnswer, Told, status_of, told};

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
    /// The stream on which most questions go.
    line: Line,
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
            line: Line::default(),
            outbox: VecDeque::new(),
            leases_left: LeasesLeft::default(),
            told_of_size: false,
            encoded: None,
        }
    }

    /// The store stream.
    pub(crate) fn line(&mut self) -> &mut Line {
        &mut self.line
    }

    /// On tick: opens the store stream where there should be one. Says whether one was given up.
    pub(crate) fn keep_line<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        config: &Rc<Config>,
        now: Timestamp,
    ) -> bool {
        let envoy = self.envoy.get(&outside.host);
        self.line.keep_open(outside, envoy, config, now)
    }

    /// Sends a question, on the store stream or in a call of its own. Gives what its answer will
    /// repeat.
    pub(crate) fn send<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        question: Question<'_>,
        errand: Errand,
        timeout_ms: u64,
    ) -> Result<Token, Refused> {
        let (config, now) = (errand.config.clone(), errand.now);
        if self.line.carries(&config, &question) {
            outside.metrics.event(metrics::STORE_BY_STREAM);
            let (number, root) = self.line.ask(outside, question, now)?;
            return Ok(outside.calls.asked(number, errand, timeout_ms, root));
        }
        outside.metrics.event(metrics::STORE_BY_CALL);
        let reading = ClockReading {
            envoy: self.envoy.get(&outside.host),
            now,
        };
        let (head, body) = by_call::request(&question, reading, &config);
        let letter = Letter {
            cluster: &config.store_cluster,
            head: &head,
            body: &body,
            timeout_ms,
        };
        outside.calls.make(&outside.host, &letter, errand)
    }

    /// What the answer to a call says.
    pub(crate) fn read_call(call: &Call, answer: CallAnswer) -> Answered {
        by_call::read(call, answer)
    }

    /// Sends a look-up, unless the store is left alone. Gives what its answer will repeat.
    pub(crate) fn ask<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        config: &Rc<Config>,
        question: &StoreQuestion,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Token, StoreFault> {
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
        let errand = Errand {
            purpose,
            holds: lease.map(|terms| (question.key, terms.holder.as_fence())),
            config: config.clone(),
            now,
        };
        let timeout_ms = config.store_timeout_ms + wait_ms;
        self.send(outside, Question::LookUp(look_up), errand, timeout_ms)
            .map_err(|refused| {
                self.is_refused_by_host(outside, refused, now);
                StoreFault::Error
            })
    }

    fn is_refused_by_host<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        refused: Refused,
        now: Timestamp,
    ) {
        let why = format!("call refused with status {}", refused.0);
        self.failed(outside, StoreFault::Error, now, &why);
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
        answered: &Answered,
        now: Timestamp,
    ) {
        let refused = status_of(answered) == Some(WriteAnswer::TooLarge.status());
        if refused && !std::mem::replace(&mut self.told_of_size, true) {
            let line = "larder: the sidecar refuses entries that max_object_bytes allows; raise LARDER_MAX_ENTRY_BYTES";
            outside.host.log(log::Level::Warn, line);
        }
        if told(outside, answered, now) == Told::Accepted {
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

    /// On tick: gives back what could not be given back at once, until it must have lapsed.
    pub(crate) fn give_back_leases(&mut self, now: Timestamp) {
        for (config, (key, fence)) in self.leases_left.due(now) {
            self.tell(&config, StoreCall::Release(Release::of(key, fence)));
        }
    }

    /// What a look-up brought.
    pub(crate) fn read_answer<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        answered: Answered,
        now: Timestamp,
    ) -> StoreAnswer {
        let (fault, why) = match answered {
            Ok(Answer::LookUp { found, ahead }) => {
                if self.breaker.succeeded(now) {
                    let line = "larder: store answers again";
                    outside.host.log(log::Level::Info, line);
                }
                return reading::found(outside, found, ahead);
            }
            Ok(Answer::Done { status }) => {
                if is_refused(&outside.host, &mut outside.metrics, status, now) {
                    self.breaker.refused(now);
                    return StoreAnswer::Fault(StoreFault::Error);
                }
                (StoreFault::Error, format!("answered with status {status}"))
            }
            Ok(Answer::Purges { .. }) => {
                (StoreFault::Error, "answered with something else".to_owned())
            }
            Err(none) => (none.fault(), none.to_string()),
        };
        self.failed(outside, fault, now, &why);
        StoreAnswer::Fault(fault)
    }

    /// Tells the store something, at the next [`Self::send_outbox`].
    pub(crate) fn tell(&mut self, config: &Rc<Config>, call: StoreCall) {
        if !config.store_enabled {
            return;
        }
        if self.outbox.len() >= MAX_OUTBOX {
            self.outbox.pop_front();
        }
        self.outbox.push_back((config.clone(), call));
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
        if self.outbox.is_empty() {
            return;
        }
        while let Some((config, call)) = self.outbox.pop_front() {
            let now = outside.host.now();
            // What ends a lease goes in any case: others would wait for it until it lapses.
            if call.lease().is_none() && !self.breaker.allows(now) {
                continue;
            }
            let errand = Errand {
                purpose: Purpose::Tell,
                holds: call.lease(),
                config: config.clone(),
                now,
            };
            let entry;
            let question = match call {
                StoreCall::Write {
                    key,
                    stored,
                    fence,
                    policy,
                } => {
                    entry = self.encode(&stored, &policy, now);
                    Question::Write {
                        key,
                        fence,
                        entry: &entry,
                    }
                }
                StoreCall::Release(release) => Question::Release(release),
            };
            let lease = errand.holds.clone();
            match self.send(outside, question, errand, WRITE_TIMEOUT_MS) {
                Ok(_) => {}
                // The sidecar is there and does not read: that it will be told later.
                Err(Refused::BUSY) => self.keep_lease(lease, config, now),
                Err(refused) => {
                    self.keep_lease(lease, config, now);
                    self.is_refused_by_host(outside, refused, now);
                }
            }
        }
        self.encoded = None;
    }

    fn keep_lease(&mut self, lease: Option<leases::Lease>, config: Rc<Config>, now: Timestamp) {
        if let Some(lease) = lease {
            self.leases_left.add(lease, config, false, now);
        }
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
