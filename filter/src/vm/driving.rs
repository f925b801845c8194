//! What an exchange asks and commands, carried out: which question goes to which room, and which
//! command.

use std::sync::Arc;

use larder_cache_core::collapse::Terms;
use larder_cache_core::exchange::{
    Arrive, CacheCommand, Command, Effects, Event, ForwardedRequest, Question, RefreshOrder, Reply,
    SlotAnswer, StoreAnswer,
};
use larder_cache_core::route::RefreshPath;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;

use super::Vm;
use crate::calls::Purpose;
use crate::cause::Cause;
use crate::collapsing::AtSlot;
use crate::host::Host;
use crate::refresh::{Ordered, picked_cluster};
use crate::stream::{Door, Stream};

impl<H: Host> Vm<H> {
    /// Drives a stream that is not the one Envoy is calling about.
    pub(super) fn drive_other(&mut self, stream: u32, event: Event<'_>) {
        if self.outside.host.set_effective_context(stream).is_err() {
            self.streams.take(stream);
            return;
        }
        let now = self.outside.host.now();
        self.drive(stream, event, now);
    }

    /// Gives a stream an event and carries out what follows, until nothing does.
    pub(super) fn drive(&mut self, id: u32, event: Event<'_>, now: Timestamp) {
        let Some(mut stream) = self.streams.take(id) else {
            return;
        };
        self.outside.calls.set_context(stream.root(), id);
        let effects = stream.handle(event, now);
        self.go_on(id, &mut stream, effects, now);
        self.streams.keep(id, stream);
    }

    /// Carries commands out and answers questions, until there is none or its answer is still to
    /// come.
    pub(super) fn go_on(
        &mut self,
        id: u32,
        stream: &mut Stream,
        mut effects: Effects,
        now: Timestamp,
    ) {
        loop {
            for command in effects.commands {
                self.carry_out(id, stream, command, now);
            }
            let Some(question) = effects.question else {
                return;
            };
            let Some(more) = self.answer(id, stream, question, now) else {
                return;
            };
            effects = more;
        }
    }

    /// What follows from the answer to a question; `None` where it comes later.
    fn answer(
        &mut self,
        id: u32,
        stream: &mut Stream,
        question: Question,
        now: Timestamp,
    ) -> Option<Effects> {
        let event = match question {
            Question::Arrive(arrive) => Event::Slot(self.arrive(id, stream, arrive, now)),
            Question::AskStore(question) => {
                let asked = self.ask_store(stream.config(), &question, Purpose::LookUp(id), now);
                Event::Store(StoreAnswer::Fault(asked.err()?))
            }
            Question::Forward(change) => {
                self.forward(stream, change);
                return None;
            }
        };
        Some(stream.handle(event, now))
    }

    fn arrive(&mut self, id: u32, stream: &Stream, arrive: Arrive, now: Timestamp) -> SlotAnswer {
        let Arrive {
            key,
            accept_handed_over,
            wait_for_refresh,
            given_up,
        } = arrive;
        let config = stream.config();
        let (until, deadline) = (
            now.plus_millis(config.lease_ms),
            now.plus_millis(config.collapse_wait_ms),
        );
        let invalidated = self.l1.untrue(|| stream.digest()).hard;
        let terms = Terms {
            accept_handed_over,
            wait_for_refresh,
            given_up,
            invalidated,
            ..Terms::until(until)
        };
        let at = AtSlot {
            key: &key,
            stream: id,
            terms,
        };
        self.collapsing.arrive(
            &mut self.outside,
            (&self.peers, &self.l1),
            at,
            deadline,
            now,
        )
    }

    fn forward(&mut self, stream: &mut Stream, change: ForwardedRequest) {
        let (answers, is_cross_origin) = (&self.answers, stream.is_cross_origin());
        let asks_whole = change
            .validates
            .as_ref()
            .is_some_and(|stored| !answers.may_validate(stored, is_cross_origin));
        stream.forward(&self.outside.host, change, asks_whole);
    }

    fn carry_out(&mut self, id: u32, stream: &mut Stream, command: Command, now: Timestamp) {
        match command {
            Command::Reply(reply) => self.reply(id, stream, reply),
            Command::PassResponse(change) => stream.pass_response(&self.outside.host, change),
            Command::Abort => {
                let _ = self.outside.host.replace_response_body(&[]);
                self.answers.break_off(&self.outside.host);
            }
            Command::RemindAt(time) => self.streams.remind(id, time),
            Command::Refresh(order) => self.order_refresh(id, stream, *order),
            Command::Report(status) => self.outside.metrics.request(&status),
            Command::Cache(command) => {
                let kept = if let CacheCommand::Keep { stored, .. } = &command {
                    Some(stored.clone())
                } else {
                    None
                };
                self.change(&stream.cause(id), command, now);
                if let Some(stored) = kept {
                    self.watch_route(id, stream, &stored, now);
                }
                self.send_outbox();
            }
        }
    }

    fn reply(&mut self, id: u32, stream: &mut Stream, reply: Reply) {
        let host = &self.outside.host;
        match stream.take_reply(&reply) {
            Door::Request { in_callback } => self.answers.reply(host, id, reply, in_callback),
            Door::InPlace => self.answers.reply_in_place(host, id, reply),
            Door::PastFilters => self.answers.reply_past_filters(host, id, reply),
        }
    }

    fn order_refresh(&mut self, id: u32, stream: &Stream, order: RefreshOrder) {
        let straight = if order.way == RefreshPath::Straight {
            picked_cluster(&self.outside.host)
        } else {
            None
        };
        let Cause { config, policy, .. } = stream.cause(id);
        self.refreshes.order(Ordered {
            config,
            policy,
            straight,
            order,
        });
        self.go_on_later();
    }

    fn watch_route(
        &mut self,
        id: u32,
        stream: &Stream,
        stored: &Arc<StoredResponse>,
        now: Timestamp,
    ) {
        let write = self
            .watched
            .watch(&mut self.store, (id, stream), stored, now);
        self.write(write);
    }
}
