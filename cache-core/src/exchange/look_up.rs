//! A stored response turns up, from level 1, the store or a handoff: does it answer, and if not, what then?

use std::sync::Arc;

use larder_contract::http_time::Timestamp;
use larder_contract::key::ALWAYS_SELECTING;

use super::effect::{Effect, Effects, RefreshOrder, StoreQuestion};
use super::event::{Outcome, StoreAnswer};
use super::{Exchange, Fetch, State};
use crate::cache_status::{CacheStatus, Detail, Forward};
use crate::collapse::CollapseKey;
use crate::fields::Fields;
use crate::partial;
use crate::preconditions::{self, Answer};
use crate::refresh;
use crate::reuse::{self, MustValidate, Reuse};
use crate::route;
use crate::stored_response::StoredResponse;
use crate::validation::{self, Validators};
use crate::vary::{self, SelectingFields};

/// What the access log says of a hit.
pub(super) const HIT_DETAILS: &str = "larder_hit";

/// Whether what the store has is newer than what is known; or as old, and tells of its route what was not seen yet when
/// the other was handed over.
fn is_news(known: &StoredResponse, stored: &StoredResponse) -> bool {
    let tells_more = known.route.seen().is_none() && stored.route.seen().is_some();
    known.response_time < stored.response_time || (known.response_time == stored.response_time && tells_more)
}

impl Exchange {
    /// Answers with `stored` if it may be reused; else remembers it for validation. Says whether it answered.
    pub(super) fn try_hit(&mut self, stored: Arc<StoredResponse>, now: Timestamp, effects: &mut Effects) -> bool {
        let stored = self.softened(stored);
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
        let is_refreshable =
            self.adjusted.set.is_empty() && !refresh::leaves_out(&stored.selecting, &self.request, &self.policy);
        let (status, refreshes) = match reuse::decide(&stored, self.asked.as_ref(), &self.policy, now) {
            Reuse::Fresh => (hit, false),
            Reuse::StaleWhileRevalidate => {
                let left_out = (!is_refreshable).then_some(Detail::NotRefreshed);
                if let Some(why) = left_out.or_else(|| route::forbids_refresh(&stored, self.refreshes, now)) {
                    self.why = Forward::Stale;
                    self.detail = Some(why);
                    self.candidate = Some(stored);
                    return false;
                }
                (hit.with_detail(Detail::StaleWhileRevalidate), true)
            }
            Reuse::MaxStale => (hit.with_detail(Detail::MaxStale), false),
            Reuse::Validate(why) => {
                self.why = if why == MustValidate::Request { Forward::Request } else { Forward::Stale };
                if why == MustValidate::Stale && reuse::is_stale_use_forbidden(&stored, &self.policy, now) {
                    self.detail = Some(Detail::StaleForbidden);
                }
                self.candidate = Some(stored);
                return false;
            }
        };
        let replies = self.reply_with(&stored, status, HIT_DETAILS, now);
        effects.extend(replies);
        if refreshes {
            self.refresh(&stored, effects);
        }
        self.answered_by = Some(stored.clone());
        self.finish(Outcome::Found(stored), now, effects);
        self.state = State::Over;
        true
    }

    /// `stored`, stale since the last soft purge if it was requested before: a copy that was handed over or is on its way
    /// has not met the purge yet.
    fn softened(&self, stored: Arc<StoredResponse>) -> Arc<StoredResponse> {
        match self.softened.filter(|time| stored.request_time <= *time) {
            Some(time) if stored.stale_from.is_none_or(|known| known > time) => {
                Arc::new(StoredResponse { stale_from: Some(time), ..(*stored).clone() })
            }
            _ => stored,
        }
    }

    fn refresh(&mut self, stored: &Arc<StoredResponse>, effects: &mut Effects) {
        let Some(key) = self.key.clone() else { return };
        // A refresh carries no cookie, so it is everybody's.
        let led = self.collapse_key.filter(|_| self.leads && !self.has_own_slot);
        let collapse = led.unwrap_or_else(|| self.shared_key(Some(&stored.selecting)));
        effects.push(Effect::Refresh(Box::new(RefreshOrder {
            key,
            collapse,
            url: stored.url.clone(),
            selecting: stored.selecting.clone(),
            stored: Some(stored.clone()),
            path: self.path.clone().unwrap_or_else(|| self.request.path().to_vec()),
            request: self.request.clone(),
            fence: self.fence.take(),
            way: self.refreshes,
        })));
    }

    /// Requests collapse by resource, override, and the selecting fields known so far; those with a cookie of their own
    /// among themselves.
    pub(super) fn set_collapse_key(&mut self, known: Option<&SelectingFields>) {
        let shared = self.shared_key(known);
        self.collapse_key = Some(if self.has_own_slot { shared.with_cookie() } else { shared });
    }

    fn shared_key(&mut self, known: Option<&SelectingFields>) -> CollapseKey {
        let mut names: Vec<Vec<u8>> =
            known.map(|known| known.names().map(<[u8]>::to_vec).collect()).unwrap_or_default();
        for always in ALWAYS_SELECTING.map(str::as_bytes) {
            if !names.iter().any(|name| name == always) {
                names.push(always.to_vec());
            }
        }
        let selecting = SelectingFields::of(&names, &self.request).unwrap_or_default();
        CollapseKey::new(&self.digest(), &selecting)
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
        // Once the store has vouched for it, the very response that was distrusted may answer.
        let vouched_for = self.detail == Some(Detail::PurgesUnheard);
        let is_known = |known: &Arc<StoredResponse>| {
            let is_the_same = known.response_time == stored.response_time;
            !(is_news(known, &stored) || vouched_for && is_the_same)
        };
        if self.candidate.as_ref().is_some_and(is_known) {
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

    /// Only while it is fresh: a refresh under another slot (that of requests without a cookie) may have replaced what this
    /// one remembers, and whoever answers with it stale would go back behind what was served already.
    pub(super) fn on_handed_over(&mut self, outcome: Outcome, now: Timestamp, effects: &mut Effects) {
        if let Outcome::Fetched(stored) | Outcome::Found(stored) = outcome
            && self.is_usable(&stored)
            && reuse::remaining_millis(&stored, now) > 0
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
        let mut change = self.change();
        let unconditional = change.set.len();
        if may_store {
            // The client's own conditions would get a 304 that says nothing about what is to be stored.
            let present = validation::PRECONDITIONS.iter().filter(|name| self.request.fields.contains(name));
            change.remove.extend(present.map(|name| name.as_bytes().to_vec()));
        }
        let validates = validators.as_ref().is_some_and(|validators| {
            validation::add_conditionals(validators, &mut change.set);
            change.set.len() > unconditional
        });
        // A client that has it already gets a 304 of its own.
        let has_it = |stored: &Arc<StoredResponse>| {
            preconditions::evaluate(&self.request, stored, self.policy.max_ranges) == Answer::NotModified
        };
        change.validates = candidate.filter(|stored| validates && !has_it(stored)).cloned();
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
