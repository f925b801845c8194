//! The simulated world: one cache, one origin, a clock that only moves when told.

use std::sync::Arc;

use larder_cache_core::cache_status::CacheStatus;
use larder_cache_core::collapse::CollapseKey;
use larder_cache_core::exchange::{
    Arrive, Effects, Event, Exchange, ForwardedRequest, Interest, Local, Outcome, RefreshOrder,
    Reply, ResponseChange, ResponseSource, Setup, SlotAnswer, StoreAnswer, StoreQuestion,
};
use larder_cache_core::fields::Fields;
use larder_cache_core::message::{Request, ResponseHead};
use larder_cache_core::policy::Policy;
use larder_cache_core::refresh::{self, Refresh};
use larder_cache_core::route::RefreshPath;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::entry::RouteSeen;
use larder_contract::http_time::Timestamp;
use larder_contract::key::{KeyDigest, PrimaryKey};
use larder_contract::store_api::Fence;

use crate::interpreter::{self, Refreshes, Shared, World};

/// What a client got.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Got {
    /// 0 for an answer that was broken off.
    pub(crate) status: u16,
    pub(crate) body: String,
    /// `Cache-Status`.
    pub(crate) said: String,
}

impl Got {
    pub(crate) fn new(status: u16, body: &str, said: &str) -> Self {
        Self {
            status,
            body: body.to_owned(),
            said: said.to_owned(),
        }
    }

    /// Whether the cache answered by itself (RFC 9211 §2.1).
    pub(crate) fn is_hit(&self) -> bool {
        self.said.starts_with("larder; hit")
    }

    /// Whether `Cache-Status` has these words.
    pub(crate) fn says(&self, words: &str) -> bool {
        self.said.contains(words)
    }
}

pub(crate) struct Sim {
    policy: Arc<Policy>,
    now: Timestamp,
    level1: Vec<(PrimaryKey, Arc<StoredResponse>)>,
    answer: (ResponseHead, String),
    source: ResponseSource,
    requests: Vec<Fields>,
    last_reply: Fields,
    last_passed: ResponseChange,
    refreshes: Vec<RefreshOrder>,
    begun_refreshes: usize,
    marks: usize,
    refresh_path: RefreshPath,
    running: Option<Exchange>,
    refreshing: Option<Refresh>,
    /// The running request's fields on their way to the origin.
    sending: Fields,
    /// Whether the origin answers before its client leaves.
    answers: bool,
    got: Got,
}

pub(crate) fn override_policy() -> Policy {
    Policy {
        query_override: true,
        ..Policy::default()
    }
}

/// What holds for all requests under a policy.
pub(crate) fn setup(policy: &Arc<Policy>, refreshes: RefreshPath) -> Setup {
    Setup {
        policy: policy.clone(),
        namespace: Arc::from(b"sim".as_slice()),
        refreshes,
        rules: None,
    }
}

/// A GET of `/` that has arrived.
pub(crate) fn begin(refreshes: RefreshPath, now: Timestamp) -> (Exchange, Effects) {
    let request = Request::new("GET", "a.example", "/");
    Exchange::open(request, setup(&Arc::new(Policy::default()), refreshes), now)
}

