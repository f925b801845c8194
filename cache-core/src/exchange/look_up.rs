//! A stored response turns up, from level 1, the store or a handoff: does it answer, and if not, what then?

use std::sync::Arc;

use super::effect::{Effect, Effects, ForwardedRequest, RefreshOrder, StoreQuestion};
use super::event::{Outcome, StoreAnswer};
use super::{Exchange, Fetch, State};
use crate::cache_status::{CacheStatus, Detail, Forward};
use crate::collapse::CollapseKey;
use crate::fields::Fields;
use crate::http_time::Timestamp;
use crate::key::OVERRIDE_FIELD;
use crate::partial;
use crate::preconditions;
use crate::reuse::{self, MustValidate, Reuse};
use crate::stored_response::StoredResponse;
use crate::validation::{self, Validators};
use crate::vary::{self, SelectingFields};

/// What the access log says of a hit.
pub(super) const HIT_DETAILS: &str = "larder_hit";

impl Exchange {
    /// Answers with `stored` if it may be reused; else remembers it for validation. Says whether it answered.
    pub(super) fn try_hit(&mut self, stored: Arc<StoredResponse>, now: Timestamp, effects: &mut Effects) -> bool {
        if self.is_credentialed() && !self.policy.reuse_with_authorization && !stored.explicitly_public {
            self.why = Forward::Request;
            self.detail = Some(Detail::Authorization);
            return false;
        }
        if !partial::covers(&stored, preconditions::ranges(&self.request, &stored), self.policy.max_ranges) {
            self.why = Forward::Partial;
            self.candidate = Some(stored);
            return false;
        }
        if self.distrusted.is_some_and(|time| stored.request_time <= time) {
            self.why = Forward::Stale;
            self.detail = Some(Detail::PurgesUnheard);
            self.candidate = Some(stored);
            return false;
        }
        let hit = CacheStatus { hit: true, ..CacheStatus::default() };
        let (status, refresh) = match reuse::decide(&stored, self.asked.as_ref(), &self.policy, now) {
            Reuse::Fresh => (hit, false),
            Reuse::StaleWhileRevalidate => (hit.with_detail(Detail::StaleWhileRevalidate), true),
            Reuse::MaxStale => (hit.with_detail(Detail::MaxStale), false),
            Reuse::Validate(why) => {
                self.why = if why == MustValidate::Request { Forward::Request } else { Forward::Stale };
                self.candidate = Some(stored);
                return false;
            }
        };
        let replies = self.reply_with(&stored, status, HIT_DETAILS, now);
        effects.extend(replies);
        if refresh {
            self.refresh(&stored, effects);
        }
        self.finish(Outcome::Found(stored), now, effects);
        self.state = State::Over;
        true
    }

    fn refresh(&mut self, stored: &Arc<StoredResponse>, effects: &mut Effects) {
        let Some(key) = self.key.clone() else { return };
        self.set_collapse_key_unless_leading(stored);
        let Some(collapse) = self.collapse_key else { return };
        effects.push(Effect::Refresh(Box::new(RefreshOrder {
            key,
            collapse,
            url: stored.url.clone(),
            stored: Some(stored.clone()),
            path: self.path.clone().unwrap_or_else(|| self.request.path().to_vec()),
            request: self.request.clone(),
            fence: self.fence.take(),
        })));
    }

    fn set_collapse_key_unless_leading(&mut self, stored: &StoredResponse) {
        if !self.leads {
            self.set_collapse_key(Some(&stored.selecting));
        }
    }

    /// Requests collapse by resource, override, and the selecting fields known so far.
    pub(super) fn set_collapse_key(&mut self, known: Option<&SelectingFields>) {
        let mut names: Vec<Vec<u8>> =
            known.map(|known| known.names().map(<[u8]>::to_vec).collect()).unwrap_or_default();
        if !names.iter().any(|name| name == OVERRIDE_FIELD.as_bytes()) {
            names.push(OVERRIDE_FIELD.as_bytes().to_vec());
        }
        let selecting = SelectingFields::of(&names, &self.request).unwrap_or_default();
        self.collapse_key = Some(CollapseKey::new(&self.digest(), &selecting));
    }

    pub(super) fn ask_store(&mut self, lease: bool, storable: bool, now: Timestamp, effects: &mut Effects) {
        self.state = State::Asking { storable };
        if !self.policy.shared_store {
            self.on_store(StoreAnswer::Nothing { uncacheable: false }, now, effects);
            return;
        }
        let presented = vary::presented_selectors(&self.request);
        let wait = self.store_waited;
        effects.push(Effect::AskStore(StoreQuestion { key: self.digest(), presented, lease, wait }));
    }

