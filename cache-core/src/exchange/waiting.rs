//! A request that waited for another's fetch learns how that ended (RFC 9111 §4, collapsed
//! requests).

use std::sync::Arc;

use larder_contract::http_time::Timestamp;

use super::details::Details;
use super::event::Outcome;
use super::forward::{forward, forward_uncacheable};
use super::known::Known;
use super::leadership::Leadership;
use super::presented::Presented;
use super::reply;
use super::search::{arrive, arrive_after, arrive_again, arrive_for_variant};
use super::state::{Search, State, Waiting};
use super::step::Step;
use crate::cache_status::{CacheStatus, Detail, Forward};
use crate::reuse::{self, Failure};
use crate::stored_response::StoredResponse;

/// After so many fetches that failed, the failure is everybody's.
const MAX_FAILED_ROUNDS: u8 = 2;
/// After so many fetches whose answer was for the leader alone, a request goes alone.
const MAX_REFUSED_ROUNDS: u8 = 3;

/// `untrue_since`: when what the fetch brought was invalidated, if it was.
pub(super) fn on_woken(
    waiting: Waiting,
    outcome: Outcome,
    untrue_since: Option<Timestamp>,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let Waiting { mut search, .. } = waiting;
    // Only the last change may be remembered by now; what was known of when this request came
    // counts as well.
    if outcome
        .stored()
        .is_some_and(|stored| search.known.is_invalidated(stored))
        || untrue_since.is_some_and(|time| time <= presented.arrived)
    {
        // Who came after a change must not get what was fetched before it.
        return arrive_again(search, presented, step);
    }
    match outcome {
        Outcome::Fetched(stored) => share(search, &stored, presented, step),
        Outcome::Found(stored) => {
            let usable = search
                .known
                .is_usable(&stored, presented)
                .then(|| stored.clone());
            match usable.and_then(|stored| search.known.judge(stored, presented, step.now)) {
                Some(hit) => State::Over {
                    answered_by: Some(hit.give(Leadership::none(), presented, step)),
                },
                None => arrive_for_variant(search, &stored, presented, step),
            }
        }
        Outcome::StaleOnError(stored) => share_stale(search, &stored, presented, step),
        Outcome::OriginError(_) | Outcome::Failed(_) => {
            share_failure(search, &outcome, presented, step)
        }
        Outcome::NotForOthers { .. } => {
            search.rounds.refused += 1;
            if search.rounds.refused >= MAX_REFUSED_ROUNDS {
                forward(search.known, Leadership::none(), true, presented, step)
            } else {
                arrive_again(search, presented, step)
            }
        }
        Outcome::Uncacheable | Outcome::Unfinished => {
            forward_uncacheable(search.known, presented, step)
        }
        Outcome::NotRefreshed => arrive_again(search, presented, step),
        // Does not count: clients that leave one by one must not send all the others to the origin
        // at once. It ends all the same, for each of these rounds uses up one leader.
        Outcome::Again => arrive(search, true, step),
    }
}

/// The first one whose wait ends takes the leader's place; the others find that one there and wait
/// on.
pub(super) fn on_wait_ended(waiting: Waiting, step: &mut Step) -> State {
    arrive_after(waiting.leader, waiting.search, step)
}

/// A failure may have been the leader's own. So the next one tries, and only what fails twice is
/// everybody's.
fn share_failure(
    mut search: Search,
    outcome: &Outcome,
    presented: &Presented,
    step: &mut Step,
) -> State {
    search.rounds.failed += 1;
    if search.rounds.failed < MAX_FAILED_ROUNDS {
        return arrive_again(search, presented, step);
    }
    match outcome {
        Outcome::OriginError(error) if error.selecting.matches(&presented.request) => {
            let status =
                collapsed(&search.known, Some(error.status)).with_detail(Detail::LeaderFailed);
            step.commands(reply::with(
                presented,
                error,
                status,
                Details::LeaderFailed,
                step.now,
            ));
            State::OVER
        }
        Outcome::Failed(code) => {
            let status = collapsed(&search.known, None).with_detail(Detail::LeaderFailed);
            let reason = "the origin gave no complete answer";
            step.commands(reply::made(
                presented,
                *code,
                reason,
                status,
                Details::LeaderFailed,
            ));
            State::OVER
        }
        _ => arrive_again(search, presented, step),
    }
}

/// The answer was made after this request came, so it answers it whatever its freshness; another
/// variant does not.
fn share(
    search: Search,
    stored: &Arc<StoredResponse>,
    presented: &Presented,
    step: &mut Step,
) -> State {
    if stored.response_time < presented.arrived || !stored.selecting.matches(&presented.request) {
        return arrive_for_variant(search, stored, presented, step);
    }
    let status = collapsed(&search.known, Some(stored.status));
    step.commands(reply::with(
        presented,
        stored,
        status,
        Details::Collapsed,
        step.now,
    ));
    State::OVER
}

fn share_stale(
    search: Search,
    stored: &Arc<StoredResponse>,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let (asked, failure) = (presented.asked.as_ref(), Failure::Disconnected);
    let may_serve = reuse::may_serve_on_error(stored, asked, &presented.policy, failure, step.now);
    if !search.known.is_usable(stored, presented) || !may_serve {
        return share_failure(search, &Outcome::Failed(502), presented, step);
    }
    let status = CacheStatus {
        collapsed: true,
        stale_on_error: true,
        ..CacheStatus::forwarded(Forward::Stale)
    };
    let status = status.with_detail(Detail::StaleIfError);
    step.commands(reply::with(
        presented,
        stored,
        status,
        Details::StaleIfError,
        step.now,
    ));
    State::OVER
}

fn collapsed(known: &Known, origin_status: Option<u16>) -> CacheStatus {
    CacheStatus {
        collapsed: true,
        forward_status: origin_status,
        ..CacheStatus::forwarded(known.why)
    }
}
