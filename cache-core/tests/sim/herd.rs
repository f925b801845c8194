//! Many requests at once over a virtual clock: leader slots, waiters, and an origin that takes its time.

use std::collections::HashMap;
use std::sync::Arc;

use larder_cache_core::collapse::{self, Arrival, CollapseKey, Finish, Identity, Terms};
use larder_cache_core::exchange::{
    Arrive, CacheCommand, Command, Effects, Event, Exchange, Interest, Local, Outcome, Question, ResponseSource,
    SlotAnswer, StoreAnswer,
};
use larder_cache_core::message::{Request, ResponseHead};
use larder_cache_core::policy::Policy;
use larder_cache_core::route::RefreshPath;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;

use crate::world::setup;

/// How long a request waits.
const WAIT_MS: u64 = 10_000;

/// What the origin does with a request: after so many milliseconds this head, and after as many again the content's end.
pub(crate) struct Answer {
    pub(crate) after_ms: u64,
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, &'static str)>,
    /// Absent: the content never ends.
    pub(crate) end_after_ms: Option<u64>,
}

impl Answer {
    pub(crate) fn new(status: u16, fields: &[(&'static str, &'static str)]) -> Self {
        Self { after_ms: 1_000, status, fields: fields.to_vec(), end_after_ms: Some(0) }
    }
}

struct Stream {
    exchange: Exchange,
    got: Option<u16>,
    waits: Option<(CollapseKey, Timestamp)>,
}

enum Due {
    Head(usize, Answer),
    End(usize),
    Reminder(usize),
}

type Origin = Box<dyn FnMut() -> Answer>;

pub(crate) struct Herd {
    policy: Arc<Policy>,
    pub(crate) now: Timestamp,
    slots: HashMap<[u8; 32], Vec<u8>>,
    streams: Vec<Stream>,
    level1: Vec<Arc<StoredResponse>>,
    invalidated: Option<Timestamp>,
    uncacheable_until: Option<Timestamp>,
    due: Vec<(Timestamp, Due)>,
    origin: Origin,
    /// When each request reached the origin.
    pub(crate) fetches: Vec<u64>,
    /// Whether a request for a lease was made.
    pub(crate) leases: usize,
    pub(crate) invalidations: usize,
}

impl Herd {
    pub(crate) fn new(policy: Policy, origin: impl FnMut() -> Answer + 'static) -> Self {
        Self {
            policy: Arc::new(policy),
            now: Timestamp::from_millis(1_000_000),
            slots: HashMap::new(),
            streams: Vec::new(),
            level1: Vec::new(),
            invalidated: None,
            uncacheable_until: None,
            due: Vec::new(),
            origin: Box::new(origin),
            fetches: Vec::new(),
            leases: 0,
            invalidations: 0,
        }
    }

    /// So many requests for one thing, now.
    pub(crate) fn send(&mut self, count: usize, fields: &[(&str, &str)]) {
        for _ in 0..count {
            let request = Request::new("GET", "a.example", "/");
            let request = fields.iter().fold(request, |request, (name, value)| request.with(name, value));
            let (exchange, effects) = Exchange::begin(request, setup(&self.policy, RefreshPath::Routed), self.now);
            self.streams.push(Stream { exchange, got: None, waits: None });
            self.go_on(self.streams.len() - 1, effects);
        }
    }

    /// Statuses of the answers so far, in the order of the requests.
    pub(crate) fn answered(&self) -> Vec<u16> {
        self.streams.iter().filter_map(|stream| stream.got).collect()
    }

    /// Something changed what is stored.
    pub(crate) fn invalidate(&mut self) {
        self.invalidated = Some(self.now);
        self.level1.clear();
    }

    /// Lets the time pass, and in it happen what is due.
    pub(crate) fn pass_ms(&mut self, millis: u64) {
        let end = self.now.plus_millis(millis);
        loop {
            let event = self.due.iter().map(|(at, _)| *at).min();
            let deadline = self.streams.iter().filter_map(|stream| Some(stream.waits?.1)).min();
            let Some(next) = event.into_iter().chain(deadline).min().filter(|next| *next <= end) else { break };
            self.now = next;
            if let Some(index) = self.due.iter().position(|(at, _)| *at == next) {
                let (_, due) = self.due.remove(index);
                self.happen(due);
            } else if let Some(id) = self.streams.iter().position(|stream| stream.waits.is_some_and(|w| w.1 == next)) {
                self.streams[id].waits = None;
                self.drive(id, Event::WaitEnded);
            }
        }
        self.now = end;
    }

