//! An answer that may be stored, on its way to the client: judged by its head, captured as its content passes.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;

use super::effect::{Effect, Effects};
use super::event::Outcome;
use super::sharing::ForOthers;
use super::storing::{self, Capture, Captured, Fetched, Purpose};
use super::{Exchange, Fetch, State};
use crate::cache_status::CacheStatus;
use crate::message::ResponseHead;
use crate::storability::NotStorable;
use crate::stored_response::StoredResponse;
use crate::{freshness, invalidation, reuse};

/// Content whose length was not declared and that has no end so long after its head keeps nobody waiting, in milliseconds.
const UNFINISHED_AFTER_MS: u64 = 2_000;

impl Exchange {
    pub(super) fn store_or_pass(
        &mut self,
        fetch: Fetch,
        head: &ResponseHead,
        end: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let declared = storing::declared_length(&head.fields);
        let limit = self.policy.max_object_bytes;
        let fetched = Fetched {
            request: &self.request,
            overriding: self.overriding.as_ref(),
            response: head,
            request_time: fetch.request_time,
            response_time: now,
        };
        match storing::judge(&fetched, || self.url(), &self.policy) {
            Ok(response) => {
                let ttl = reuse::ttl(&response, now);
                let status = CacheStatus { stored: true, ttl: Some(ttl), ..self.forwarded(head.status) };
                effects.extend(self.pass(&head.fields, None, status));
                self.state = State::Capturing(Capture::new(response, declared, limit, Purpose::Store));
            }
            Err(why) => {
                let for_others = self.for_others(&fetched, why);
                effects.extend(self.pass(&head.fields, None, self.not_stored(head.status, why)));
                match for_others {
                    ForOthers::Error(error) if self.leads => {
                        self.state = State::Capturing(Capture::new(*error, declared, limit, Purpose::ShareError));
                    }
                    for_others => self.end_unstored(head.status, why, &for_others, now, effects),
                }
            }
        }
        if end {
            self.on_body(&[], true, now, effects);
        } else if self.leads && declared.is_none() {
            effects.push(Effect::RemindAt(now.plus_millis(UNFINISHED_AFTER_MS)));
        }
    }

    fn end_unstored(
        &mut self,
        status: u16,
        why: NotStorable,
        for_others: &ForOthers,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let outcome = match for_others {
            ForOthers::Nothing => Outcome::NotForOthers { counts: false },
            ForOthers::Error(_) | ForOthers::NotThis => Outcome::NotForOthers { counts: true },
            ForOthers::NeverItsLike | ForOthers::NeverAny => Outcome::Uncacheable,
        };
        let speaks_of_key = matches!(for_others, ForOthers::NeverAny);
        let ends = invalidation::ends_what_is_stored(status) && self.is_said_to_all(why);
        if speaks_of_key && ends && self.candidate.is_some() {
            // What is stored is gone, or replaced by something that must not be: it is no longer true.
            effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
        }
        self.finish(outcome, now, effects);
    }

    /// So long after the head.
    pub(super) fn on_time_passed(&mut self, now: Timestamp, effects: &mut Effects) {
        if self.leads && matches!(self.state, State::Capturing(_)) {
            // The capture goes on: should there be an end, what came is stored all the same.
            self.finish(Outcome::Unfinished, now, effects);
        }
    }

    /// Captures the answer to a POST that says that it is what a GET of the same URL would get (RFC 9110 §9.3.3). Says
    /// whether it does.
    pub(super) fn store_post(&mut self, head: &ResponseHead, end: bool, now: Timestamp, effects: &mut Effects) -> bool {
        let own_url = || invalidation::content_location(&self.request, head).as_deref() == Some(self.request.path());
        if !self.policy.store_post || self.request.method() != b"POST" || head.status != 200 || !own_url() {
            return false;
        }
        let mut as_get = self.request.clone();
        as_get.fields.set(b":method", b"GET");
        let fetched = Fetched {
            request: &as_get,
            overriding: self.overriding.as_ref(),
            response: head,
            request_time: self.arrived,
            response_time: now,
        };
        let Ok(mut response) = storing::judge(&fetched, || self.url(), &self.policy) else { return false };
        if !freshness::is_explicit(head, &self.policy) {
            return false;
        }
        // It was made by the change that has just invalidated everything older.
        response.request_time = now.plus_millis(1);
        let status = CacheStatus { stored: true, ..self.forwarded(head.status) };
        effects.extend(self.pass(&head.fields, None, status));
        let declared = storing::declared_length(&head.fields);
        let limit = self.policy.max_object_bytes;
        self.state = State::Capturing(Capture::new(response, declared, limit, Purpose::Store));
        if end {
            self.on_body(&[], true, now, effects);
        }
        true
    }

    pub(super) fn on_body(&mut self, chunk: &[u8], end: bool, now: Timestamp, effects: &mut Effects) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Capturing(capture) => match capture.push(chunk, end) {
                Captured::More(capture) => self.state = State::Capturing(capture),
                Captured::TooLarge(Purpose::ShareError) => {
                    self.finish(Outcome::NotForOthers { counts: true }, now, effects);
                }
                Captured::TooLarge(_) => self.finish(Outcome::Uncacheable, now, effects),
                Captured::Truncated => self.finish(Outcome::Failed(502), now, effects),
                Captured::Complete(response, Purpose::Store) => self.keep(Arc::new(*response), now, effects),
                Captured::Complete(part, Purpose::StorePart(_)) => self.keep_part(*part, effects),
                Captured::Complete(error, Purpose::ShareError) => {
                    self.finish(Outcome::OriginError(Arc::new(*error)), now, effects);
                }
            },
            State::Completing(rest) => self.on_rest(rest, chunk, end, now, effects),
            other => self.state = other,
        }
    }

    pub(super) fn keep(&mut self, stored: Arc<StoredResponse>, now: Timestamp, effects: &mut Effects) {
        if let Some(key) = self.key.clone() {
            // The fence goes with the entry: the write ends the lease.
            let fence = self.fence.take();
            effects.push(Effect::keep(&self.policy, key, stored.clone(), fence));
        }
        self.finish(Outcome::Fetched(stored), now, effects);
    }
}
