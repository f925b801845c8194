//! One HTTP stream: which Envoy callback becomes which event, and which effect which host call. The only place that
//! pauses and resumes.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::cache_status::CacheStatus;
use larder_cache_core::collapse::Terms;
use larder_cache_core::collapse::message::Message;
use larder_cache_core::exchange::at_once;
use larder_cache_core::exchange::{Effect, Event, Exchange, ForwardedRequest, SlotAnswer, StoreAnswer};
use larder_cache_core::http_time::Timestamp;
use larder_cache_core::key::PrimaryKey;
use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use larder_cache_core::store_api::Fence;
use larder_cache_core::stored_response::StoredResponse;

use crate::config::Config;
use crate::host::{Host, Map};
use crate::store_client::StoreCall;
use crate::vm::{Ordered, Purpose, Vm};

mod response;

/// What Envoy is told to do with what is passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    Continue,
    /// Hold it.
    Pause,
}

/// What is known of a stream between callbacks.
#[derive(Debug)]
pub struct Stream {
    exchange: Exchange,
    config: Rc<Config>,
    policy: Arc<Policy>,
    /// The root context it belongs to.
    root: u32,
    /// Where the request stands with Envoy.
    request: Passage,
    /// Where the response does.
    response: Passage,
    replied: bool,
    /// The cluster the route picked: background refreshes go there.
    cluster: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    /// Envoy is in our callback now; the action is what it returns.
    InCallback(Action),
    /// Envoy holds it until we resume.
    Held,
    /// Gone on.
    Passed,
}

impl<H: Host> Vm<H> {
    /// A request's head.
    pub fn on_request_headers(&mut self, id: u32, config: &Rc<Config>, end: bool) -> Action {
        self.read_inbox();
        if !self.woken.is_empty() {
            self.go_on_later();
        }
        let Ok(fields) = self.host.headers(Map::Request) else { return Action::Continue };
        let request = Request { fields, has_content: !end };
        let Some(policy) = config.policy_for(&request).filter(|policy| policy.cache) else { return Action::Continue };
        let now = self.host.now();
        self.beat_if_late(now);
        if at_once::is_plain(&request, policy) {
            let key = PrimaryKey::new(&config.namespace, request.scheme(), request.authority(), request.path());
            if let Some((reply, status)) = at_once::answer(&request, policy, self.local(&key, now), now) {
                self.reply(id, reply, true);
                self.metrics.request(&status);
                return Action::Pause;
            }
        }
        let mut stream = Stream {
            exchange: Exchange::new(policy.clone(), config.namespace.clone()),
            config: config.clone(),
            policy: policy.clone(),
            root: self.root,
            request: Passage::InCallback(Action::Pause),
            response: Passage::Passed,
            replied: false,
            cluster: None,
        };
        self.drive_stream(id, &mut stream, Event::Request(request), now);
        if stream.exchange.is_over() {
            return Action::Pause; // answered: nothing to remember
        }
        let action = match stream.request {
            Passage::InCallback(action) => action,
            Passage::Held | Passage::Passed => Action::Continue,
        };
        stream.request = if action == Action::Pause { Passage::Held } else { Passage::Passed };
        self.streams.insert(id, stream);
        action
    }

    /// Whether anything is left to do for a stream.
    pub fn remembers(&self, id: u32) -> bool {
        self.streams.contains_key(&id) || self.unsent.contains_key(&id)
    }

    /// The stream is over, whatever the reason.
    pub fn on_done(&mut self, id: u32) {
        self.unsent.remove(&id);
        let Some(stream) = self.streams.get(&id) else { return };
        if !stream.exchange.is_over() {
            let details = self.host.property(&["response", "code_details"]).unwrap_or_default();
            let origin_broke = details.starts_with(b"upstream_reset_after_response_started");
            if stream.exchange.is_waiting() {
                self.leave_waiting(id);
            }
            let now = self.host.now();
            self.drive(id, Event::Gone { origin_broke }, now);
        }
        self.streams.remove(&id);
        self.forget_calls_of(id);
    }

    /// Envoy tells nobody of an answer whose stream is gone; a lease that it may bring is given back.
    fn forget_calls_of(&mut self, id: u32) {
        let mut unseen = Vec::new();
        self.calls.retain(|_, call| {
            let keep = !matches!(call.purpose, Purpose::LookUp(stream) if stream == id);
            if !keep {
                unseen.extend(call.holds.take().map(|holds| (call.config.clone(), holds)));
            }
            keep
        });
        for (config, (key, fence)) in unseen {
            self.tell_store(&config, StoreCall::Release { key, fence, uncacheable_ms: 0 });
        }
    }

    /// Gives a stream an event and carries out what follows, until nothing does.
    pub(crate) fn drive(&mut self, id: u32, event: Event<'_>, now: Timestamp) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        self.drive_stream(id, &mut stream, event, now);
        // A stream whose answer is still to come, or of which Envoy will call again, is kept until it is done.
        self.streams.insert(id, stream);
    }

