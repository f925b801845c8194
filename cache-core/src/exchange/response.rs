//! The origin has answered, or nobody has: store, freshen, fall back to a stale copy, or let it pass.

use std::sync::Arc;

use super::effect::{Effect, Effects};
use super::event::{Outcome, ResponseSource};
use super::storing::{self, Capture, Captured, Fetched, Purpose};
use super::{Exchange, Fetch, Mark, State};
use crate::cache_status::{CacheStatus, Detail};
use crate::freshness;
use crate::http_time::Timestamp;
use crate::invalidation;
use crate::key::PrimaryKey;
use crate::message::ResponseHead;
use crate::reuse::{self, Failure};
use crate::storability::NotStorable;
use crate::stored_response::StoredResponse;
use crate::validation;

impl Exchange {
    pub(super) fn on_response(
        &mut self,
        head: &ResponseHead,
        source: ResponseSource,
        end: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Forwarded(fetch) => self.on_answer(fetch, head, source, end, now, effects),
            State::Passing { invalidates } => {
                if invalidates && source == ResponseSource::Origin {
                    self.invalidate(head, effects);
                    if self.store_post(head, end, now, effects) {
                        return;
                    }
                }
                if self.mark == Mark::Told {
                    effects.extend(self.pass_on(head, source));
                }
            }
            other => self.state = other,
        }
    }

    fn on_answer(
        &mut self,
        fetch: Fetch,
        head: &ResponseHead,
        source: ResponseSource,
        end: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let failed = source != ResponseSource::Origin || is_server_error(head.status);
        let failure = if source == ResponseSource::Origin { Failure::ErrorStatus } else { Failure::Disconnected };
        if failed && self.fall_back(head.status, failure, end, now, effects) {
            return;
        }
        if source != ResponseSource::Origin {
            effects.extend(self.pass_on(head, source));
            self.finish(Outcome::Failed(gateway_code(head.status, source)), now, effects);
        } else if head.status == 304 && fetch.validates {
            self.on_not_modified(fetch, head, now, effects);
        } else if fetch.may_store {
            self.store_or_pass(fetch, head, end, now, effects);
        } else {
            // HEAD, ranges, credentials: nothing to store, nobody waits.
            if self.is_head() && head.status == 200 {
                self.freshen_by_head(fetch, head, now, effects);
            }
            effects.extend(self.pass_on(head, source));
        }
    }

    /// RFC 9111 §4.3.5: the answer to a HEAD says whether what is stored still holds.
    fn freshen_by_head(&mut self, fetch: Fetch, head: &ResponseHead, now: Timestamp, effects: &mut Effects) {
        let (Some(stale), Some(key)) = (self.candidate.clone(), self.key.clone()) else { return };
        let fresh = validation::freshen_by_head(&stale, head, fetch.request_time, now).ok();
        effects.push(match fresh.and_then(|fresh| self.renewed(&fresh).ok()) {
            Some(fresh) => Effect::Keep { key, stored: Arc::new(fresh), fence: None, local_only: false },
            None => Effect::Invalidate(vec![key]),
        });
    }

    /// Captures the answer to a POST that says that it is what a GET of the same URL would get (RFC 9110 §9.3.3). Says
    /// whether it does.
    fn store_post(&mut self, head: &ResponseHead, end: bool, now: Timestamp, effects: &mut Effects) -> bool {
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
        let Ok(mut response) = storing::judge(&fetched, self.url(), &self.policy) else { return false };
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

    /// Serves the stale copy in place of a failure, where that is allowed (RFC 5861 §4, RFC 9111 §4.2.4).
    fn fall_back(
        &mut self,
        origin_status: u16,
        failure: Failure,
        end: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) -> bool {
        let Some(stale) = self.candidate.clone() else { return false };
        if !reuse::may_serve_on_error(&stale, self.asked.as_ref(), &self.policy, failure, now) {
            return false;
        }
        self.finish(Outcome::StaleOnError(stale.clone()), now, effects);
        if end {
            self.reply_stale(&stale, origin_status, now, effects);
        } else {
            // Swallowing the error's content first keeps the connection to the origin.
            self.state = State::Holding { stale, origin_status };
            effects.push(Effect::HoldResponse);
        }
        true
    }

    fn reply_stale(&self, stale: &Arc<StoredResponse>, origin_status: u16, now: Timestamp, effects: &mut Effects) {
        let status = CacheStatus {
            forward_status: Some(origin_status),
            stale_on_error: true,
            ..CacheStatus::forwarded(self.why)
        };
        let status = status.with_detail(Detail::StaleIfError);
        effects.extend(self.reply_with(stale, status, "larder_stale_if_error", now));
    }

    /// Freshens what is stored and answers with it (RFC 9111 §4.3.3, §4.3.4).
    fn on_not_modified(&mut self, fetch: Fetch, head: &ResponseHead, now: Timestamp, effects: &mut Effects) {
        let Some(stale) = self.candidate.clone() else { return };
        let Ok(fresh) = validation::freshen(&stale, head, fetch.request_time, now) else {
            self.on_unexpected_not_modified(&stale, now, effects);
            return;
        };
        let status = CacheStatus { forward_status: Some(304), ..CacheStatus::forwarded(self.why) };
        match self.renewed(&fresh) {
            Ok(fresh) => {
                let fresh = Arc::new(fresh);
                let status = CacheStatus { stored: true, detail: self.detail, ..status };
                effects.extend(self.reply_with(&fresh, status, "larder_validated", now));
                self.keep(fresh, now, effects);
            }
            Err(why) => {
                let status = status.with_detail(Detail::NotStored(why));
                effects.extend(self.reply_with(&Arc::new(fresh), status, "larder_validated", now));
                if matches!(why, NotStorable::Authorization | NotStorable::Cookie) {
                    // Confirmed to this client; for the others it stays what it was.
                    self.finish(Outcome::Again, now, effects);
                } else {
                    // Confirmed, and from now on not to be stored.
                    effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
                    self.finish(Outcome::Uncacheable, now, effects);
                }
            }
        }
    }

    fn renewed(&self, fresh: &StoredResponse) -> Result<StoredResponse, NotStorable> {
        storing::renewed(fresh, &self.request, self.overriding.as_ref(), &self.policy)
    }

    /// A `304` whose validator is another's: it confirms what was asked about, but must not update anything (RFC 9111
    /// §4.3.4). This request gets the stored response; the next one fetches anew.
    fn on_unexpected_not_modified(&mut self, stale: &Arc<StoredResponse>, now: Timestamp, effects: &mut Effects) {
        let status = CacheStatus { forward_status: Some(304), ..CacheStatus::forwarded(self.why) };
        let status = status.with_detail(Detail::UnexpectedNotModified);
        effects.extend(self.reply_with(stale, status, "larder_unexpected_304", now));
        effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
        self.finish(Outcome::Again, now, effects);
    }

    fn keep(&mut self, stored: Arc<StoredResponse>, now: Timestamp, effects: &mut Effects) {
        if let Some(key) = self.key.clone() {
            // The fence goes with the entry: the write ends the lease.
            let fence = self.fence.take();
            effects.push(Effect::Keep { key, stored: stored.clone(), fence, local_only: false });
        }
        self.finish(Outcome::Fetched(stored), now, effects);
    }

    fn store_or_pass(&mut self, fetch: Fetch, head: &ResponseHead, end: bool, now: Timestamp, effects: &mut Effects) {
        let declared = storing::declared_length(&head.fields);
        let limit = self.policy.max_object_bytes;
        let fetched = Fetched {
            request: &self.request,
            overriding: self.overriding.as_ref(),
            response: head,
            request_time: fetch.request_time,
            response_time: now,
        };
        match storing::judge(&fetched, self.url(), &self.policy) {
            Ok(response) => {
                let ttl = reuse::remaining_millis(&response, now).div_euclid(1000);
                let status = CacheStatus { stored: true, ttl: Some(ttl), ..self.forwarded(head.status) };
                effects.extend(self.pass(&head.fields, None, status));
                self.state = State::Capturing(Capture::new(response, declared, limit, Purpose::Store));
            }
            Err(why) if is_server_error(head.status) && self.leads => {
                let error = storing::error_response(&fetched, &self.policy);
                effects.extend(self.pass(&head.fields, None, self.not_stored(head.status, why)));
                self.state = State::Capturing(Capture::new(error, declared, limit, Purpose::ShareError));
            }
            Err(why) => {
                effects.extend(self.pass(&head.fields, None, self.not_stored(head.status, why)));
                if (200..300).contains(&head.status) && self.candidate.is_some() {
                    // What is stored has been replaced by something that must not be: it is no longer true.
                    effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
                }
                self.finish(Outcome::Uncacheable, now, effects);
            }
        }
        if end {
            self.on_body(&[], true, now, effects);
        }
    }

    fn forwarded(&self, origin_status: u16) -> CacheStatus {
        let status = CacheStatus::forwarded(self.why);
        CacheStatus { forward_status: Some(origin_status), detail: self.detail, ..status }
    }

    fn not_stored(&self, origin_status: u16, why: NotStorable) -> CacheStatus {
        self.forwarded(origin_status).with_detail(self.detail.unwrap_or(Detail::NotStored(why)))
    }

    pub(super) fn on_body(&mut self, chunk: &[u8], end: bool, now: Timestamp, effects: &mut Effects) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Capturing(capture) => match capture.push(chunk, end) {
                Captured::More(capture) => self.state = State::Capturing(capture),
                Captured::TooLarge => self.finish(Outcome::Uncacheable, now, effects),
                Captured::Truncated => self.finish(Outcome::Failed(502), now, effects),
                Captured::Complete(response, Purpose::Store) => self.keep(Arc::new(*response), now, effects),
                Captured::Complete(error, Purpose::ShareError) => {
                    self.finish(Outcome::OriginError(Arc::new(*error)), now, effects);
                }
            },
            State::Holding { stale, origin_status } if end => {
                self.reply_stale(&stale, origin_status, now, effects);
            }
            other => self.state = other,
        }
    }

    /// Lets a response pass that is none of the cache's, and says so; a missing origin is a `502` (design §5).
    fn pass_on(&self, head: &ResponseHead, source: ResponseSource) -> [Effect; 2] {
        let mut status = self.forwarded(head.status);
        let code = match source {
            ResponseSource::NoOrigin => {
                status.detail = Some(Detail::NoOrigin);
                Some(502)
            }
            ResponseSource::Timeout => {
                status.detail = Some(Detail::OriginTimeout);
                None
            }
            ResponseSource::Origin | ResponseSource::Proxy => None,
        };
        if source != ResponseSource::Origin {
            status.forward_status = None;
        }
        self.pass(&head.fields, code, status)
    }

    /// RFC 9111 §4.4: what an unsafe method changed is not served from before.
    fn invalidate(&self, head: &ResponseHead, effects: &mut Effects) {
        let mut keys: Vec<PrimaryKey> = invalidation::targets(&self.request, head)
            .iter()
            .map(|target| PrimaryKey::new(&self.namespace, &target.scheme, &target.authority, &target.path))
            .collect();
        if !keys.is_empty() {
            keys.extend(self.key.clone().filter(|own| !keys.contains(own)));
            effects.push(Effect::Invalidate(keys));
        }
    }
}

/// RFC 5861 §4: the statuses that count as an error.
pub(crate) fn is_server_error(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

fn gateway_code(status: u16, source: ResponseSource) -> u16 {
    if source == ResponseSource::NoOrigin { 502 } else { status }
}
