//! Background refreshes, sent from the VM itself: no client's stream carries them.
//!
//! What this decides: which call carries which step, and which cluster it goes to. The steps are the core's (`refresh`). The
//! request goes to the cluster that leads through the routes, if Envoy has it; else straight to the cluster that the route
//! picked, for what is known to come by a route that changes nothing (`route`).

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::collapse::message::Message;
use larder_cache_core::exchange::{CacheCommand, StoreAnswer};
use larder_cache_core::fields::Fields;
use larder_cache_core::message::ResponseHead;
use larder_cache_core::policy::Policy;
use larder_cache_core::refresh::{Event, Question, Refresh, Step};
use larder_cache_core::route::RefreshPath;
use larder_contract::http_time::Timestamp;

use crate::calls::{CallAnswer, Errand, Letter, Purpose};
use crate::changes::Cause;
use crate::config::Config;
use crate::host::{Host, Refused};
use crate::metrics;
use crate::store_client::StoreCall;
use crate::vm::{Ordered, Vm};

/// A refresh whose origin does not answer for so long is given up, in milliseconds.
const FETCH_TIMEOUT_MS: u64 = 25_000;
/// For the request that only looks whether there is a cluster; nobody waits for its answer.
const PING_TIMEOUT_MS: u64 = 1_000;
/// What Envoy says of a call to a cluster that it does not have.
const UNKNOWN_CLUSTER: Refused = Refused(2);

/// A refresh under way.
#[derive(Debug)]
pub(crate) struct Refreshing {
    refresh: Refresh,
    config: Rc<Config>,
    policy: Arc<Policy>,
    /// The cluster that the route picked, where the request goes straight to it.
    straight: Option<String>,
}

impl<H: Host> Vm<H> {
    pub(crate) fn start_refreshes(&mut self) {
        while let Some(Ordered { config, policy, straight, order }) = self.refresh_orders.pop_front() {
            let now = self.host.now();
            let id = self.next_refresh_id();
            if !self.lead_refresh(&config, &order, policy.max_object_bytes, id, now) {
                if let Some(fence) = order.fence.clone() {
                    self.tell_store(&config, StoreCall::Release { key: order.key.digest(), fence, uncacheable_ms: 0 });
                }
                continue;
            }
            self.metrics.event(metrics::REFRESHES);
            let (refresh, step) = Refresh::begin(order, policy.clone(), now);
            self.refreshes.insert(id, Refreshing { refresh, config, policy, straight });
            self.follow_refresh(id, step, now);
        }
    }

    /// Gives a refresh an event, and carries out what follows.
    fn drive_refresh(&mut self, id: u32, event: Event<'_>, now: Timestamp) {
        let Some(refreshing) = self.refreshes.get_mut(&id) else { return };
        let step = refreshing.refresh.handle(event, now);
        self.follow_refresh(id, step, now);
    }

    fn follow_refresh(&mut self, id: u32, step: Step, now: Timestamp) {
        let Some(Refreshing { config, policy, .. }) = self.refreshes.get(&id) else { return };
        let cause = Cause { id, config: config.clone(), policy: policy.clone() };
        if step.question.is_none() {
            self.refreshes.remove(&id);
        }
        let mut refreshed = None;
        for command in step.commands {
            if let CacheCommand::Keep { key, .. } = &command {
                refreshed = Some(key.digest());
            }
            if let (Some(handoff), Some(key)) = (self.change(&cause, command, now), &refreshed) {
                // The other workers hold the old one stale and would each begin a refresh of their own.
                self.tell_peers(&Message::Refreshed(*key, handoff), now);
            }
        }
        match step.question {
            None => {}
            Some(Question::Fetch(fields)) => self.fetch_refresh(id, fields, now),
            Some(Question::AskStore(question)) => {
                if let Err(fault) = self.ask_store(&cause.config, &question, Purpose::RefreshLookUp(id), now) {
                    self.on_refresh_look_up(id, StoreAnswer::Fault(fault), now);
                }
            }
        }
    }

