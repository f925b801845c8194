//! The table of states in `exchange` is what the code does: random walks find every transition in
//! it and no other. On the way they hold the exchange to what no walk may break: whoever leads
//! tells those who wait, once; every lease ends, once; a client gets one answer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use larder_cache_core::collapse::Identity;
use larder_cache_core::exchange::{
    CacheCommand, Command, Effects, Event, Exchange, Local, Outcome, ResponseSource, Setup,
    SlotAnswer, StoreAnswer, StoreFault,
};
use larder_cache_core::fields::Fields;
use larder_cache_core::message::{Request, ResponseHead};
use larder_cache_core::policy::{Policy, RangeOnMiss};
use larder_cache_core::route::RefreshPath;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;
use larder_contract::store_api::Fence;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

type Transitions = BTreeSet<(String, String)>;

/// Where the table's first row begins.
const ARRIVES: &str = "the request arrives";

#[test]
fn random_walks_take_every_transition_of_the_table_and_no_other() {
    let mut taken = Transitions::new();
    let pool: Vec<_> = (0..100)
        .map(|seed| Walk::new(seed, Vec::new()).made_earlier())
        .collect();
    for seed in 0..6_000 {
        Walk::new(seed, pool.clone()).go(&mut taken);
    }
    let table = table();
    assert!(table.len() > 20, "{table:?}");
    let missing: Vec<_> = taken.difference(&table).collect();
    assert!(
        missing.is_empty(),
        "the code does what the table lacks: {missing:?}"
    );
    let dead: Vec<_> = table.difference(&taken).collect();
    assert!(
        dead.is_empty(),
        "the table has what the code never did: {dead:?}"
    );
}

#[test]
fn the_picture_in_the_documents_is_drawn_from_the_table() {
    let name = |state: &str| if state == ARRIVES { "[*]" } else { state }.to_owned();
    let mut drawn = "```mermaid\nstateDiagram-v2\n".to_owned();
    for (from, to, why) in rows() {
        let label = if why.is_empty() {
            why
        } else {
            format!(": {why}")
        };
        drawn += &format!("    {} --> {}{label}\n", name(&from), name(&to));
    }
    let document = include_str!("../../docs/design.md");
    assert!(
        document.contains(&drawn),
        "docs/design.md has to show:\n{drawn}```"
    );
}

fn table() -> Transitions {
    rows().into_iter().map(|(from, to, _)| (from, to)).collect()
}