    fn drive_stream(&mut self, id: u32, stream: &mut Stream, event: Event<'_>, now: Timestamp) {
        self.root = stream.root;
        // Last in, first out: what an effect brings about comes before what was to follow it.
        let mut pending = stream.exchange.handle(event, now);
        pending.reverse();
        while let Some(effect) = pending.pop() {
            let mut more = match effect {
                Effect::LookUpLocal => {
                    let local = stream.exchange.key().map(|key| self.local(key, now)).unwrap_or_default();
                    stream.exchange.handle(Event::Local(local), now)
                }
                Effect::Arrive { key, accept_handed_over, wait_for_refresh } => {
                    let until = now.plus_millis(stream.config.lease_ms);
                    let answer =
                        self.arrive_at_slot(&key, id, Terms { until, accept_handed_over, wait_for_refresh }, now);
                    if matches!(answer, SlotAnswer::Wait) {
                        self.wait(&stream.config, key, id, now);
                    }
                    stream.exchange.handle(Event::Slot(answer), now)
                }
                Effect::AskStore(question) => match self.ask_store(&stream.config, &question, Purpose::LookUp(id), now)
                {
                    Ok(()) => continue,
                    Err(fault) => stream.exchange.handle(Event::Store(StoreAnswer::Fault(fault)), now),
                },
                effect => {
                    self.carry_out(id, stream, effect, now);
                    continue;
                }
            };
            more.reverse();
            pending.append(&mut more);
        }
    }

    fn carry_out(&mut self, id: u32, stream: &mut Stream, effect: Effect, now: Timestamp) {
        match effect {
            Effect::Forward(change) => self.forward(stream, &change),
            Effect::Reply(reply) => {
                // In place of a request our own answer passes our own response callbacks once more; in place of a
                // response not.
                stream.replied = true;
                if let Passage::InCallback(action) = &mut stream.response {
                    *action = Action::Pause;
                }
                self.reply(id, reply, stream.request != Passage::Passed);
            }
            Effect::PassResponse(change) => self.pass_response(&change),
            Effect::HoldResponse => {
                if let Passage::InCallback(action) = &mut stream.response {
                    *action = Action::Pause;
                }
            }
            Effect::Keep { key, stored, fence, local_only } => {
                self.keep(&stream.config, &stream.policy, &key, stored, fence, local_only);
            }
            Effect::Publish { key, outcome, uncacheable_until } => {
                self.publish(&key, id, &outcome, &stream.policy, uncacheable_until, now);
            }
            Effect::MarkUncacheable { key, until } => self.l1.mark_uncacheable(&key, until),
            Effect::ReleaseLease { key, fence, uncacheable_ms } => {
                self.tell_store(&stream.config, StoreCall::Release { key, fence, uncacheable_ms });
            }
            Effect::Refresh(order) => {
                if let Some(cluster) = self.refresh_cluster(stream) {
                    let (config, policy) = (stream.config.clone(), stream.policy.clone());
                    self.refresh_orders.push_back(Ordered { config, policy, cluster, order: *order });
                    self.go_on_later();
                }
            }
            Effect::Invalidate(keys) => self.invalidate(&stream.config, &keys, now),
            Effect::Report(status) => self.report(&status),
            Effect::LookUpLocal | Effect::Arrive { .. } | Effect::AskStore(_) => {}
        }
    }

    /// Into level 1 and, unless it comes from there, into the store; not if it was invalidated since it was requested.
    pub(crate) fn keep(
        &mut self,
        config: &Rc<Config>,
        policy: &Arc<Policy>,
        key: &PrimaryKey,
        stored: Arc<StoredResponse>,
        fence: Option<Fence>,
        local_only: bool,
    ) {
        let kept = self.l1.put(key, stored.clone());
        match fence {
            // The lease has to end even where the entry is refused.
            Some(fence) if !kept => {
                self.tell_store(config, StoreCall::Release { key: key.digest(), fence, uncacheable_ms: 0 });
            }
            fence if kept && !local_only => {
                self.tell_store(config, StoreCall::Write { key: key.digest(), stored, fence, policy: policy.clone() });
            }
            _ => {}
        }
    }

    fn forward(&mut self, stream: &mut Stream, change: &ForwardedRequest) {
        if let Some(path) = &change.path {
            let _ = self.host.set_header(Map::Request, b":path", path);
        }
        for name in &change.remove {
            let _ = self.host.remove_header(Map::Request, name);
        }
        for (name, value) in change.set.iter() {
            let _ = self.host.set_header(Map::Request, name, value);
        }
        match stream.request {
            Passage::InCallback(_) => stream.request = Passage::InCallback(Action::Continue),
            Passage::Held => {
                stream.request = Passage::Passed;
                let _ = self.host.resume_request();
            }
            Passage::Passed => {}
        }
    }

    fn refresh_cluster(&self, stream: &mut Stream) -> Option<String> {
        if let Some(cluster) = &stream.config.refresh_cluster {
            return Some(cluster.clone());
        }
        if stream.cluster.is_none() {
            let name = self.host.property(&["xds", "cluster_name"])?;
            stream.cluster = String::from_utf8(name).ok();
        }
        stream.cluster.clone()
    }

    /// RFC 9111 §4.4, before the client sees its answer: here at once, in the other VMs before their next look-up, in the
    /// store soon. What is on its way from the store meanwhile is known to be older.
    pub(crate) fn invalidate(&mut self, config: &Rc<Config>, keys: &[PrimaryKey], now: Timestamp) {
        for key in keys {
            self.l1.invalidate(key, now);
            self.tell_peers(&Message::Invalidate(key.clone(), now), now);
        }
        if config.store_enabled {
            self.note_writing(now);
            self.untold.add(config, keys, now);
            self.go_on_later();
        }
    }

    fn report(&mut self, status: &CacheStatus) {
        self.metrics.request(status);
    }
}
