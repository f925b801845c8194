//! One request on its way through the cache (RFC 9111 §4): events in, effects out, the time as an
//! argument.
//!
//! | state | what it waits for | next |
//! |---|---|---|
//! | the request arrives | | `Local`, `Passing`, `Over` (a purge, a malformed override) |
//! | `Local` | level 1 | `Over` (hit), `Arriving`, `Asking`, `Forwarded` |
//! | `Arriving` | the leader slot | `Over` (handed over), `Arriving` (again), `Waiting`, `Asking`, `Forwarded` |
//! | `Waiting` | the leader's end, or its own | `Over` (shared), `Arriving` (again), `Forwarded` (alone) |
//! | `Asking` | the store | `Over` (hit), `Asking` (waits), `Arriving` (behind a refresh), `Forwarded` |
//! | `Forwarded` | the origin's answer | `Over`, `Capturing`, `Completing` |
//! | `Capturing` | the answer's content, on its way to the client | `Capturing` (more), `Over` (stored) |
//! | `Completing` | the rest of a stored part, on its way to the client | `Completing` (more), `Over` (joined and stored) |
//! | `Passing` | an answer that is not cached | `Over`, `Capturing` (a POST's own representation) |
//!
//! From every state the end of the stream leads to `Over`. `tests/states.rs` holds this table to
//! the code.
//!
//! [`Exchange::begin`] is the one entrance. It asks on the spot what the host has at hand
//! ([`AtHand`]), and a plain hit leaves by it again without a state of its own (`at_once`), as
//! does a plain request whose answer is known not to be storable (`marked`).
//!
//! What this decides: which state takes which event. What happens in a state is in the module of
//! its name; the rules themselves are in the modules that those consult. An event that does not fit
//! the state changes nothing.

use larder_contract::http_time::Timestamp;
use larder_contract::key::PrimaryKey;

use crate::cache_status::CacheStatus;
use crate::message::Request;
use at_once::AtOnce;

mod arrival;
mod arriving;
mod asking;
mod at_hand;
mod at_once;
mod capturing;
mod completing;
pub mod details;
pub mod effect;
pub mod event;
mod forward;
mod forwarded;
mod known;
mod leadership;
mod local;
mod marked;
mod naming;
mod parts;
mod passing;
mod presented;
mod reduction;
mod reply;
mod search;
mod sharing;
mod state;
mod step;
mod validated;
mod waiting;

pub use at_hand::{AtHand, Held};
pub use effect::{
    Arrive, CacheCommand, Command, Effects, ForwardedRequest, Question, RefreshOrder, Reply,
    ResponseChange, StoreQuestion,
};
pub use event::{Event, Local, Outcome, ResponseSource, SlotAnswer, StoreAnswer, StoreFault};
pub use marked::{Marked, MarkedResponse};
use presented::Presented;
pub use presented::Setup;
use state::{Passing, State};
use step::Step;

/// How long after an unsafe request whose answer nobody saw its target is dropped once more, in
/// milliseconds: first when a quick origin has finished, then when Envoy itself would have given up
/// (its default route timeout).
pub const SETTLED_AFTER_MS: [u64; 2] = [1_000, 15_000];

/// One request's whole life. Give it what happened and what time it is; it says what to do next.
#[derive(Debug)]
pub struct Exchange {
    presented: Presented,
    state: State,
}

/// A request that has begun.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation, and this lives for one match"
)]
pub enum Begun {
    /// It is answered, and so reported: nothing else is to be done, now or later.
    Answered(Reply, CacheStatus),
    /// It goes to the origin as it came, and of the cache its answer gets no more than this says.
    Marked(Marked),
    /// It goes on with this.
    Running(Exchange, Effects),
}

impl Begun {
    /// What has become of an exchange by its first effects.
    fn of(exchange: Exchange, effects: Effects) -> Self {
        let Effects { commands, question } = effects;
        let commands = match commands.into_inner() {
            Ok([Command::Reply(reply), Command::Report(status)]) if exchange.is_over() => {
                return Self::Answered(reply, status);
            }
            Ok(commands) => commands.into(),
            Err(commands) => commands,
        };
        Self::Running(exchange, Effects { commands, question })
    }
}

/// What the shell has to feed while the answer's content passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing: let it pass.
    None,
    /// A copy of every piece, as `Event::Body`.
    Copy,
}

impl Exchange {
    /// A request has arrived. What the host has at hand may answer it on the spot.
    pub fn begin(
        mut request: Request,
        setup: Setup,
        at_hand: &mut impl AtHand,
        now: Timestamp,
    ) -> Begun {
        at_once::prepare(&mut request, &setup.policy);
        let key = match at_once::answer(&request, &setup, at_hand, now) {
            AtOnce::Answer(reply, status) => return Begun::Answered(reply, status),
            AtOnce::Marked(marked) => return Begun::Marked(marked),
            AtOnce::Nowhere(key) => key,
        };
        let is_looked_up = key.is_some();
        request.is_identified |= !request.is_credentialed(&setup.policy) && at_hand.knows_client();
        let (mut exchange, mut effects) = Self::read(request, key, setup, now);
        if let State::Local = exchange.state {
            effects = exchange.look_up(is_looked_up, at_hand, now);
        }
        Begun::of(exchange, effects)
    }

