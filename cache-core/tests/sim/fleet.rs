//! Many requests at once over a virtual clock: Envoys with worker VMs, a level 1 for each VM,
//! leader slots and handed-over answers for each Envoy, one store for all, and an origin that takes
//! its time.

use std::collections::HashMap;
use std::sync::Arc;

use larder_cache_core::cache_status::CacheStatus;
use larder_cache_core::collapse::{self, Arrival, CollapseKey, Finish, Handoff, Identity, Terms};
use larder_cache_core::exchange::{
    Arrive, Effects, Event, Exchange, ForwardedRequest, Interest, Local, Outcome, RefreshOrder,
    Reply, ResponseChange, ResponseSource, SETTLED_AFTER_MS, SlotAnswer, StoreQuestion,
};
use larder_cache_core::fields::Fields;
use larder_cache_core::message::{Request, ResponseHead};
use larder_cache_core::policy::Policy;
use larder_cache_core::refresh::{self, Refresh};
use larder_cache_core::route::RefreshPath;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;
use larder_contract::key::{KeyDigest, PrimaryKey};
use larder_contract::store_api::Fence;

use crate::interpreter::{self, Refreshes, Shared, World};
use crate::store::{LEASE_MS, Store};
use crate::world::{Got, setup};

/// How long a request waits, for a leader of its Envoy or for the holder of a lease.
const WAIT_MS: u64 = 10_000;
/// How long a handed-over answer counts.
const HANDOFF_MS: u64 = 2_000;
const BEGAN: u64 = 1_000_000;

/// What the origin does with a request: after so many milliseconds this head, and after as many
/// again the content's end.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) after_ms: u64,
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, &'static str)>,
    /// Absent: the content never ends.
    pub(crate) end_after_ms: Option<u64>,
}

impl Answer {
    pub(crate) fn new(status: u16, fields: &[(&'static str, &'static str)]) -> Self {
        Self {
            after_ms: 1_000,
            status,
            fields: fields.to_vec(),
            end_after_ms: Some(0),
        }
    }
}

#[derive(Default)]
struct Envoy {
    slots: HashMap<[u8; 32], Vec<u8>>,
    handoffs: Vec<Outcome>,
}

#[derive(Default)]
struct Vm {
    envoy: usize,
    level1: Vec<(PrimaryKey, Arc<StoredResponse>)>,
    invalidated: HashMap<KeyDigest, Timestamp>,
    uncacheable: HashMap<PrimaryKey, Timestamp>,
}

enum Run {
    Exchange(Box<Exchange>),
    Refresh(Box<Refresh>),
}

/// A request or a refresh.
struct Actor {
    vm: usize,
    run: Option<Run>,
    is_refresh: bool,
    got: Option<Got>,
    waits: Option<(CollapseKey, Timestamp)>,
    /// A look-up that the store holds back, and until when.
    held: Option<(StoreQuestion, Timestamp)>,
}

enum Due {
    Head(usize, Answer),
    End(usize),
    Reminder(usize),
    AskAgain(usize),
    Settle(Vec<KeyDigest>),
}

impl Due {
    fn is_of(&self, actor: usize) -> bool {
        matches!(self, Self::Head(of, _) | Self::End(of) | Self::Reminder(of) | Self::AskAgain(of) if *of == actor)
    }
}

type Origin = Box<dyn FnMut() -> Answer>;

pub(crate) struct Fleet {
    policy: Arc<Policy>,
    pub(crate) now: Timestamp,
    envoys: Vec<Envoy>,
    vms: Vec<Vm>,
    pub(crate) store: Store,
    actors: Vec<Actor>,
    due: Vec<(Timestamp, Due)>,
    origin: Origin,
    /// When each request reached the origin, in milliseconds.
    pub(crate) fetches: Vec<u64>,
    /// Fields that the cache set on each of them.
    pub(crate) sent: Vec<Fields>,
    pub(crate) invalidations: usize,
    pub(crate) reports: usize,
}

impl Fleet {
    /// One Envoy with one worker.
    pub(crate) fn new(policy: Policy, origin: impl FnMut() -> Answer + 'static) -> Self {
        Self::of(&[1], policy, origin)
    }

