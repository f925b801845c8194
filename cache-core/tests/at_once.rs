//! The short ways, of a hit and of what is known not to be storable, say what the long way says.

use std::sync::{Arc, LazyLock};

use larder_cache_core::exchange::{
    AtHand, Begun, Command, Effects, Event, Exchange, ForwardedRequest, Held, Local, Marked,
    Question, ResponseChange, ResponseSource, Setup,
};
use larder_cache_core::field_names::FieldPattern;
use larder_cache_core::fields::Fields;
use larder_cache_core::glob::Glob;
use larder_cache_core::message::{Request, ResponseHead};
use larder_cache_core::partial::Part;
use larder_cache_core::policy::key::QueryKept;
use larder_cache_core::policy::key::bucket::Buckets;
use larder_cache_core::policy::{Handling, KeyRules, Policy};
use larder_cache_core::route::RefreshPath;
use larder_cache_core::route::RouteNote;
use larder_cache_core::stored_response::{ReuseTerms, SeenTreatment, StoredResponse};
use larder_cache_core::vary::{self, SelectingFields};
use larder_contract::http_time::{DeltaSeconds, Timestamp};
use larder_contract::key::PrimaryKey;
use larder_contract::purge::remembered::Times;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;

static SAFE: LazyLock<Policy> = LazyLock::new(Policy::default);

