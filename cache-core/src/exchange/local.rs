//! Level 1 has answered: does it have what answers the request, and if not, where may the request
//! look?

use std::sync::Arc;

use super::event::Local;
use super::forward::{forward, forward_uncacheable};
use super::known::Known;
use super::leadership::{Leadership, Slot};
use super::presented::Presented;
use super::search::{arrive, ask_store};
use super::state::{Rounds, Search, State};
use super::step::Step;
use crate::cache_status::Detail;
use crate::stored_response::StoredResponse;
use crate::variants;

pub(super) fn on_local(local: Local<'_>, presented: &Presented, step: &mut Step) -> State {
    let mut known = Known::from_local(&local);
    let selected = variants::select(local.variants, &presented.request).cloned();
    if let Some(hit) = selected.and_then(|stored| known.judge(stored, presented, step.now)) {
        return State::Over {
            answered_by: Some(hit.give(Leadership::none(), presented, step)),
        };
    }
    look_further(known, local, presented, step)
}

/// What the request and the policy allow after level 1.
fn look_further(
    mut known: Known,
    local: Local<'_>,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let asked = presented.asked.as_ref();
    let asked_no_cache = asked.is_some_and(|asked| asked.no_cache);
    let only_if_cached = presented.asks_only_if_cached();
    let wants_whole = !(presented.is_head() || only_if_cached || presented.has_ranges());
    // What must not be stored for its own reasons brings nothing to those who would wait for it.
    let asked_no_store = asked.is_some_and(|asked| asked.no_store);
    let alone = asked_no_cache || asked_no_store || presented.is_credentialed();
    let shares = presented.policy.collapse && wants_whole && !alone;
    let is_marked = !presented.is_a_choice_of_the_client()
        && local
            .uncacheable_until
            .is_some_and(|until| step.now < until);
    if shares && is_marked {
        // As the leader slot would say, without the digests that it takes to get there.
        return forward_uncacheable(known, presented, step);
    }
    if !shares && asked_no_cache && !only_if_cached {
        // An answer from before this request would not do, so neither the store nor a leader can
        // help.
        return forward(known, Leadership::none(), true, presented, step);
    }
    if !shares && wants_whole && !alone {
        known.detail = Some(Detail::NotCollapsed);
    }
    let for_cookies = shares && may_be_refused_for_its_cookie(presented, local.variants);
    let slot = Slot::of(presented, known.selecting(), for_cookies);
    let search = Search {
        known,
        slot,
        rounds: Rounds::default(),
        behind_refresh: false,
        store_waits: false,
    };
    if shares {
        arrive(search, true, step)
    } else {
        ask_store(
            search,
            Leadership::none(),
            false,
            wants_whole,
            presented,
            step,
        )
    }
}

/// Whether the answer may turn out not to be for others because of this request's cookie, and of
/// nothing else. What is stored under the key tells that it will not.
fn may_be_refused_for_its_cookie(presented: &Presented, known: &[Arc<StoredResponse>]) -> bool {
    !presented.policy.store_with_cookie
        && presented.request.has_own_cookie(&presented.policy)
        && !known.iter().any(|stored| stored.explicitly_public)
}
