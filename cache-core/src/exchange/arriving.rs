//! The leader slot has answered: this request leads, waits, or goes on by itself.

use super::event::{Outcome, SlotAnswer};
use super::forward::{forward, forward_uncacheable};
use super::leadership::Leadership;
use super::presented::Presented;
use super::search::{arrive, ask_store};
use super::state::{Search, State, Waiting};
use super::step::Step;
use crate::cache_status::Detail;
use crate::reuse;

pub(super) fn on_slot(
    mut search: Search,
    answer: SlotAnswer,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let wants_lease = !search.slot.is_for_cookies;
    match answer {
        SlotAnswer::Lead => {
            let lead = Leadership::of(search.slot);
            if search
                .known
                .candidate
                .as_ref()
                .is_some_and(|stored| stored.terms.no_cache && stored.part.is_none())
            {
                // The store could only bring what is to be validated all the same (RFC 9111
                // §5.2.2.4).
                forward(search.known, lead, true, presented, step)
            } else {
                ask_store(search, lead, wants_lease, true, presented, step)
            }
        }
        // The one before has asked the store, and may still hold its lease.
        SlotAnswer::Succeed => forward(
            search.known,
            Leadership::of(search.slot),
            true,
            presented,
            step,
        ),
        SlotAnswer::Wait(leader) => State::Waiting(Waiting { search, leader }),
        SlotAnswer::HandedOver(outcome) => on_handed_over(search, outcome, presented, step),
        SlotAnswer::Refreshing => {
            search.behind_refresh = true;
            ask_store(search, Leadership::none(), false, true, presented, step)
        }
        SlotAnswer::Uncacheable(until) => {
            search.slot.mark_uncacheable(until, presented, step);
            forward_uncacheable(search.known, presented, step)
        }
        SlotAnswer::Occupied => {
            // Not collapsed in this Envoy; the store's lease still is one for the fleet.
            search.known.detail = Some(Detail::NotCollapsed);
            ask_store(
                search,
                Leadership::none(),
                wants_lease,
                true,
                presented,
                step,
            )
        }
    }
}

/// Only while it is fresh: a refresh under another slot (that of requests without a cookie) may
/// have replaced what this one remembers, and whoever answers with it stale would go back behind
/// what was served already.
fn on_handed_over(
    mut search: Search,
    outcome: Outcome,
    presented: &Presented,
    step: &mut Step,
) -> State {
    if let Outcome::Fetched(stored) | Outcome::Found(stored) = outcome
        && search.known.is_usable(&stored, presented)
        && reuse::remaining_millis(&stored, step.now) > 0
        && let Some(hit) = search.known.judge(stored, presented, step.now)
    {
        return State::Over {
            answered_by: Some(hit.give(Leadership::none(), presented, step)),
        };
    }
    arrive(search, false, step)
}
