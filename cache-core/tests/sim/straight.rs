//! Background refreshes that do not take the route: where they are right, and what happens where
//! they are not.

use std::sync::Arc;

use larder_cache_core::exchange::{Command, Event, Local, SlotAnswer, StoreAnswer};
use larder_cache_core::policy::Policy;
use larder_cache_core::route::RefreshPath;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::entry::RouteSeen;
use larder_contract::store_api::Fence;

use crate::world::{Got, Sim, begin};

const STALE_SOON: [(&str, &str); 3] = [
    ("cache-control", "max-age=1, stale-while-revalidate=600"),
    ("etag", "\"1\""),
    ("x-route", "added"),
];

/// One stale response that may be refreshed in the background, of whose route that is known.
fn stale(changes: Option<bool>) -> Sim {
    let mut sim = Sim::new(Policy::default());
    sim.refresh_straight();
    sim.origin(200, &STALE_SOON, "one");
    sim.get("/");
    if let Some(changes) = changes {
        sim.saw_the_route(changes);
    }
    sim.pass_secs(2);
    sim
}

#[test]
fn what_came_by_a_route_that_changes_the_request_is_validated_before_it_answers() {
    for (changes, word) in [
        (Some(true), "route-changes-request"),
        (None, "route-unknown"),
    ] {
        let mut sim = stale(changes);
        sim.origin(304, &[("etag", "\"1\"")], "");
        let Got { status, body, said } = sim.get("/");
        assert_eq!((status, body.as_str()), (200, "one"));
        assert_eq!(
            said,
            format!("larder; fwd=stale; fwd-status=304; stored; ttl=1; detail={word}")
        );
        assert_eq!(sim.refreshes(), 0);
        assert_eq!(sim.get("/").said, "larder; hit; ttl=1");
    }
}

#[test]
fn what_came_by_a_route_that_changes_nothing_is_refreshed_straight_and_so_is_what_replaces_it() {
    let mut sim = stale(Some(false));
    for body in ["two", "three"] {
        sim.origin(200, &STALE_SOON, body);
        assert!(
            sim.get("/")
                .says("hit; ttl=-1; detail=stale-while-revalidate")
        );
        sim.run_refreshes();
        assert_eq!(sim.get("/").body, body);
        sim.pass_secs(2);
    }
    assert_eq!(sim.refreshes(), 2);
    sim.pass_secs(300);
    assert!(
        sim.get("/").said.ends_with("detail=route-unknown"),
        "a route may have changed meanwhile"
    );
}

#[test]
fn a_straight_answer_that_the_route_would_have_changed_is_not_believed() {
    let one = ("cache-control", "max-age=1, stale-while-revalidate=600");
    for fields in [
        &[one][..],
        &[one, ("x-route", "added"), ("x-secret", "1")],
        &[("cache-control", "no-store")],
    ] {
        let mut sim = stale(Some(false));
        sim.origin(200, fields, "two");
        sim.get("/");
        sim.run_refreshes();
        let Got { body, said, .. } = sim.get("/");
        assert!(
            body == "two" && said.contains("detail=route-changes-request"),
            "through the route: {body} {said}"
        );
        assert_eq!(sim.refreshes(), 1);
    }
}

#[test]
fn an_error_in_place_of_a_refresh_is_answered_with_what_might_have_answered_without_asking() {
    let mut sim = stale(Some(true));
    sim.origin(503, &[], "down");
    let Got { status, body, said } = sim.get("/");
    assert_eq!((status, body.as_str()), (200, "one"));
    assert!(said.ends_with("detail=stale-if-error"), "{said}");
    sim.pass_secs(600);
    assert_eq!(sim.get("/").status, 503, "past its window it does not");
}

#[test]
fn behind_a_part_no_whole_comes_that_did_not_take_the_route() {
    let mut sim = Sim::new(Policy::default());
    sim.refresh_straight();
    sim.origin(
        206,
        &[
            ("cache-control", "max-age=60"),
            ("content-range", "bytes 0-1/4"),
        ],
        "ab",
    );
    assert_eq!(sim.get_with("/", &[("range", "bytes=0-1")]).status, 206);
    assert_eq!(sim.refreshes(), 0);
}

#[test]
fn the_store_tells_of_a_route_that_was_seen_after_its_answer_was_handed_over() {
    let sim = stale(None);
    let held = sim.stored();
    let seen = RouteSeen {
        at_ms: held[0].response_time,
        changes: false,
    };
    let told = StoredResponse {
        route: Some(seen).into(),
        ..(*held[0]).clone()
    };
    let now = held[0].response_time.plus_millis(2_000);
    let (mut exchange, _) = begin(RefreshPath::Straight, now);
    exchange.handle(
        Event::Local(Local {
            variants: &held,
            ..Local::default()
        }),
        now,
    );
    exchange.handle(Event::Slot(SlotAnswer::Lead), now);
    let lease = StoreAnswer::Lease(Fence("1".into()), Some(Arc::new(told)));
    let effects = exchange.handle(Event::Store(lease), now);
    assert!(
        effects
            .commands
            .iter()
            .any(|command| matches!(command, Command::Reply(reply) if reply.status == 200)),
        "{effects:?}"
    );
    assert!(
        effects
            .commands
            .iter()
            .any(|command| matches!(command, Command::Refresh(_))),
        "{effects:?}"
    );
}
