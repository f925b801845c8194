//! The origin has answered, or nobody has: store, freshen, fall back to a stale copy, or let it pass.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;
use larder_contract::key::PrimaryKey;

use super::effect::{Effect, Effects};
use super::event::{Outcome, ResponseSource};
use super::{Exchange, Fetch, Mark, State, sharing};
use crate::cache_status::{CacheStatus, Detail};
use crate::invalidation;
use crate::message::ResponseHead;
use crate::reuse::{self, Failure};
use crate::storability::NotStorable;
use crate::stored_response::StoredResponse;
use crate::{partial, preconditions};

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
                if invalidates {
                    self.invalidate(head, source, effects);
                }
                let origin_told = source == ResponseSource::Origin && self.mark == Mark::Told;
                if invalidates && origin_told && self.store_post(head, end, now, effects) {
                    return;
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
        // What the proxy itself says is a failure only if it says so: a refusal or a redirect of its own is an answer.
        let failed = is_server_error(head.status) || !matches!(source, ResponseSource::Origin | ResponseSource::Proxy);
        let failure = if source == ResponseSource::Origin { Failure::ErrorStatus } else { Failure::Disconnected };
        if failed && self.fall_back(head.status, failure, now, effects) {
            return;
        }
        if source != ResponseSource::Origin {
            effects.extend(self.pass_on(head, source));
            self.finish(sharing::outcome_of_no_answer(head.status, source), now, effects);
        } else if head.status == 304 && fetch.validates {
            self.on_not_modified(fetch, head, now, effects);
        } else if fetch.completes && matches!(head.status, 206 | 416) {
            self.begin_rest(fetch, head, end, now, effects);
        } else if fetch.may_store {
            self.store_or_pass(fetch, head, end, now, effects);
        } else {
            // HEAD, ranges, credentials: nothing to store, nobody waits.
            if self.is_head() && head.status == 200 {
                self.freshen_by_head(fetch, head, now, effects);
            } else if head.status == 206 && self.has_ranges() && self.store_part(fetch, head, end, now, effects) {
                return;
            }
            effects.extend(self.pass_on(head, source));
        }
    }

    /// Serves the stale copy in place of a failure, where that is allowed (RFC 5861 §4, RFC 9111 §4.2.4): at once, for the
    /// content of an error may be slow to come.
    fn fall_back(&mut self, origin_status: u16, failure: Failure, now: Timestamp, effects: &mut Effects) -> bool {
        let ranges = |stored: &StoredResponse| preconditions::ranges(&self.request, stored).map(<[u8]>::to_vec);
        let stale = self.candidate.clone();
        let covers =
            |stored: &Arc<StoredResponse>| partial::covers(stored, ranges(stored).as_deref(), self.policy.max_ranges);
        let Some(stale) = stale.filter(covers) else { return false };
        let asked = self.asked.as_ref();
        if !reuse::may_serve_on_error(&stale, asked, &self.policy, failure, now) {
            if reuse::is_stale_on_error_forbidden(&stale, asked, &self.policy, failure, now) {
                self.detail = Some(Detail::StaleForbidden);
            }
            return false;
        }
        self.finish(Outcome::StaleOnError(stale.clone()), now, effects);
        let status = CacheStatus {
            forward_status: Some(origin_status),
            stale_on_error: true,
            ..CacheStatus::forwarded(self.why)
        };
        let status = status.with_detail(Detail::StaleIfError);
        effects.extend(self.reply_with(&stale, status, "larder_stale_if_error", now));
        true
    }

    pub(super) fn forwarded(&self, origin_status: u16) -> CacheStatus {
        let status = CacheStatus::forwarded(self.why);
        CacheStatus { forward_status: Some(origin_status), detail: self.detail, ..status }
    }

    pub(super) fn not_stored(&self, origin_status: u16, why: NotStorable) -> CacheStatus {
        self.forwarded(origin_status).with_detail(self.detail.unwrap_or(Detail::NotStored(why)))
    }

    /// Lets a response pass that is none of the cache's, and says so; a missing origin is a `502` (design §5).
    pub(super) fn pass_on(&self, head: &ResponseHead, source: ResponseSource) -> [Effect; 2] {
        let mut status = self.forwarded(head.status);
        let code = match source {
            ResponseSource::NoOrigin | ResponseSource::Lost => {
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

    /// RFC 9111 §4.4: what an unsafe method changed is not served from before. An answer that was lost says nothing, so
    /// what it may have said counts.
    fn invalidate(&self, head: &ResponseHead, source: ResponseSource, effects: &mut Effects) {
        match source {
            ResponseSource::Origin => {
                let keys = self.keys_of(&invalidation::targets(&self.request, head));
                effects.extend((!keys.is_empty()).then_some(Effect::Invalidate(keys)));
            }
            ResponseSource::Lost | ResponseSource::Timeout => self.doubt(effects),
            // It has not reached the origin.
            ResponseSource::NoOrigin | ResponseSource::Proxy => {}
        }
    }

    /// What was asked for may have happened, or may yet.
    pub(super) fn doubt(&self, effects: &mut Effects) {
        let keys = self.keys_of(invalidation::doubtful_target(&self.request).as_slice());
        effects.extend((!keys.is_empty()).then_some(Effect::InvalidateDoubtful(keys)));
    }

    fn keys_of(&self, targets: &[invalidation::Target]) -> Vec<PrimaryKey> {
        let key = |target: &invalidation::Target| {
            PrimaryKey::new(&self.namespace, &target.scheme, &target.authority, &target.path)
        };
        let mut keys: Vec<PrimaryKey> = targets.iter().map(key).collect();
        if !keys.is_empty() {
            keys.extend(self.key.clone().filter(|own| !keys.contains(own)));
        }
        keys
    }
}

/// RFC 5861 §4: the statuses that count as an error.
pub(crate) fn is_server_error(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}
