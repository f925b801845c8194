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

#[cfg(test)]
mod tests {
    use larder_contract::http_time::{DeltaSeconds, Timestamp};
    use larder_contract::store_api::Fence;

    use super::*;
    use crate::exchange::{
        Command, Effects, Event, Exchange, Local, Question, Setup, SlotAnswer, StoreQuestion,
    };
    use crate::message::Request;
    use crate::policy::Policy;
    use crate::route::RefreshPath;
    use crate::vary::SelectingFields;

    fn asking(name: &str, value: &str) -> Request {
        Request::new("GET", "a.example", "/").with(name, value)
    }

    fn fresh_for(request: &Request, now: Timestamp) -> Arc<StoredResponse> {
        let names = [b"x-a".to_vec(), b":unkeyed".to_vec()];
        let mut stored = StoredResponse {
            selecting: SelectingFields::of(&names, request).unwrap(),
            request_time: now,
            response_time: now,
            ..StoredResponse::example()
        };
        stored.terms.lifetime = DeltaSeconds::new(60);
        Arc::new(stored)
    }

    /// What becomes of a request to whom the store proposes something.
    fn told(request: Request, answer: StoreAnswer, now: Timestamp) -> Effects {
        let setup = Setup {
            policy: Arc::new(Policy::default()),
            namespace: Arc::from(b"n".as_slice()),
            refreshes: RefreshPath::Routed,
            rules: None,
        };
        let (mut exchange, _) = Exchange::open(request, setup, now);
        exchange.handle(Event::Local(Local::default()), now);
        let asked = exchange.handle(Event::Slot(SlotAnswer::Lead), now);
        assert!(matches!(
            asked.question,
            Some(Question::AskStore(StoreQuestion { lease: true, .. }))
        ));
        exchange.handle(Event::Store(answer), now)
    }

    fn is_answered(effects: &Effects) -> bool {
        effects
            .commands
            .iter()
            .any(|command| matches!(command, Command::Reply(_)))
    }

    #[test]
    fn a_store_that_takes_two_values_for_one_costs_a_miss_and_never_a_wrong_answer() {
        let now = Timestamp::from_millis(1_000_000_000);
        // As if the token of what is asked for were that of "1".
        let other = || fresh_for(&asking("x-a", "1"), now);
        let lease = || StoreAnswer::Lease(Fence("0a".to_owned()), Some(other()));
        let hit = told(asking("x-a", "1"), StoreAnswer::Entry(other()), now);
        assert!(is_answered(&hit), "{hit:?}");
        for (name, value) in [("x-a", "2"), ("x-b", "1"), ("x-forwarded-host", "evil")] {
            for answer in [StoreAnswer::Entry(other()), lease()] {
                let effects = told(asking(name, value), answer, now);
                assert!(!is_answered(&effects), "{name}: {effects:?}");
                let Some(Question::Forward(change)) = effects.question else {
                    panic!("{name}: {effects:?}")
                };
                assert_eq!(change.validates, None, "nor is it asked about");
            }
            let held = StoreAnswer::Held(Some(other()));
            assert!(!is_answered(&told(asking(name, value), held, now)));
        }
    }
}
