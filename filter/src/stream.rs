//! One HTTP stream: which Envoy callback becomes which event, and which effect which host call. The only place that
//! pauses and resumes.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::cache_status::DEBUG_FIELD;
use larder_cache_core::collapse::Terms;
use larder_cache_core::exchange::at_once;
use larder_cache_core::exchange::{
    Arrive, CacheCommand, Command, Effects, Event, Exchange, ForwardedRequest, Local, Question, Reply, Setup,
    SlotAnswer, StoreAnswer,
};
use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use larder_cache_core::route::RefreshPath;
use larder_cache_core::validation;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;

use crate::calls::Purpose;
use crate::changes::Cause;
use crate::collapsing::AtSlot;
use crate::config::Config;
use crate::host::{Host, Map};
use crate::refresh::{Ordered, picked_cluster};
use crate::vm::Vm;

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
    pub(crate) fn digest(&self) -> KeyDigest {
        self.exchange.key().digest()
    }

    /// On whose behalf it changes what all share.
    fn cause(&self, id: u32) -> Cause {
        Cause { id, config: self.config.clone(), policy: self.policy.clone() }
    }
}

impl<H: Host> Vm<H> {
    /// A request's head.
    pub fn on_request_headers(&mut self, id: u32, config: &Rc<Config>, end: bool) -> Action {
        self.read_inbox();
        if self.collapsing.has_woken() {
            self.go_on_later();
        }
        let Ok(fields) = self.outside.host.headers(Map::Request) else { return Action::Continue };
        let request = Request { fields, has_content: !end, is_identified: false };
        if request.fields.contains(DEBUG_FIELD) {
            // A secret between the client and this cache, wherever the request goes.
            let _ = self.outside.host.remove_header(Map::Request, DEBUG_FIELD.as_bytes());
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
        let now = self.outside.host.now();
        self.peers.beat_if_late(&self.outside.host, &mut self.l1, now);
        at_once::prepare(&mut request, policy);
        if at_once::is_plain(&request, policy) {
            let key = at_once::key_of(&config.namespace, &request, None);
            let found = self.l1.look_up(&key);
            let local = Local {
                variants: found.variants(),
                distrusted: self.following.distrusted(self.config.as_ref(), now),
                ..Local::default()
            };
            let is_chosen = local.variants.len() > 1;
            if let Some((reply, status)) = at_once::answer(&request, policy, local, now)
                && self.identity.may_answer_unasked(&self.outside.host, policy, &reply)
            {
                if let (true, Some(stored)) = (is_chosen, &reply.stored) {
                    self.l1.count_use(&key, stored);
                }
                self.answers.reply(&self.outside.host, id, reply, passage != Passage::Held);
                self.outside.metrics.request(&status);
                return Action::Pause;
            }
        }
        request.is_identified =
            !request.is_credentialed(policy) && self.identity.is_identified(&self.outside.host, policy);
        let (is_head, is_cross_origin) = (request.method() == b"HEAD", request.fields.contains("origin"));
        let setup =
            Setup { policy: policy.clone(), namespace: config.namespace.clone(), refreshes: config.refresh_path() };
        let (exchange, effects) = Exchange::begin(request, setup, now);
        let mut stream = Stream {
            exchange,
            config: config.clone(),
            policy: policy.clone(),
            root: self.outside.calls.root(),
            request: passage,
            response: Passage::Passed,
            content_follows: false,
            before: None,
            replied: false,
            change: None,
            is_head,
            is_cross_origin,
        };
        self.go_on(id, &mut stream, effects, now);
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
        self.streams.contains_key(&id) || self.answers.is_awaited(id)
    }

    /// The stream is over, whatever the reason.
    pub fn on_done(&mut self, id: u32) {
        self.forget_route(id);
        self.undecided.remove(&id);
        self.answers.end(&self.outside.host, id);
        let Some(stream) = self.streams.get(&id) else { return };
        if !stream.exchange.is_over() {
            let details = self.outside.host.property(&["response", "code_details"]).unwrap_or_default();
            let origin_broke = details.starts_with(b"upstream_reset_after_response_started");
            if stream.exchange.is_waiting() {
                self.collapsing.leave(id);
            }
            let is_redirected = details == b"internal_redirect";
            let now = self.outside.host.now();
            self.drive(id, if is_redirected { Event::Redirected } else { Event::Gone { origin_broke } }, now);
        }
        self.streams.remove(&id);
        self.forget_calls_of(id);
    }

    /// Envoy tells nobody of an answer whose stream is gone; a lease that it may bring is given back.
    fn forget_calls_of(&mut self, id: u32) {
        for call in self.outside.calls.take_look_ups_of(id) {
            self.give_back_lease(call);
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
        self.outside.calls.set_root(stream.root);
        let effects = stream.exchange.handle(event, now);
        self.go_on(id, stream, effects, now);
    }

    /// Carries commands out and answers questions, until there is none or its answer is still to come.
    fn go_on(&mut self, id: u32, stream: &mut Stream, mut effects: Effects, now: Timestamp) {
        loop {
            for command in effects.commands {
                self.carry_out(id, stream, command, now);
            }
            let Some(question) = effects.question else { return };
            let Some(more) = self.answer(id, stream, question, now) else { return };
            effects = more;
        }
    }

    /// What follows from the answer to a question; `None` where it comes later.
    fn answer(&mut self, id: u32, stream: &mut Stream, question: Question, now: Timestamp) -> Option<Effects> {
        let event = match question {
            Question::LookUpLocal => return Some(self.look_up_local(stream, now)),
            Question::Arrive(arrive) => Event::Slot(self.arrive(id, stream, arrive, now)),
            Question::AskStore(question) => {
                let asked = self.ask_store(&stream.config, &question, Purpose::LookUp(id), now);
                Event::Store(StoreAnswer::Fault(asked.err()?))
            }
            Question::Forward(change) => {
                self.forward(stream, &change);
                if stream.config.refresh_path() == RefreshPath::Straight {
                    stream.change = Some(change);
                }
                return None;
            }
        };
        Some(stream.exchange.handle(event, now))
    }

    fn look_up_local(&mut self, stream: &mut Stream, now: Timestamp) -> Effects {
        let found = self.l1.look_up(stream.exchange.key());
        let untrue = self.l1.untrue(|| stream.digest());
        let local = Local {
            variants: found.variants(),
            invalidated: untrue.hard,
            softened: untrue.soft,
            distrusted: self.following.distrusted(self.config.as_ref(), now),
            uncacheable_until: found.uncacheable_until(),
        };
        let is_chosen = local.variants.len() > 1;
        let effects = stream.exchange.handle(Event::Local(local), now);
        if let (true, Some(stored)) = (is_chosen, stream.exchange.answered_by()) {
            self.l1.count_use(stream.exchange.key(), stored);
        }
        effects
    }

    fn arrive(&mut self, id: u32, stream: &Stream, arrive: Arrive, now: Timestamp) -> SlotAnswer {
        let Arrive { key, accept_handed_over, wait_for_refresh, given_up } = arrive;
        let invalidated = self.l1.untrue(|| stream.digest()).hard;
        let until = now.plus_millis(stream.config.lease_ms);
        let terms = Terms { accept_handed_over, wait_for_refresh, given_up, invalidated, ..Terms::until(until) };
        let deadline = now.plus_millis(stream.config.collapse_wait_ms);
        let at = AtSlot { key: &key, stream: id, terms };
        self.collapsing.arrive(&mut self.outside, (&self.peers, &self.l1), at, deadline, now)
    }

    fn carry_out(&mut self, id: u32, stream: &mut Stream, command: Command, now: Timestamp) {
        match command {
            Command::Reply(reply) => self.reply_to(id, stream, reply),
            Command::PassResponse(change) => {
                self.pass_response(&change);
                stream.before = change.before;
            }
            Command::Abort => {
                let _ = self.outside.host.replace_response_body(&[]);
                self.answers.break_off(&self.outside.host);
            }
            Command::RemindAt(time) => self.reminders.push_back((time, id)),
            Command::Refresh(order) => {
                let (config, policy) = (stream.config.clone(), stream.policy.clone());
                let straight =
                    if order.way == RefreshPath::Straight { picked_cluster(&self.outside.host) } else { None };
                self.refreshes.order(Ordered { config, policy, straight, order: *order });
                self.go_on_later();
            }
            Command::Report(status) => self.outside.metrics.request(&status),
            Command::Cache(command) => {
                let kept = if let CacheCommand::Keep { stored, .. } = &command { Some(stored.clone()) } else { None };
                self.change(&stream.cause(id), command, now);
                if let Some(stored) = kept {
                    self.watch_route(id, stream, &stored, now);
                }
            }
        }
    }

    fn reply_to(&mut self, id: u32, stream: &mut Stream, reply: Reply) {
        stream.replied = true;
        if stream.request != Passage::Passed {
            self.answers.reply(&self.outside.host, id, reply, matches!(stream.request, Passage::InCallback(_)));
            return;
        }
        if stream.content_follows || stream.is_head || reply.content().is_empty() {
            self.answers.reply_in_place(&self.outside.host, id, reply);
            return;
        }
        if let Passage::InCallback(action) = &mut stream.response {
            // Envoy has been given an answer: what passes ends here.
            *action = Action::Pause;
        }
        self.answers.reply_past_filters(&self.outside.host, id, reply);
    }

    fn forward(&mut self, stream: &mut Stream, change: &ForwardedRequest) {
        if let Some(path) = &change.path {
            let _ = self.outside.host.set_header(Map::Request, b":path", path);
        }
        for name in &change.remove {
            let _ = self.outside.host.remove_header(Map::Request, name);
        }
        let asks_whole =
            change.validates.as_ref().is_some_and(|stored| !self.answers.may_validate(stored, stream.is_cross_origin));
        // Only the conditions are left out: host and scheme are as the key names them.
        let is_condition = |name: &[u8]| validation::PRECONDITIONS.iter().any(|known| known.as_bytes() == name);
        for (name, value) in change.set.iter().filter(|(name, _)| !(asks_whole && is_condition(name))) {
            let _ = self.outside.host.set_header(Map::Request, name, value);
        }
        match stream.request {
            Passage::InCallback(_) => stream.request = Passage::InCallback(Action::Continue),
            Passage::Held => {
                stream.request = Passage::Passed;
                let _ = self.outside.host.resume_request();
            }
            Passage::Passed => {}
        }
    }
}
