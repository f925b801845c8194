//! Whole stories of requests over a virtual clock. `world` runs one request at a time; `fleet` runs
//! many at once, in several Envoys with one store. `interpreter` carries out the effects for both.

mod fleet;
mod interpreter;
mod parts;
mod rules;
mod sharing;
mod store;
mod straight;
mod waiting;
mod whose;
mod world;

use std::sync::Arc;

use larder_cache_core::exchange::{CacheCommand, Command, Event, Exchange, ResponseSource};
use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use larder_cache_core::route::RefreshPath;
use larder_contract::http_time::{DeltaSeconds, Timestamp};
use world::{Got, Sim, override_policy};

#[test]
fn a_response_is_fetched_once_and_hit_until_it_is_stale() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"1\"")],
        "one",
    );
    assert_eq!(
        sim.get("/"),
        Got::new(
            200,
            "one",
            "larder; fwd=uri-miss; fwd-status=200; stored; ttl=5"
        )
    );
    sim.pass_secs(4);
    assert_eq!(sim.get("/"), Got::new(200, "one", "larder; hit; ttl=1"));
    assert_eq!(sim.origin_requests(), 1);
}

#[test]
fn a_stale_response_is_validated_and_freshened_by_a_304() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"1\"")],
        "one",
    );
    sim.get("/");
    sim.pass_secs(5);
    sim.origin(
        304,
        &[("cache-control", "max-age=60"), ("etag", "\"1\"")],
        "",
    );
    assert_eq!(
        sim.get("/"),
        Got::new(
            200,
            "one",
            "larder; fwd=stale; fwd-status=304; stored; ttl=60"
        )
    );
    assert_eq!(
        sim.last_request_field("if-none-match").as_deref(),
        Some("\"1\"")
    );
    sim.pass_secs(59);
    assert_eq!(sim.get("/").said, "larder; hit; ttl=1");
}

#[test]
fn a_changed_response_replaces_the_stale_one() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"1\"")],
        "one",
    );
    sim.get("/");
    sim.pass_secs(5);
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"2\"")],
        "two",
    );
    assert_eq!(sim.get("/").body, "two");
    assert_eq!(sim.get("/"), Got::new(200, "two", "larder; hit; ttl=5"));
}

#[test]
fn the_three_rows_of_the_override_table_hold_in_time_order() {
    let mut sim = Sim::new(override_policy());
    sim.origin(200, &[("etag", "\"1\"")], "one");
    let (must, error, while_) = (
        "/?cache-control=must-revalidate,max-age=10",
        "/?cache-control=stale-if-error=10,max-age=5",
        "/?cache-control=stale-while-revalidate=15,max-age=5",
    );
    for path in [must, error, while_] {
        sim.get(path);
        assert!(sim.get(path).is_hit(), "{path}");
    }
    sim.pass_secs(6);
    assert!(sim.get(must).is_hit());
    sim.origin(503, &[], "down");
    assert!(sim.get(error).says("detail=stale-if-error"));
    assert!(sim.get(while_).says("detail=stale-while-revalidate"));
    assert_eq!(sim.refreshes(), 1);
    sim.pass_secs(5);
    assert_eq!(sim.get(must).status, 503, "must-revalidate is never stale");
    sim.pass_secs(5);
    assert_eq!(sim.get(error).status, 503, "the window is over");
    sim.pass_secs(10);
    assert_eq!(
        sim.get(while_).status,
        503,
        "a blocking fetch once the window is over"
    );
}

#[test]
fn the_override_reaches_neither_the_origin_nor_another_override() {
    let mut sim = Sim::new(override_policy());
    sim.origin(200, &[], "one");
    sim.get("/data?id=1&cache-control=max-age=5");
    assert_eq!(
        sim.last_request_field(":path").as_deref(),
        Some("/data?id=1")
    );
    assert!(
        sim.get("/data?id=1&cache-control=max-age=6")
            .says("fwd=vary-miss")
    );
    assert!(sim.get("/data?id=1").says("detail=no-freshness"));
    assert!(sim.get("/data?id=1&cache-control=Max-Age=5").is_hit());
}