impl Sim {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(policy),
            now: Timestamp::from_millis(784_111_777_000),
            level1: Vec::new(),
            answer: (ResponseHead::new(200, &[]), String::new()),
            source: ResponseSource::Origin,
            requests: Vec::new(),
            last_reply: Fields::default(),
            last_passed: ResponseChange::default(),
            refreshes: Vec::new(),
            begun_refreshes: 0,
            marks: 0,
            refresh_path: RefreshPath::Routed,
            running: None,
            refreshing: None,
            sending: Fields::default(),
            answers: true,
            got: Got::default(),
        }
    }

    /// What the origin answers from now on.
    pub(crate) fn origin(&mut self, status: u16, fields: &[(&str, &str)], body: &str) {
        self.answer = (ResponseHead::new(status, fields), body.to_owned());
        self.source = ResponseSource::Origin;
    }

    /// From now on no origin is reached.
    pub(crate) fn disconnect(&mut self) {
        self.origin(503, &[], "no healthy upstream");
        self.source = ResponseSource::NoOrigin;
    }

    /// From now on the proxy answers, for this reason.
    pub(crate) fn lose(&mut self, source: ResponseSource) {
        self.origin(503, &[], "no answer");
        self.source = source;
    }

    /// From now on the proxy answers of its own accord.
    pub(crate) fn proxy(&mut self, status: u16) {
        self.origin(status, &[], "by the proxy");
        self.source = ResponseSource::Proxy;
    }

    /// A request whose client leaves once it has gone to the origin.
    pub(crate) fn leave(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) {
        let request = Request::new(method, "a.example", path);
        let request = fields
            .iter()
            .fold(request, |request, (name, value)| request.with(name, value));
        self.answers = false;
        self.start(request);
        self.answers = true;
        self.drive(Event::Gone {
            origin_broke: false,
        });
        self.got = Got::default();
    }

    /// From now on refreshes take no route.
    pub(crate) fn refresh_straight(&mut self) {
        self.refresh_path = RefreshPath::Straight;
    }

    /// What is stored came by a route that changes what it sends, or does not.
    pub(crate) fn saw_the_route(&self, changes: bool) {
        for (_, stored) in &self.level1 {
            stored.route.note(RouteSeen {
                at_ms: self.now,
                changes,
            });
        }
    }

    pub(crate) fn pass_secs(&mut self, secs: u64) {
        self.now = self.now.plus_millis(secs * 1000);
    }

    pub(crate) fn origin_requests(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn refreshes(&self) -> usize {
        self.begun_refreshes
    }

    /// How often level 1 was told that answers under a key are not storable.
    pub(crate) fn marks(&self) -> usize {
        self.marks
    }

    /// Lets the refreshes that were ordered fetch what the origin answers now.
    pub(crate) fn run_refreshes(&mut self) {
        for order in std::mem::take(&mut self.refreshes) {
            let (refresh, step) = Refresh::begin(order, self.policy.clone(), self.now);
            self.refreshing = Some(refresh);
            interpreter::carry_out_refresh(self, (), step);
        }
    }

    pub(crate) fn last_request_field(&self, name: &str) -> Option<String> {
        let value = self.requests.last()?.get(name)?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    /// All that is stored.
    pub(crate) fn stored(&self) -> Vec<Arc<StoredResponse>> {
        self.level1
            .iter()
            .map(|(_, stored)| stored.clone())
            .collect()
    }

    /// A field of the cache's own last answer.
    pub(crate) fn last_reply_field(&self, name: &str) -> Option<String> {
        Some(String::from_utf8(self.last_reply.get(name)?.to_vec()).unwrap())
    }

    /// A field that was set on the response that passed last.
    pub(crate) fn last_passed_field(&self, name: &str) -> Option<String> {
        Some(String::from_utf8(self.last_passed.set.get(name)?.to_vec()).unwrap())
    }

    pub(crate) fn get(&mut self, path: &str) -> Got {
        self.get_with(path, &[])
    }

    pub(crate) fn get_with(&mut self, path: &str, fields: &[(&str, &str)]) -> Got {
        self.request_with("GET", path, fields)
    }

    pub(crate) fn request(&mut self, method: &str, path: &str) -> Got {
        self.request_with(method, path, &[])
    }

    pub(crate) fn request_with(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Got {
        let request = Request::new(method, "a.example", path);
        self.run(
            fields
                .iter()
                .fold(request, |request, (name, value)| request.with(name, value)),
        )
    }

    /// A request of any kind.
    pub(crate) fn run(&mut self, request: Request) -> Got {
        self.start(request);
        std::mem::take(&mut self.got)
    }

    fn start(&mut self, request: Request) {
        self.sending = request.fields.clone();
        let (exchange, effects) =
            Exchange::open(request, setup(&self.policy, self.refresh_path), self.now);
        let state = exchange.state_name();
        self.running = Some(exchange);
        interpreter::begin(self, (), state, effects);
    }

    fn drive(&mut self, event: Event<'_>) {
        let effects = self
            .running
            .as_mut()
            .expect("a request runs")
            .handle(event, self.now);
        interpreter::carry_out(self, (), effects);
    }

    fn drive_refresh(&mut self, event: refresh::Event<'_>) {
        let step = self
            .refreshing
            .as_mut()
            .expect("a refresh runs")
            .handle(event, self.now);
        interpreter::carry_out_refresh(self, (), step);
    }

    fn answer_from_origin(&mut self) {
        let (head, body) = self.answer.clone();
        (self.got.status, self.got.body) = (head.status, body.clone());
        self.drive(Event::Response {
            head,
            source: self.source,
            end: body.is_empty(),
        });
        // In two pieces, as content comes.
        let (first, second) = body.as_bytes().split_at(body.len() / 2);
        for (chunk, end) in [(first, false), (second, true)] {
            let is_copied = self
                .running
                .as_ref()
                .is_some_and(|exchange| exchange.interest() != Interest::None);
            if !body.is_empty() && is_copied {
                self.drive(Event::Body { chunk, end });
            }
        }
    }
}

impl Shared for Sim {
    type By = ();

    fn keep(
        &mut self,
        (): (),
        key: PrimaryKey,
        stored: Arc<StoredResponse>,
        _: Option<Fence>,
        _local: bool,
    ) {
        self.level1
            .retain(|(held, old)| *held != key || old.selecting != stored.selecting);
        self.level1.push((key, stored));
    }

    /// Nobody waits here.
    fn publish(&mut self, (): (), _: CollapseKey, _: Outcome, _: Timestamp) {}

    fn mark_uncacheable(&mut self, (): (), _: PrimaryKey, _: Timestamp) {
        self.marks += 1;
    }

    fn release(&mut self, (): (), key: KeyDigest, _: Fence, _: u64) {
        panic!("there is no store that gave a lease for {key:?}");
    }

    fn invalidate(&mut self, (): (), keys: Vec<KeyDigest>, _is_doubtful: bool) {
        self.level1
            .retain(|(held, _)| !keys.contains(&held.digest()));
    }
}

impl World for Sim {
    fn reply(&mut self, (): (), reply: Reply) {
        let said = reply.fields.get("cache-status").unwrap_or_default();
        let content = std::str::from_utf8(reply.content()).unwrap();
        self.got = Got::new(reply.status, content, std::str::from_utf8(said).unwrap());
        self.last_reply = Fields::from_pairs(reply.parts().into_iter().flat_map(Fields::iter));
    }

    fn pass(&mut self, (): (), change: ResponseChange) {
        self.got.status = change.status.unwrap_or(self.got.status);
        let before = change.before.as_deref().unwrap_or_default();
        self.got
            .body
            .insert_str(0, std::str::from_utf8(before).unwrap());
        self.got.said =
            String::from_utf8(change.set.get("cache-status").unwrap_or_default().to_vec()).unwrap();
        self.last_passed = change;
    }

    fn abort(&mut self, (): ()) {
        self.got.status = 0;
    }

    /// Content comes at once here.
    fn remind(&mut self, (): (), _: Timestamp) {}

    fn order_refresh(&mut self, (): (), order: RefreshOrder) {
        self.begun_refreshes += 1;
        self.refreshes.push(order);
    }

    /// Read off the answers.
    fn report(&mut self, (): (), _: CacheStatus) {}

    fn look_up_local(&mut self, (): ()) {
        let (mut exchange, now) = (self.running.take().expect("a request runs"), self.now);
        let held = self
            .level1
            .iter()
            .filter(|(held, _)| held == exchange.key());
        let variants: Vec<_> = held.map(|(_, stored)| stored.clone()).collect();
        let effects = exchange.handle(
            Event::Local(Local {
                variants: &variants,
                ..Local::default()
            }),
            now,
        );
        self.running = Some(exchange);
        interpreter::carry_out(self, (), effects);
    }

    fn arrive(&mut self, (): (), _: Arrive) {
        self.drive(Event::Slot(SlotAnswer::Lead));
    }

    fn ask_store(&mut self, (): (), _: StoreQuestion) {
        self.drive(Event::Store(StoreAnswer::Nothing { uncacheable: false }));
    }

    fn forward(&mut self, (): (), change: ForwardedRequest) {
        let sent = &mut self.sending;
        if let Some(path) = &change.path {
            sent.set(b":path", path);
        }
        sent.retain(|name, _| !change.remove.iter().any(|removed| removed == name));
        for (name, value) in change.set.iter() {
            sent.set(name, value);
        }
        self.requests.push(sent.clone());
        if self.answers {
            self.answer_from_origin();
        }
    }
}

impl Refreshes for Sim {
    fn ask_store_for_refresh(&mut self, (): (), _: StoreQuestion) {
        self.drive_refresh(refresh::Event::Store(StoreAnswer::Nothing {
            uncacheable: false,
        }));
    }

    fn fetch(&mut self, (): (), fields: Fields) {
        self.requests.push(fields);
        let (head, body) = self.answer.clone();
        self.drive_refresh(refresh::Event::Response(&head, body.as_bytes()));
    }
}
