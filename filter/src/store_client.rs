//! The store as the filter uses it: look-ups within a budget, everything else told and forgotten, and a breaker.
//!
//! What this decides: which failure is which fault, and when the store is left alone. A fault never reaches a client.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::codec;
use larder_cache_core::exchange::{Event, StoreAnswer, StoreFault, StoreQuestion};
use larder_cache_core::fields::Fields;
use larder_cache_core::http_time::Timestamp;
use larder_cache_core::key::PrimaryKey;
use larder_cache_core::policy::Policy;
use larder_cache_core::store_api::{
    AnswerParts, ENTRIES_PATH, FENCE_FIELD, Fence, Holder, INVALIDATE_PATH, Invalidate, KeyDigest, LOOK_UP_PATH,
    LeaseTerms, LookUp, LookUpAnswer, RELEASE_PATH, Release, UNCACHEABLE_FIELD, entry,
};
use larder_cache_core::stored_response::StoredResponse;

use crate::config::Config;
use crate::host::{Host, Map};
use crate::metrics;
use crate::vm::{Call, Purpose, Vm};

/// Writes are not waited for; they may take this long, in milliseconds.
const WRITE_TIMEOUT_MS: u64 = 5_000;
/// Calls waiting to be sent; beyond it the oldest is dropped (an entry not shared, a lease left to lapse).
const MAX_OUTBOX: usize = 1024;

/// Something to tell the store.
#[derive(Debug)]
pub enum StoreCall {
    /// Store a response.
    Write {
        /// Under which key.
        key: KeyDigest,
        /// What.
        stored: Arc<StoredResponse>,
        /// The lease it was fetched under.
        fence: Option<Fence>,
        /// For how long to keep it.
        policy: Arc<Policy>,
    },
    /// Give a lease back.
    Release {
        /// Of which key.
        key: KeyDigest,
        /// The lease.
        fence: Fence,
        /// Mark the key for so many milliseconds.
        uncacheable_ms: u64,
    },
    /// Drop keys.
    Invalidate {
        /// Which.
        keys: Vec<PrimaryKey>,
        /// When they became untrue.
        time: Timestamp,
    },
}

/// Leaves the store alone after a series of faults, tries again with one look-up at a time, and comes back to it by and by.
#[derive(Debug, Default)]
pub struct Breaker {
    faults: u32,
    open_until: Option<Timestamp>,
    /// Since when it is well again, while not everything is let through yet.
    recovering: Option<Timestamp>,
    /// Thousandths of look-ups that were held back and add up to one.
    credit: u64,
}

impl Breaker {
    const FAULTS: u32 = 5;
    const OPEN_MS: u64 = 1_000;
    /// From the first answer to full load: a store that has just come back is not run over.
    const RAMP_MS: u64 = 2_000;

    /// Whether the store may be asked now. While open, one look-up per period is let through.
    pub fn allows(&mut self, now: Timestamp) -> bool {
        match self.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                self.open_until = Some(now.plus_millis(Self::OPEN_MS));
                true
            }
            None => self.is_let_through(now),
        }
    }

    /// While recovering, a share that grows with time, spread evenly.
    fn is_let_through(&mut self, now: Timestamp) -> bool {
        let Some(since) = self.recovering else { return true };
        let elapsed = now.millis_since(since);
        if elapsed >= Self::RAMP_MS {
            self.recovering = None;
            return true;
        }
        self.credit += 100 + 900 * elapsed / Self::RAMP_MS;
        let through = self.credit >= 1000;
        self.credit %= 1000;
        through
    }

    /// A usable answer came. Says whether that changed the breaker's state.
    pub fn succeeded(&mut self, now: Timestamp) -> bool {
        self.faults = 0;
        let changed = self.open_until.take().is_some();
        if changed {
            self.recovering = Some(now);
        }
        changed
    }

    /// None came. Says whether that changed the breaker's state.
    pub fn failed(&mut self, now: Timestamp) -> bool {
        self.faults = self.faults.saturating_add(1);
        if self.faults < Self::FAULTS {
            return false;
        }
        self.open_until.replace(now.plus_millis(Self::OPEN_MS)).is_none()
    }
}

