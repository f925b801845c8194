//! The request goes to the origin: what it asks for there (RFC 9111 §4.3.1).

use std::sync::Arc;

use super::details::Details;
use super::effect::Question;
use super::event::Outcome;
use super::known::Known;
use super::leadership::Leadership;
use super::presented::Presented;
use super::reply;
use super::state::{AskedFor, Forwarded, Passing, State};
use super::step::Step;
use crate::cache_status::{CacheStatus, Detail, Forward};
use crate::fields::Fields;
use crate::preconditions::{self, Answer};
use crate::stored_response::StoredResponse;
use crate::validation::{self, Validators};
use crate::{invalidation, partial};

/// Sends the request to the origin. `storable` says whether the whole answer is wanted for the
/// cache.
pub(super) fn forward(
    known: Known,
    lead: Leadership,
    storable: bool,
    presented: &Presented,
    step: &mut Step,
) -> State {
    if presented.asks_only_if_cached() {
        let status = CacheStatus::default().with_detail(Detail::OnlyIfCached);
        let reason = "nothing stored may answer";
        step.commands(reply::made(
            presented,
            504,
            reason,
            status,
            Details::OnlyIfCached,
        ));
        lead.finish(Outcome::Again, presented, step);
        return State::OVER;
    }
    let may_store = storable
        && presented.is_get()
        && !presented.has_ranges()
        && !is_better_left_conditional(&known, presented);
    let mut change = presented.reduced_change();
    let asked_for = if may_store {
        // The client's own conditions would get a 304 that says nothing about what is to be stored.
        let present = validation::PRECONDITIONS
            .iter()
            .filter(|name| presented.request.fields.contains(name));
        change
            .remove
            .extend(present.map(|name| name.as_bytes().to_vec()));
        ask_about(
            known.candidate.as_ref(),
            presented.policy.max_object_bytes,
            &mut change.set,
        )
    } else {
        AskedFor::AsClient
    };
    if let AskedFor::Validation(stored) = &asked_for {
        // A client that has it already gets a 304 of its own.
        let answer =
            preconditions::evaluate(&presented.request, stored, presented.policy.max_ranges);
        change.validates = (answer != Answer::NotModified).then(|| stored.clone());
    }
    step.ask(Question::Forward(change));
    State::Forwarded(Forwarded {
        known,
        lead,
        asked_for,
        request_time: step.now,
    })
}

/// Adds the conditions that ask about what is stored.
fn ask_about(candidate: Option<&Arc<StoredResponse>>, limit: u64, set: &mut Fields) -> AskedFor {
    let Some(stored) = candidate else {
        return AskedFor::Whole;
    };
    let unconditional = set.len();
    match stored.part {
        None => {
            validation::add_conditionals(&Validators::of(&stored.fields), set);
            if set.len() > unconditional {
                AskedFor::Validation(stored.clone())
            } else {
                AskedFor::Whole
            }
        }
        Some(part) => match partial::rest_conditions(stored).filter(|_| part.complete <= limit) {
            Some(conditions) => {
                for (name, value) in conditions.iter() {
                    set.append(name, value);
                }
                AskedFor::Rest(stored.clone())
            }
            None => AskedFor::Whole,
        },
    }
}

/// The same for what is known not to be storable.
pub(super) fn forward_uncacheable(
    mut known: Known,
    presented: &Presented,
    step: &mut Step,
) -> State {
    known.detail = Some(Detail::Uncacheable);
    forward(known, Leadership::none(), true, presented, step)
}

/// Lets the request go where it would go without a cache.
pub(super) fn pass_by(
    why: Forward,
    detail: Option<Detail>,
    presented: &Presented,
    step: &mut Step,
) -> State {
    step.ask(Question::Forward(presented.change()));
    let invalidates = invalidation::is_unsafe(presented.request.method());
    State::Passing(Passing {
        known: Known::nothing(why, detail),
        invalidates,
    })
}

/// Keeps the client's conditions where the response is unlikely to be stored: they may spare its
/// content.
fn is_better_left_conditional(known: &Known, presented: &Presented) -> bool {
    let hardly_storable = presented.is_credentialed() || known.detail == Some(Detail::Uncacheable);
    let conditional = validation::PRECONDITIONS
        .iter()
        .any(|name| presented.request.fields.contains(name));
    known.candidate.is_none() && hardly_storable && conditional
}
