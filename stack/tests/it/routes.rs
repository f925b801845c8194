//! Background refreshes behind routes that change what they send: with the listener that leads
//! refreshes through the routes, and without it.

use std::time::Duration;

use larder_stack::{Settings, eventually};
use serde_json::{Value, json};

use crate::support::{Answer, On, World, patient};

/// Fresh for a second, then to be refreshed in the background for a minute.
const STALE_SOON: &str = "mock-cache-control=max-age%3D1,stale-while-revalidate%3D60";

/// A route for everything under `/anything/v2/`, with this action.
fn with_route(settings: Settings, action: &Value, more: &Value) -> Settings {
    let mut route =
        json!({ "match": { "prefix": "/anything/v2/" }, "route": { "cluster": "origin" } });
    route["route"]
        .as_object_mut()
        .unwrap()
        .extend(action.as_object().unwrap().clone());
    route
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    settings.with_routes_before(&[route])
}

fn rewriting(settings: Settings) -> Settings {
    with_route(
        settings,
        &json!({ "prefix_rewrite": "/anything/" }),
        &json!({}),
    )
}

/// An Envoy without the cluster that leads refreshes through its routes.
fn without_listener(mut settings: Settings) -> Settings {
    let named = |name: &str| format!("- name: {name}\n      connect_timeout: 1s\n");
    settings
        .envoy_edits
        .push((named("larder-refresh"), named("elsewhere")));
    settings
}

fn level_1_only(settings: Settings) -> Settings {
    let config = include_str!("../../../envoy/filters/level-1-only.json");
    let config = config.replacen('{', r#"{ "limits": { "l1_bytes": 67108864 },"#, 1);
    Settings {
        filter_config: config,
        workers: 1,
        ..settings
    }
}

impl World {
    /// Fetches a path, waits until it is served stale, and then until the origins have what the
    /// refresh sent.
    async fn is_refreshed(&self, path: &str, at_origin: &str) -> Vec<Value> {
        assert_eq!(self.get(path).await.status, 200);
        self.until(path, |answer| answer.says("detail=stale-while-revalidate"))
            .await;
        let refreshed = eventually(Duration::from_secs(5), || async {
            let journal = self.journal(at_origin).await;
            (journal.len() >= 2).then_some(journal)
        });
        refreshed.await.expect("a refresh")
    }

    /// Fetches a path and waits until it is validated before it answers.
    async fn is_validated(&self, path: &str) -> Answer {
        assert_eq!(self.get(path).await.status, 200);
        let stale = |answer: &Answer| !answer.is_hit() && answer.says("fwd=stale");
        self.until(path, |answer| {
            assert!(!answer.says("detail=stale-while-revalidate"), "{answer:?}");
            stale(answer)
        })
        .await
    }
}

/// Names and values of a request's fields as the origin saw them, sorted.
fn fields(request: &Value) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> =
        serde_json::from_value(request["headers"].clone()).unwrap();
    fields.sort();
    fields
}