    /// Envoys with so many workers each. The workers are counted through.
    pub(crate) fn of(
        workers: &[usize],
        policy: Policy,
        origin: impl FnMut() -> Answer + 'static,
    ) -> Self {
        let vms = workers
            .iter()
            .enumerate()
            .flat_map(|(envoy, count)| vec![envoy; *count]);
        Self {
            policy: Arc::new(policy),
            now: Timestamp::from_millis(BEGAN),
            envoys: workers.iter().map(|_| Envoy::default()).collect(),
            vms: vms
                .map(|envoy| Vm {
                    envoy,
                    ..Vm::default()
                })
                .collect(),
            store: Store::default(),
            actors: Vec::new(),
            due: Vec::new(),
            origin: Box::new(origin),
            fetches: Vec::new(),
            sent: Vec::new(),
            invalidations: 0,
            reports: 0,
        }
    }

    /// So many requests for one thing, now, to the first worker.
    pub(crate) fn send(&mut self, count: usize, fields: &[(&str, &str)]) {
        self.send_to(0, count, fields);
    }

    /// The same to another worker.
    pub(crate) fn send_to(&mut self, vm: usize, count: usize, fields: &[(&str, &str)]) {
        for _ in 0..count {
            let request = Request::new("GET", "a.example", "/");
            let request = fields
                .iter()
                .fold(request, |request, (name, value)| request.with(name, value));
            let (exchange, effects) =
                Exchange::open(request, setup(&self.policy, RefreshPath::Routed), self.now);
            let state = exchange.state_name();
            let id = self.join(vm, Run::Exchange(Box::new(exchange)), false);
            interpreter::begin(self, id, state, effects);
        }
    }

    fn join(&mut self, vm: usize, run: Run, is_refresh: bool) -> usize {
        self.actors.push(Actor {
            vm,
            run: Some(run),
            is_refresh,
            got: None,
            waits: None,
            held: None,
        });
        self.actors.len() - 1
    }

    /// Statuses of the answers so far, in the order of the requests; 0 for one that passed.
    pub(crate) fn answered(&self) -> Vec<u16> {
        self.actors
            .iter()
            .filter_map(|actor| Some(actor.got.as_ref()?.status))
            .collect()
    }

    /// The answers so far.
    pub(crate) fn got(&self) -> Vec<&Got> {
        self.actors
            .iter()
            .filter_map(|actor| actor.got.as_ref())
            .collect()
    }

    /// Something changed what is stored.
    pub(crate) fn invalidate(&mut self) {
        let request = Request::new("GET", "a.example", "/");
        let (exchange, _) =
            Exchange::open(request, setup(&self.policy, RefreshPath::Routed), self.now);
        self.drop_everywhere(&[exchange.key().digest()]);
    }

    fn drop_everywhere(&mut self, keys: &[KeyDigest]) {
        for key in keys {
            self.store.invalidate(*key, self.now);
            for vm in &mut self.vms {
                vm.level1.retain(|(held, _)| held.digest() != *key);
                vm.invalidated.insert(*key, self.now);
            }
        }
    }

    /// Lets the time pass, and in it happen what is due.
    pub(crate) fn pass_ms(&mut self, millis: u64) {
        let end = self.now.plus_millis(millis);
        loop {
            let event = self.due.iter().map(|(at, _)| *at).min();
            let deadline = self
                .actors
                .iter()
                .filter_map(|actor| Some(actor.waits?.1))
                .min();
            let Some(next) = event
                .into_iter()
                .chain(deadline)
                .min()
                .filter(|next| *next <= end)
            else {
                break;
            };
            self.now = next;
            if let Some(index) = self.due.iter().position(|(at, _)| *at == next) {
                let (_, due) = self.due.remove(index);
                self.happen(due);
            } else if let Some(id) = self
                .actors
                .iter()
                .position(|actor| actor.waits.is_some_and(|w| w.1 == next))
            {
                self.actors[id].waits = None;
                self.drive(id, Event::WaitEnded);
            }
        }
        self.now = end;
    }