impl<H: Host> Vm<H> {
    pub(crate) fn ask_store(
        &mut self,
        config: &Rc<Config>,
        question: &StoreQuestion,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<(), StoreFault> {
        if !self.breaker.allows(now) {
            return Err(StoreFault::Breaker);
        }
        let wait_ms = if question.wait { config.store_wait_ms } else { 0 };
        let holder = Holder(self.host.random());
        let lease = question.lease.then_some(LeaseTerms { holder, lease_ms: config.lease_ms, wait_ms });
        let look_up = LookUp { key: question.key, presented: question.presented.clone(), now_ms: now, lease };
        let body = serde_json::to_vec(&look_up).unwrap_or_default();
        let head = head("POST", LOOK_UP_PATH);
        match self.host.call(&config.store_cluster, &head, &body, config.store_timeout_ms + wait_ms) {
            Ok(token) => {
                let holds = lease.map(|terms| (question.key, terms.holder));
                self.calls.insert(token, Call { purpose, holds, config: config.clone(), sent: now });
                Ok(())
            }
            Err(refused) => {
                self.store_failed(now, &format!("call refused with status {}", refused.0));
                Err(StoreFault::Error)
            }
        }
    }

    fn store_failed(&mut self, now: Timestamp, why: &str) {
        self.metrics.event(metrics::STORE_FAULTS);
        if self.breaker.failed(now) {
            self.host.log(log::Level::Warn, &format!("larder: store left alone after repeated faults, last: {why}"));
        }
    }

    /// An answer to a call of our own.
    pub fn on_call_response(&mut self, token: u32, num_headers: usize, body_length: usize) {
        let Some(call) = self.calls.remove(&token) else { return };
        let now = self.host.now();
        match call.purpose {
            Purpose::LookUp(stream) => {
                let answer = self.read_answer(num_headers, body_length, now);
                self.host.record(metrics::STORE_MS, now.millis_since(call.sent));
                self.give_back_unseen(&call, &answer);
                self.drive_other(stream, Event::Store(answer));
            }
            Purpose::RefreshLookUp(id) => {
                let answer = self.read_answer(num_headers, body_length, now);
                self.give_back_unseen(&call, &answer);
                self.on_refresh_look_up(id, answer, now);
            }
            Purpose::Follow => self.on_events(token, num_headers, body_length, now),
            Purpose::RefreshFetch(id) => self.on_refresh_fetched(id, num_headers, body_length, now),
            Purpose::Tell => {
                if num_headers == 0 || self.call_status().is_none_or(|(status, own)| own || status >= 500) {
                    self.metrics.event(metrics::STORE_FAULTS);
                }
            }
        }
    }

    /// A look-up that timed out may have been given the lease all the same; nobody must wait for it to lapse.
    fn give_back_unseen(&mut self, call: &Call, answer: &StoreAnswer) {
        if let (StoreAnswer::Fault(_), Some((key, holder))) = (answer, call.holds) {
            let release = StoreCall::Release { key, fence: holder.as_fence(), uncacheable_ms: 0 };
            self.tell_store(&call.config, release);
        }
    }

    /// Status of the answer, and whether Envoy made it up itself: only a real answer has this field.
    pub(crate) fn call_status(&self) -> Option<(u16, bool)> {
        let fields = self.host.headers(Map::CallResponse).ok()?;
        let status = std::str::from_utf8(fields.get(":status")?).ok()?.parse().ok()?;
        Some((status, !fields.contains("x-envoy-upstream-service-time")))
    }

    fn read_answer(&mut self, num_headers: usize, body_length: usize, now: Timestamp) -> StoreAnswer {
        let fields =
            if num_headers == 0 { Fields::default() } else { self.host.headers(Map::CallResponse).unwrap_or_default() };
        let status = fields.get(":status").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0);
        if !fields.contains("x-envoy-upstream-service-time") {
            let timeout = status == 504;
            self.store_failed(now, if timeout { "no answer in time" } else { "no connection or a broken answer" });
            return StoreAnswer::Fault(if timeout { StoreFault::Timeout } else { StoreFault::Error });
        }
        let body = if body_length == 0 { Vec::new() } else { self.host.call_body(body_length).unwrap_or_default() };
        let parts = AnswerParts {
            status,
            fence: fields.get(FENCE_FIELD).and_then(Fence::parse),
            uncacheable: fields.get(UNCACHEABLE_FIELD) == Some(b"1"),
            body,
        };
        let Some(answer) = LookUpAnswer::from_parts(parts) else {
            self.store_failed(now, &format!("answered with status {status}"));
            return StoreAnswer::Fault(StoreFault::Error);
        };
        if self.breaker.succeeded(now) {
            self.host.log(log::Level::Info, "larder: store answers again");
        }
        match answer {
            LookUpAnswer::Entry(bytes) => match self.read_entry(&bytes) {
                Some(stored) => StoreAnswer::Entry(stored),
                None => StoreAnswer::Nothing { uncacheable: false },
            },
            LookUpAnswer::Lease { fence, stale } => {
                StoreAnswer::Lease(fence, stale.and_then(|bytes| self.read_entry(&bytes)))
            }
            LookUpAnswer::Held { stale } => StoreAnswer::Held(stale.and_then(|bytes| self.read_entry(&bytes))),
            LookUpAnswer::Nothing { uncacheable } => StoreAnswer::Nothing { uncacheable },
        }
    }