#[test]
fn private_and_no_store_stay_in_force_under_an_override() {
    let mut sim = Sim::new(override_policy());
    for (value, why) in [("private", "private"), ("no-store", "no-store")] {
        sim.origin(200, &[("cache-control", value)], "mine");
        assert!(sim.get("/?cache-control=max-age=60").says(why));
    }
    sim.origin(
        200,
        &[("cache-control", "no-cache, max-age=0")],
        "lifetimes",
    );
    sim.get("/?cache-control=max-age=60");
    assert!(sim.get("/?cache-control=max-age=60").is_hit());
}

#[test]
fn a_successful_unsafe_request_makes_what_is_stored_untrue() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[("cache-control", "max-age=60")], "one");
    sim.get("/");
    sim.origin(500, &[], "no");
    sim.request("PUT", "/");
    assert!(sim.get("/").is_hit(), "an error changes nothing");
    sim.origin(204, &[], "");
    sim.request("PUT", "/");
    sim.origin(200, &[("cache-control", "max-age=60")], "two");
    assert_eq!(sim.get("/").body, "two");
}

#[test]
fn a_grpc_post_passes_untouched_and_invalidates_all_the_same() {
    for content_type in [
        "application/grpc",
        "application/grpc-web+proto",
        "application/grpc+json",
    ] {
        let mut sim = Sim::new(Policy::strict());
        sim.origin(
            200,
            &[("cache-control", "max-age=60"), ("content-location", "/")],
            "one",
        );
        sim.get("/");
        let said = sim
            .request_with("POST", "/", &[("content-type", content_type)])
            .said;
        assert_eq!(said, "", "{content_type}: untouched");
        assert!(sim.get("/").says("fwd=uri-miss"), "{content_type}");
    }
}

#[test]
fn an_unsafe_request_whose_answer_is_lost_or_whose_client_leaves_may_have_happened() {
    let stored = || {
        let mut sim = Sim::new(Policy {
            grace: DeltaSeconds::new(60),
            ..Policy::default()
        });
        sim.origin(200, &[("cache-control", "max-age=60")], "one");
        sim.get("/");
        sim
    };
    for source in [ResponseSource::Lost, ResponseSource::Timeout] {
        let mut sim = stored();
        sim.lose(source);
        sim.request("PUT", "/");
        assert_ne!(sim.get("/").body, "one", "{source:?}");
    }
    for fields in [
        &[][..],
        &[("content-type", "application/grpc")],
        &[("upgrade", "x")],
    ] {
        let mut sim = stored();
        sim.leave("PUT", "/", fields);
        sim.origin(200, &[], "two");
        assert_eq!(sim.get("/").body, "two", "{fields:?}");
    }
    let mut sim = stored();
    sim.leave("GET", "/other", &[]);
    sim.disconnect();
    sim.request("PUT", "/");
    assert!(sim.get("/").is_hit(), "it has not gone out");
}

#[test]
fn an_unsafe_request_whose_redirect_the_proxy_follows_invalidates_its_target() {
    let now = Timestamp::default();
    let request = Request::new("PUT", "a.example", "/x");
    let setup = world::setup(&Arc::new(Policy::default()), RefreshPath::Routed);
    let (mut exchange, _) = Exchange::open(request, setup, now);
    let key = exchange.key().digest();
    let effects = exchange.handle(Event::Redirected, now);
    assert_eq!(
        effects.commands.into_vec(),
        [Command::Cache(CacheCommand::Invalidate(vec![key]))]
    );
}

#[test]
fn a_gone_resource_ends_the_old_copy_in_the_background_and_in_the_foreground() {
    for status in [404, 410] {
        for background in [true, false] {
            let mut sim = Sim::new(Policy::default());
            let terms = "max-age=5, stale-while-revalidate=60, stale-if-error=600";
            sim.origin(200, &[("cache-control", terms)], "one");
            sim.get("/");
            sim.pass_secs(if background { 6 } else { 100 });
            sim.origin(status, &[], "gone");
            sim.get("/");
            sim.run_refreshes();
            sim.origin(503, &[], "down");
            assert_eq!(sim.get("/").status, 503, "{status} {background}");
        }
    }
}

#[test]
fn a_response_that_breaks_off_or_is_short_is_not_stored() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=60"), ("content-length", "10")],
        "short",
    );
    sim.get("/");
    sim.origin(200, &[("cache-control", "max-age=60")], "whole");
    assert!(!sim.get("/").is_hit());
    assert!(sim.get("/").is_hit());
}