    /// A stream of which no answer is seen any more, for this reason.
    pub(crate) fn end(&mut self, id: usize, why: Event<'static>) {
        (self.actors[id].waits, self.actors[id].held) = (None, None);
        self.due.retain(|(_, due)| !due.is_of(id));
        self.drive(id, why);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Head(id, answer) => self.on_head(id, &answer),
            Due::End(id) => {
                if self.with_exchange(id, |exchange| exchange.interest()) != Interest::None {
                    self.drive(
                        id,
                        Event::Body {
                            chunk: b"x",
                            end: true,
                        },
                    );
                }
            }
            Due::Reminder(id) => self.drive(id, Event::TimePassed),
            Due::AskAgain(id) => self.ask_again(id),
            Due::Settle(keys) => self.drop_everywhere(&keys),
        }
    }

    fn on_head(&mut self, id: usize, answer: &Answer) {
        let head = ResponseHead::new(answer.status, &answer.fields);
        if self.actors[id].is_refresh {
            self.drive_refresh(id, refresh::Event::Response(&head, b"x"));
            return;
        }
        self.drive(
            id,
            Event::Response {
                head,
                source: ResponseSource::Origin,
                end: false,
            },
        );
        if let Some(after) = answer.end_after_ms {
            self.due.push((self.now.plus_millis(after), Due::End(id)));
        }
    }

    fn with_exchange<T>(&mut self, id: usize, with: impl FnOnce(&mut Exchange) -> T) -> T {
        match self.actors[id].run.as_mut() {
            Some(Run::Exchange(exchange)) => with(exchange),
            _ => panic!("{id} is no request"),
        }
    }

    fn drive(&mut self, id: usize, event: Event<'_>) {
        let now = self.now;
        let effects: Effects = self.with_exchange(id, |exchange| exchange.handle(event, now));
        interpreter::carry_out(self, id, effects);
    }

    fn drive_refresh(&mut self, id: usize, event: refresh::Event<'_>) {
        let Some(Run::Refresh(refresh)) = self.actors[id].run.as_mut() else {
            panic!("{id} is no refresh")
        };
        let step = refresh.handle(event, self.now);
        interpreter::carry_out_refresh(self, id, step);
    }

    fn identity(&self, id: usize) -> Identity {
        let mark = if self.actors[id].is_refresh {
            Identity::REFRESH
        } else {
            0
        };
        Identity {
            vm: self.actors[id].vm as u64 + 1,
            stream: (u32::try_from(id).unwrap() + 1) | mark,
        }
    }

    fn envoy_of(&self, id: usize) -> usize {
        self.vms[self.actors[id].vm].envoy
    }

    fn ask(&mut self, id: usize, question: StoreQuestion, until: Timestamp) {
        let (answer, lapses) = self.store.look_up(&question, self.now);
        match lapses.filter(|_| question.wait && self.now < until) {
            Some(lapses) => {
                self.due.push((lapses.min(until), Due::AskAgain(id)));
                self.actors[id].held = Some((question, until));
            }
            None if self.actors[id].is_refresh => {
                self.drive_refresh(id, refresh::Event::Store(answer))
            }
            None => self.drive(id, Event::Store(answer)),
        }
    }

    fn ask_again(&mut self, id: usize) {
        if let Some((question, until)) = self.actors[id].held.take() {
            self.ask(id, question, until);
        }
    }

    /// Something was written or given back: those whose look-up is held back ask again.
    fn wake_held(&mut self, key: KeyDigest) {
        let is_held = |actor: &Actor| {
            actor
                .held
                .as_ref()
                .is_some_and(|(question, _)| question.key == key)
        };
        let held: Vec<usize> = (0..self.actors.len())
            .filter(|id| is_held(&self.actors[*id]))
            .collect();
        held.into_iter().for_each(|id| self.ask_again(id));
    }

    fn fetch_from_origin(&mut self, id: usize, fields: Fields) {
        self.fetches.push(self.now.as_millis() - BEGAN);
        self.sent.push(fields);
        let answer = (self.origin)();
        self.due
            .push((self.now.plus_millis(answer.after_ms), Due::Head(id, answer)));
    }

    /// How a slot remembers the end of a fetch. A worker that is alone hands nothing over.
    fn finish(&mut self, envoy: usize, outcome: &Outcome, until: Timestamp) -> Finish {
        let is_alone = self.vms.iter().filter(|vm| vm.envoy == envoy).count() == 1;
        let counts_until = self.now.plus_millis(HANDOFF_MS);
        let handoffs = &mut self.envoys[envoy].handoffs;
        let mut hand_over = || {
            handoffs.push(outcome.clone());
            Handoff {
                index: u32::try_from(handoffs.len()).unwrap() - 1,
                sequence: 0,
            }
        };
        match outcome {
            Outcome::Uncacheable | Outcome::Unfinished => Finish::Uncacheable(until),
            Outcome::NotForOthers { counts: true } => Finish::Refused(until),
            Outcome::NotRefreshed => Finish::Failed,
            Outcome::Fetched(_) if is_alone => Finish::Fetched,
            Outcome::Fetched(_) => Finish::Published(hand_over(), counts_until),
            Outcome::Found(_) if !is_alone => Finish::Found(hand_over(), counts_until),
            _ => Finish::Free,
        }
    }
}

