//! One HTTP stream: which Envoy callback becomes which event, and which effect which host call. The only place that
//! pauses and resumes.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::cache_status::{CacheStatus, DEBUG_FIELD};
use larder_cache_core::collapse::Terms;
use larder_cache_core::collapse::message::Message;
use larder_cache_core::exchange::at_once;
use larder_cache_core::exchange::{Effect, Event, Exchange, ForwardedRequest, SlotAnswer, StoreAnswer};
use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use larder_cache_core::route::RefreshPath;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;
use larder_contract::key::PrimaryKey;
use larder_contract::store_api::Fence;

use crate::config::Config;
use crate::host::{Host, Map};
use crate::store_client::StoreCall;
use crate::vm::{Ordered, Purpose, Vm};

mod content;
mod response;
mod watching;

pub(crate) use watching::Watched;

pub(crate) use content::{HeldContent, Undecided};

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
    /// Whether content follows the response's head.
    content_follows: bool,
    /// Content to send before the response's own.
    before: Option<Arc<[u8]>>,
    replied: bool,
    /// How the request was changed when it went on, where that will be compared with what the origin got.
    change: Option<ForwardedRequest>,
    /// Whether no answer has content.
    is_head: bool,
    /// Whether the request says from where it comes (`Origin`).
    is_cross_origin: bool,
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

impl Stream {
    /// What its request is about.
    pub(crate) fn key(&self) -> Option<&PrimaryKey> {
        self.exchange.key()
    }
}

impl<H: Host> Vm<H> {
    /// A request's head.
    pub fn on_request_headers(&mut self, id: u32, config: &Rc<Config>, end: bool) -> Action {
        self.read_inbox();
        if !self.woken.is_empty() {
            self.go_on_later();
        }
        let Ok(fields) = self.host.headers(Map::Request) else { return Action::Continue };
        let request = Request { fields, has_content: !end, is_identified: false };
        if request.fields.contains(DEBUG_FIELD) {
            // A secret between the client and this cache, wherever the request goes.
            let _ = self.host.remove_header(Map::Request, DEBUG_FIELD.as_bytes());
        }
        let Some(policy) = config.policy_for(&request).filter(|policy| policy.cache) else { return Action::Continue };
        if request.has_content && self.may_turn_out_empty(&request) {
            return self.hold(id, config, policy, request);
        }
        self.begin(id, config, policy, request, Passage::InCallback(Action::Pause))
    }

