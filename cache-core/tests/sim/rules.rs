//! Single requirements that show only in a whole exchange; `docs/rfc-coverage.md` names them.

use std::sync::Arc;

use larder_cache_core::exchange::{Arrive, Command, Event, Local, Outcome, Question, SlotAnswer};
use larder_cache_core::policy::{Policy, Tell};
use larder_cache_core::route::RefreshPath;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;

use crate::world::{Got, Sim, begin};

#[test]
fn a_changed_response_replaces_the_stored_one_too() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[
            ("cache-control", "max-age=5"),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ],
        "one",
    );
    sim.get("/");
    sim.pass_secs(6);
    sim.origin(200, &[("cache-control", "max-age=5")], "two");
    sim.get("/");
    assert_eq!(
        sim.last_request_field("if-modified-since").as_deref(),
        Some("Sun, 06 Nov 1994 08:49:37 GMT")
    );
    sim.pass_secs(6);
    sim.get("/");
    assert_eq!(
        sim.last_request_field("if-modified-since"),
        None,
        "nothing of the old one is left"
    );
}

#[test]
fn a_response_without_a_date_is_stored_with_the_time_it_came() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[("cache-control", "max-age=60")], "one");
    sim.get("/");
    sim.pass_secs(9);
    sim.get("/");
    assert_eq!(
        sim.last_reply_field("date").as_deref(),
        Some("Sun, 06 Nov 1994 08:49:37 GMT")
    );
    assert_eq!(sim.last_reply_field("age").as_deref(), Some("9"));
}

#[test]
fn a_cache_before_this_one_keeps_its_member() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[
            ("cache-control", "max-age=60"),
            ("cache-status", "edge; hit; ttl=3"),
        ],
        "one",
    );
    assert_eq!(
        sim.get("/").said,
        "edge; hit; ttl=3, larder; fwd=uri-miss; fwd-status=200; stored; ttl=60"
    );
    assert_eq!(
        sim.get("/").said,
        "larder; hit; ttl=60",
        "that one has not seen this request"
    );
}

#[test]
fn a_stale_window_that_a_shared_cache_must_not_use_is_told() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[(
            "cache-control",
            "s-maxage=5, stale-while-revalidate=60, stale-if-error=60",
        )],
        "one",
    );
    sim.get("/");
    sim.pass_secs(6);
    assert_eq!(
        sim.get("/").said,
        "larder; fwd=stale; fwd-status=200; stored; ttl=5; detail=stale-forbidden"
    );
    sim.origin(
        200,
        &[(
            "cache-control",
            "must-revalidate, max-age=5, stale-if-error=60",
        )],
        "one",
    );
    sim.get("/b");
    sim.pass_secs(6);
    assert!(
        sim.get("/b").said.ends_with("stored; ttl=5"),
        "nothing stale was wanted"
    );
    sim.pass_secs(6);
    sim.origin(503, &[], "down");
    assert!(
        sim.get("/b")
            .said
            .ends_with("fwd-status=503; detail=stale-forbidden")
    );
}

#[test]
fn a_304_without_the_coding_mark_is_worth_as_much_as_one_with_it() {
    let mut sim = Sim::new(Policy::default());
    let lifetimes = ("cache-control", "max-age=5, stale-while-revalidate=60");
    let coded = [
        lifetimes,
        ("etag", "\"x--gzip\""),
        ("content-encoding", "gzip"),
        ("vary", "accept-encoding"),
    ];
    sim.origin(200, &coded, "one");
    sim.get("/");
    for round in 0..3 {
        sim.pass_secs(6);
        sim.origin(304, &[lifetimes, ("etag", "\"x\"")], "");
        assert!(
            sim.get("/").says("detail=stale-while-revalidate"),
            "{round}"
        );
        sim.run_refreshes();
        assert_eq!(
            sim.last_request_field("if-none-match").as_deref(),
            Some("\"x--gzip\"")
        );
        assert_eq!(
            sim.get("/"),
            Got::new(200, "one", "larder; hit; ttl=5"),
            "{round}"
        );
    }
    sim.pass_secs(66);
    assert!(sim.get("/").says("fwd=stale; fwd-status=304; stored"));
    assert!(sim.get("/").is_hit());
}

#[test]
fn a_soft_purge_reaches_a_copy_that_is_handed_over_after_it() {
    let fetched = |request_time: u64| {
        let mut sim = Sim::new(Policy::default());
        sim.origin(200, &[("cache-control", "max-age=60")], "one");
        sim.get("/");
        let at = Timestamp::from_millis(request_time);
        StoredResponse {
            request_time: at,
            response_time: at,
            ..(*sim.stored()[0]).clone()
        }
    };
    for (request_time, hit) in [(5_000, false), (5_001, true)] {
        let now = Timestamp::from_millis(6_000);
        let (mut exchange, _) = begin(RefreshPath::Routed, now);
        let local = Local {
            softened: Some(Timestamp::from_millis(5_000)),
            ..Local::default()
        };
        exchange.handle(Event::Local(local), now);
        let copy = Outcome::Fetched(Arc::new(fetched(request_time)));
        let effects = exchange.handle(Event::Slot(SlotAnswer::HandedOver(copy)), now);
        assert_eq!(
            effects
                .commands
                .iter()
                .any(|command| matches!(command, Command::Reply(_))),
            hit,
            "{request_time}"
        );
    }
}

