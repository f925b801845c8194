//! Policies that routes pick by name, and routes that leave the cache out.

use larder_stack::Settings;
use larder_stack::render::filter_config;
use larder_stack::stack::{filter_module, project_root};
use serde_json::{Value, json};

use super::{compressor, lua};
use crate::support::{Answer, On, World, patient};

const FRESH: &str = "mock-cache-control=max-age%3D60";
const CONFIG: &str = r#"{
    "store": { "timeout_ms": 3000 },
    "route_policies": { "never": { "cache": false }, "minute": { "default_lifetime_s": 60 } }
}"#;

fn settings() -> Settings {
    Settings {
        filter_config: CONFIG.to_owned(),
        ..patient()
    }
}

/// A route for what begins so, with this policy.
fn route(prefix: &str, policy: &str) -> Value {
    json!({
        "match": { "prefix": prefix },
        "route": { "cluster": "origin" },
        "metadata": { "filter_metadata": { "larder": { "policy": policy } } },
    })
}

#[tokio::test]
async fn a_route_picks_a_policy_and_an_unknown_one_stores_nothing() {
    let routes = [
        route("/anything/never/", "never"),
        route("/anything/minute/", "minute"),
        route("/anything/typo/", "nevre"),
    ];
    let world = World::with(On::Memory, settings().with_routes_before(&routes)).await;
    for (path, hits) in [
        (format!("/anything/x?{FRESH}"), true),
        (format!("/anything/never/x?{FRESH}"), false),
        (format!("/anything/typo/x?{FRESH}"), false),
        ("/anything/minute/x".to_owned(), true),
    ] {
        if hits {
            world.stored(world.get(&path)).await;
        } else {
            world.get(&path).await;
        }
        let again = world.get(&path).await;
        assert_eq!(
            (again.status, again.is_hit()),
            (200, hits),
            "{path}: {again:?}"
        );
        assert_eq!(
            again.header("cache-status").is_empty(),
            !hits,
            "{path}: {again:?}"
        );
    }
    assert!(!world.get("/anything/x").await.is_hit());
    assert!(
        world.stack.envoy_log().contains("one of minute, never"),
        "the typo is told"
    );
}

/// The answer to a request whose route changes on its way to the cache, to one that caches nothing.
/// The filter that changes it clears Envoy's route cache; `behind` stands between it and the cache.
async fn moved(behind: &[Value]) -> Answer {
    let moves = lua("function envoy_on_request(h) \
           if h:headers():get('x-move') then h:headers():replace('x-moved', '1'); h:clearRouteCache() end \
         end");
    let mut never = route("/anything/", "never");
    never["match"]["headers"] = json!([{ "name": "x-moved", "present_match": true }]);
    let settings = settings()
        .with_filters_before(&[&[moves], behind].concat())
        .with_routes_before(&[never, route("/anything/", "minute")]);
    let world = World::with(On::Memory, settings).await;
    world.stored(world.get("/anything/x")).await;
    assert!(world.get("/anything/x").await.is_hit());
    world.send("GET", "/anything/x", &[("x-move", "1")]).await
}

#[tokio::test]
async fn the_route_counts_that_envoy_has_chosen_again_for_a_filter_before_the_cache() {
    let answer = moved(&[compressor()]).await;
    assert_eq!(answer.header("cache-status"), "", "{answer:?}");
}

#[tokio::test]
async fn directly_behind_a_filter_that_clears_the_route_the_one_from_before_counts() {
    let answer = moved(&[]).await;
    assert!(answer.is_hit(), "{answer:?}");
}

#[tokio::test]
async fn a_route_that_disables_the_filter_has_no_cache_and_the_others_have() {
    let mut disabled =
        json!({ "match": { "prefix": "/anything/off/" }, "route": { "cluster": "origin" } });
    disabled["typed_per_filter_config"] = json!({ "larder": {
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true,
    } });
    let world = World::with(On::Memory, patient().with_routes_before(&[disabled])).await;
    for (path, hits) in [("/anything/off/x", false), ("/anything/on/x", true)] {
        let path = format!("{path}?{FRESH}");
        for _ in 0..2 {
            world.get(&path).await;
        }
        if hits {
            world.until(&path, Answer::is_hit).await;
        } else {
            let answer = world.get(&path).await;
            assert_eq!(answer.header("cache-status"), "", "{answer:?}");
        }
    }
}

/// A second filter of the same module, which no route has but those that ask for it.
fn second_filter(config: &str) -> Value {
    let wasm = filter_module(&project_root()).unwrap();
    let template = include_str!("../../../../envoy/filter.ecds.json");
    let text = filter_config(template, &wasm, config).unwrap();
    let discovered: Value = serde_json::from_str(&text).unwrap();
    let typed = &discovered["resources"][0]["typed_config"];
    json!({ "name": "larder-pictures", "typed_config": typed, "disabled": true })
}

#[tokio::test]
async fn a_second_filter_that_a_route_enables_in_place_of_the_first_has_its_own_rules() {
    const CONFIG: &str = r#"{ "store": { "timeout_ms": 3000 }, "rules": [{ "policy": { "default_lifetime_s": 60 } }] }"#;
    let kind = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let mut pictures =
        json!({ "match": { "prefix": "/anything/pictures/" }, "route": { "cluster": "origin" } });
    pictures["typed_per_filter_config"] = json!({
        "larder": { "@type": kind, "disabled": true },
        "larder-pictures": { "@type": kind, "config": {} },
    });
    let settings = patient()
        .with_filters_before(&[second_filter(CONFIG)])
        .with_routes_before(&[pictures]);
    let world = World::with(On::Memory, settings).await;
    // Both configurations have to be at work: what is kept before is dropped once a store is heard.
    let hit = world.until("/anything/pictures/x", Answer::is_hit).await;
    for _ in 0..3 {
        let other = world.get("/anything/x").await;
        assert!(!other.is_hit(), "{other:?}");
        for answer in [&hit, &other] {
            let told = answer.headers.iter();
            let told = told.filter(|(name, _)| name == "cache-status");
            assert_eq!(told.count(), 1, "one filter alone: {answer:?}");
        }
    }
}