    pub(super) fn on_store(&mut self, answer: StoreAnswer, now: Timestamp, effects: &mut Effects) {
        let State::Asking { storable } = self.state else { return };
        if !matches!(answer, StoreAnswer::Fault(_)) {
            // The store knows what was purged.
            self.distrusted = None;
        }
        match answer {
            StoreAnswer::Entry(stored) => {
                if self.take_stored(Some(stored), now, effects) {
                    return;
                }
            }
            StoreAnswer::Lease(fence, stale) => {
                self.fence = Some(fence);
                if self.take_stored(stale, now, effects) {
                    return;
                }
            }
            StoreAnswer::Held(stale) => {
                if self.take_stored(stale, now, effects) {
                    return;
                }
                if !std::mem::replace(&mut self.store_waited, true) {
                    self.ask_store(true, storable, now, effects);
                    return;
                }
                self.detail = Some(Detail::WaitTimeout);
            }
            StoreAnswer::Nothing { uncacheable: true } => {
                self.detail = Some(Detail::Uncacheable);
                self.finish(Outcome::Uncacheable, now, effects);
            }
            StoreAnswer::Nothing { uncacheable: false } => {}
            StoreAnswer::Fault(fault) => self.detail = Some(fault.detail()),
        }
        if self.behind_refresh && !self.leads && self.policy.collapse && self.rounds == 0 {
            // Nothing may be served meanwhile: wait for the refresh after all.
            self.rounds += 1;
            self.arrive(true, effects);
            return;
        }
        self.forward(storable, now, effects);
    }

    /// Something from the store: into level 1 if it is news, and into the answer if it may be. Says whether it answered.
    fn take_stored(&mut self, stored: Option<Arc<StoredResponse>>, now: Timestamp, effects: &mut Effects) -> bool {
        let Some(stored) = stored.filter(|stored| self.is_usable(stored)) else { return false };
        let vouched_for = self.detail == Some(Detail::PurgesUnheard);
        let is_news = |known: &Arc<StoredResponse>| {
            known.response_time < stored.response_time || (vouched_for && known.response_time == stored.response_time)
        };
        if !self.candidate.as_ref().is_none_or(is_news) {
            return false;
        }
        if let Some(key) = self.key.clone() {
            effects.push(Effect::Keep { key, stored: stored.clone(), fence: None, local_only: true });
        }
        self.try_hit(stored, now, effects)
    }

    /// Whether it matches this request and was requested after the last invalidation that is remembered.
    pub(super) fn is_usable(&self, stored: &StoredResponse) -> bool {
        self.invalidated.is_none_or(|time| stored.request_time > time) && stored.selecting.matches(&self.request)
    }

    pub(super) fn on_handed_over(&mut self, outcome: Outcome, now: Timestamp, effects: &mut Effects) {
        if let Outcome::Fetched(stored) | Outcome::Found(stored) = outcome
            && self.is_usable(&stored)
            && self.try_hit(stored, now, effects)
        {
            return;
        }
        self.arrive(false, effects);
    }

    /// Sends the request to the origin. `storable` says whether the whole answer is wanted for the cache.
    pub(super) fn forward(&mut self, storable: bool, now: Timestamp, effects: &mut Effects) {
        if self.asked.as_ref().is_some_and(|asked| asked.only_if_cached) {
            let status = CacheStatus::default().with_detail(Detail::OnlyIfCached);
            effects.extend(self.reply_made(504, "nothing stored may answer", status, "larder_only_if_cached"));
            self.finish(Outcome::Again, now, effects);
            self.state = State::Over;
            return;
        }
        let may_store = storable && self.method_is_get() && !self.has_ranges() && !self.is_better_left_conditional();
        let candidate = self.candidate.as_ref().filter(|_| may_store);
        let validators = candidate.filter(|stored| stored.part.is_none()).map(|stored| Validators::of(&stored.fields));
        let limit = self.policy.max_object_bytes;
        let part = candidate.filter(|stored| stored.part.is_some_and(|part| part.complete <= limit));
        let rest = part.and_then(|stored| partial::rest_conditions(stored));
        let mut change = ForwardedRequest { path: self.path.clone(), ..ForwardedRequest::default() };
        if may_store {
            // The client's own conditions would get a 304 that says nothing about what is to be stored.
            let present = validation::PRECONDITIONS.iter().filter(|name| self.request.fields.contains(name));
            change.remove = present.map(|name| name.as_bytes().to_vec()).collect();
        }
        let validates = validators.as_ref().is_some_and(|validators| {
            validation::add_conditionals(validators, &mut change.set);
            !change.set.is_empty()
        });
        let completes = rest.is_some();
        for (name, value) in rest.iter().flat_map(Fields::iter) {
            change.set.append(name, value);
        }
        self.state = State::Forwarded(Fetch { request_time: now, validates, may_store, completes });
        effects.push(Effect::Forward(change));
    }

    /// An answer that will hardly be stored is not asked for in full where the client's own conditions may spare it.
    fn is_better_left_conditional(&self) -> bool {
        let hardly_storable = self.is_credentialed() || self.detail == Some(Detail::Uncacheable);
        let conditional = validation::PRECONDITIONS.iter().any(|name| self.request.fields.contains(name));
        self.candidate.is_none() && hardly_storable && conditional
    }
}
