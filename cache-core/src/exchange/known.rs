//! What is known on the way to an answer: the best stored response, and why it does not answer by
//! itself.
//!
//! What this decides: whether a stored response that turns up, from level 1, the store or a
//! handoff, answers this request.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;
use larder_contract::purge::requested::reaches;

use super::details::Details;
use super::effect::Command;
use super::event::{Local, Outcome};
use super::leadership::Leadership;
use super::presented::Presented;
use super::reply;
use super::step::Step;
use crate::cache_status::{CacheStatus, Detail, Forward};
use crate::reuse::{self, MustValidate, Reuse};
use crate::storability::NotStorable;
use crate::stored_response::StoredResponse;
use crate::vary::SelectingFields;
use crate::{partial, preconditions, refresh, route};

/// What is known so far.
#[derive(Debug)]
pub(super) struct Known {
    /// The best stored response; what a validation is about.
    pub(super) candidate: Option<Arc<StoredResponse>>,
    /// Any stored variant: it tells which fields select.
    pub(super) sibling: Option<Arc<StoredResponse>>,
    /// Why the request goes to the origin.
    pub(super) why: Forward,
    /// The same in more detail.
    pub(super) detail: Option<Detail>,
    /// When the key was last invalidated: what was requested until then does not answer.
    invalidated: Option<Timestamp>,
    /// When the key was last purged softly: what was requested until then is stale.
    softened: Option<Timestamp>,
    /// What was requested until then may have been purged without our hearing of it.
    distrusted: Option<Timestamp>,
}

/// A stored response that answers.
#[derive(Debug)]
pub(super) struct Hit {
    stored: Arc<StoredResponse>,
    status: CacheStatus,
    /// Whether it is stale and refreshed in the background (RFC 5861 §3).
    refreshes: bool,
}

impl Known {
    /// Nothing is stored, and the request goes on for this reason.
    pub(super) fn nothing(why: Forward, detail: Option<Detail>) -> Self {
        Self {
            candidate: None,
            sibling: None,
            why,
            detail,
            invalidated: None,
            softened: None,
            distrusted: None,
        }
    }

    /// What level 1 says.
    pub(super) fn from_local(local: &Local<'_>) -> Self {
        let why = if local.variants.is_empty() {
            Forward::UriMiss
        } else {
            Forward::VaryMiss
        };
        let Local {
            invalidated,
            softened,
            distrusted,
            ..
        } = *local;
        let sibling = local.variants.last().cloned();
        Self {
            sibling,
            invalidated,
            softened,
            distrusted,
            ..Self::nothing(why, None)
        }
    }

    /// The fields that are known to select.
    pub(super) fn selecting(&self) -> Option<&SelectingFields> {
        self.sibling.as_ref().map(|stored| &stored.selecting)
    }

    /// The store has answered: it knows what was purged.
    pub(super) fn trust(&mut self) {
        self.distrusted = None;
    }

    /// Whether `stored` was requested before the last invalidation that was remembered when this
    /// request came.
    pub(super) fn is_invalidated(&self, stored: &StoredResponse) -> bool {
        self.invalidated
            .is_some_and(|time| reaches(time, stored.request_time))
    }

    /// Whether `stored` matches this request and was requested after the last invalidation that is
    /// remembered.
    pub(super) fn is_usable(&self, stored: &StoredResponse, presented: &Presented) -> bool {
        !self.is_invalidated(stored) && stored.selecting.matches(&presented.request)
    }