impl Shared for Fleet {
    type By = usize;

    fn keep(
        &mut self,
        by: usize,
        key: PrimaryKey,
        stored: Arc<StoredResponse>,
        fence: Option<Fence>,
        local: bool,
    ) {
        let (now, digest) = (self.now, key.digest());
        let vm = &mut self.vms[self.actors[by].vm];
        if vm
            .invalidated
            .get(&digest)
            .is_none_or(|time| stored.request_time > *time)
        {
            vm.level1
                .retain(|(held, old)| *held != key || old.selecting != stored.selecting);
            vm.uncacheable.remove(&key);
            vm.level1.push((key, stored.clone()));
        }
        if !local {
            self.store.write(digest, stored, fence.as_ref(), now);
            self.wake_held(digest);
        }
    }

    fn publish(
        &mut self,
        by: usize,
        key: CollapseKey,
        outcome: Outcome,
        uncacheable_until: Timestamp,
    ) {
        let (envoy, me, now) = (self.envoy_of(by), self.identity(by), self.now);
        let result = self.finish(envoy, &outcome, uncacheable_until);
        let slots = &mut self.envoys[envoy].slots;
        match collapse::finish(slots.get(&key.0).map(Vec::as_slice), &key, me, result, now) {
            Some((bytes, _)) => drop(slots.insert(key.0, bytes)),
            None if !matches!(outcome, Outcome::Fetched(_)) => return,
            None => {}
        }
        let waits = |id: &usize| {
            self.envoy_of(*id) == envoy && self.actors[*id].waits.is_some_and(|w| w.0 == key)
        };
        let woken: Vec<usize> = (0..self.actors.len()).filter(waits).collect();
        for id in &woken {
            self.actors[*id].waits = None;
        }
        for id in woken {
            let digest = self.with_exchange(id, |exchange| exchange.key().digest());
            let invalidated = self.vms[self.actors[id].vm]
                .invalidated
                .get(&digest)
                .copied();
            let requested = outcome.stored().map(|stored| stored.request_time);
            let untrue_since =
                invalidated.filter(|time| requested.is_some_and(|requested| requested <= *time));
            self.drive(
                id,
                Event::Woken {
                    outcome: outcome.clone(),
                    untrue_since,
                },
            );
        }
    }

    fn mark_uncacheable(&mut self, by: usize, key: PrimaryKey, until: Timestamp) {
        self.vms[self.actors[by].vm].uncacheable.insert(key, until);
    }

    fn release(&mut self, _by: usize, key: KeyDigest, fence: Fence, uncacheable_ms: u64) {
        self.store.release(key, &fence, uncacheable_ms, self.now);
        self.wake_held(key);
    }

    fn invalidate(&mut self, _by: usize, keys: Vec<KeyDigest>, is_doubtful: bool) {
        self.invalidations += 1;
        self.drop_everywhere(&keys);
        for after in SETTLED_AFTER_MS.into_iter().filter(|_| is_doubtful) {
            self.due
                .push((self.now.plus_millis(after), Due::Settle(keys.clone())));
        }
    }
}

impl World for Fleet {
    fn reply(&mut self, by: usize, reply: Reply) {
        let said = reply.fields.get("cache-status").unwrap_or_default();
        let body = std::str::from_utf8(reply.content()).unwrap();
        self.actors[by].got = Some(Got::new(
            reply.status,
            body,
            std::str::from_utf8(said).unwrap(),
        ));
    }

    fn pass(&mut self, by: usize, change: ResponseChange) {
        let said = change.set.get("cache-status").unwrap_or_default();
        self.actors[by].got = Some(Got::new(0, "", std::str::from_utf8(said).unwrap()));
    }

    fn abort(&mut self, by: usize) {
        panic!("nothing here is broken off, but {by} was");
    }

    fn remind(&mut self, by: usize, at: Timestamp) {
        self.due.push((at, Due::Reminder(by)));
    }