/// The table in the module's documentation: a state, the next one, and why, where it says so.
fn rows() -> Vec<(String, String, String)> {
    let mut rows = Vec::new();
    for row in include_str!("../src/exchange.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
    {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let [from, .., next] = cells[..] else {
            continue;
        };
        let mut parts = next.split('`').skip(1);
        while let (Some(to), behind) = (parts.next(), parts.next()) {
            let why = behind.and_then(|text| text.strip_prefix(" (")?.split_once(')'));
            let why = why.map_or_else(String::new, |(why, _)| why.to_owned());
            rows.push((from.trim_matches('`').to_owned(), to.to_owned(), why));
        }
    }
    rows
}

/// One exchange to which anything may happen.
struct Walk {
    chance: StdRng,
    now: Timestamp,
    /// What may be stored.
    pool: Vec<Arc<StoredResponse>>,
    leases: HashMap<String, usize>,
    led: usize,
    published: usize,
    answers: usize,
}

impl Walk {
    fn new(seed: u64, pool: Vec<Arc<StoredResponse>>) -> Self {
        let now = Timestamp::from_millis(1_000_000_000);
        Self {
            chance: StdRng::seed_from_u64(seed),
            now,
            pool,
            leases: HashMap::new(),
            led: 0,
            published: 0,
            answers: 0,
        }
    }

    fn go(&mut self, taken: &mut Transitions) {
        let setup = Setup {
            policy: Arc::new(self.policy()),
            namespace: Arc::from(b"walk".as_slice()),
            refreshes: self.one_of(&[RefreshPath::Routed, RefreshPath::Straight]),
            rules: None,
        };
        let (mut exchange, effects) = Exchange::open(self.request(), setup, self.now);
        taken.insert((ARRIVES.to_owned(), exchange.state_name().to_owned()));
        self.note(&exchange, effects);
        for _ in 0..30 {
            self.now = self.now.plus_millis(self.chance.random_range(0..3_000));
            let before = exchange.state_name();
            let variants = self.variants();
            let awaited = before != "Over" && self.chance.random_range(0..20) > 0;
            let effects = self.happen(
                &mut exchange,
                if awaited { before } else { "any" },
                &variants,
            );
            if awaited || effects != Effects::default() || exchange.state_name() != before {
                taken.insert((before.to_owned(), exchange.state_name().to_owned()));
            }
            self.note(&exchange, effects);
        }
        let effects = exchange.handle(
            Event::Gone {
                origin_broke: self.chance.random(),
            },
            self.now,
        );
        assert!(exchange.is_over());
        self.note(&exchange, effects);
        assert_eq!(self.published, self.led, "those who wait are told once");
        assert!(
            self.leases.values().all(|ends| *ends == 1),
            "a lease ends once: {:?}",
            self.leases
        );
        assert!(self.answers <= 1, "{} answers", self.answers);
    }

    /// What the effects end, and what they answer.
    fn note(&mut self, exchange: &Exchange, effects: Effects) {
        assert!(
            !exchange.is_over() || effects.question.is_none(),
            "{:?} is asked when all is over",
            effects.question
        );
        for command in effects.commands {
            match command {
                Command::Reply(_) | Command::PassResponse(_) => self.answers += 1,
                Command::Refresh(order) => self.end(order.fence),
                Command::Cache(CacheCommand::Keep { fence, .. }) => self.end(fence),
                Command::Cache(CacheCommand::ReleaseLease { fence, .. }) => self.end(Some(fence)),
                Command::Cache(CacheCommand::Publish { .. }) => self.published += 1,
                Command::Abort | Command::RemindAt(_) | Command::Report(_) | Command::Cache(_) => {}
            }
        }
    }

    fn end(&mut self, fence: Option<Fence>) {
        if let Some(fence) = fence {
            *self.leases.get_mut(&fence.0).expect("it was given") += 1;
        }
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all.choose(&mut self.chance).unwrap().clone()
    }

    fn policy(&mut self) -> Policy {
        let some = if self.chance.random() {
            Policy::default()
        } else {
            Policy::strict()
        };
        Policy {
            cache: self.chance.random_range(0..20) > 0,
            collapse: self.chance.random_range(0..5) > 0,
            shared_store: self.chance.random_range(0..5) > 0,
            allow_purge: true,
            query_override: true,
            range_on_miss: self.one_of(&[RangeOnMiss::Whole, RangeOnMiss::Part]),
            ..some
        }
    }

    fn request(&mut self) -> Request {
        let method = self.one_of(&[
            "GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "PURGE",
        ]);
        let path = self.one_of(&[
            "/",
            "/",
            "/",
            "/?cache-control=max-age=5",
            "/?cache-control=nonsense",
        ]);
        let fields = [
            ("cookie", "a=1"),
            ("authorization", "Bearer x"),
            ("range", "bytes=0-1"),
            ("range", "bytes=0-"),
            ("cache-control", "no-cache"),
            ("cache-control", "only-if-cached"),
            ("if-none-match", "\"1\""),
            ("upgrade", "websocket"),
        ];
        let mut request = Request::new(method, "a.example", path);
        for (name, value) in fields {
            if self.chance.random_range(0..8) == 0 {
                request = request.with(name, value);
            }
        }
        request
    }

    /// What level 1 holds, or the store.
    fn variants(&mut self) -> Vec<Arc<StoredResponse>> {
        (0..self.chance.random_range(0..2))
            .map(|_| self.stored())
            .collect()
    }

    fn stored(&mut self) -> Arc<StoredResponse> {
        self.pool.choose(&mut self.chance).unwrap().clone()
    }

    /// Something that another request has left.
    fn made_earlier(&mut self) -> Arc<StoredResponse> {
        let mut policy = Policy::strict();
        policy.range_on_miss = RangeOnMiss::Part;
        let setup = Setup {
            policy: Arc::new(policy),
            namespace: Arc::from(b"walk".as_slice()),
            refreshes: RefreshPath::Routed,
            rules: None,
        };
        let is_part = self.chance.random_range(0..4) == 0;
        let mut request = Request::new("GET", "a.example", "/");
        let (mut status, mut fields) = (200, self.response_fields());
        if is_part {
            request = request.with("range", "bytes=0-1");
            (status, fields) = (
                206,
                Fields::from_pairs([
                    ("content-range", "bytes 0-1/4"),
                    ("etag", "\"1\""),
                    ("cache-control", "max-age=9"),
                ]),
            );
        }
        let at = Timestamp::from_millis(self.now.as_millis() - self.chance.random_range(0..20_000));
        let (mut exchange, _) = Exchange::open(request, setup, at);
        exchange.handle(Event::Local(Local::default()), at);
        exchange.handle(Event::Slot(SlotAnswer::Lead), at);
        exchange.handle(
            Event::Store(StoreAnswer::Nothing { uncacheable: false }),
            at,
        );
        let head = ResponseHead { status, fields };
        exchange.handle(
            Event::Response {
                head,
                source: ResponseSource::Origin,
                end: false,
            },
            at,
        );
        let effects = exchange.handle(
            Event::Body {
                chunk: b"ab",
                end: true,
            },
            at,
        );
        let kept = effects
            .commands
            .into_iter()
            .find_map(|command| match command {
                Command::Cache(CacheCommand::Keep { stored, .. }) => Some(stored),
                _ => None,
            });
        kept.unwrap_or_else(|| self.made_earlier())
    }

    fn response_fields(&mut self) -> Fields {
        let control = self.one_of(&[
            "max-age=5",
            "max-age=5",
            "max-age=1, stale-while-revalidate=9",
            "max-age=1, stale-if-error=9",
            "no-cache",
            "no-store",
            "private",
        ]);
        let tag = self.one_of(&["\"1\"", "\"2\""]);
        let mut fields = Fields::from_pairs([("cache-control", control), ("etag", tag)]);
        if self.chance.random_range(0..4) == 0 {
            fields.append(b"content-location", b"/");
        }
        fields
    }

    /// Something that an exchange in this state waits for; in any other, something out of place.
    fn happen(
        &mut self,
        exchange: &mut Exchange,
        state: &str,
        variants: &[Arc<StoredResponse>],
    ) -> Effects {
        let now = self.now;
        match state {
            "Local" => exchange.handle(
                Event::Local(Local {
                    variants,
                    ..Local::default()
                }),
                now,
            ),
            "Arriving" => exchange.handle(Event::Slot(self.counted_slot_answer()), now),
            "Waiting" if self.chance.random_range(0..4) == 0 => {
                exchange.handle(Event::WaitEnded, now)
            }
            "Waiting" => {
                let outcome = self.outcome();
                exchange.handle(
                    Event::Woken {
                        outcome,
                        untrue_since: None,
                    },
                    now,
                )
            }
            "Asking" => {
                let answer = self.store_answer();
                exchange.handle(Event::Store(answer), now)
            }
            "Forwarded" | "Passing" => {
                let (head, source) = self.head();
                exchange.handle(
                    Event::Response {
                        head,
                        source,
                        end: self.chance.random_range(0..4) == 0,
                    },
                    now,
                )
            }
            "Capturing" if self.chance.random_range(0..4) == 0 => {
                exchange.handle(Event::TimePassed, now)
            }
            "Capturing" | "Completing" => {
                let chunk = self.one_of(&[b"".as_slice(), b"a", b"cd"]);
                exchange.handle(
                    Event::Body {
                        chunk,
                        end: self.chance.random(),
                    },
                    now,
                )
            }
            _ if self.chance.random() => exchange.handle(
                Event::Body {
                    chunk: b"x",
                    end: false,
                },
                now,
            ),
            _ => exchange.handle(Event::TimePassed, now),
        }
    }

    /// Counts who leads.
    fn counted_slot_answer(&mut self) -> SlotAnswer {
        let answer = self.slot_answer();
        self.led += usize::from(matches!(answer, SlotAnswer::Lead | SlotAnswer::Succeed));
        answer
    }

    fn slot_answer(&mut self) -> SlotAnswer {
        match self.chance.random_range(0..8) {
            0..3 => SlotAnswer::Lead,
            3 => SlotAnswer::Succeed,
            4 => SlotAnswer::Wait(Identity { vm: 1, stream: 1 }),
            5 => SlotAnswer::HandedOver(self.outcome()),
            6 => {
                if self.chance.random() {
                    SlotAnswer::Refreshing
                } else {
                    SlotAnswer::Occupied
                }
            }
            _ => SlotAnswer::Uncacheable(self.now),
        }
    }

    fn outcome(&mut self) -> Outcome {
        match self.chance.random_range(0..9) {
            0 => Outcome::Fetched(self.stored()),
            1 => Outcome::Found(self.stored()),
            2 => Outcome::StaleOnError(self.stored()),
            3 => Outcome::OriginError(self.stored()),
            4 => Outcome::Failed(502),
            5 => Outcome::Uncacheable,
            6 => Outcome::NotForOthers { counts: true },
            7 => Outcome::NotRefreshed,
            _ => Outcome::Again,
        }
    }

    fn store_answer(&mut self) -> StoreAnswer {
        let stored = self.variants().pop();
        match self.chance.random_range(0..6) {
            0 => stored.map_or(StoreAnswer::Fault(StoreFault::Timeout), StoreAnswer::Entry),
            1 | 2 => {
                let fence = format!("{:x}", self.leases.len());
                self.leases.insert(fence.clone(), 0);
                StoreAnswer::Lease(Fence(fence), stored)
            }
            3 => StoreAnswer::Held(stored),
            4 => StoreAnswer::Nothing { uncacheable: true },
            _ => StoreAnswer::Nothing { uncacheable: false },
        }
    }

    fn head(&mut self) -> (ResponseHead, ResponseSource) {
        let source = match self.chance.random_range(0..12) {
            0 => ResponseSource::NoOrigin,
            1 => ResponseSource::Lost,
            2 => ResponseSource::Timeout,
            3 => ResponseSource::Proxy,
            _ => ResponseSource::Origin,
        };
        let status = self.one_of(&[200, 200, 200, 206, 206, 304, 304, 404, 416, 500]);
        let mut fields = self.response_fields();
        if status == 206 {
            let range = self.one_of(&[b"bytes 0-1/4".as_slice(), b"bytes 2-3/4"]);
            fields.set(b"content-range", range);
            fields.set(b"etag", b"\"1\"");
        }
        (ResponseHead { status, fields }, source)
    }
}