const FIELDS: [(&str, &str); 25] = [
    ("accept-encoding", "gzip, br"),
    ("accept-encoding", "br"),
    ("accept-language", "de"),
    ("authorization", "Bearer x"),
    ("cache-control", "no-cache"),
    ("cache-control", "max-age=1, max-stale=9"),
    ("content-type", "application/grpc"),
    ("cookie", "a=b"),
    ("cookie", "a=b; b=c"),
    ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ("if-none-match", "\"1\""),
    ("if-range", "\"1\""),
    ("pragma", "no-cache"),
    ("range", "bytes=0-1"),
    ("upgrade", "websocket"),
    ("x-http-method-override", "DELETE"),
    ("x_http_method", "DELETE"),
    ("x-request-id", "1"),
    ("x-jwt-sub", "alice"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-host", "other.example"),
    ("x-original-url", "/evil"),
    ("rsc", "1"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-proto", "nothttps"),
];

fn requests() -> impl Strategy<Value = Request> {
    let fields = proptest::collection::vec(select(&FIELDS[..]), 0..4);
    let path = select(
        &[
            "/",
            "/p?q=1",
            "/p?cache-control=max-age=5",
            "/p?cache-control=x",
        ][..],
    );
    let method = select(&["GET", "GET", "GET", "HEAD", "POST", "PURGE"][..]);
    let authority = select(&["a.example", "a.example", "A.example:80"][..]);
    (method, authority, path, fields, any::<bool>(), 0..16u8).prop_map(
        |(method, authority, path, fields, content, identified)| {
            let request = Request::new(method, authority, path);
            let request = fields
                .into_iter()
                .fold(request, |request, (name, value)| request.with(name, value));
            Request {
                has_content: content,
                is_identified: identified == 0,
                ..request
            }
        },
    )
}

fn policies() -> impl Strategy<Value = Policy> {
    let unkeyed = [
        Handling::Select,
        Handling::Strip,
        Handling::Bypass,
        Handling::Ignore,
    ];
    (any::<[bool; 8]>(), select(unkeyed.to_vec())).prop_map(
        |(
            [
                cache,
                query,
                directives,
                language,
                authorization,
                purge,
                keys,
                all,
            ],
            host,
        )| Policy {
            cache: cache || purge,
            query_override: query,
            request_directives: if directives {
                vec!["no-cache".into(), "max-age".into(), "pragma".into()]
            } else {
                vec![]
            },
            normalise_accept_language: language,
            reuse_with_authorization: authorization,
            allow_purge: purge,
            key: keys.then(|| Arc::new(key_rules(all))),
            ignore_cookies: keys.then(|| Glob::new("a")).into_iter().collect(),
            unkeyed_fields: Policy::default()
                .unkeyed_fields
                .with([(FieldPattern::parse("x-forwarded-host").unwrap(), host)]),
            ..Policy::default()
        },
    )
}

fn key_rules(origin_sees_all: bool) -> KeyRules {
    KeyRules {
        query: QueryKept::Without(vec![Glob::new("q")]),
        ignore_scheme: true,
        cookies: vec![Glob::new("b")],
        buckets: Buckets::new("accept-encoding", ["gzip"])
            .into_iter()
            .collect(),
        origin_sees_all,
        ..KeyRules::default()
    }
}

fn stored() -> impl Strategy<Value = Arc<StoredResponse>> {
    let vary = proptest::collection::vec(
        select(
            &[
                "accept-encoding",
                "accept-language",
                "x-none",
                "x-forwarded-host",
                ":override",
                ":unkeyed",
            ][..],
        ),
        0..3,
    );
    let flags = any::<[bool; 4]>();
    (
        requests(),
        vary,
        flags,
        0u64..12,
        0u64..6,
        select(&[200u16, 204, 404][..]),
    )
        .prop_map(
            |(by, vary, [no_cache, must_revalidate, part, public], age, swr, status)| {
                let names: Vec<Vec<u8>> = vary
                    .into_iter()
                    .map(|name| name.as_bytes().to_vec())
                    .collect();
                let now = Timestamp::from_millis(1_000_000);
                Arc::new(StoredResponse {
                    url: String::new(),
                    status,
                    fields: Fields::from_pairs([("content-type", "text/plain"), ("etag", "\"1\"")]),
                    body: Arc::from(b"hello".as_slice()),
                    part: (part && no_cache).then_some(Part {
                        first: 0,
                        complete: 9,
                    }),
                    request_time: Timestamp::from_millis(now.as_millis() - age * 1000),
                    response_time: Timestamp::from_millis(now.as_millis() - age * 1000),
                    initial_age: DeltaSeconds::ZERO,
                    terms: ReuseTerms {
                        lifetime: DeltaSeconds::new(8),
                        stale_while_revalidate: DeltaSeconds::new(swr),
                        no_cache: no_cache && !part,
                        must_revalidate,
                        ..ReuseTerms::default()
                    },
                    explicitly_public: public,
                    stale_from: None,
                    selecting: SelectingFields::of(&names, &prepared(by)).unwrap_or_default(),
                    tags: Vec::new(),
                    route: RouteNote::default(),
                    treatment: SeenTreatment::default(),
                })
            },
        )
}

/// A request as either way reads it, so that its own response can be found.
fn prepared(mut request: Request) -> Request {
    vary::unkeyed::add_pseudo_field(&mut request.fields, &SAFE);
    request
}

/// A host that has these variants of what a request asks for, and knows who asks or does not.
struct Hand<'a> {
    key: PrimaryKey,
    variants: &'a [Arc<StoredResponse>],
    marked_until: Option<Timestamp>,
    found: Held<'a>,
    knows: bool,
    /// Whether it was asked what only the long way needs.
    went_far: bool,
    counted: Vec<Arc<StoredResponse>>,
}

impl AtHand for Hand<'_> {
    fn look_up(&mut self, key: &PrimaryKey) -> Held<'_> {
        self.found = if *key == self.key {
            held(self.variants, self.marked_until)
        } else {
            Held::default()
        };
        self.found
    }

    fn looked_up(&mut self) -> Held<'_> {
        self.found
    }

    fn untrue(&mut self, _: &PrimaryKey) -> Times {
        self.went_far = true;
        Times::default()
    }

    fn count_use(&mut self, _: &PrimaryKey, stored: &Arc<StoredResponse>) {
        self.counted.push(stored.clone());
    }

    fn knows_client(&mut self) -> bool {
        self.knows
    }

    fn may_know_client(&mut self) -> bool {
        self.knows
    }
}

