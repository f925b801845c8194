//! The stations of a search: the leader slot, the store, and back.

use super::effect::{Arrive, Question, StoreQuestion};
use super::event::Outcome;
use super::forward::forward;
use super::leadership::{Leadership, Slot};
use super::presented::Presented;
use super::state::{Asking, Search, State};
use super::step::Step;
use crate::cache_status::Detail;
use crate::collapse::Identity;
use crate::stored_response::StoredResponse;
use crate::vary;

/// After this many rounds without a usable answer a waiter goes to the origin alone.
const MAX_ROUNDS: u8 = 8;

/// Goes to the leader slot.
pub(super) fn arrive(search: Search, accept_handed_over: bool, step: &mut Step) -> State {
    go_to_slot(search, accept_handed_over, None, step)
}

/// The same in place of a leader that was waited for as long as one may.
pub(super) fn arrive_after(leader: Identity, mut search: Search, step: &mut Step) -> State {
    search.known.detail = Some(Detail::WaitTimeout);
    go_to_slot(search, true, Some(leader), step)
}

/// The same once more, or to the origin after too many times.
pub(super) fn arrive_again(mut search: Search, presented: &Presented, step: &mut Step) -> State {
    search.rounds.all += 1;
    if search.rounds.all > MAX_ROUNDS {
        forward(search.known, Leadership::none(), true, presented, step)
    } else {
        arrive(search, true, step)
    }
}

/// The same once more, as what was fetched is another variant: now that the selecting fields are
/// known, this one gets its own leader.
pub(super) fn arrive_for_variant(
    mut search: Search,
    other: &StoredResponse,
    presented: &Presented,
    step: &mut Step,
) -> State {
    search.slot = Slot::of(
        presented,
        Some(&other.selecting),
        search.slot.is_for_cookies,
    );
    arrive_again(search, presented, step)
}

fn go_to_slot(
    search: Search,
    accept_handed_over: bool,
    given_up: Option<Identity>,
    step: &mut Step,
) -> State {
    let (key, wait_for_refresh) = (search.slot.key, search.behind_refresh);
    step.ask(Question::Arrive(Arrive {
        key,
        accept_handed_over,
        wait_for_refresh,
        given_up,
    }));
    State::Arriving(search)
}

/// Asks the store, if responses are shared. `storable` says whether the whole answer is wanted for
/// the cache, should the origin be asked.
pub(super) fn ask_store(
    search: Search,
    lead: Leadership,
    lease: bool,
    storable: bool,
    presented: &Presented,
    step: &mut Step,
) -> State {
    if !presented.policy.shared_store {
        let mut search = search;
        search.known.trust();
        return go_on_without(search, lead, storable, presented, step);
    }
    let selectors = vary::presented_selectors(&presented.request);
    let question = StoreQuestion {
        key: presented.key.digest(),
        presented: selectors,
        lease,
        wait: search.store_waits,
    };
    step.ask(Question::AskStore(question));
    State::Asking(Asking {
        search,
        lead,
        storable,
    })
}

/// Nothing stored answers: to the origin, or behind a refresh after all.
pub(super) fn go_on_without(
    mut search: Search,
    lead: Leadership,
    storable: bool,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let may_wait = search.behind_refresh && presented.policy.collapse && search.rounds.all == 0;
    if may_wait && !lead.is_leader() {
        // Nothing may be served meanwhile.
        lead.finish(Outcome::Again, presented, step);
        search.rounds.all += 1;
        return arrive(search, true, step);
    }
    forward(search.known, lead, storable, presented, step)
}