#[test]
fn content_over_the_bound_passes_and_is_not_stored() {
    let mut sim = Sim::new(Policy {
        max_object_bytes: 1024,
        ..Policy::default()
    });
    sim.origin(200, &[("cache-control", "max-age=60")], &"x".repeat(1025));
    assert_eq!(sim.get("/").body.len(), 1025);
    assert!(!sim.get("/").is_hit());
    sim.origin(200, &[("cache-control", "max-age=60")], &"x".repeat(1024));
    sim.get("/");
    assert!(sim.get("/").is_hit());
}

#[test]
fn a_response_that_becomes_private_takes_the_stored_one_with_it() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=5, stale-if-error=60")],
        "public",
    );
    sim.get("/");
    sim.pass_secs(5);
    sim.origin(200, &[("cache-control", "private")], "mine");
    sim.get("/");
    sim.origin(503, &[], "down");
    assert_eq!(
        sim.get("/").status,
        503,
        "the public copy is no longer true"
    );
}

#[test]
fn only_if_cached_gets_a_504_and_never_goes_forward() {
    let mut sim = Sim::new(Policy::strict());
    let Got { status, said, .. } = sim.get_with("/", &[("cache-control", "only-if-cached")]);
    assert_eq!(
        (status, said.as_str()),
        (504, "larder; detail=only-if-cached")
    );
    assert_eq!(sim.origin_requests(), 0);
}

#[test]
fn credentials_are_answered_only_from_what_is_explicitly_for_everybody() {
    let mut sim = Sim::new(Policy::default());
    let credentials = [("authorization", "Basic x")];
    sim.origin(200, &[("cache-control", "max-age=60")], "plain");
    sim.get("/plain");
    assert!(
        sim.get_with("/plain", &credentials)
            .says("detail=authorization")
    );
    sim.origin(200, &[("cache-control", "public, max-age=60")], "public");
    sim.get("/public");
    assert!(sim.get_with("/public", &credentials).is_hit());
}

#[test]
fn a_tunnel_is_not_touched_and_a_fat_get_is_not_cached() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[("cache-control", "max-age=60")], "x");
    assert_eq!(sim.get_with("/", &[("upgrade", "websocket")]).said, "");
    assert!(
        sim.get_with("/", &[("x-http-method-override", "DELETE")])
            .says("fwd=bypass")
    );
    assert!(sim.get("/").says("fwd=uri-miss"), "neither was stored");
}

#[test]
fn grace_bridges_a_lost_origin_but_not_an_error_that_it_sends() {
    let mut sim = Sim::new(Policy {
        grace: DeltaSeconds::new(60),
        ..Policy::default()
    });
    sim.origin(200, &[("cache-control", "max-age=5")], "one");
    sim.get("/");
    sim.pass_secs(20);
    sim.origin(500, &[], "down");
    assert_eq!(sim.get("/").status, 500);
    sim.disconnect();
    let Got { status, body, said } = sim.get("/");
    assert_eq!((status, body.as_str()), (200, "one"));
    assert!(said.contains("detail=stale-if-error"), "{said}");
    sim.pass_secs(60);
    assert_ne!(sim.get("/").status, 200);
}

#[test]
fn what_the_proxy_itself_refuses_or_redirects_is_answered_so_and_not_with_a_stale_copy() {
    for policy in [
        Policy::default(),
        Policy {
            grace: DeltaSeconds::new(60),
            ..Policy::default()
        },
    ] {
        let mut sim = Sim::new(policy);
        sim.origin(
            200,
            &[("cache-control", "max-age=5, stale-if-error=60")],
            "one",
        );
        sim.get("/");
        sim.pass_secs(20);
        for (status, expected) in [
            (200, 200),
            (302, 302),
            (401, 401),
            (403, 403),
            (404, 404),
            (429, 429),
        ] {
            sim.proxy(status);
            let Got {
                status: got,
                body,
                said,
            } = sim.get("/");
            assert_eq!((got, body.as_str()), (expected, "by the proxy"), "{said}");
        }
        for status in [500, 502, 503, 504] {
            sim.proxy(status);
            assert_eq!(sim.get("/").body, "one", "{status}");
        }
    }
}

