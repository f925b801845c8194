//! Who is handed the answer to a call of our own, and who may ask the store or tell it something.

use std::rc::Rc;

use larder_cache_core::collapse::message::Message;
use larder_cache_core::exchange::{Event, StoreAnswer, StoreFault, StoreQuestion};
use larder_contract::http_time::Timestamp;
use larder_contract::store_api::Release;

use super::Vm;
use crate::calls::{Call, CallAnswer, Outside, Purpose, Token};
use crate::config::Config;
use crate::host::Host;
use crate::metrics;
use crate::store_client::{Answered, Came, NoAnswer, StoreCall, StoreClient, told};
use crate::watched::Write;

impl<H: Host> Vm<H> {
    /// An answer to a call of our own.
    pub fn on_call_response(&mut self, token: u32, num_headers: usize, body_length: usize) {
        if let Some(call) = self.outside.calls.take(Token::Call(token)) {
            let answer = CallAnswer::read(&self.outside.host, num_headers, body_length);
            self.on_call_answer(Token::Call(token), call, answer);
        }
    }

    /// A message on a gRPC stream of ours.
    pub fn on_stream_message(&mut self, stream: u32, size: usize) {
        let now = self.outside.host.now();
        let line = self.store.line();
        match line.on_message(&mut self.outside, stream, size, now) {
            Some(Came::Answer(number, answer)) => {
                let token = Token::Frame(number);
                if let Some(call) = self.outside.calls.take(token) {
                    self.on_answer(token, call, Ok(answer));
                }
            }
            Some(Came::Lost) => self.lose_line(),
            None => {}
        }
    }

    /// A gRPC stream of ours has ended, with gRPC's status.
    pub fn on_stream_closed(&mut self, stream: u32, status: u32) {
        let now = self.outside.host.now();
        let line = self.store.line();
        if line.on_closed(&mut self.outside, stream, status, now) {
            self.lose_line();
        }
    }

    /// Whoever asked on the store stream gets no answer.
    pub(super) fn lose_line(&mut self) {
        self.outside.calls.lose_frames();
        self.fail_lost_calls();
    }

    /// Calls whose root is gone, and questions whose stream is, count as failed.
    pub(super) fn fail_lost_calls(&mut self) {
        for (token, call) in self.outside.calls.take_lost() {
            match call.purpose {
                // The next tick asks again: until then this Envoy hears of no purge.
                Purpose::Follow => self.following.forget_poll(token),
                _ => self.on_call_answer(token, call, CallAnswer::none()),
            }
        }
    }

    /// Questions on the store stream have no deadline of their own.
    pub(super) fn end_overdue_questions(&mut self, now: Timestamp) {
        for (token, call) in self.outside.calls.take_overdue(now) {
            self.on_answer(token, call, Err(NoAnswer::Timeout));
        }
    }

    fn on_call_answer(&mut self, token: Token, call: Call, answer: CallAnswer) {
        if let Purpose::RefreshFetch(id) = call.purpose {
            let now = self.outside.host.now();
            self.on_refresh_fetched(id, answer, now);
        } else {
            let answered = StoreClient::read_call(&call, answer);
            self.on_answer(token, call, answered);
        }
    }

    /// Hands the sidecar's answer to whoever asked.
    fn on_answer(&mut self, token: Token, call: Call, answered: Answered) {
        let now = self.outside.host.now();
        match call.purpose {
            Purpose::LookUp(stream) => {
                let answer = self.read_look_up(answered, now);
                self.outside
                    .host
                    .record(metrics::STORE_MS, now.millis_since(call.sent));
                self.give_back_unseen(call, &answer);
                self.drive_other(stream, Event::Store(answer));
            }
            Purpose::RefreshLookUp(id) => {
                let answer = self.read_look_up(answered, now);
                self.give_back_unseen(call, &answer);
                self.on_refresh_look_up(id, answer, now);
            }
            Purpose::Follow => self.on_events(token, answered, now),
            Purpose::Tell => {
                self.store.on_told(&mut self.outside, call, &answered, now);
            }
            Purpose::Invalidate => self.on_invalidations_told(&answered, now),
            // Its answer is an origin's.
            Purpose::RefreshFetch(_) => {}
        }
    }

    fn on_invalidations_told(&mut self, answered: &Answered, now: Timestamp) {
        let told = told(&mut self.outside, answered, now);
        if self.untold.on_told(&mut self.outside, told, now) {
            self.go_on_later();
        }
    }

    /// What has happened in the fleet takes effect here, and is told to the other workers.
    fn on_events(&mut self, token: Token, answered: Answered, now: Timestamp) {
        let Some(mut heard) = self
            .following
            .on_events(&mut self.outside, token, answered, now)
        else {
            return;
        };
        if heard.missed {
            self.outside.host.log(
                log::Level::Info,
                "larder: purges may have been missed; level 1 is emptied",
            );
            self.l1.clear(now, now);
            self.tell_peers(&Message::Forget(now), now);
        }
        for purge in &heard.purges {
            self.outside.metrics.event(metrics::PURGES);
            self.l1.purge(purge, now);
        }
        if !heard.purges.is_empty() {
            self.tell_peers(&Message::Purges(std::mem::take(&mut heard.purges)), now);
        }
        self.following.go_on(
            &mut self.outside,
            &mut self.store,
            self.config.as_ref(),
            heard,
            now,
        );
    }

    fn read_look_up(&mut self, answered: Answered, now: Timestamp) -> StoreAnswer {
        self.store.read_answer(&mut self.outside, answered, now)
    }

    /// A look-up that timed out may have been given the lease all the same; nobody must wait for it
    /// to lapse.
    fn give_back_unseen(&mut self, call: Call, answer: &StoreAnswer) {
        if let StoreAnswer::Fault(_) = answer {
            self.give_back_lease(call);
        }
    }

    /// Gives back the lease that a call may have been given.
    pub(super) fn give_back_lease(&mut self, call: Call) {
        if let Some((key, fence)) = call.holds {
            self.tell_store(&call.config, StoreCall::Release(Release::of(key, fence)));
            self.send_outbox();
        }
    }

    pub(super) fn ask_store(
        &mut self,
        config: &Rc<Config>,
        question: &StoreQuestion,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<(), StoreFault> {
        let asked = self
            .store
            .ask(&mut self.outside, config, question, purpose, now)?;
        if let Token::Frame(_) = asked {
            let Outside { calls, host, .. } = &self.outside;
            self.quick_ticks.on_asked(calls, host, now);
        }
        Ok(())
    }

    /// Tells the store something, at the next [`Self::send_outbox`].
    pub(super) fn tell_store(&mut self, config: &Rc<Config>, call: StoreCall) {
        self.store.tell(config, call);
    }

    /// Tells the store of what need not wait any more.
    pub(super) fn write(&mut self, write: Option<Write>) {
        if let Some((config, call)) = write {
            self.tell_store(&config, call);
            self.send_outbox();
        }
    }

    /// Sends what the store is to be told. Envoy makes calls on the root context's behalf, so none
    /// ends with the stream that is called about.
    pub(super) fn send_outbox(&mut self) {
        self.store.send_outbox(&mut self.outside);
    }
}