    fn order_refresh(&mut self, by: usize, order: RefreshOrder) {
        let (vm, envoy, now) = (self.actors[by].vm, self.envoy_of(by), self.now);
        let (key, fence, collapse) = (order.key.digest(), order.fence.clone(), order.collapse);
        let (refresh, step) = Refresh::begin(order, self.policy.clone(), now);
        let id = self.join(vm, Run::Refresh(Box::new(refresh)), true);
        let me = self.identity(id);
        let slots = &mut self.envoys[envoy].slots;
        let terms = Terms::until(now.plus_millis(LEASE_MS));
        match collapse::arrive(
            slots.get(&collapse.0).map(Vec::as_slice),
            &collapse,
            me,
            1,
            now,
            terms,
        ) {
            Arrival::Lead(bytes) => {
                slots.insert(collapse.0, bytes);
                interpreter::carry_out_refresh(self, id, step);
            }
            _ => {
                if let Some(fence) = fence {
                    self.release(id, key, fence, 0);
                }
            }
        }
    }

    fn report(&mut self, _by: usize, _status: CacheStatus) {
        self.reports += 1;
    }

    fn look_up_local(&mut self, by: usize) {
        let vm = self.actors[by].vm;
        let now = self.now;
        let Some(Run::Exchange(mut exchange)) = self.actors[by].run.take() else {
            panic!("{by} is no request")
        };
        let held = self.vms[vm]
            .level1
            .iter()
            .filter(|(key, _)| key == exchange.key());
        let variants: Vec<_> = held.map(|(_, stored)| stored.clone()).collect();
        let invalidated = self.vms[vm]
            .invalidated
            .get(&exchange.key().digest())
            .copied();
        let marked = self.vms[vm].uncacheable.get(exchange.key()).copied();
        let uncacheable_until = marked.filter(|_| variants.is_empty());
        let local = Local {
            variants: &variants,
            invalidated,
            uncacheable_until,
            ..Local::default()
        };
        let effects = exchange.handle(Event::Local(local), now);
        self.actors[by].run = Some(Run::Exchange(exchange));
        interpreter::carry_out(self, by, effects);
    }

    fn arrive(&mut self, by: usize, arrive: Arrive) {
        let Arrive {
            key,
            accept_handed_over,
            wait_for_refresh,
            given_up,
        } = arrive;
        let (envoy, me, now) = (self.envoy_of(by), self.identity(by), self.now);
        let digest = self.with_exchange(by, |exchange| exchange.key().digest());
        let invalidated = self.vms[self.actors[by].vm]
            .invalidated
            .get(&digest)
            .copied();
        let terms = Terms::until(now.plus_millis(LEASE_MS));
        let terms = Terms {
            accept_handed_over,
            wait_for_refresh,
            given_up,
            invalidated,
            ..terms
        };
        let inbox = u32::try_from(self.actors[by].vm).unwrap() + 1;
        let Envoy { slots, handoffs } = &mut self.envoys[envoy];
        let held = slots.get(&key.0).map(Vec::as_slice);
        let (bytes, answer) = match collapse::arrive(held, &key, me, inbox, now, terms) {
            Arrival::Lead(bytes) => (Some(bytes), SlotAnswer::Lead),
            Arrival::Succeed(bytes) => (Some(bytes), SlotAnswer::Succeed),
            Arrival::Wait(leader, bytes) => {
                self.actors[by].waits = Some((key, now.plus_millis(WAIT_MS)));
                (bytes, SlotAnswer::Wait(leader))
            }
            Arrival::HandedOver(handoff) => (
                None,
                SlotAnswer::HandedOver(handoffs[handoff.index as usize].clone()),
            ),
            Arrival::Refreshing => (None, SlotAnswer::Refreshing),
            Arrival::Uncacheable(until) => (None, SlotAnswer::Uncacheable(until)),
            Arrival::Occupied => (None, SlotAnswer::Occupied),
            Arrival::NotYet(_) => panic!("{by} is no refresh"),
        };
        if let Some(bytes) = bytes {
            slots.insert(key.0, bytes);
        }
        self.drive(by, Event::Slot(answer));
    }

    fn ask_store(&mut self, by: usize, question: StoreQuestion) {
        let until = self.now.plus_millis(WAIT_MS);
        self.ask(by, question, until);
    }

    fn forward(&mut self, by: usize, change: ForwardedRequest) {
        self.fetch_from_origin(by, change.set);
    }
}

impl Refreshes for Fleet {
    fn ask_store_for_refresh(&mut self, by: usize, question: StoreQuestion) {
        let until = self.now;
        self.ask(by, question, until);
    }

    fn fetch(&mut self, by: usize, fields: Fields) {
        self.fetch_from_origin(by, fields);
    }
}