    /// Whatever comes back is checked; what is damaged was never there.
    fn read_entry(&mut self, bytes: &[u8]) -> Option<Arc<StoredResponse>> {
        match entry::decode(bytes).and_then(codec::from_entry) {
            Ok(stored) => Some(Arc::new(stored)),
            Err(fault) => {
                self.metrics.event(metrics::STORE_DAMAGED);
                self.host.log(log::Level::Warn, &format!("larder: entry from the store ignored: {fault}"));
                None
            }
        }
    }

    /// Tells the store something, soon: from a callback that outlives the stream.
    pub(crate) fn tell_store(&mut self, config: &Rc<Config>, call: StoreCall) {
        if self.outbox.len() >= MAX_OUTBOX {
            self.outbox.pop_front();
        }
        self.outbox.push_back((config.clone(), call));
        self.go_on_later();
    }

    pub(crate) fn send_outbox(&mut self) {
        while let Some((config, call)) = self.outbox.pop_front() {
            let now = self.host.now();
            if !self.breaker.allows(now) && !matches!(call, StoreCall::Invalidate { .. }) {
                continue;
            }
            let (head, body) = message(&call, now);
            match self.host.call(&config.store_cluster, &head, &body, WRITE_TIMEOUT_MS) {
                Ok(token) => {
                    self.calls.insert(token, Call { purpose: Purpose::Tell, holds: None, config, sent: now });
                }
                Err(refused) => self.store_failed(now, &format!("call refused with status {}", refused.0)),
            }
        }
    }
}

fn message(call: &StoreCall, now: Timestamp) -> (Fields, Vec<u8>) {
    match call {
        StoreCall::Write { key, stored, fence, policy } => {
            let mut head = head("PUT", &format!("{ENTRIES_PATH}{key}"));
            if let Some(fence) = fence {
                head.append(FENCE_FIELD.as_bytes(), fence.0.as_bytes());
            }
            (head, entry::encode(&codec::to_meta(stored, policy, now), &stored.body))
        }
        StoreCall::Release { key, fence, uncacheable_ms } => {
            let release = Release { key: *key, fence: fence.clone(), uncacheable_ms: *uncacheable_ms };
            (head("POST", RELEASE_PATH), serde_json::to_vec(&release).unwrap_or_default())
        }
        StoreCall::Invalidate { keys, time } => {
            let keys = keys.iter().take(Invalidate::MAX_KEYS).cloned().collect();
            let invalidate = Invalidate { keys, now_ms: *time };
            (head("POST", INVALIDATE_PATH), serde_json::to_vec(&invalidate).unwrap_or_default())
        }
    }
}

pub(crate) fn head(method: &str, path: &str) -> Fields {
    let content_type = if method == "PUT" { "application/octet-stream" } else { "application/json" };
    Fields::from_pairs([
        (":method", method),
        (":scheme", "http"),
        (":authority", "larder-sidecar"),
        (":path", path),
        ("content-type", content_type),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_breaker_opens_after_a_series_of_faults_and_closes_with_one_success() {
        let mut breaker = Breaker::default();
        for n in 0..4 {
            assert!(!breaker.failed(at(n)));
            assert!(breaker.allows(at(n)));
        }
        assert!(breaker.failed(at(4)));
        assert!(!breaker.allows(at(5)));
        assert!(breaker.allows(at(1_004)), "one probe");
        assert!(!breaker.allows(at(1_005)), "and no second");
        assert!(breaker.succeeded(at(1_006)));
        assert!(breaker.allows(at(3_006)));
    }

    #[test]
    fn a_store_that_is_well_again_gets_its_load_back_by_and_by() {
        let mut breaker = Breaker::default();
        for n in 0..5 {
            breaker.failed(at(n));
        }
        assert!(breaker.succeeded(at(10_000)));
        let mut through = |from: u64| (0..100).filter(|n| breaker.allows(at(from + n))).count();
        let shares = [through(10_000), through(10_900), through(11_800), through(12_100)];
        assert!(shares[0] <= 20 && shares[0] >= 5, "{shares:?}");
        assert!(shares.is_sorted() && shares[2] > 80 && shares[3] == 100, "{shares:?}");
    }
}
