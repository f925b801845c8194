//! A hit equals the miss, field by field, whatever stands around the cache, and says in logs and
//! traces that it was one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_stack::{Settings, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{compressor, filter, shown, with_cluster};
use crate::support::{Answer, On, World, patient};

const PAGE: &str = "/anything/x?mock-body-size=3000&mock-cache-control=max-age%3D60&mock-header=ETag:%221%22\
                    &mock-header=x-kept:a&mock-header=x-kept:b&mock-header=content-type:text/html";

/// The miss, then hits on both workers.
async fn hits_equal_the_miss(settings: Settings, path: &str, fields: &[(&str, &str)]) -> World {
    let mut world = World::with(On::Memory, settings).await;
    // Each request on a connection of its own.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0);
    world.client = client.build().unwrap();
    let miss = world.stored(world.send("GET", path, fields)).await;
    assert_eq!((miss.status, miss.is_hit()), (200, false), "{miss:?}");
    let mut hits = 0;
    for _ in 0..10 {
        let again = world.send("GET", path, fields).await;
        assert_eq!(
            (shown(&again), &again.body),
            (shown(&miss), &miss.body),
            "{again:?}"
        );
        hits += usize::from(again.is_hit());
    }
    assert!(hits >= 5, "{hits}");
    world
}

fn header_mutation() -> Value {
    let set = |name: &str| json!({ "append": { "header": { "key": name, "value": "1" }, "append_action": "APPEND_IF_EXISTS_OR_ADD" } });
    let mutations = json!({
        "request_mutations": [set("x-asked")],
        "response_mutations": [set("x-kept"), set("x-added"), { "remove": "x-origin" }],
    });
    filter(
        "header_mutation",
        "header_mutation.v3.HeaderMutation",
        json!({ "mutations": mutations }),
    )
}

#[tokio::test]
async fn before_and_behind_the_cache_header_mutation_changes_hits_and_misses_alike() {
    let before = patient().with_filters_before(&[header_mutation()]);
    let behind = patient().with_filters_behind(&[header_mutation()]);
    for settings in [before, behind] {
        let world = hits_equal_the_miss(settings, PAGE, &[]).await;
        let hit = world.until(PAGE, Answer::is_hit).await;
        let kept = hit.headers.iter().filter(|(name, _)| name == "x-kept");
        assert_eq!(
            (kept.count(), hit.header("x-added"), hit.header("x-origin")),
            (3, "1", ""),
            "{hit:?}"
        );
        let journal = world.journal("/anything/x").await;
        assert!(journal[0].to_string().contains("x-asked"), "{journal:?}");
    }
}

/// Fields of an answer, and what gzip says at its end of the content: its checksum and its length.
/// The bytes before may differ, for Envoy compresses piece by piece.
async fn gzipped(world: &World) -> (Answer, Vec<u8>) {
    let request = world.client.get(world.url(PAGE));
    let response = request
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    let response = http::Response::from(response);
    let (head, body) = response.into_parts();
    let bytes = reqwest::Response::from(http::Response::new(body))
        .bytes()
        .await
        .unwrap();
    let emptied = http::Response::from_parts(head, "");
    (
        Answer::of(reqwest::Response::from(emptied)).await,
        bytes[bytes.len() - 8..].to_vec(),
    )
}

#[tokio::test]
async fn compressed_hits_equal_the_compressed_miss() {
    let settings = patient().with_filters_before(&[compressor()]);
    let world = World::with(On::Memory, settings).await;
    let (miss, content) = world.stored(gzipped(&world)).await;
    assert!(
        !miss.is_hit() && miss.header("content-encoding") == "gzip",
        "{miss:?}"
    );
    let mut hits = 0;
    for _ in 0..10 {
        let (again, same) = gzipped(&world).await;
        assert_eq!(
            (shown(&again), &same),
            (shown(&miss), &content),
            "{again:?}"
        );
        hits += usize::from(again.is_hit());
    }
    assert!(hits >= 5, "{hits}");
    // The compressor makes a strong validator weak; who comes back with that is confirmed.
    let fields = [
        ("accept-encoding", "gzip"),
        ("if-none-match", miss.header("etag")),
    ];
    let unchanged = world.send("GET", PAGE, &fields).await;
    assert_eq!(
        (miss.header("etag"), unchanged.status, unchanged.is_hit()),
        ("W/\"1\"", 304, true),
        "{unchanged:?}"
    );
}