#[test]
fn a_handed_over_copy_answers_only_while_it_is_fresh() {
    // Another slot's refresh may have replaced it since: the store knows, the copy does not.
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=5, stale-while-revalidate=60")],
        "one",
    );
    sim.get("/");
    let copy = sim.stored()[0].clone();
    for (age_ms, hit) in [(4_999, true), (5_000, false), (6_000, false)] {
        for outcome in [Outcome::Fetched(copy.clone()), Outcome::Found(copy.clone())] {
            let now = copy.response_time.plus_millis(age_ms);
            let (mut exchange, _) = begin(RefreshPath::Routed, now);
            exchange.handle(Event::Local(Local::default()), now);
            let effects = exchange.handle(Event::Slot(SlotAnswer::HandedOver(outcome)), now);
            let answers = effects
                .commands
                .iter()
                .any(|command| matches!(command, Command::Reply(_)));
            let arrives = matches!(
                effects.question,
                Some(Question::Arrive(Arrive {
                    accept_handed_over: false,
                    ..
                }))
            );
            assert_eq!((answers, arrives), (hit, !hit), "{age_ms}");
        }
    }
}

#[test]
fn who_may_not_know_is_told_nothing_and_gets_the_same_answer() {
    let token = "0123456789abcdef";
    let policy = |tell| Policy {
        tell,
        debug_token: Some(Arc::from(token.as_bytes())),
        ..Policy::strict()
    };
    let debug = ("x-larder-debug", token);
    for (tell, fields, told) in [
        (Tell::None, vec![debug], false),
        (Tell::Trusted, vec![], false),
        (
            Tell::Trusted,
            vec![("x-larder-debug", "0123456789abcdee")],
            false,
        ),
        (Tell::Trusted, vec![debug], true),
        (Tell::All, vec![], true),
    ] {
        let mut sim = Sim::new(policy(tell));
        sim.origin(
            200,
            &[("cache-control", "max-age=60"), ("etag", "\"1\"")],
            "one",
        );
        for extra in [
            None,
            None,
            Some(("range", "bytes=0-0")),
            Some(("if-none-match", "\"1\"")),
            Some(("range", "bytes=9-")),
        ] {
            let fields: Vec<_> = fields.iter().copied().chain(extra).collect();
            assert_eq!(
                !sim.get_with("/", &fields).said.is_empty(),
                told,
                "{tell:?} {fields:?}"
            );
            assert_eq!(
                sim.last_reply_field("x-cache-status").is_some(),
                told && sim.last_reply_field("age").is_some()
            );
        }
        let only = ("cache-control", "only-if-cached");
        let body = sim
            .get_with(
                "/nothing",
                &fields.iter().copied().chain([only]).collect::<Vec<_>>(),
            )
            .body;
        assert_eq!(body.contains("detail"), told, "{body}");
    }
}

#[test]
fn a_304_may_change_what_a_response_varies_by() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"1\"")],
        "one",
    );
    sim.get_with("/", &[("x-a", "1")]);
    sim.pass_secs(6);
    sim.origin(
        304,
        &[
            ("cache-control", "max-age=60"),
            ("etag", "\"1\""),
            ("vary", "x-a"),
        ],
        "",
    );
    sim.get_with("/", &[("x-a", "1")]);
    assert!(sim.get_with("/", &[("x-a", "1")]).is_hit());
    sim.origin(
        200,
        &[("cache-control", "max-age=60"), ("vary", "x-a")],
        "two",
    );
    assert_eq!(sim.get_with("/", &[("x-a", "2")]).body, "two");
}

#[test]
fn a_purge_is_carried_out_only_where_a_rule_allows_it() {
    let mut sim = Sim::new(Policy {
        allow_purge: true,
        ..Policy::default()
    });
    sim.origin(200, &[("cache-control", "max-age=60")], "one");
    sim.get("/");
    let Got { status, body, said } = sim.request("PURGE", "/");
    assert_eq!(
        (status, body.trim(), said.as_str()),
        (
            200,
            "{\"purged\":\"http://a.example/\"}",
            "larder; detail=purged"
        )
    );
    assert!(sim.get("/").says("fwd=uri-miss"));
    let mut sim = Sim::new(Policy::default());
    sim.origin(405, &[], "no");
    assert_eq!(
        sim.request("PURGE", "/").status,
        405,
        "the origin's business"
    );
}

#[test]
fn tags_are_kept_for_the_purge_and_from_the_client_where_asked() {
    let mut sim = Sim::new(Policy {
        strip_tag_fields: true,
        ..Policy::default()
    });
    sim.origin(
        200,
        &[
            ("cache-control", "max-age=5"),
            ("etag", "\"1\""),
            ("cache-tag", "a, b"),
            ("surrogate-key", "c"),
        ],
        "one",
    );
    sim.get("/");
    assert_eq!(sim.stored()[0].tags, ["a", "b", "c"]);
    sim.get("/");
    assert_eq!(sim.last_reply_field("cache-tag"), None);
    sim.pass_secs(6);
    sim.origin(304, &[("etag", "\"1\"")], "");
    sim.get("/");
    assert_eq!(
        sim.stored()[0].tags,
        ["a", "b", "c"],
        "a 304 without tags changes none"
    );
}

#[test]
fn what_has_more_tags_than_can_be_purged_is_not_stored() {
    let mut sim = Sim::new(Policy::default());
    let many = (0..5_000)
        .map(|n| n.to_string())
        .collect::<Vec<_>>()
        .join(",");
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("cache-tag", &many)],
        "one",
    );
    assert!(sim.get("/").says("detail=tags"));
}
