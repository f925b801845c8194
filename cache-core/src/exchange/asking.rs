//! The store has answered: what it has answers, is validated, or is fetched under its lease.

use std::sync::Arc;

use super::effect::CacheCommand;
use super::event::{Outcome, StoreAnswer};
use super::known::{Hit, Known};
use super::leadership::Leadership;
use super::presented::Presented;
use super::search::{ask_store, go_on_without};
use super::state::{Asking, State};
use super::step::Step;
use crate::cache_status::Detail;
use crate::stored_response::StoredResponse;

pub(super) fn on_store(
    asking: Asking,
    answer: StoreAnswer,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let Asking {
        mut search,
        mut lead,
        storable,
    } = asking;
    if !matches!(answer, StoreAnswer::Fault(_)) {
        search.known.trust();
    }
    let (found, is_held) = match answer {
        StoreAnswer::Entry(stored) => (Some(stored), false),
        StoreAnswer::Lease(fence, stale) => {
            lead = lead.with_lease(fence);
            (stale, false)
        }
        StoreAnswer::Held(stale) => (stale, true),
        StoreAnswer::Nothing { uncacheable: true } => {
            search.known.detail = Some(Detail::Uncacheable);
            lead.finish(Outcome::Uncacheable, presented, step);
            return go_on_without(search, Leadership::none(), storable, presented, step);
        }
        StoreAnswer::Nothing { uncacheable: false } => (None, false),
        StoreAnswer::Fault(fault) => {
            search.known.detail = Some(fault.detail());
            (None, false)
        }
    };
    if let Some(hit) = found.and_then(|stored| take(stored, &mut search.known, presented, step)) {
        return State::Over {
            answered_by: Some(hit.give(lead, presented, step)),
        };
    }
    if is_held {
        if !search.store_waits {
            search.store_waits = true;
            return ask_store(search, lead, true, storable, presented, step);
        }
        search.known.detail = Some(Detail::WaitTimeout);
    }
    go_on_without(search, lead, storable, presented, step)
}

/// Keeps what the store has in level 1 if it is newer than what is known, and says whether it
/// answers.
fn take(
    stored: Arc<StoredResponse>,
    known: &mut Known,
    presented: &Presented,
    step: &mut Step,
) -> Option<Hit> {
    if !known.is_usable(&stored, presented) {
        return None;
    }
    // Once the store has vouched for it, the very response that was distrusted may answer.
    let vouched_for = known.detail == Some(Detail::PurgesUnheard);
    let is_known = |held: &Arc<StoredResponse>| {
        let is_the_same = held.response_time == stored.response_time;
        !(is_news(held, &stored) || vouched_for && is_the_same)
    };
    if known.candidate.as_ref().is_some_and(is_known) {
        return None;
    }
    let (key, fence) = (presented.key.clone(), None);
    step.cache(CacheCommand::Keep {
        key,
        stored: stored.clone(),
        fence,
        local_only: true,
    });
    known.judge(stored, presented, step.now)
}

/// Whether what the store has is newer than what is known; or as old, and tells of its route what
/// was not seen yet when the other was handed over.
fn is_news(known: &StoredResponse, stored: &StoredResponse) -> bool {
    let tells_more = known.route.seen().is_none() && stored.route.seen().is_some();
    known.response_time < stored.response_time
        || (known.response_time == stored.response_time && tells_more)
}
