//! One request on its way through the cache (RFC 9111 §4): events in, effects out, the time as an argument.
//!
//! | state | what it waits for | next |
//! |---|---|---|
//! | `New` | the request | `Local`, `Passing`, `Over` |
//! | `Local` | level 1 | `Over` (hit), `Arriving`, `Asking`, `Forwarded` |
//! | `Arriving` | the leader slot | `Asking` (leads), `Waiting`, `Forwarded` (alone) |
//! | `Waiting` | the leader's end, or its own | `Over`, `Arriving` (again), `Forwarded` (alone) |
//! | `Asking` | the store | `Over` (hit), `Forwarded` |
//! | `Forwarded` | the origin's answer | `Capturing`, `Completing`, `Over` |
//! | `Capturing` | the answer's content, on its way to the client | `Over` (stored) |
//! | `Completing` | the rest of a stored part, on its way to the client | `Over` (joined and stored) |
//! | `Passing` | an answer that is not cached | `Over` |
//!
//! What this decides: the order of things. The rules themselves are in the modules it consults.
//! An event that does not fit the state changes nothing.

use std::sync::Arc;

use larder_contract::http_time::{DeltaSeconds, Timestamp};
use larder_contract::key::KeyDigest;
use larder_contract::key::PrimaryKey;
use larder_contract::store_api::Fence;

use crate::cache_control::RequestDirectives;
use crate::cache_status::{Detail, Forward};
use crate::collapse::{CollapseKey, Identity};
use crate::message::Request;
use crate::policy::Policy;
use crate::query_override::QueryOverride;
use crate::route::RefreshPath;
use crate::stored_response::StoredResponse;

mod arrival;
pub mod at_once;
mod capturing;
mod content;
pub mod effect;
pub mod event;
mod look_up;
mod parts;
mod reply;
mod response;
mod sharing;
pub mod storing;
mod validated;
mod waiting;

pub use effect::{Effect, Effects, ForwardedRequest, RefreshOrder, Reply, ResponseChange, StoreQuestion};
pub use event::{Event, Local, Outcome, ResponseSource, SlotAnswer, StoreAnswer, StoreFault};

/// A waiter that finds no usable answer so many times goes to the origin by itself.
const MAX_ROUNDS: u8 = 8;

/// One request's whole life. Give it what happened and what time it is; it says what to do next.
#[derive(Debug)]
pub struct Exchange {
    policy: Arc<Policy>,
    namespace: Arc<[u8]>,
    state: State,
    request: Request,
    key: Option<PrimaryKey>,
    digest: Option<KeyDigest>,
    /// Path and query for the origin, where that differs from the client's.
    path: Option<Vec<u8>>,
    /// How the request differs on every way to the origin from what the client sent.
    adjusted: ForwardedRequest,
    overriding: Option<QueryOverride>,
    asked: Option<RequestDirectives>,
    /// The best stored response known; what a validation is about.
    candidate: Option<Arc<StoredResponse>>,
    answered_by: Option<Arc<StoredResponse>>,
    why: Forward,
    detail: Option<Detail>,
    collapse_key: Option<CollapseKey>,
    leads: bool,
    fence: Option<Fence>,
    invalidated: Option<Timestamp>,
    softened: Option<Timestamp>,
    /// What was requested until then may have been purged without our hearing of it.
    distrusted: Option<Timestamp>,
    arrived: Timestamp,
    /// Whom it waits for.
    awaited: Option<Identity>,
    rounds: u8,
    /// Fetches that it waited for and that failed.
    failed_rounds: u8,
    /// Fetches that it waited for and whose answer was for the leader alone.
    refused_rounds: u8,
    /// Its cookie alone may keep its answer from the others, so it leads only for its like.
    has_own_slot: bool,
    store_waited: bool,
    /// The store was asked for something to serve while another refreshes.
    behind_refresh: bool,
    mark: Mark,
    /// Whether the client is told how its answer came about.
    told: bool,
    refreshes: RefreshPath,
}

/// Whether the client is told that a cache was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Told,
    /// A rule, an upgrade or gRPC: nothing is changed in passing, but an unsafe method invalidates all the same.
    Untouched,
}

#[derive(Debug)]
enum State {
    New,
    Local,
    Arriving,
    Waiting,
    Asking { storable: bool },
    Forwarded(Fetch),
    Capturing(Box<storing::Capture>),
    Completing(Box<parts::Rest>),
    Passing { invalidates: bool },
    Over,
}

/// A request gone to the origin.
#[derive(Clone, Copy, Debug)]
struct Fetch {
    request_time: Timestamp,
    /// Whether the candidate's validators went along.
    validates: bool,
    /// Whether the answer may be stored at all: a GET without ranges of its own.
    may_store: bool,
    /// Whether only the rest of the candidate was asked for.
    completes: bool,
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
    /// A request under `policy`. `namespace` is part of every key.
    pub fn new(policy: Arc<Policy>, namespace: Arc<[u8]>) -> Self {
        Self {
            policy,
            namespace,
            state: State::New,
            request: Request::default(),
            key: None,
            digest: None,
            path: None,
            adjusted: ForwardedRequest::default(),
            overriding: None,
            asked: None,
            candidate: None,
            answered_by: None,
            why: Forward::UriMiss,
            detail: None,
            collapse_key: None,
            leads: false,
            fence: None,
            invalidated: None,
            softened: None,
            distrusted: None,
            arrived: Timestamp::default(),
            awaited: None,
            rounds: 0,
            failed_rounds: 0,
            refused_rounds: 0,
            has_own_slot: false,
            store_waited: false,
            behind_refresh: false,
            mark: Mark::Told,
            told: true,
            refreshes: RefreshPath::default(),
        }
    }

