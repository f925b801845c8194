//! Single rules that show only with a real proxy: what invalidates, who floods, who is told, and
//! which fields answers from the cache have.

use std::time::Duration;

use larder_stack::Settings;
use reqwest::Client;
use reqwest::redirect::Policy;

use crate::support::{On, World, patient};

const FRESH: &str = r#"{"headers": [["cache-control", "max-age=60"]]}"#;

/// Warms a path until every worker answers from the cache.
async fn warmed(world: &World, path: &str) {
    let mut hits = 0;
    while hits < 8 {
        hits = if world
            .until(path, |answer| answer.status == 200)
            .await
            .is_hit()
        {
            hits + 1
        } else {
            0
        };
    }
}

async fn what_may_have_happened(on: On) {
    let world = World::with(on, patient()).await;
    for (path, fields) in [
        ("/anything/grpc", [("content-type", "application/grpc")]),
        (
            "/anything/grpc-web",
            [("content-type", "application/grpc-web")],
        ),
    ] {
        world.becomes(path, FRESH).await;
        warmed(&world, path).await;
        let posted = world.send("POST", path, &fields).await;
        assert_eq!(
            posted.header("x-cache-status"),
            "",
            "it passes untouched: {posted:?}"
        );
        assert!(world.get(path).await.says("fwd=uri-miss"), "{path}");
    }
    // The client leaves before the answer.
    world.becomes("/anything/left", FRESH).await;
    warmed(&world, "/anything/left").await;
    world
        .becomes("/anything/left", r#"{"delay_ms": 3000, "times": 1}"#)
        .await;
    let put = world
        .client
        .put(world.url("/anything/left"))
        .body("x")
        .timeout(Duration::from_millis(300));
    assert!(put.send().await.unwrap_err().is_timeout());
    world
        .until("/anything/left", |answer| !answer.is_hit())
        .await;
    // The origin breaks off without an answer.
    let mut world = world;
    world.becomes("/anything/lost", FRESH).await;
    warmed(&world, "/anything/lost").await;
    world.behave_plainly().await;
    world
        .behave("/anything/lost", r#"{"delay_ms": 2000}"#)
        .await;
    let put = tokio::spawn(
        world
            .client
            .put(world.url("/anything/lost"))
            .body("x")
            .send(),
    );
    world.sees_method("/anything/lost", "PUT").await;
    world.stack.kill_origin(0);
    world.stack.kill_origin(1);
    assert!(put.await.unwrap().unwrap().status().is_server_error());
    let after = world.get("/anything/lost").await;
    assert!(!after.is_hit(), "{after:?}");
}

#[tokio::test]
async fn an_unsafe_request_that_may_have_happened_invalidates_on_memory() {
    what_may_have_happened(On::Memory).await;
}

#[tokio::test]
async fn an_unsafe_request_that_may_have_happened_invalidates_on_redis() {
    what_may_have_happened(On::Redis).await;
}

#[tokio::test]
async fn a_redirect_after_a_post_leaves_the_page_that_it_leads_to() {
    let world = World::with(On::Memory, patient()).await;
    world.becomes("/anything/home", FRESH).await;
    warmed(&world, "/anything/home").await;
    // One that does not go there itself.
    let client = Client::builder().redirect(Policy::none()).build().unwrap();
    for status in [302, 303, 307] {
        let login =
            format!("/anything/login?mock-status={status}&mock-header=Location:/anything/home");
        let answer = client
            .post(world.url(&login))
            .body("x")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), status);
        assert!(world.get("/anything/home").await.is_hit(), "{status}");
    }
}

async fn a_flood_of_variants(on: On) {
    let world = World::with(on, patient()).await;
    let wanted = "/data?id=1&cache-control=max-age=600";
    warmed(&world, wanted).await;
    for n in 0..300 {
        world
            .get(&format!("/data?id=1&cache-control=max-age={}", 1_000 + n))
            .await;
    }
    for _ in 0..8 {
        let answer = world.get(wanted).await;
        assert!(answer.is_hit(), "{answer:?}");
    }
}

#[tokio::test]
async fn who_floods_a_url_with_lifetimes_evicts_his_own_on_memory() {
    a_flood_of_variants(On::Memory).await;
}

#[tokio::test]
async fn who_floods_a_url_with_lifetimes_evicts_his_own_on_redis() {
    a_flood_of_variants(On::Redis).await;
}