#[tokio::test]
async fn hits_equal_the_miss_where_routes_rewrite() {
    let template = json!({ "pattern": { "google_re2": {}, "regex": "^/shown/(.*)$" }, "substitution": "/anything/\\1" });
    for (action, at_origin) in [
        (json!({ "prefix_rewrite": "/anything/" }), "/anything/x"),
        (json!({ "regex_rewrite": template }), "/anything/x"),
        (
            json!({ "host_rewrite_literal": "inner.example", "prefix_rewrite": "/anything/in/" }),
            "/anything/in/x",
        ),
        (
            json!({ "host_rewrite_header": "x-tenant", "prefix_rewrite": "/anything/" }),
            "/anything/x",
        ),
    ] {
        let mut route = json!({ "cluster": "origin" });
        route
            .as_object_mut()
            .unwrap()
            .extend(action.as_object().unwrap().clone());
        let added = json!([{ "header": { "key": "x-route", "value": "1" } }]);
        let route = json!({ "match": { "prefix": "/shown/" }, "route": route, "response_headers_to_add": added });
        let settings = patient().with_routes_before(&[route]);
        let path = PAGE.replace("/anything/", "/shown/");
        let world = hits_equal_the_miss(settings, &path, &[]).await;
        let hit = world.until(&path, Answer::is_hit).await;
        assert_eq!(hit.header("x-route"), "1", "{action}: {hit:?}");
        let journal = world.journal(at_origin).await;
        assert_eq!(journal.len(), 1, "{action}");
        let has_host = journal[0].to_string().contains("inner.example");
        assert_eq!(
            has_host,
            !action["host_rewrite_literal"].is_null(),
            "{journal:?}"
        );
    }
}

/// What a collector of traces was sent.
async fn collector() -> (String, Arc<Mutex<String>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sent = Arc::new(Mutex::new(String::new()));
    let all = sent.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let all = all.clone();
            tokio::spawn(async move {
                let mut piece = [0; 65536];
                while let Ok(length @ 1..) = socket.read(&mut piece).await {
                    let text = String::from_utf8_lossy(&piece[..length]).into_owned();
                    all.lock().unwrap().push_str(&text);
                    if text.ends_with(']') {
                        let done = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
                        socket.write_all(done).await.unwrap();
                    }
                }
            });
        }
    });
    (address, sent)
}

#[tokio::test]
async fn spans_say_whether_the_cache_answered() {
    let (address, sent) = collector().await;
    let tag = json!({ "tag": "cache", "value": "%RESP(X-CACHE-STATUS)%" });
    let provider = json!({ "name": "envoy.tracers.zipkin", "typed_config": {
        "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
        "collector_cluster": "collector", "collector_endpoint": "/api/v2/spans",
        "collector_endpoint_version": "HTTP_JSON",
    } });
    let tracing = json!({ "custom_tags": [tag], "provider": provider });
    let mut settings = with_cluster(patient(), "collector", &address);
    let at = "stat_prefix: ingress\n".to_owned();
    let line = format!("{at}                tracing: {tracing}\n");
    settings.envoy_edits.push((at, line));
    let world = World::with(On::Memory, settings).await;
    world.stored(world.get(PAGE)).await;
    world.until(PAGE, Answer::is_hit).await;
    let told = eventually(Duration::from_secs(20), || async {
        let text = sent.lock().unwrap().clone();
        (text.contains("\"cache\":\"HIT\"") && text.contains("\"cache\":\"MISS\"")).then_some(())
    });
    assert!(told.await.is_some(), "{}", sent.lock().unwrap());
}