    /// The same one step at a time, for a host that has nothing at hand: where the state is `Local`
    /// then, the next event is [`Event::Local`].
    pub fn open(request: Request, setup: Setup, now: Timestamp) -> (Self, Effects) {
        Self::read(request, None, setup, now)
    }

    fn read(
        request: Request,
        key: Option<PrimaryKey>,
        setup: Setup,
        now: Timestamp,
    ) -> (Self, Effects) {
        let mut step = Step::at(now);
        let (mut presented, malformed) = Presented::of(request, key, setup, now);
        let state = arrival::on_request(&mut presented, malformed.as_ref(), &mut step);
        (Self { presented, state }, step.effects)
    }

    /// Takes an event in and says what to do. Nothing else changes state.
    pub fn handle(&mut self, event: Event<'_>, now: Timestamp) -> Effects {
        let mut step = Step::at(now);
        let state = std::mem::replace(&mut self.state, State::OVER);
        self.state = next(state, event, &self.presented, &mut step);
        step.effects
    }

    fn look_up(
        &mut self,
        is_looked_up: bool,
        at_hand: &mut impl AtHand,
        now: Timestamp,
    ) -> Effects {
        let untrue = at_hand.untrue(&self.presented.key);
        let held = if is_looked_up {
            at_hand.looked_up()
        } else {
            at_hand.look_up(&self.presented.key)
        };
        let is_chosen = held.variants.len() > 1;
        let effects = self.handle(Event::Local(held.with(untrue)), now);
        if is_chosen
            && let State::Over {
                answered_by: Some(stored),
            } = &self.state
        {
            at_hand.count_use(&self.presented.key, stored);
        }
        effects
    }

    /// What the request is about; what level 1 is looked up by.
    pub fn key(&self) -> &PrimaryKey {
        &self.presented.key
    }

    /// The request as it is judged.
    pub fn request(&self) -> &Request {
        &self.presented.request
    }

    /// What the shell has to do with content that comes in now.
    pub fn interest(&self) -> Interest {
        match self.state {
            State::Capturing(_) | State::Completing(_) => Interest::Copy,
            _ => Interest::None,
        }
    }

    /// Whether the request waits for another's fetch.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    /// Whether the request has gone to the origin and its answer is of interest.
    pub fn expects_response(&self) -> bool {
        match self.state {
            State::Forwarded(_) => true,
            State::Passing(Passing { invalidates, .. }) => {
                invalidates || !self.presented.is_untouched
            }
            _ => false,
        }
    }

    /// Whether nothing more is to come: the shell may drop it.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over { .. })
    }

    /// The name of its state, as in the table above.
    pub fn state_name(&self) -> &'static str {
        self.state.name()
    }
}

fn next(state: State, event: Event<'_>, presented: &Presented, step: &mut Step) -> State {
    match (state, event) {
        (State::Local, Event::Local(local)) => local::on_local(local, presented, step),
        (State::Arriving(search), Event::Slot(answer)) => {
            arriving::on_slot(search, answer, presented, step)
        }
        (
            State::Waiting(waiting),
            Event::Woken {
                outcome,
                untrue_since,
            },
        ) => waiting::on_woken(waiting, outcome, untrue_since, presented, step),
        (State::Waiting(waiting), Event::WaitEnded) => waiting::on_wait_ended(waiting, step),
        (State::Asking(asking), Event::Store(answer)) => {
            asking::on_store(asking, answer, presented, step)
        }
        (State::Forwarded(forwarded), Event::Response { head, source, end }) => {
            forwarded::on_response(forwarded, &head, source, end, presented, step)
        }
        (State::Passing(passing), Event::Response { head, source, end }) => {
            passing::on_response(passing, &head, source, end, presented, step)
        }
        (State::Capturing(capturing), Event::Body { chunk, end }) => {
            capturing::on_body(capturing, chunk, end, presented, step)
        }
        (State::Capturing(capturing), Event::TimePassed) => {
            capturing::on_time_passed(capturing, presented, step)
        }
        (State::Completing(completing), Event::Body { chunk, end }) => {
            completing::on_body(completing, chunk, end, presented, step)
        }
        (state, Event::Gone { origin_broke }) => on_gone(state, origin_broke, presented, step),
        (state, Event::Redirected) => on_redirected(state, presented, step),
        (state, _) => state,
    }
}

/// The stream has ended before its answer was complete.
fn on_gone(state: State, origin_broke: bool, presented: &Presented, step: &mut Step) -> State {
    if matches!(
        state,
        State::Passing(Passing {
            invalidates: true,
            ..
        })
    ) {
        passing::doubt(presented, step);
    }
    let outcome = if origin_broke {
        Outcome::Failed(502)
    } else {
        Outcome::Again
    };
    state.into_leadership().finish(outcome, presented, step);
    State::OVER
}

/// A redirect is no error, so an unsafe method invalidates by it (RFC 9111 §4.4). It could not be
/// stored, for nobody has seen it, and the next one's will not be seen either: those who wait would
/// go one by one.
fn on_redirected(state: State, presented: &Presented, step: &mut Step) -> State {
    if matches!(
        state,
        State::Passing(Passing {
            invalidates: true,
            ..
        })
    ) {
        step.cache(presented.invalidation());
    }
    state
        .into_leadership()
        .finish(Outcome::Uncacheable, presented, step);
    State::OVER
}
