//! A request as Envoy hands it over, and the end of its stream.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::cache_status::DEBUG_FIELD;
use larder_cache_core::exchange::{Begun, Effects, Event, Exchange, Setup};
use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use larder_contract::http_time::Timestamp;

use super::{BATCH, Vm};
use crate::at_hand::RoomsAtHand;
use crate::config::{Config, Picked};
use crate::host::{Host, Map};
use crate::l1::Found;
use crate::stream::{Action, Client, Passage, Stream};
use crate::undecided::HeldRequest;

impl<H: Host> Vm<H> {
    /// A request's head.
    pub fn on_request_headers(&mut self, id: u32, config: &Rc<Config>, end: bool) -> Action {
        self.read_inbox();
        if self.collapsing.has_woken() {
            self.go_on_later();
        }
        let host = &self.outside.host;
        let Ok(fields) = host.headers(Map::Request) else {
            return Action::Continue;
        };
        let request = Request {
            fields,
            has_content: !end,
            is_identified: false,
            reduced: Vec::new(),
        };
        if request.fields.contains(DEBUG_FIELD) {
            // A secret between the client and this cache, wherever the request goes.
            let _ = host.remove_header(Map::Request, DEBUG_FIELD.as_bytes());
        }
        // The route's own policy, where it picks one, else that of the first rule that matches.
        let policy = match config.route_policies.picked(host) {
            Picked::Nothing => config.policy_for(&request),
            Picked::Policy(policy) => Some(policy),
            Picked::Unknown => None,
        };
        let Some(policy) = policy.filter(|policy| policy.cache) else {
            return Action::Continue;
        };
        if request.has_content && self.undecided.is_worth_holding(&request) {
            self.undecided.hold(id, config, policy, request, host.now());
            return Action::Pause;
        }
        self.begin(
            id,
            (config, policy),
            request,
            Passage::InCallback(Action::Pause),
        )
    }

    /// A piece of a request's content.
    pub fn on_request_body(&mut self, id: u32, length: usize, end: bool) -> Action {
        if !self.undecided.see_piece(id) {
            return Action::Continue;
        }
        if length == 0 && !end {
            return Action::Pause;
        }
        self.decide(id, length > 0, Passage::InCallback(Action::Pause))
    }

    /// Trailers of a request. They mean more than no content does.
    pub fn on_request_trailers(&mut self, id: u32) -> Action {
        self.decide(id, true, Passage::InCallback(Action::Pause))
    }

    fn decide(&mut self, id: u32, has_content: bool, passage: Passage) -> Action {
        let Some(held) = self.undecided.decide(id, has_content) else {
            return Action::Continue;
        };
        let HeldRequest {
            config,
            policy,
            request,
            ..
        } = held;
        self.begin(id, (&config, &policy), request, passage)
    }

    /// Lets go on whose content has not come by now.
    pub(super) fn end_overdue_holds(&mut self, now: Timestamp) {
        for id in self.undecided.overdue(now, BATCH) {
            if self.outside.host.set_effective_context(id).is_err() {
                self.undecided.forget(id);
                continue;
            }
            self.undecided.give_up(&self.outside.host);
            self.decide(id, true, Passage::Held);
        }
    }

    /// A request of which all is known that counts.
    fn begin(
        &mut self,
        id: u32,
        (config, policy): (&Rc<Config>, &Arc<Policy>),
        request: Request,
        passage: Passage,
    ) -> Action {
        self.outside.calls.enter(id);
        let host = &self.outside.host;
        let now = host.now();
        self.peers.beat_if_late(host, &mut self.l1, now);
        let client = Client::of(&request);
        let setup = Setup {
            policy: policy.clone(),
            namespace: config.namespace.clone(),
            refreshes: config.refresh_path(),
            rules: config.key_rules().cloned(),
        };
        let mut at_hand = RoomsAtHand {
            host,
            l1: &mut self.l1,
            identity: &mut self.identity,
            policy,
            distrusted: self.following.distrusted(self.config.as_ref(), now),
            found: Found::Nothing,
        };
        let begun = Exchange::begin(request, setup, &mut at_hand, now);
        if policy.share_after > 1
            && let Found::Stored(found) = at_hand.found
        {
            self.share(config, policy, &found);
        }
        let host = &self.outside.host;
        match begun {
            Begun::Answered(reply, status) => {
                self.answers
                    .reply(host, id, reply, passage != Passage::Held);
                self.outside.metrics.request(&status);
                Action::Pause
            }
            Begun::Marked(marked) => {
                self.marked.expect(id, marked);
                if passage == Passage::Held {
                    let _ = host.resume_request();
                }
                Action::Continue
            }
            Begun::Running(exchange, effects) => {
                let root = self.outside.calls.root();
                let stream = Stream::new(exchange, client, (config, policy), root, passage);
                self.run(id, stream, effects, now)
            }
        }
    }

    /// A stream has begun. What Envoy is to do with its request.
    fn run(&mut self, id: u32, mut stream: Stream, effects: Effects, now: Timestamp) -> Action {
        self.go_on(id, &mut stream, effects, now);
        if stream.is_over() {
            return Action::Pause; // answered: nothing to remember
        }
        let action = stream.leave_callback();
        self.streams.keep(id, stream);
        action
    }

    /// Envoy is done with a stream, and its request can be read once more.
    pub fn on_log(&mut self, id: u32) {
        self.outside.calls.enter(id);
        let write = self.watched.on_log(&self.outside.host, &mut self.store, id);
        self.write(write);
    }

    /// The stream is over, whatever the reason.
    pub fn on_done(&mut self, id: u32) {
        self.outside.calls.enter(id);
        let write = self.watched.forget(id);
        self.write(write);
        self.undecided.forget(id);
        self.marked.forget(id);
        self.answers.end(&self.outside.host, id);
        let Some(stream) = self.streams.get(id) else {
            return;
        };
        if !stream.is_over() {
            let details = self
                .outside
                .host
                .property(&["response", "code_details"])
                .unwrap_or_default();
            let origin_broke = details.starts_with(b"upstream_reset_after_response_started");
            if stream.is_waiting() {
                self.collapsing.leave(id);
            }
            let is_redirected = details == b"internal_redirect";
            let now = self.outside.host.now();
            self.drive(
                id,
                if is_redirected {
                    Event::Redirected
                } else {
                    Event::Gone { origin_broke }
                },
                now,
            );
        }
        self.streams.take(id);
        // Envoy tells nobody of an answer whose stream is gone; a lease that it may bring is given
        // back.
        if let Some(call) = self.outside.calls.take_look_up_of(id) {
            self.give_back_lease(call);
        }
    }
}
