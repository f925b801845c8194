//! The origin has confirmed what is stored: a `304` to our own conditions, or the answer to a HEAD.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;

use super::effect::{Effect, Effects};
use super::event::Outcome;
use super::{Exchange, Fetch, storing};
use crate::cache_status::{CacheStatus, Detail};
use crate::message::ResponseHead;
use crate::storability::NotStorable;
use crate::stored_response::StoredResponse;
use crate::validation;

impl Exchange {
    /// Freshens what is stored and answers with it (RFC 9111 §4.3.3, §4.3.4).
    pub(super) fn on_not_modified(&mut self, fetch: Fetch, head: &ResponseHead, now: Timestamp, effects: &mut Effects) {
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
                if self.is_worth_keeping(&stale, &fresh, now) {
                    self.keep(fresh, now, effects);
                } else {
                    self.finish(Outcome::Fetched(fresh), now, effects);
                }
            }
            Err(why) => {
                let status = status.with_detail(Detail::NotStored(why));
                effects.extend(self.reply_with(&Arc::new(fresh), status, "larder_validated", now));
                if why.lies_in_the_request() || self.request.is_one_clients(&self.policy) {
                    // Confirmed to this client; for the others it stays what it was.
                    self.finish(Outcome::NotForOthers { counts: false }, now, effects);
                    return;
                }
                if self.is_said_to_all(why) {
                    // Confirmed, and from now on not to be stored.
                    effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
                }
                self.finish(Outcome::Uncacheable, now, effects);
            }
        }
    }

    /// Whether an answer that is not stored, for this reason, speaks of what is stored for everybody: what one client's
    /// cookie or credentials brought about never takes that away.
    pub(super) fn is_said_to_all(&self, why: NotStorable) -> bool {
        why.is_said_by_the_response() && !self.request.is_one_clients(&self.policy)
    }

    /// What is validated before every use (RFC 9111 §5.2.2.4) gains nothing by newer times alone: its content is not
    /// written anew for each request, only before the store would forget it.
    fn is_worth_keeping(&self, held: &StoredResponse, fresh: &StoredResponse, now: Timestamp) -> bool {
        let same_but_for_times = held.terms == fresh.terms
            && held.selecting == fresh.selecting
            && held.tags == fresh.tags
            && held.explicitly_public == fresh.explicitly_public
            && held.fields.same_but_for("date", &fresh.fields);
        let is_recent = now.millis_since(held.response_time) < self.policy.keep.as_millis() / 2;
        !(fresh.terms.no_cache && same_but_for_times && is_recent)
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
        if !self.request.is_one_clients(&self.policy) {
            effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
        }
        self.finish(Outcome::Again, now, effects);
    }

    /// RFC 9111 §4.3.5: the answer to a HEAD says whether what is stored still holds.
    pub(super) fn freshen_by_head(&mut self, fetch: Fetch, head: &ResponseHead, now: Timestamp, effects: &mut Effects) {
        let stale = self.candidate.clone().filter(|stored| stored.part.is_none());
        let (Some(stale), Some(key)) = (stale, self.key.clone()) else { return };
        if self.request.is_one_clients(&self.policy) {
            // What this client would get may be another thing than what is stored for everybody.
            return;
        }
        let Ok(fresh) = validation::freshen_by_head(&stale, head, fetch.request_time, now) else {
            effects.push(Effect::Invalidate(vec![key]));
            return;
        };
        match self.renewed(&fresh) {
            Ok(fresh) => effects.push(Effect::keep(&self.policy, key, Arc::new(fresh), None)),
            Err(why) if self.is_said_to_all(why) => effects.push(Effect::Invalidate(vec![key])),
            Err(_) => {}
        }
    }
}