    /// A stream of which no answer is seen any more, for this reason.
    pub(crate) fn end(&mut self, id: usize, why: Event<'static>) {
        self.streams[id].waits = None;
        self.due.retain(|(_, due)| !matches!(due, Due::Head(of, _) | Due::End(of) | Due::Reminder(of) if *of == id));
        self.drive(id, why);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Head(id, Answer { status, fields, end_after_ms, .. }) => {
                let head = ResponseHead::new(status, &fields);
                self.drive(id, Event::Response { head, source: ResponseSource::Origin, end: false });
                if let Some(after) = end_after_ms {
                    self.due.push((self.now.plus_millis(after), Due::End(id)));
                }
            }
            Due::End(id) => {
                let stream = &mut self.streams[id];
                if stream.exchange.interest() != Interest::None {
                    self.drive(id, Event::Body { chunk: b"x", end: true });
                }
            }
            Due::Reminder(id) => self.drive(id, Event::TimePassed),
        }
    }

    fn drive(&mut self, id: usize, event: Event<'_>) {
        let effects = self.streams[id].exchange.handle(event, self.now);
        self.go_on(id, effects);
    }

    fn go_on(&mut self, id: usize, effects: Effects) {
        effects.commands.into_iter().for_each(|command| self.carry_out(id, command));
        match effects.question {
            None => {}
            Some(Question::LookUpLocal) => {
                let variants = self.level1.clone();
                let (invalidated, uncacheable_until) = (self.invalidated, self.uncacheable_until);
                let local = Local { variants: &variants, invalidated, uncacheable_until, ..Local::default() };
                self.drive(id, Event::Local(local));
            }
            Some(Question::Arrive(Arrive { key, accept_handed_over, wait_for_refresh, given_up })) => {
                let until = self.now.plus_millis(30_000);
                let invalidated = self.invalidated;
                let terms =
                    Terms { accept_handed_over, wait_for_refresh, given_up, invalidated, ..Terms::until(until) };
                let answer = self.arrive(id, key, terms);
                self.drive(id, Event::Slot(answer));
            }
            Some(Question::AskStore(question)) => {
                self.leases += usize::from(question.lease);
                self.drive(id, Event::Store(StoreAnswer::Nothing { uncacheable: false }));
            }
            Some(Question::Forward(_)) => {
                self.fetches.push(self.now.as_millis() - 1_000_000);
                let answer = (self.origin)();
                self.due.push((self.now.plus_millis(answer.after_ms), Due::Head(id, answer)));
            }
        }
    }

    fn arrive(&mut self, id: usize, key: CollapseKey, terms: Terms) -> SlotAnswer {
        let held = self.slots.get(&key.0).map(Vec::as_slice);
        let (bytes, answer) = match collapse::arrive(held, &key, identity(id), 1, self.now, terms) {
            Arrival::Lead(bytes) => (Some(bytes), SlotAnswer::Lead),
            Arrival::Succeed(bytes) => (Some(bytes), SlotAnswer::Succeed),
            Arrival::Wait(leader, bytes) => {
                self.streams[id].waits = Some((key, self.now.plus_millis(WAIT_MS)));
                (bytes, SlotAnswer::Wait(leader))
            }
            Arrival::Uncacheable(until) => (None, SlotAnswer::Uncacheable(until)),
            other => panic!("{other:?}"),
        };
        if let Some(bytes) = bytes {
            self.slots.insert(key.0, bytes);
        }
        answer
    }

    fn carry_out(&mut self, id: usize, command: Command) {
        match command {
            // Which status passes does not matter here.
            Command::PassResponse(_) => self.streams[id].got = Some(0),
            Command::Reply(reply) => self.streams[id].got = Some(reply.status),
            Command::RemindAt(time) => self.due.push((time, Due::Reminder(id))),
            Command::Cache(command) => self.change(id, command),
            // Nothing here is refreshed or broken off.
            Command::Abort | Command::Refresh(_) | Command::Report(_) => {}
        }
    }

    fn change(&mut self, id: usize, command: CacheCommand) {
        match command {
            CacheCommand::Keep { stored, .. } => {
                if self.invalidated.is_none_or(|time| stored.request_time > time) {
                    self.level1 = vec![stored];
                }
            }
            CacheCommand::Publish { key, outcome, uncacheable_until } => {
                self.publish(id, &key, &outcome, uncacheable_until);
            }
            CacheCommand::MarkUncacheable { until, .. } => self.uncacheable_until = Some(until),
            CacheCommand::Invalidate(_) | CacheCommand::InvalidateDoubtful(_) => {
                self.invalidations += 1;
                self.invalidate();
            }
            CacheCommand::ReleaseLease { .. } => {} // the store here gives none
        }
    }

    fn publish(&mut self, id: usize, key: &CollapseKey, outcome: &Outcome, until: Timestamp) {
        let result = match outcome {
            Outcome::Uncacheable | Outcome::Unfinished => Finish::Uncacheable(until),
            Outcome::NotForOthers { counts: true } => Finish::Refused(until),
            _ => Finish::Free,
        };
        let held = self.slots.get(&key.0).map(Vec::as_slice);
        match collapse::finish(held, key, identity(id), result, self.now) {
            Some((bytes, _)) => drop(self.slots.insert(key.0, bytes)),
            None if !matches!(outcome, Outcome::Fetched(_)) => return,
            None => {}
        }
        let waits = |stream: &Stream| stream.waits.is_some_and(|(held, _)| held == *key);
        let woken: Vec<usize> = (0..self.streams.len()).filter(|id| waits(&self.streams[*id])).collect();
        for id in &woken {
            self.streams[*id].waits = None;
        }
        for id in woken {
            let requested = outcome.stored().map(|stored| stored.request_time);
            let untrue_since = self.invalidated.filter(|time| requested.is_some_and(|requested| requested <= *time));
            self.drive(id, Event::Woken { outcome: outcome.clone(), untrue_since });
        }
    }
}

fn identity(id: usize) -> Identity {
    Identity { vm: 1, stream: u32::try_from(id).unwrap() + 1 }
}