/// A mark never stands beside variants.
fn held(variants: &[Arc<StoredResponse>], marked_until: Option<Timestamp>) -> Held<'_> {
    Held {
        variants,
        uncacheable_until: marked_until.filter(|_| variants.is_empty()),
        ..Held::default()
    }
}

fn setup(policy: &Policy) -> Setup {
    let (policy, namespace) = (Arc::new(policy.clone()), Arc::from(b"n".as_slice()));
    Setup {
        policy,
        namespace,
        refreshes: RefreshPath::Routed,
        rules: None,
    }
}

fn key_of(request: &Request, policy: &Policy) -> PrimaryKey {
    let rules = policy.key.as_deref().cloned().unwrap_or_default();
    let named = rules.name(request.scheme(), request.authority(), request.path());
    named.key(b"n")
}

/// What the long way comes to, if level 1 is all it has, and where it stands.
fn the_long_way(
    request: &Request,
    policy: &Policy,
    held: Held<'_>,
    now: Timestamp,
) -> (Effects, Exchange) {
    let (mut exchange, mut effects) = Exchange::open(request.clone(), setup(policy), now);
    if exchange.state_name() == "Local" {
        let same_key = *exchange.key() == key_of(request, policy);
        let local = if same_key {
            Local {
                variants: held.variants,
                uncacheable_until: held.uncacheable_until,
                ..Local::default()
            }
        } else {
            Local::default()
        };
        effects = exchange.handle(Event::Local(local), now);
    }
    (effects, exchange)
}

/// Whether the short way answers. Whichever way it takes, it comes to what the long way comes to.
fn hits(request: &Request, policy: &Policy, variants: &[Arc<StoredResponse>]) -> bool {
    goes_short(request, policy, variants, None)
}

fn goes_short(
    request: &Request,
    policy: &Policy,
    variants: &[Arc<StoredResponse>],
    marked_until: Option<Timestamp>,
) -> bool {
    let now = Timestamp::from_millis(1_000_000);
    let level_1 = held(variants, marked_until);
    let (effects, mut exchange) = the_long_way(request, policy, level_1, now);
    let state = exchange.state_name();
    let (key, knows) = (key_of(request, policy), request.is_identified);
    let mut hand = Hand {
        key,
        variants,
        marked_until,
        found: Held::default(),
        knows,
        went_far: false,
        counted: Vec::new(),
    };
    let asked = Request {
        is_identified: false,
        ..request.clone()
    };
    match Exchange::begin(asked, setup(policy), &mut hand, now) {
        Begun::Answered(reply, status) => {
            let answered_by: Vec<_> = reply
                .stored
                .iter()
                .filter(|_| variants.len() > 1)
                .cloned()
                .collect();
            assert!(
                reply.stored.is_none() || hand.counted == answered_by,
                "{request:?}"
            );
            assert_eq!(effects.question, None, "{request:?}");
            assert_eq!(
                effects.commands.into_vec(),
                [Command::Reply(reply), Command::Report(status)],
                "{request:?}"
            );
            !hand.went_far
        }
        Begun::Marked(marked) => {
            assert!(marked_until.is_some_and(|until| now < until));
            // Who is known by metadata alone is not asked about: nothing is served.
            if !knows {
                assert_eq!(effects.commands.into_vec(), [], "{request:?}");
                let passes = Question::Forward(ForwardedRequest::default());
                assert_eq!(effects.question, Some(passes), "{request:?}");
                passes_alike(marked, &mut exchange, now);
            }
            true
        }
        Begun::Running(exchange, running) => {
            assert_eq!(
                (kinds(&running), exchange.state_name()),
                (kinds(&effects), state),
                "{request:?}"
            );
            false
        }
    }
}

