//! What a refresh's steps touch: the leader slot, the store, level 1, the other workers.

use larder_cache_core::collapse::Terms;
use larder_cache_core::collapse::message::Message;
use larder_cache_core::exchange::{CacheCommand, StoreAnswer};
use larder_cache_core::fields::Fields;
use larder_cache_core::message::ResponseHead;
use larder_cache_core::refresh::{Event, Question, Step};
use larder_contract::http_time::Timestamp;
use larder_contract::store_api::Release;

use super::Vm;
use crate::calls::{CallAnswer, Purpose};
use crate::collapsing::AtSlot;
use crate::host::Host;
use crate::metrics;
use crate::refresh::Ordered;
use crate::store_client::StoreCall;

impl<H: Host> Vm<H> {
    /// Begins what has been ordered, as far as it may lead its slot.
    pub(super) fn start_refreshes(&mut self) {
        while let Some((id, ordered)) = self.refreshes.next() {
            let now = self.outside.host.now();
            if !self.lead_refresh(&ordered, id, now) {
                if let Some(fence) = ordered.order.fence.clone() {
                    let key = ordered.order.key.digest();
                    self.tell_store(&ordered.config, StoreCall::Release(Release::of(key, fence)));
                }
                continue;
            }
            self.outside.metrics.event(metrics::REFRESHES);
            let step = self.refreshes.begin(id, ordered, now);
            self.follow_refresh(id, step, now);
        }
    }

    /// Whether the refresh `id` may begin now. If so it leads its slot.
    fn lead_refresh(&mut self, ordered: &Ordered, id: u32, now: Timestamp) -> bool {
        let Ordered {
            config,
            policy,
            order,
            ..
        } = ordered;
        if !self
            .refreshes
            .have_room(order, policy.max_object_bytes, now)
        {
            return false;
        }
        let fetches_whole = order.stored.is_none();
        let terms = Terms {
            only_again: fetches_whole,
            ..Terms::until(now.plus_millis(config.lease_ms))
        };
        let at = AtSlot {
            key: &order.collapse,
            stream: id,
            terms,
        };
        let begins = || !fetches_whole || self.refreshes.begin_whole(now);
        self.collapsing
            .lead_refresh(&self.outside.host, &self.peers, at, begins, now)
    }

    /// Gives a refresh an event, and carries out what follows.
    fn drive_refresh(&mut self, id: u32, event: Event<'_>, now: Timestamp) {
        if let Some(step) = self.refreshes.handle(id, event, now) {
            self.follow_refresh(id, step, now);
        }
    }

    fn follow_refresh(&mut self, id: u32, step: Step, now: Timestamp) {
        let Some(cause) = self.refreshes.cause(id) else {
            return;
        };
        if step.question.is_none() {
            self.refreshes.end(id);
        }
        let mut refreshed = None;
        for command in step.commands {
            if let CacheCommand::Keep { key, .. } = &command {
                refreshed = Some(key.digest());
            }
            if let (Some(handoff), Some(key)) = (self.change(&cause, command, now), &refreshed) {
                // The other workers hold the old one stale and would each begin a refresh of their
                // own.
                self.tell_peers(&Message::Refreshed(*key, handoff), now);
            }
        }
        self.send_outbox();
        match step.question {
            None => {}
            Some(Question::Fetch(fields)) => self.fetch_refresh(id, fields, now),
            Some(Question::AskStore(question)) => {
                if let Err(fault) =
                    self.ask_store(&cause.config, &question, Purpose::RefreshLookUp(id), now)
                {
                    self.on_refresh_look_up(id, StoreAnswer::Fault(fault), now);
                }
            }
        }
    }

    pub(super) fn on_refresh_look_up(&mut self, id: u32, answer: StoreAnswer, now: Timestamp) {
        self.drive_refresh(id, Event::Store(answer), now);
    }

    fn fetch_refresh(&mut self, id: u32, fields: Fields, now: Timestamp) {
        if !self.refreshes.fetch(&mut self.outside, id, fields, now) {
            self.drive_refresh(id, Event::NoResponse, now);
        }
    }

    pub(super) fn on_refresh_fetched(&mut self, id: u32, answer: CallAnswer, now: Timestamp) {
        self.refreshes.note_size(id, &answer, now);
        let CallAnswer {
            status,
            from_upstream,
            fields,
            body,
            ..
        } = answer;
        match body {
            Ok(body) if from_upstream => {
                self.drive_refresh(
                    id,
                    Event::Response(&ResponseHead { status, fields }, &body),
                    now,
                );
            }
            _ => self.drive_refresh(id, Event::NoResponse, now),
        }
    }
}
