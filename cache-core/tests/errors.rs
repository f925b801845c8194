//! Which answers count as errors, and how long the origin is left alone after one.

use std::sync::Arc;

use larder_cache_core::exchange::{
    CacheCommand, Command, Effects, Event, Exchange, Local, Question, ResponseSource, Setup,
    SlotAnswer, StoreAnswer,
};
use larder_cache_core::fields::Fields;
use larder_cache_core::message::{Request, ResponseHead};
use larder_cache_core::policy::{Policy, StatusRange};
use larder_cache_core::route::{RefreshPath, RouteNote};
use larder_cache_core::stored_response::{ReuseTerms, SeenTreatment, StoredResponse};
use larder_cache_core::vary::SelectingFields;
use larder_contract::http_time::{DeltaSeconds, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

/// Stale since a moment, and for an hour usable where the origin fails.
fn stale() -> Arc<StoredResponse> {
    Arc::new(StoredResponse {
        url: "http://a/".to_owned(),
        status: 200,
        fields: Fields::from_pairs([("etag", "\"1\"")]),
        body: Arc::from(b"old".as_slice()),
        part: None,
        request_time: Timestamp::from_millis(NOW.as_millis() - 60_000),
        response_time: Timestamp::from_millis(NOW.as_millis() - 60_000),
        initial_age: DeltaSeconds::ZERO,
        terms: ReuseTerms {
            lifetime: DeltaSeconds::new(10),
            stale_if_error: DeltaSeconds::new(3_600),
            ..ReuseTerms::default()
        },
        explicitly_public: false,
        stale_from: None,
        selecting: SelectingFields::default(),
        tags: Vec::new(),
        route: RouteNote::default(),
        treatment: SeenTreatment::default(),
    })
}

/// A request at some time: its answer, if level 1 gives it; else what the origin's answer of this
/// status brings.
fn answer(
    stored: &Arc<StoredResponse>,
    policy: &Policy,
    at: Timestamp,
    status: u16,
) -> (bool, bool) {
    let setup = Setup {
        policy: Arc::new(policy.clone()),
        namespace: Arc::from(b"n".as_slice()),
        refreshes: RefreshPath::Routed,
        rules: None,
    };
    let gives_stale = |effects: &Effects| {
        effects
            .commands
            .iter()
            .any(|command| matches!(command, Command::Reply(reply) if reply.stored.is_some()))
    };
    let (mut exchange, mut effects) = Exchange::open(Request::new("GET", "a", "/"), setup, at);
    for _ in 0..4 {
        let event = match effects.question.take() {
            Some(Question::Forward(_)) => break,
            Some(Question::Arrive(_)) => Event::Slot(SlotAnswer::Lead),
            Some(Question::AskStore(_)) => {
                Event::Store(StoreAnswer::Nothing { uncacheable: false })
            }
            None => Event::Local(Local {
                variants: std::slice::from_ref(stored),
                ..Local::default()
            }),
        };
        effects = exchange.handle(event, at);
        if exchange.is_over() {
            return (false, gives_stale(&effects));
        }
    }
    let effects = exchange.handle(
        Event::Response {
            head: ResponseHead::new(status, &[]),
            source: ResponseSource::Origin,
            end: true,
        },
        at,
    );
    (true, gives_stale(&effects))
}

/// As far as the origin's answer of this status with these fields.
fn answered(
    stored: &Arc<StoredResponse>,
    policy: &Policy,
    (status, pairs): (u16, &[(&str, &str)]),
) -> Effects {
    let setup = Setup {
        policy: Arc::new(policy.clone()),
        namespace: Arc::from(b"n".as_slice()),
        refreshes: RefreshPath::Routed,
        rules: None,
    };
    let (mut exchange, _) = Exchange::open(Request::new("GET", "a", "/"), setup, NOW);
    let variants = std::slice::from_ref(stored);
    let local = Local {
        variants,
        ..Local::default()
    };
    exchange.handle(Event::Local(local), NOW);
    exchange.handle(Event::Slot(SlotAnswer::Succeed), NOW);
    let response = Event::Response {
        head: ResponseHead::new(status, pairs),
        source: ResponseSource::Origin,
        end: true,
    };
    exchange.handle(response, NOW)
}

#[test]
fn a_cookie_in_a_304_that_is_not_stored_goes_to_the_one_who_asked() {
    let policy = Policy {
        strip_set_cookie: true,
        ..Policy::default()
    };
    let pairs = [("set-cookie", "a=1"), ("cache-control", "max-age=9")];
    let effects = answered(&stale(), &policy, (304, &pairs));
    let has_cookie = |stored: &StoredResponse| stored.fields.contains("set-cookie");
    let (mut shown, mut kept) = (None, None);
    for command in effects.commands {
        match command {
            Command::Reply(reply) => shown = reply.stored.as_deref().map(has_cookie),
            Command::Cache(CacheCommand::Keep { stored, .. }) => kept = Some(has_cookie(&stored)),
            _ => {}
        }
    }
    assert_eq!((shown, kept), (Some(true), Some(false)));
}

#[test]
fn the_operator_says_which_statuses_are_errors() {
    let listed = Policy {
        error_statuses: ["429", "52x"]
            .map(|text| StatusRange::parse(text).unwrap())
            .to_vec(),
        ..Policy::default()
    };
    for (policy, status, is_error) in [
        (&Policy::default(), 503, true),
        (&Policy::default(), 429, false),
        (&Policy::default(), 522, false),
        (&listed, 429, true),
        (&listed, 522, true),
        (&listed, 503, false),
    ] {
        let (asked, stale) = answer(&stale(), policy, NOW, status);
        assert_eq!((asked, stale), (true, is_error), "{status}");
    }
}

#[test]
fn after_an_error_the_origin_is_left_alone_for_as_long_as_the_operator_says() {
    let policy = Policy {
        error_cooldown: DeltaSeconds::new(5),
        ..Policy::default()
    };
    let stored = stale();
    assert_eq!(answer(&stored, &policy, NOW, 503), (true, true));
    let later = |millis| NOW.plus_millis(millis);
    assert_eq!(answer(&stored, &policy, later(4_999), 503), (false, true));
    assert_eq!(answer(&stored, &policy, later(5_000), 200), (true, false));
    let without = stale();
    let now = Policy::default();
    assert_eq!(answer(&without, &now, NOW, 503), (true, true));
    assert_eq!(answer(&without, &now, later(1), 503), (true, true));
}