    /// A request of which all is known that counts.
    fn begin(
        &mut self,
        id: u32,
        config: &Rc<Config>,
        policy: &Arc<Policy>,
        mut request: Request,
        passage: Passage,
    ) -> Action {
        let now = self.host.now();
        self.beat_if_late(now);
        at_once::prepare(&mut request, policy);
        if at_once::is_plain(&request, policy) {
            let key = at_once::key_of(&config.namespace, &request, None);
            let local = self.local(&key, now);
            let is_chosen = local.variants.len() > 1;
            if let Some((reply, status)) = at_once::answer(&request, policy, local, now)
                && self.may_answer_unasked(policy, &reply)
            {
                if let (true, Some(stored)) = (is_chosen, &reply.stored) {
                    self.l1.count_use(&key, stored);
                }
                self.reply(id, reply, passage != Passage::Held);
                self.metrics.request(&status);
                return Action::Pause;
            }
        }
        request.is_identified = !request.is_credentialed(policy) && self.is_identified(policy);
        let mut stream = Stream {
            exchange: Exchange::new(policy.clone(), config.namespace.clone()).with_refreshes(config.refresh_path()),
            config: config.clone(),
            policy: policy.clone(),
            root: self.root,
            request: passage,
            response: Passage::Passed,
            content_follows: false,
            before: None,
            replied: false,
            change: None,
            is_head: request.method() == b"HEAD",
            is_cross_origin: request.fields.contains("origin"),
        };
        self.drive_stream(id, &mut stream, Event::Request(request), now);
        if stream.exchange.is_over() {
            return Action::Pause; // answered: nothing to remember
        }
        let action = match stream.request {
            Passage::InCallback(action) => action,
            Passage::Held => Action::Pause,
            Passage::Passed => Action::Continue,
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
        self.forget_route(id);
        self.undecided.remove(&id);
        self.look_back(id);
        let Some(stream) = self.streams.get(&id) else { return };
        if !stream.exchange.is_over() {
            let details = self.host.property(&["response", "code_details"]).unwrap_or_default();
            let origin_broke = details.starts_with(b"upstream_reset_after_response_started");
            if stream.exchange.is_waiting() {
                self.leave_waiting(id);
            }
            let is_redirected = details == b"internal_redirect";
            let now = self.host.now();
            self.drive(id, if is_redirected { Event::Redirected } else { Event::Gone { origin_broke } }, now);
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
                    let effects = stream.exchange.handle(Event::Local(local), now);
                    if let (2.., Some((key, stored))) = (local.variants.len(), stream.exchange.answered_by()) {
                        self.l1.count_use(key, stored);
                    }
                    effects
                }
                Effect::Arrive { key, accept_handed_over, wait_for_refresh, given_up } => {
                    let terms = Terms {
                        accept_handed_over,
                        wait_for_refresh,
                        given_up,
                        invalidated: stream.exchange.key().and_then(|key| self.l1.invalidated_at(key)),
                        ..Terms::until(now.plus_millis(stream.config.lease_ms))
                    };
                    let answer = self.arrive_at_slot(&key, id, terms, now);
                    if matches!(answer, SlotAnswer::Wait(_)) {
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
            Effect::Forward(change) => {
                self.forward(stream, &change);
                if stream.config.refresh_path() == RefreshPath::Straight {
                    stream.change = Some(change);
                }
            }
            Effect::Reply(reply) => {
                stream.replied = true;
                if stream.request != Passage::Passed {
                    self.reply(id, reply, matches!(stream.request, Passage::InCallback(_)));
                    return;
                }
                if stream.content_follows || stream.is_head || reply.content().is_empty() {
                    self.reply_in_place(id, reply);
                    return;
                }
                if let Passage::InCallback(action) = &mut stream.response {
                    // Envoy has been given an answer: what passes ends here.
                    *action = Action::Pause;
                }
                self.reply_past_filters(id, reply);
            }
            Effect::PassResponse(change) => {
                self.pass_response(&change);
                stream.before = change.before;
            }
            Effect::Abort => {
                let _ = self.host.replace_response_body(&[]);
                self.break_off();
            }
            Effect::Keep { key, stored, fence, local_only } => {
                self.keep(&stream.config, &stream.policy, &key, stored.clone(), fence, local_only);
                self.watch_route(id, stream, &stored, now);
            }
            Effect::Publish { key, outcome, uncacheable_until } => {
                self.publish(&key, id, &outcome, &stream.policy, uncacheable_until, now);
            }
            Effect::MarkUncacheable { key, until } => self.l1.mark_uncacheable(&key, until),
            Effect::ReleaseLease { key, fence, uncacheable_ms } => {
                self.tell_store(&stream.config, StoreCall::Release { key, fence, uncacheable_ms });
            }
            Effect::RemindAt(time) => self.reminders.push_back((time, id)),
            Effect::Refresh(order) => {
                let (config, policy) = (stream.config.clone(), stream.policy.clone());
                let straight = if order.way == RefreshPath::Straight { self.picked_cluster() } else { None };
                self.refresh_orders.push_back(Ordered { config, policy, straight, order: *order });
                self.go_on_later();
            }
            Effect::Invalidate(keys) => self.invalidate(&stream.config, &keys, now),
            Effect::InvalidateDoubtful(keys) => self.doubt(&stream.config, keys, now),
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
        let now = self.host.now();
        let from_store = local_only && policy.shared_store;
        let kept = match from_store {
            true => self.l1.put(key, stored.clone(), now),
            false => self.l1.put_fetched(key, stored.clone(), now),
        };
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
        let asks_whole =
            change.validates.as_ref().is_some_and(|stored| !self.may_validate(stored, stream.is_cross_origin));
        for (name, value) in change.set.iter().filter(|_| !asks_whole) {
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

    /// RFC 9111 §4.4, before the client sees its answer: here at once, in the other VMs before their next look-up, in the
    /// store soon. What is on its way from the store meanwhile is known to be older.
    pub(crate) fn invalidate(&mut self, config: &Rc<Config>, keys: &[PrimaryKey], now: Timestamp) {
        for key in keys {
            self.l1.invalidate(key, now, now);
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
