//! The API over HTTP, and its document.

use std::collections::BTreeSet;

use larder_cache_core::store_api;
use larder_sidecar::store::memory::Memory;
use larder_sidecar::{Limits, Purged, Purges, Token, Waiting, app};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

/// A sidecar on a free port, on memory.
async fn sidecar(token: Option<&str>) -> String {
    let store = Memory::new(1 << 20, 4);
    let purges = Purges::default();
    purges.begin_at(store.first_cursor());
    let limits = Limits { max_entry_bytes: 1024, max_waiters: 10 };
    let app = app(Purged::new(store, purges), Waiting::default(), limits, token.map(Token::new));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

#[test]
fn the_document_names_every_path_and_no_other() {
    let document = include_str!("../../docs/sidecar-api.yaml");
    let listed: BTreeSet<&str> =
        document.lines().filter_map(|line| line.strip_prefix("  /")?.strip_suffix(':')).collect();
    let served = [
        store_api::LOOK_UP_PATH,
        "/v1/entries/{key}",
        store_api::RELEASE_PATH,
        store_api::INVALIDATE_PATH,
        store_api::EVENTS_PATH,
        store_api::PURGE_PATH,
        "/healthz",
        "/metrics",
    ];
    assert_eq!(listed, served.iter().map(|path| path.trim_start_matches('/')).collect());
}

#[tokio::test]
async fn nobody_purges_where_no_token_is_set() {
    let sidecar = sidecar(None).await;
    let order = Client::new().post(format!("{sidecar}/v1/purge")).bearer_auth("").json(&json!({ "everything": true }));
    let answer = order.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(answer.text().await.unwrap().contains("LARDER_PURGE_TOKEN"));
}

#[tokio::test]
async fn a_long_poll_brings_the_purge_as_it_is_made() {
    let (sidecar, client) = (sidecar(Some("t")).await, Client::new());
    let events = |query: String| {
        let request = client.get(format!("{sidecar}/v1/events?{query}"));
        async move { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let cursor = events(String::new()).await["cursor"].as_str().unwrap().to_owned();
    let poll = events(format!("after={cursor}&wait_ms=20000"));
    let order = async {
        let order = client.post(format!("{sidecar}/v1/purge")).bearer_auth("t").json(&json!({ "tag": "news" }));
        order.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let (heard, told) = tokio::join!(poll, order);
    assert_eq!(heard["events"][0]["scope"], json!({ "tag": "news" }));
    assert!(told["purged"][0]["effect"].as_str().unwrap().starts_with("every response with the tag news"));
}

#[tokio::test]
async fn what_is_too_large_or_not_understood_is_refused_and_the_sidecar_lives_on() {
    let (sidecar, client) = (sidecar(Some("t")).await, Client::new());
    let key = "0".repeat(64);
    for (method, path, body) in [
        ("PUT", format!("/v1/entries/{key}"), vec![0; 4096]),
        ("PUT", format!("/v1/entries/{key}"), b"LRD\x01rubbish".to_vec()),
        ("PUT", "/v1/entries/x".to_owned(), Vec::new()),
        ("POST", "/v1/look-up".to_owned(), b"{}".to_vec()),
        ("POST", "/v1/look-up".to_owned(), vec![0xff; 600]),
        ("POST", "/v1/release".to_owned(), b"[]".to_vec()),
        ("POST", "/v1/invalidate".to_owned(), br#"{"keys": ["xyz"], "now_ms": 1}"#.to_vec()),
        ("GET", "/v1/events?wait_ms=soon".to_owned(), Vec::new()),
    ] {
        let request = client.request(method.parse().unwrap(), format!("{sidecar}{path}")).body(body);
        let status = request.send().await.unwrap().status();
        assert!(status.is_client_error(), "{method} {path}: {status}");
    }
    assert!(client.get(format!("{sidecar}/healthz")).send().await.unwrap().status().is_success());
    let metrics = client.get(format!("{sidecar}/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("larder_sidecar_purges_total 0"), "{metrics}");
}