    /// Says whether `stored` answers; else remembers it for validation, and why it does not answer.
    pub(super) fn judge(
        &mut self,
        stored: Arc<StoredResponse>,
        presented: &Presented,
        now: Timestamp,
    ) -> Option<Hit> {
        let stored = self.softened(stored);
        let policy = &presented.policy;
        if presented.is_credentialed()
            && !policy.reuse_with_authorization
            && !stored.explicitly_public
        {
            (self.why, self.detail) = (Forward::Request, Some(Detail::Authorization));
            return None;
        }
        if !partial::covers(
            &stored,
            preconditions::ranges(&presented.request, &stored),
            policy.max_ranges,
        ) {
            return self.remember(stored, Forward::Partial, None);
        }
        if self
            .distrusted
            .is_some_and(|time| reaches(time, stored.request_time))
        {
            return self.remember(stored, Forward::Stale, Some(Detail::PurgesUnheard));
        }
        let hit = CacheStatus {
            hit: true,
            ..CacheStatus::default()
        };
        let (status, refreshes) =
            match reuse::decide(&stored, presented.asked.as_ref(), policy, now) {
                Reuse::Fresh => (hit, false),
                Reuse::MaxStale => (hit.with_detail(Detail::MaxStale), false),
                Reuse::StaleWhileRevalidate => match forbids_refresh(&stored, presented, now) {
                    Some(why) => return self.remember(stored, Forward::Stale, Some(why)),
                    None => (hit.with_detail(Detail::StaleWhileRevalidate), true),
                },
                Reuse::Validate(MustValidate::Stale)
                    if reuse::is_left_alone(&stored, presented.asked.as_ref(), policy, now) =>
                {
                    let status = CacheStatus {
                        stale_on_error: true,
                        ..hit.with_detail(Detail::StaleIfError)
                    };
                    (status, false)
                }
                Reuse::Validate(why) => {
                    let forbidden = why == MustValidate::Stale
                        && reuse::is_stale_use_forbidden(&stored, policy, now);
                    let why = if why == MustValidate::Request {
                        Forward::Request
                    } else {
                        Forward::Stale
                    };
                    return self.remember(stored, why, forbidden.then_some(Detail::StaleForbidden));
                }
            };
        Some(Hit {
            stored,
            status,
            refreshes,
        })
    }

    fn remember(
        &mut self,
        stored: Arc<StoredResponse>,
        why: Forward,
        detail: Option<Detail>,
    ) -> Option<Hit> {
        self.why = why;
        self.detail = detail.or(self.detail);
        self.candidate = Some(stored);
        None
    }

    /// `stored`, stale since the last soft purge if it was requested before: a copy that was handed
    /// over or is on its way has not met the purge yet.
    fn softened(&self, stored: Arc<StoredResponse>) -> Arc<StoredResponse> {
        match self
            .softened
            .filter(|time| reaches(*time, stored.request_time))
        {
            Some(time) => stored.stale_since(time),
            None => stored,
        }
    }

    /// How an answer of the origin with this status is reported.
    pub(super) fn forwarded(&self, origin_status: u16) -> CacheStatus {
        let status = CacheStatus::forwarded(self.why);
        CacheStatus {
            forward_status: Some(origin_status),
            detail: self.detail,
            ..status
        }
    }

    /// The same where it is not stored.
    pub(super) fn not_stored(&self, origin_status: u16, why: NotStorable) -> CacheStatus {
        self.forwarded(origin_status)
            .with_detail(self.detail.unwrap_or(Detail::NotStored(why)))
    }
}

impl Hit {
    /// Answers with it; those who wait for this request get it as well. Returns what has answered.
    pub(super) fn give(
        self,
        mut lead: Leadership,
        presented: &Presented,
        step: &mut Step,
    ) -> Arc<StoredResponse> {
        let Self {
            stored,
            status,
            refreshes,
        } = self;
        step.commands(reply::with(
            presented,
            &stored,
            status,
            Details::Hit,
            step.now,
        ));
        if refreshes {
            step.command(refresh_of(&stored, &mut lead, presented));
        }
        lead.finish(Outcome::Found(stored.clone()), presented, step);
        stored
    }
}

/// Why what may be served stale while it is refreshed is not: a refresh would be another request
/// than this one.
fn forbids_refresh(
    stored: &StoredResponse,
    presented: &Presented,
    now: Timestamp,
) -> Option<Detail> {
    let leaves_out = refresh::leaves_out(&stored.selecting, &presented.request, &presented.policy);
    let left_out = (!presented.is_canonical() || leaves_out).then_some(Detail::NotRefreshed);
    left_out.or_else(|| route::forbids_refresh(stored, presented.refreshes, now))
}

/// The order to refresh `stored`, with the lease if there is one.
fn refresh_of(
    stored: &Arc<StoredResponse>,
    lead: &mut Leadership,
    presented: &Presented,
) -> Command {
    // A refresh carries no cookie, so it is everybody's.
    let collapse = lead
        .shared_slot()
        .unwrap_or_else(|| presented.collapse_key(Some(&stored.selecting)));
    let mut order = presented.refresh_order(stored.url.clone(), stored.selecting.clone(), collapse);
    order.stored = Some(stored.clone());
    order.fence = lead.take_lease();
    Command::Refresh(order)
}