async fn a_rewriting_route_is_taken(on: On) {
    let world = World::with(on, rewriting(patient())).await;
    let path = format!("/anything/v2/x?{STALE_SOON}");
    world.is_refreshed(&path, "/anything/x").await;
    for _ in 0..20 {
        let answer = world.get(&path).await;
        assert!(
            answer.body.contains(r#""target":"/anything/x?"#),
            "another URL's content: {answer:?}"
        );
    }
    assert_eq!(world.fetches("/anything/v2/x").await, 0);
}

#[tokio::test]
async fn a_refresh_is_rewritten_as_its_route_says_on_memory() {
    a_rewriting_route_is_taken(On::Memory).await;
}

#[tokio::test]
async fn a_refresh_is_rewritten_as_its_route_says_on_redis() {
    a_rewriting_route_is_taken(On::Redis).await;
}

#[tokio::test]
async fn a_refresh_carries_the_host_and_the_credential_that_its_route_sets() {
    let action = json!({ "host_rewrite_literal": "inner.example" });
    let credential = json!({ "key": "authorization", "value": "Bearer route" });
    let add = json!([{ "header": credential, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }]);
    let world = World::with(
        On::Memory,
        with_route(
            patient(),
            &action,
            &json!({ "request_headers_to_add": add }),
        ),
    )
    .await;
    let path = format!("/anything/v2/x?{STALE_SOON}");
    for request in world.is_refreshed(&path, "/anything/v2/x").await {
        let fields = fields(&request);
        for wanted in [("host", "inner.example"), ("authorization", "Bearer route")] {
            let (name, value) = wanted;
            let values: Vec<_> = fields
                .iter()
                .filter(|(known, _)| known == name)
                .map(|(_, value)| value)
                .collect();
            assert_eq!(values, [value], "{fields:?}");
        }
    }
}

#[tokio::test]
async fn the_origin_sees_a_refresh_as_it_saw_the_fetch_less_what_is_a_clients_own() {
    let world = World::with(On::Memory, patient()).await;
    let path = format!("/anything/x?{STALE_SOON}&mock-header=etag%3A%221%22");
    let requests = world.is_refreshed(&path, "/anything/x").await;
    let mut sorted: Vec<Value> = requests.clone();
    sorted.sort_by_key(|request| request["at_ms"].as_u64());
    let [fetch, refresh, ..] = sorted.as_slice() else {
        panic!("{sorted:?}")
    };
    let comparable = |request: &Value| {
        let mut fields = fields(request);
        // Each request has one of its own; a condition goes with what is stored; there is no client
        // to be named, and what it said beside what selects is not repeated.
        let own = [
            "accept",
            "user-agent",
            "x-request-id",
            "if-none-match",
            "x-forwarded-for",
            "x-envoy-internal",
            "x-envoy-external-address",
        ];
        fields.retain(|(name, _)| !own.contains(&name.as_str()));
        fields
    };
    assert_eq!(comparable(refresh), comparable(fetch));
    assert_eq!(refresh["target"], fetch["target"]);
    assert!(
        fields(refresh).contains(&("if-none-match".to_owned(), "\"1\"".to_owned())),
        "{refresh:?}"
    );
}

#[tokio::test]
async fn a_refreshed_response_has_the_fields_that_its_route_adds_once() {
    let added = |name: &str| json!([{ "header": { "key": name, "value": "route" }, "append_action": "APPEND_IF_EXISTS_OR_ADD" }]);
    let more = json!({ "response_headers_to_add": added("x-added"), "response_headers_to_remove": ["x-secret"] });
    let world = World::with(On::Memory, with_route(patient(), &json!({}), &more)).await;
    let path = format!("/anything/v2/x?{STALE_SOON}&mock-body-size=20000&mock-header=x-secret%3A1");
    let names = |answer: &Answer| {
        let about_this_answer = [
            "age",
            "cache-status",
            "x-cache-status",
            "x-origin",
            "x-envoy-upstream-service-time",
        ];
        let mut names: Vec<String> = answer
            .headers
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        names.retain(|name| !about_this_answer.contains(&name.as_str()));
        names.sort();
        names
    };
    let miss = world.get(&path).await;
    assert_eq!(
        miss.headers
            .iter()
            .filter(|(name, _)| name == "x-added")
            .count(),
        1,
        "{miss:?}"
    );
    world
        .until(&path, |answer| answer.says("detail=stale-while-revalidate"))
        .await;
    let hit = world
        .until(&path, |answer| {
            answer.says("hit; ttl=0") || answer.says("hit; ttl=1")
        })
        .await;
    assert!(world.fetches("/anything/v2/x").await >= 2);
    assert_eq!(names(&hit), names(&miss));
}

#[tokio::test]
async fn a_refresh_is_retried_as_its_route_says() {
    let retry = json!({ "retry_policy": { "retry_on": "5xx", "num_retries": 4 } });
    let world = World::with(On::Memory, with_route(patient(), &retry, &json!({}))).await;
    let path = format!("/anything/v2/x?{STALE_SOON}");
    world.get(&path).await;
    world
        .behave("/anything/v2/x", r#"{"status": 503, "times": 1}"#)
        .await;
    world
        .until(&path, |answer| answer.says("detail=stale-while-revalidate"))
        .await;
    let fresh = world
        .until(&path, |answer| answer.is_hit() && !answer.says("detail="))
        .await;
    assert_eq!(fresh.status, 200);
    assert!(
        world.fetches("/anything/v2/x").await >= 3,
        "two errors at most, then an answer"
    );
}

#[tokio::test]
async fn a_refresh_goes_to_the_cluster_of_its_own_route() {
    let other = World::on(On::Memory).await;
    let address = other.stack.origin_url(0).replace("http://", "");
    let (host, port) = address.rsplit_once(':').unwrap();
    let endpoint = format!(
        "[{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: \"{host}\", port_value: {port} }} }} }} }}] }}]"
    );
    let cluster = format!(
        "    - name: second\n      load_assignment: {{ cluster_name: second, endpoints: {endpoint} }}\n"
    );
    for settings in [patient(), without_listener(patient())] {
        let mut settings = with_route(settings, &json!({ "cluster": "second" }), &json!({}));
        settings.envoy_edits.push((
            "  clusters:\n".to_owned(),
            format!("  clusters:\n{cluster}"),
        ));
        let world = World::with(On::Memory, settings).await;
        let before = other.fetches("/anything/v2/x").await;
        let path = format!("/anything/v2/x?{STALE_SOON}");
        world.get(&path).await;
        world
            .until(&path, |answer| answer.says("detail=stale-while-revalidate"))
            .await;
        let refreshed = eventually(Duration::from_secs(5), || async {
            (other.fetches("/anything/v2/x").await >= before + 2).then_some(())
        });
        assert!(refreshed.await.is_some());
        assert_eq!(world.fetches("/anything/v2/x").await, 0);
    }
}

async fn without_the_listener_a_rewritten_response_is_validated(on: On, settings: Settings) {
    let world = World::with(on, without_listener(rewriting(settings))).await;
    let path = format!("/anything/v2/x?{STALE_SOON}&mock-header=etag%3A%221%22");
    for _ in 0..3 {
        let validated = world.is_validated(&path).await;
        assert!(validated.says("detail=route-"), "{validated:?}");
        assert!(
            validated.body.contains(r#""target":"/anything/x?"#),
            "{validated:?}"
        );
    }
    world.send("HEAD", &path, &[]).await;
    assert_eq!(world.fetches("/anything/v2/x").await, 0);
}

#[tokio::test]
async fn without_the_listener_what_a_route_rewrites_is_validated_before_it_answers_on_memory() {
    without_the_listener_a_rewritten_response_is_validated(On::Memory, patient()).await;
}

#[tokio::test]
async fn without_the_listener_what_a_route_rewrites_is_validated_before_it_answers_on_redis() {
    without_the_listener_a_rewritten_response_is_validated(On::Redis, patient()).await;
}

#[tokio::test]
async fn without_the_listener_what_a_route_rewrites_is_validated_before_it_answers_without_a_store()
{
    without_the_listener_a_rewritten_response_is_validated(On::Memory, level_1_only(patient()))
        .await;
}

#[tokio::test]
async fn without_the_listener_the_reason_is_told_where_one_worker_has_seen_the_route() {
    let world = World::with(
        On::Memory,
        without_listener(rewriting(level_1_only(patient()))),
    )
    .await;
    let path = format!("/anything/v2/x?{STALE_SOON}");
    let validated = world.is_validated(&path).await;
    assert!(
        validated.says("detail=route-changes-request"),
        "{validated:?}"
    );
    assert!(
        world
            .stack
            .envoy_log()
            .contains("larder: Envoy has no cluster larder-refresh")
    );
}

#[tokio::test]
async fn without_the_listener_a_host_or_a_field_of_the_route_counts_as_a_change() {
    let add = json!([{ "header": { "key": "x-tenant", "value": "1" } }]);
    for (action, more) in [
        (
            json!({ "host_rewrite_literal": "inner.example" }),
            json!({}),
        ),
        (json!({}), json!({ "request_headers_to_add": add })),
        (
            json!({}),
            json!({ "request_headers_to_remove": ["accept"] }),
        ),
    ] {
        let settings = without_listener(with_route(level_1_only(patient()), &action, &more));
        let world = World::with(On::Memory, settings).await;
        let validated = world
            .is_validated(&format!("/anything/v2/x?{STALE_SOON}"))
            .await;
        assert!(
            validated.says("detail=route-changes-request"),
            "{action} {more}: {validated:?}"
        );
    }
}

async fn without_the_listener_a_plain_route_is_refreshed(on: On, settings: Settings) {
    let world = World::with(on, without_listener(settings)).await;
    let path = format!("/anything/x?{STALE_SOON}");
    world.get(&path).await;
    world
        .until(&path, |answer| answer.says("detail=stale-while-revalidate"))
        .await;
    let refreshed = world
        .until(&path, |answer| answer.is_hit() && !answer.says("detail="))
        .await;
    assert!(
        refreshed.body.contains(r#""target":"/anything/x?"#),
        "{refreshed:?}"
    );
}

#[tokio::test]
async fn without_the_listener_what_a_route_leaves_as_it_is_is_refreshed_straight_on_memory() {
    without_the_listener_a_plain_route_is_refreshed(On::Memory, patient()).await;
}

#[tokio::test]
async fn without_the_listener_what_a_route_leaves_as_it_is_is_refreshed_straight_on_redis() {
    without_the_listener_a_plain_route_is_refreshed(On::Redis, patient()).await;
}

#[tokio::test]
async fn without_the_listener_what_a_route_leaves_as_it_is_is_refreshed_straight_without_a_store() {
    without_the_listener_a_plain_route_is_refreshed(On::Memory, level_1_only(patient())).await;
}

#[tokio::test]
async fn behind_a_part_the_rewritten_whole_comes_or_none() {
    for with_listener in [true, false] {
        let settings = rewriting(patient());
        let world = World::with(
            On::Memory,
            if with_listener {
                settings
            } else {
                without_listener(settings)
            },
        )
        .await;
        let film = r#"{"body_size": 40, "ranges": true, "headers": [["cache-control", "max-age=60"], ["etag", "\"1\""]]}"#;
        world.behave("/anything/film", film).await;
        let part = world
            .send("GET", "/anything/v2/film", &[("range", "bytes=2-5")])
            .await;
        assert_eq!((part.status, part.body.as_str()), (206, "cdef"), "{part:?}");
        if with_listener {
            world.until("/anything/v2/film", Answer::is_hit).await;
            assert_eq!(world.fetches("/anything/film").await, 2);
        } else {
            assert!(!world.get("/anything/v2/film").await.is_hit());
        }
        assert_eq!(world.fetches("/anything/v2/film").await, 0);
    }
}

#[tokio::test]
async fn a_field_that_a_route_matches_and_the_policy_names_sends_nobody_else_to_its_route() {
    let canary = json!({
        "match": { "prefix": "/anything/v2/", "headers": [{ "name": "x-canary", "present_match": true }] },
        "route": { "cluster": "origin", "prefix_rewrite": "/anything/canary/" },
    });
    let config = r#"{ "store": { "timeout_ms": 3000 }, "rules": [{ "policy": { "unkeyed_fields": { "x-canary": "select" } } }] }"#;
    let settings = rewriting(Settings {
        filter_config: config.to_owned(),
        ..patient()
    })
    .with_routes_before(&[canary]);
    let world = World::with(On::Memory, settings).await;
    let path = format!("/anything/v2/x?{STALE_SOON}");
    let canary = [("x-canary", "1")];
    let target = |answer: &Answer| answer.body.contains(r#""target":"/anything/canary/x?"#);
    assert!(target(&world.send("GET", &path, &canary).await));
    assert!(
        !target(&world.get(&path).await),
        "the route of who does not send the field"
    );
    let refreshed = eventually(Duration::from_secs(10), || async {
        assert!(
            target(&world.send("GET", &path, &canary).await),
            "before and behind a refresh"
        );
        assert!(!target(&world.get(&path).await));
        (world.fetches("/anything/canary/x").await >= 3 && world.fetches("/anything/x").await >= 3)
            .then_some(())
    });
    assert!(refreshed.await.is_some());
}

#[tokio::test]
async fn behind_a_redirect_that_envoy_follows_nobody_queues() {
    let follow = json!({ "internal_redirect_policy": { "max_internal_redirects": 1 } });
    let world = World::with(On::Memory, with_route(patient(), &follow, &json!({}))).await;
    let target = format!(
        "{}/anything/v2/new?mock-cache-control=max-age%3D60",
        world.stack.url()
    );
    let behaviour = json!({ "status": 302, "delay_ms": 500, "headers": [["location", target]] });
    world
        .behave("/anything/v2/old", &behaviour.to_string())
        .await;
    let answers = world.herd("/anything/v2/old", 30).await;
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{answers:?}"
    );
    let journal = world.journal("/anything/v2/old").await;
    let times: Vec<u64> = journal
        .iter()
        .filter_map(|request| request["at_ms"].as_u64())
        .collect();
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(last - first < 2 * 500, "one queue of them: {times:?}");
    assert_eq!(world.fetches("/anything/v2/new").await, 1);
}

#[tokio::test]
async fn what_a_filter_behind_the_cache_refuses_gets_no_stale_copy_in_its_place() {
    let refuse = json!({ "header": { "name": "x-refuse", "present_match": true } });
    let rules = json!({ "action": "DENY", "policies": { "test": { "permissions": [refuse], "principals": [{ "any": true }] } } });
    let filter = json!({ "name": "envoy.filters.http.rbac", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": rules } });
    let mut settings = patient();
    let router = "                  - name: envoy.filters.http.router\n                    typed_config:\n                      \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n                # The listener";
    let with_filter = format!("                  - {filter}\n{router}");
    settings.envoy_edits.push((router.to_owned(), with_filter));
    let world = World::with(On::Memory, settings).await;
    let path = "/anything/x?mock-cache-control=max-age%3D1,stale-if-error%3D60";
    world.get(path).await;
    let refused = eventually(Duration::from_secs(10), || async {
        let answer = world.send("GET", path, &[("x-refuse", "1")]).await;
        (!answer.is_hit()).then_some(answer)
    });
    let refused = refused.await.unwrap();
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (403, "RBAC: access denied"),
        "{refused:?}"
    );
}