#[tokio::test]
async fn who_may_not_know_gets_the_same_answer_without_a_word_of_the_cache() {
    const TOKEN: &str = "0123456789abcdef";
    let config = format!(
        r#"{{"store": {{"timeout_ms": 3000}}, "debug_token": "{TOKEN}",
            "rules": [{{"match": {{"path_prefix": "/anything/secret"}}, "policy": {{"tell": "none"}}}},
                      {{"policy": {{"tell": "trusted"}}}}]}}"#
    );
    let world = World::with(
        On::Memory,
        Settings {
            filter_config: config,
            ..patient()
        },
    )
    .await;
    let debug = ("x-larder-debug", TOKEN);
    for (path, fields, told) in [
        ("/anything/secret", vec![debug], false),
        ("/anything/open", vec![], false),
        (
            "/anything/open",
            vec![("x-larder-debug", "0123456789abcdee")],
            false,
        ),
        ("/anything/open", vec![debug], true),
    ] {
        world.behave_plainly().await;
        world
            .behave(path, &FRESH.replace("]]", r#"], ["x-kept", "1"]]"#))
            .await;
        for method in ["GET", "GET", "GET", "GET", "HEAD", "POST"] {
            let answer = world.send(method, path, &fields).await;
            assert_eq!(
                !answer.header("cache-status").is_empty(),
                told,
                "{method} {path} {fields:?}: {answer:?}"
            );
            assert_eq!(
                !answer.header("x-cache-status").is_empty(),
                told,
                "{method} {path} {fields:?}: {answer:?}"
            );
            assert_eq!((answer.status, answer.header("x-kept")), (200, "1"));
        }
        let journal = world.journal(path).await;
        assert!(
            !journal.is_empty()
                && journal
                    .iter()
                    .all(|request| !request.to_string().contains("x-larder-debug"))
        );
    }
}

#[tokio::test]
async fn parts_confirmations_and_refusals_say_what_is_true_of_them() {
    let world = World::with(On::Memory, patient()).await;
    let path = "/anything/film";
    let whole = r#"{"body_size": 40, "ranges": true, "headers": [["cache-control", "max-age=60"], ["etag", "\"1\""],
        ["content-md5", "x"], ["content-digest", "sha-256=:x:"], ["x-amz-checksum-crc32", "x"], ["x-goog-hash", "x"],
        ["access-control-allow-origin", "*"], ["timing-allow-origin", "*"],
        ["expires", "Sun, 06 Nov 2094 08:49:37 GMT"], ["last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"]]}"#;
    world.becomes(path, whole).await;
    warmed(&world, path).await;
    let digests = [
        "content-md5",
        "content-digest",
        "x-amz-checksum-crc32",
        "x-goog-hash",
    ];
    for (field, value, status) in [
        ("range", "bytes=0-1", 206),
        ("range", "bytes=90-", 416),
        ("if-none-match", "\"1\"", 304),
    ] {
        let answer = world.send("GET", path, &[(field, value)]).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.is_hit(), "{answer:?}");
        assert!(
            digests.iter().all(|name| answer.header(name).is_empty()),
            "{answer:?}"
        );
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "*",
            "{answer:?}"
        );
        assert_eq!(answer.header("timing-allow-origin"), "*", "{answer:?}");
        let object =
            ["etag", "expires", "last-modified"].map(|name| answer.header(name).is_empty());
        assert_eq!(object, [status == 416; 3], "{answer:?}");
        assert_eq!(
            answer.header("cache-control"),
            if status == 416 {
                "no-store"
            } else {
                "max-age=60"
            }
        );
    }
}

async fn what_is_purged_is_gone(on: On) {
    let sidecar_env = vec![("LARDER_PURGE_TOKEN".to_owned(), "operator".to_owned())];
    let mut world = World::with(
        on,
        Settings {
            sidecar_env,
            workers: 4,
            ..patient()
        },
    )
    .await;
    // Each request on a connection of its own, so that all workers are met.
    world.client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
    for round in 0..12 {
        let path = format!("/anything/{round}?mock-cache-control=max-age%3D600");
        warmed(&world, &path).await;
        let scope = if round % 2 == 0 { "url" } else { "prefix" };
        let order = format!(r#"{{"{scope}": "{}"}}"#, world.url(&path));
        let purge = format!("http://{}/v1/purge", world.stack.sidecar_address().unwrap());
        let told = world
            .client
            .post(purge)
            .bearer_auth("operator")
            .body(order)
            .send()
            .await
            .unwrap();
        assert!(told.status().is_success());
        let first = world.get(&path).await;
        assert!(!first.is_hit(), "{round}: {first:?}");
    }
}

#[tokio::test]
async fn what_is_purged_is_gone_when_the_purge_is_answered_on_memory() {
    what_is_purged_is_gone(On::Memory).await;
}

#[tokio::test]
async fn what_is_purged_is_gone_when_the_purge_is_answered_on_redis() {
    what_is_purged_is_gone(On::Redis).await;
}