/// The answer to a request that went to the origin passes as on the long way, unless that stores it.
fn passes_alike(marked: Marked, exchange: &mut Exchange, now: Timestamp) {
    let (status, source) = if exchange.request().fields.len().is_multiple_of(2) {
        (200, ResponseSource::Origin)
    } else {
        (503, ResponseSource::NoOrigin)
    };
    let fields = Fields::from_pairs([("cache-control", "no-store")]);
    let head = ResponseHead { status, fields };
    let event = Event::Response {
        head,
        source,
        end: true,
    };
    let effects = exchange.handle(event, now);
    let answer = marked.on_response(status, source);
    let mut set = answer.add;
    answer
        .set
        .iter()
        .for_each(|(name, value)| set.append(name, value));
    let change = ResponseChange {
        status: answer.status,
        set,
        ..ResponseChange::default()
    };
    assert_eq!(
        effects.commands.into_vec(),
        [
            Command::PassResponse(change),
            Command::Report(answer.report)
        ]
    );
}

/// What is to be done, without that the two ways order the fields of a request otherwise.
fn kinds(effects: &Effects) -> Vec<String> {
    let first_word = |what: String| what.split(['(', ' ']).next().unwrap_or_default().to_owned();
    let commands = effects
        .commands
        .iter()
        .map(|command| first_word(format!("{command:?}")));
    commands
        .chain(
            effects
                .question
                .iter()
                .map(|question| first_word(format!("{question:?}"))),
        )
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn what_the_short_way_answers_the_long_way_answers_alike(
        request in requests(), policy in policies(), variants in proptest::collection::vec(stored(), 0..4),
    ) {
        hits(&request, &policy, &variants);
    }

    #[test]
    fn what_is_known_not_to_be_storable_passes_alike(
        request in requests(), policy in policies(), until in 999_000_u64..1_002_000, collapse in any::<bool>(),
    ) {
        let policy = Policy { collapse, ..policy };
        goes_short(&request, &policy, &[], Some(Timestamp::from_millis(until)));
    }
}

#[test]
fn a_plain_request_to_a_marked_key_goes_the_short_way_and_one_that_is_changed_does_not() {
    let until = Some(Timestamp::from_millis(1_000_001));
    let plain = Request::new("GET", "a.example", "/p?q=1").with("cookie", "a=b");
    let goes = |request: &Request, policy: &Policy, until| goes_short(request, policy, &[], until);
    let safe = Policy::default();
    assert!(goes(&plain, &safe, until));
    assert!(!goes(
        &plain,
        &safe,
        Some(Timestamp::from_millis(1_000_000))
    ));
    assert!(!goes(&plain, &safe, None));
    for (name, value) in [
        ("x-forwarded-host", "evil"),
        ("range", "bytes=0-1"),
        ("authorization", "Bearer x"),
        ("x-forwarded-proto", "HTTPS"),
    ] {
        let special = plain.clone().with(name, value);
        assert!(!goes(&special, &safe, until), "{name}");
    }
    for request in [
        Request::new("GET", "A.example", "/"),
        Request::new("GET", "a.example", "/%c3"),
        Request::new("HEAD", "a.example", "/"),
    ] {
        assert!(!goes(&request, &safe, until), "{request:?}");
    }
    for policy in [
        Policy {
            collapse: false,
            ..Policy::default()
        },
        Policy {
            strip_tag_fields: true,
            ..Policy::default()
        },
    ] {
        assert!(!goes(&plain, &policy, until));
    }
}

#[test]
fn a_plain_hit_goes_the_short_way() {
    let request = Request::new("GET", "a.example", "/p?q=1")
        .with("accept-encoding", "br")
        .with("cookie", "a=b");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let fresh = (0..64).map(|_| stored().new_tree(&mut runner).unwrap().current());
    let fresh = fresh.map(|stored| StoredResponse {
        selecting: SelectingFields::default(),
        part: None,
        ..(*stored).clone()
    });
    let answered = fresh
        .filter(|stored| hits(&request, &Policy::default(), &[Arc::new(stored.clone())]))
        .count();
    assert!(answered > 16, "{answered} of 64");
}