    /// How many wholes behind parts are being fetched, and how many bytes all refreshes may come to hold.
    pub(crate) fn refreshes_under_way(&self, now: Timestamp) -> (usize, u64) {
        self.refreshes.values().fold((0, 0), |(wholes, held), Refreshing { refresh, policy, .. }| {
            let stored = refresh.stored().map(|stored| stored.body.len());
            (wholes + usize::from(stored.is_none()), held + self.pace.reserve(stored, policy.max_object_bytes, now))
        })
    }

    pub(crate) fn on_refresh_look_up(&mut self, id: u32, answer: StoreAnswer, now: Timestamp) {
        self.drive_refresh(id, Event::Store(answer), now);
    }

    fn fetch_refresh(&mut self, id: u32, mut fields: Fields, now: Timestamp) {
        let Some(Refreshing { straight, config, .. }) = self.refreshes.get(&id) else { return };
        let config = config.clone();
        let cluster = if let Some(cluster) = straight {
            // The route's own retries, as far as a request may ask for them.
            fields.append(b"x-envoy-retry-on", b"connect-failure,refused-stream");
            fields.append(b"x-envoy-max-retries", b"2");
            cluster
        } else {
            let scheme = fields.get(":scheme").unwrap_or(b"http").to_vec();
            if !fields.contains("x-forwarded-proto") {
                // The listener behind the cluster sees an unencrypted connection, whatever the client's was.
                fields.append(b"x-forwarded-proto", &scheme);
            }
            config.refresh_cluster()
        };
        let letter = Letter { cluster, head: &fields, body: &[], timeout_ms: FETCH_TIMEOUT_MS };
        let errand = Errand { purpose: Purpose::RefreshFetch(id), holds: None, config: config.clone(), now };
        if let Err(refused) = self.calls.make(&self.host, &letter, errand) {
            if refused == UNKNOWN_CLUSTER && config.refresh_path() == RefreshPath::Routed {
                self.look_for_refresh_cluster(&config);
            }
            self.fail_refresh(id, now);
        }
    }

    /// Finds out whether Envoy has the cluster for refreshes, and says so in the log once it has not. The request asks for
    /// no resource (RFC 9110 §9.3.7), so it reaches no route; Envoy refuses the call at once where there is no cluster.
    pub(crate) fn look_for_refresh_cluster(&self, config: &Config) {
        let cluster = config.refresh_cluster();
        let fields = [(":method", "OPTIONS"), (":scheme", "http"), (":authority", cluster), (":path", "*")];
        let found = self.host.call(cluster, &Fields::from_pairs(fields), &[], PING_TIMEOUT_MS) != Err(UNKNOWN_CLUSTER);
        let before = config.refresh_cluster_found.replace(Some(found));
        if !found && before != Some(false) {
            let level = if config.refresh_cluster.is_some() { log::Level::Warn } else { log::Level::Info };
            let line = format!(
                "larder: Envoy has no cluster {cluster}, so what its routes change is refreshed in the foreground; see envoy/README.md"
            );
            self.host.log(level, &line);
        }
    }

    /// Where a refresh goes that does not take the route.
    pub(crate) fn picked_cluster(&self) -> Option<String> {
        String::from_utf8(self.host.property(&["xds", "cluster_name"])?).ok()
    }

    pub(crate) fn on_refresh_fetched(&mut self, id: u32, answer: CallAnswer, now: Timestamp) {
        let most = self.refreshes.get(&id).map_or(u64::MAX, |refreshing| refreshing.policy.max_object_bytes);
        let CallAnswer { status, from_upstream, has_head, fields, body } = answer;
        // Without a head, Envoy had gathered as much as it may.
        if !has_head || body.as_ref().is_ok_and(|body| body.len() as u64 > most) {
            self.pace.note_large(now);
        }
        match body {
            Ok(body) if from_upstream => {
                self.drive_refresh(id, Event::Response(&ResponseHead { status, fields }, &body), now);
            }
            _ => self.fail_refresh(id, now),
        }
    }

    fn fail_refresh(&mut self, id: u32, now: Timestamp) {
        self.drive_refresh(id, Event::NoResponse, now);
    }
}