#[test]
fn a_304_with_anothers_validator_answers_once_and_updates_nothing() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"1\"")],
        "one",
    );
    sim.get("/");
    sim.pass_secs(6);
    sim.origin(
        304,
        &[("cache-control", "max-age=5"), ("etag", "\"2\"")],
        "",
    );
    assert_eq!(
        sim.get("/"),
        Got::new(
            200,
            "one",
            "larder; fwd=stale; fwd-status=304; ttl=-1; detail=unexpected-304"
        )
    );
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"2\"")],
        "two",
    );
    assert_eq!(sim.get("/").body, "two");
    assert_eq!(
        sim.last_request_field("if-none-match"),
        None,
        "what was confirmed so is asked for whole"
    );
}

#[test]
fn an_answer_to_credentials_is_shared_when_it_says_so() {
    let mut sim = Sim::new(Policy::default());
    let credentials = [("authorization", "Basic x")];
    sim.origin(200, &[("cache-control", "max-age=5")], "mine");
    assert!(
        sim.get_with("/", &credentials)
            .says("detail=authorization-response")
    );
    sim.origin(200, &[("cache-control", "max-age=5, public")], "ours");
    assert!(sim.get_with("/", &credentials).says("stored"));
    assert_eq!(sim.get("/"), Got::new(200, "ours", "larder; hit; ttl=5"));
    assert!(sim.get_with("/", &credentials).is_hit());
}

#[test]
fn conditions_of_a_request_with_credentials_reach_the_origin() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(304, &[("etag", "\"1\"")], "");
    let got = sim.get_with(
        "/",
        &[("authorization", "Basic x"), ("if-none-match", "\"1\"")],
    );
    assert_eq!(
        (
            got.status,
            sim.last_request_field("if-none-match").as_deref()
        ),
        (304, Some("\"1\""))
    );
}

#[test]
fn a_304_that_forbids_storing_answers_and_empties_the_cache() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"1\"")],
        "one",
    );
    sim.get("/");
    sim.pass_secs(6);
    sim.origin(304, &[("cache-control", "no-store"), ("etag", "\"1\"")], "");
    let Got { status, body, said } = sim.get("/");
    assert_eq!((status, body.as_str()), (200, "one"));
    assert!(said.contains("detail=no-store"), "{said}");
    sim.origin(200, &[], "two");
    assert_eq!(sim.get("/").body, "two");
}

#[test]
fn a_head_that_agrees_makes_the_stored_response_fresh_again() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"1\"")],
        "one",
    );
    sim.get("/");
    sim.pass_secs(6);
    sim.origin(
        200,
        &[
            ("cache-control", "max-age=60"),
            ("etag", "\"1\""),
            ("content-length", "3"),
        ],
        "",
    );
    assert!(sim.request("HEAD", "/").says("fwd=stale"));
    assert_eq!(sim.get("/"), Got::new(200, "one", "larder; hit; ttl=60"));
}

#[test]
fn a_head_that_disagrees_empties_the_cache() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"1\"")],
        "one",
    );
    sim.get("/");
    sim.pass_secs(6);
    sim.origin(
        200,
        &[("cache-control", "max-age=60"), ("etag", "\"2\"")],
        "",
    );
    sim.request("HEAD", "/");
    sim.origin(
        200,
        &[("cache-control", "max-age=60"), ("etag", "\"2\"")],
        "two",
    );
    assert_eq!(sim.get("/").body, "two");
    assert_eq!(sim.last_request_field("if-none-match"), None);
}

#[test]
fn a_posts_answer_that_names_its_own_url_answers_a_get() {
    let own = [("cache-control", "max-age=9"), ("content-location", "/a")];
    let mut sim = Sim::new(Policy::strict());
    sim.origin(200, &own, "made");
    sim.request("POST", "/a");
    assert_eq!(sim.get("/a"), Got::new(200, "made", "larder; hit; ttl=9"));
    sim.request("POST", "/b");
    assert!(sim.get("/b").says("fwd=uri-miss"), "it names another URL");
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &own, "made");
    sim.request("POST", "/a");
    assert!(sim.get("/a").says("fwd=uri-miss"), "not by default");
}
