//! Background refreshes, sent from the VM itself: no client's stream carries them.
//!
//! What this decides: which call carries which step. The steps are the core's (`refresh`). The request goes straight to
//! the cluster that the route picked, with Envoy's own retries; a cluster that leads to an internal listener makes routes
//! and filters apply (`refresh_cluster`).

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::collapse::message::Message;
use larder_cache_core::exchange::{Effect, Effects, StoreAnswer};
use larder_cache_core::fields::Fields;
use larder_cache_core::http_time::Timestamp;
use larder_cache_core::message::ResponseHead;
use larder_cache_core::policy::Policy;
use larder_cache_core::refresh::{Next, Refresh, Start};

use crate::config::Config;
use crate::host::{Host, Map};
use crate::metrics;
use crate::store_client::StoreCall;
use crate::vm::{Call, Ordered, Purpose, Vm};

/// A refresh whose origin does not answer for so long is given up, in milliseconds.
const FETCH_TIMEOUT_MS: u64 = 25_000;

/// A refresh under way.
#[derive(Debug)]
pub(crate) struct Refreshing {
    refresh: Refresh,
    config: Rc<Config>,
    policy: Arc<Policy>,
    cluster: String,
}

impl<H: Host> Vm<H> {
    pub(crate) fn start_refreshes(&mut self) {
        while let Some(Ordered { config, policy, cluster, order }) = self.refresh_orders.pop_front() {
            let now = self.host.now();
            let id = self.next_refresh_id();
            if !self.lead_refresh(&config, &order.collapse, id, now) {
                if let Some(fence) = order.fence.clone() {
                    self.tell_store(&config, StoreCall::Release { key: order.key.digest(), fence, uncacheable_ms: 0 });
                }
                continue;
            }
            self.metrics.event(metrics::REFRESHES);
            let mut refresh = Refresh::new(order, policy.clone());
            let start = refresh.start(now);
            self.refreshes.insert(id, Refreshing { refresh, config: config.clone(), policy, cluster });
            match start {
                Start::Fetch(fields) => self.fetch_refresh(id, fields, now),
                Start::AskStore(question) => {
                    if let Err(fault) = self.ask_store(&config, &question, Purpose::RefreshLookUp(id), now) {
                        self.on_refresh_look_up(id, StoreAnswer::Fault(fault), now);
                    }
                }
            }
        }
    }

    pub(crate) fn on_refresh_look_up(&mut self, id: u32, answer: StoreAnswer, now: Timestamp) {
        let Some(refreshing) = self.refreshes.get_mut(&id) else { return };
        match refreshing.refresh.on_store(answer, now) {
            Next::Fetch(fields) => self.fetch_refresh(id, fields, now),
            Next::Done(effects) => self.end_refresh(id, effects, now),
        }
    }

    fn fetch_refresh(&mut self, id: u32, mut fields: Fields, now: Timestamp) {
        let Some(Refreshing { cluster, config, .. }) = self.refreshes.get(&id) else { return };
        let (cluster, config) = (cluster.clone(), config.clone());
        fields.append(b"x-envoy-retry-on", b"connect-failure,refused-stream");
        fields.append(b"x-envoy-max-retries", b"2");
        match self.host.call(&cluster, &fields, &[], FETCH_TIMEOUT_MS) {
            Ok(token) => {
                self.calls.insert(
                    token,
                    Call { purpose: Purpose::RefreshFetch(id), holds: None, config, sent: now, root: self.root },
                );
            }
            Err(_) => self.fail_refresh(id, now),
        }
    }

    pub(crate) fn on_refresh_fetched(&mut self, id: u32, num_headers: usize, body_length: usize, now: Timestamp) {
        let fields = if num_headers == 0 { None } else { self.host.headers(Map::CallResponse).ok() };
        // Without this field Envoy made the answer up: there was none.
        let Some(mut fields) = fields.filter(|fields| fields.contains("x-envoy-upstream-service-time")) else {
            self.fail_refresh(id, now);
            return;
        };
        let status = fields.get(":status").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0);
        fields.remove(b":status");
        let body = if body_length == 0 { Ok(Vec::new()) } else { self.host.call_body(body_length) };
        let (Ok(body), Some(refreshing)) = (body, self.refreshes.get_mut(&id)) else {
            self.fail_refresh(id, now);
            return;
        };
        let effects = refreshing.refresh.on_response(&ResponseHead { status, fields }, &body, now);
        self.end_refresh(id, effects, now);
    }

    fn fail_refresh(&mut self, id: u32, now: Timestamp) {
        let Some(refreshing) = self.refreshes.get_mut(&id) else { return };
        let effects = refreshing.refresh.on_failure(now);
        self.end_refresh(id, effects, now);
    }

    fn end_refresh(&mut self, id: u32, effects: Effects, now: Timestamp) {
        let Some(Refreshing { config, policy, .. }) = self.refreshes.remove(&id) else { return };
        let mut refreshed = None;
        for effect in effects {
            match effect {
                Effect::Keep { key, stored, fence, local_only } => {
                    self.keep(&config, &policy, &key, stored, fence, local_only);
                    refreshed = Some(key);
                }
                Effect::Publish { key, outcome, uncacheable_until } => {
                    let handoff = self.publish(&key, id, &outcome, &policy, uncacheable_until, now);
                    if let (Some(key), Some(handoff)) = (refreshed.take(), handoff) {
                        // The other workers hold the old one stale and would each begin a refresh of their own.
                        self.tell_peers(&Message::Refreshed(key, handoff), now);
                    }
                }
                Effect::ReleaseLease { key, fence, uncacheable_ms } => {
                    self.tell_store(&config, StoreCall::Release { key, fence, uncacheable_ms });
                }
                Effect::Invalidate(keys) => self.invalidate(&config, &keys, now),
                _ => {}
            }
        }
    }
}