    /// The same with background refreshes that travel so.
    #[must_use]
    pub fn with_refreshes(self, refreshes: RefreshPath) -> Self {
        Self { refreshes, ..self }
    }

    /// Takes an event in and says what to do. Nothing else changes state.
    pub fn handle(&mut self, event: Event<'_>, now: Timestamp) -> Effects {
        let mut effects = Effects::new();
        match event {
            Event::Request(request) => self.on_request(request, now, &mut effects),
            Event::Local(local) => self.on_local(local, now, &mut effects),
            Event::Slot(answer) => self.on_slot(answer, now, &mut effects),
            Event::Store(answer) => self.on_store(answer, now, &mut effects),
            Event::Woken { outcome, untrue_since } => self.on_woken(outcome, untrue_since, now, &mut effects),
            Event::WaitEnded => self.on_wait_ended(&mut effects),
            Event::TimePassed => self.on_time_passed(now, &mut effects),
            Event::Response { head, source, end } => self.on_response(&head, source, end, now, &mut effects),
            Event::Body { chunk, end } => self.on_body(chunk, end, now, &mut effects),
            Event::Gone { origin_broke } => self.on_gone(origin_broke, now, &mut effects),
            Event::Redirected => self.on_redirected(now, &mut effects),
        }
        effects
    }

    /// What the request is about, once it is known; what level 1 is looked up by.
    pub fn key(&self) -> Option<&PrimaryKey> {
        self.key.as_ref()
    }

    /// The request as it came.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The key and the stored response that has answered, where level 1 or the store had one that may.
    pub fn answered_by(&self) -> Option<(&PrimaryKey, &Arc<StoredResponse>)> {
        self.key.as_ref().zip(self.answered_by.as_ref())
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
        matches!(self.state, State::Waiting)
    }

    /// Whether the request has gone to the origin and its answer is of interest.
    pub fn expects_response(&self) -> bool {
        match self.state {
            State::Forwarded(_) => true,
            State::Passing { invalidates } => invalidates || self.mark == Mark::Told,
            _ => false,
        }
    }

    /// Whether nothing more is to come: the shell may drop it.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn digest(&mut self) -> KeyDigest {
        let key = &self.key;
        *self.digest.get_or_insert_with(|| key.as_ref().map_or(KeyDigest([0; 32]), PrimaryKey::digest))
    }

    /// Leaves the leader slot, if this request leads, and gives the lease back unless an entry will.
    fn finish(&mut self, outcome: Outcome, now: Timestamp, effects: &mut Effects) {
        let outcome = self.as_seen_by_others(outcome);
        let uncacheable = matches!(outcome, Outcome::Uncacheable);
        if let Some(fence) = self.fence.take() {
            let speaks_for_all = uncacheable && !self.is_a_choice_of_the_client();
            let uncacheable_ms = if speaks_for_all { self.policy.uncacheable_for.as_millis() } else { 0 };
            effects.push(Effect::ReleaseLease { key: self.digest(), fence, uncacheable_ms });
        }
        if std::mem::take(&mut self.leads)
            && let Some(key) = self.collapse_key
        {
            let uncacheable_until = now.plus(self.policy.uncacheable_for);
            if uncacheable {
                self.mark_uncacheable(uncacheable_until, effects);
            }
            effects.push(Effect::Publish { key, outcome, uncacheable_until });
        }
    }

    fn on_gone(&mut self, origin_broke: bool, now: Timestamp, effects: &mut Effects) {
        if matches!(self.state, State::Passing { invalidates: true }) {
            self.doubt(effects);
        }
        let outcome = if origin_broke { Outcome::Failed(502) } else { Outcome::Again };
        self.finish(outcome, now, effects);
        self.state = State::Over;
    }

    /// A redirect is no error, so an unsafe method invalidates by it (RFC 9111 §4.4). It could not be stored, for nobody has
    /// seen it, and the next one's will not be seen either: those who wait would go one by one.
    fn on_redirected(&mut self, now: Timestamp, effects: &mut Effects) {
        if matches!(self.state, State::Passing { invalidates: true }) {
            effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
        }
        self.finish(Outcome::Uncacheable, now, effects);
        self.state = State::Over;
    }

    fn url(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = self.path.as_deref().unwrap_or_else(|| self.request.path());
        format!("{}://{}{}", text(self.request.scheme()), text(self.request.authority()), text(path))
    }

    fn is_head(&self) -> bool {
        self.request.method() == b"HEAD"
    }

    fn method_is_get(&self) -> bool {
        self.request.method() == b"GET"
    }
}

/// How long after an unsafe request whose answer nobody saw its target is dropped once more, in milliseconds: first when a
/// quick origin has finished, then when Envoy itself would have given up (its default route timeout).
pub const SETTLED_AFTER_MS: [u64; 2] = [1_000, 15_000];

/// How long a leader may take before another replaces it.
pub const LEASE: DeltaSeconds = DeltaSeconds::new(30);
