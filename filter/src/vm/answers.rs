//! Who is handed the answer to a call of our own, and who may ask the store or tell it something.

use std::rc::Rc;

use larder_cache_core::collapse::message::Message;
use larder_cache_core::exchange::{Event, StoreAnswer, StoreFault, StoreQuestion};
use larder_contract::http_time::Timestamp;
use larder_contract::store_api::Release;

use super::Vm;
use crate::calls::{Call, CallAnswer, Purpose};
use crate::config::Config;
use crate::host::Host;
use crate::metrics;
use crate::store_client::{StoreCall, told};
use crate::watched::Write;

impl<H: Host> Vm<H> {
    /// An answer to a call of our own.
    pub fn on_call_response(&mut self, token: u32, num_headers: usize, body_length: usize) {
        if let Some(call) = self.outside.calls.take(token) {
            let answer = CallAnswer::read(&self.outside.host, num_headers, body_length);
            self.on_answer(token, call, answer);
        }
    }

    /// Calls whose root is gone count as failed.
    pub(super) fn fail_lost_calls(&mut self) {
        for (token, call) in self.outside.calls.take_lost() {
            match call.purpose {
                Purpose::Follow => self.following.forget_poll(token),
                _ => self.on_answer(token, call, CallAnswer::none()),
            }
        }
    }

    /// Hands an answer to whoever asked.
    fn on_answer(&mut self, token: u32, call: Call, answer: CallAnswer) {
        let now = self.outside.host.now();
        match call.purpose {
            Purpose::LookUp(stream) => {
                let answer = self.read_look_up(answer, now);
                self.outside
                    .host
                    .record(metrics::STORE_MS, now.millis_since(call.sent));
                self.give_back_unseen(call, &answer);
                self.drive_other(stream, Event::Store(answer));
            }
            Purpose::RefreshLookUp(id) => {
                let answer = self.read_look_up(answer, now);
                self.give_back_unseen(call, &answer);
                self.on_refresh_look_up(id, answer, now);
            }
            Purpose::Follow => self.on_events(token, &answer, now),
            Purpose::RefreshFetch(id) => self.on_refresh_fetched(id, answer, now),
            Purpose::Tell => {
                self.store.on_told(&mut self.outside, call, &answer, now);
            }
            Purpose::Invalidate => self.on_invalidations_told(&answer, now),
        }
    }

    fn on_invalidations_told(&mut self, answer: &CallAnswer, now: Timestamp) {
        let told = told(&mut self.outside, answer, now);
        if self.untold.on_told(&mut self.outside, told, now) {
            self.go_on_later();
        }
    }

    /// What has happened in the fleet takes effect here, and is told to the other workers.
    fn on_events(&mut self, token: u32, answer: &CallAnswer, now: Timestamp) {
        let Some(mut heard) = self
            .following
            .on_events(&mut self.outside, token, answer, now)
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

    fn read_look_up(&mut self, answer: CallAnswer, now: Timestamp) -> StoreAnswer {
        self.store.read_answer(&mut self.outside, answer, now)
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
        }
    }

    pub(super) fn ask_store(
        &mut self,
        config: &Rc<Config>,
        question: &StoreQuestion,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<(), StoreFault> {
        self.store
            .ask(&mut self.outside, config, question, purpose, now)
    }

    /// Tells the store something, soon.
    pub(super) fn tell_store(&mut self, config: &Rc<Config>, call: StoreCall) {
        if self.store.tell(config, call) {
            self.go_on_later();
        }
    }

    /// Tells the store of what need not wait any more.
    pub(super) fn write(&mut self, write: Option<Write>) {
        if let Some((config, call)) = write {
            self.tell_store(&config, call);
        }
    }

    pub(super) fn send_outbox(&mut self) {
        self.store.send_outbox(&mut self.outside);
    }
}
