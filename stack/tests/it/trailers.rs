//! Answers of an HTTP/2 origin that end with trailers in place of content.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Response};
use larder_stack::{Origins, Settings};

use crate::support::{On, World};

/// An HTTP/2 origin. What it is asked for first it answers as it should; later it answers
/// `/confirmed` with `304`, all else with `500`, and ends that with trailers.
async fn origin() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let known: Arc<Mutex<HashSet<String>>> = Arc::default();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let known = known.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let path = request.uri().path().to_owned();
                    let is_first = known.lock().unwrap().insert(path.clone());
                    answer(&path, is_first, &mut respond);
                }
            });
        }
    });
    address
}

fn answer(path: &str, is_first: bool, respond: &mut SendResponse<Bytes>) {
    let response = Response::builder().header("cache-control", "max-age=1, stale-if-error=600");
    let response = response
        .header("content-type", "text/plain")
        .header("etag", "\"1\"");
    if is_first {
        let mut content = respond
            .send_response(response.body(()).unwrap(), false)
            .unwrap();
        content
            .send_data(Bytes::from_static(b"hello"), true)
            .unwrap();
        return;
    }
    let status = if path == "/confirmed" { 304 } else { 500 };
    let mut end = respond
        .send_response(response.status(status).body(()).unwrap(), false)
        .unwrap();
    end.send_trailers(HeaderMap::from_iter([(
        "x-end".parse().unwrap(),
        "1".parse().unwrap(),
    )]))
    .unwrap();
}

fn settings(origin: String) -> Settings {
    let protocol = |protocol: &str| format!("explicit_http_config: {{ {protocol} }}");
    let edits = vec![(
        protocol("http_protocol_options: { allow_custom_methods: false }"),
        protocol("http2_protocol_options: {}"),
    )];
    let config = r#"{ "store": { "timeout_ms": 3000 }, "rules": [{ "policy": { "range_on_miss": "part" } }] }"#;
    Settings {
        origins: Origins::Addresses(vec![origin]),
        health_path: String::new(),
        filter_config: config.to_owned(),
        envoy_edits: edits,
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_304_that_ends_with_trailers_confirms_what_is_stored() {
    let world = World::with(On::Memory, settings(origin().await)).await;
    world.stored(world.get("/confirmed")).await;
    for _ in 0..2 {
        let confirmed = world
            .until("/confirmed", |answer| answer.says("fwd-status=304"))
            .await;
        assert_eq!(
            (confirmed.status, confirmed.body.as_str()),
            (200, "hello"),
            "{confirmed:?}"
        );
    }
}

#[tokio::test]
async fn trailers_in_the_place_of_an_errors_content_end_one_answer_and_not_envoy() {
    let world = World::with(On::Memory, settings(origin().await)).await;
    world.stored(world.get("/failing")).await;
    let broken = larder_stack::eventually(std::time::Duration::from_secs(10), || async {
        let response = world
            .client
            .get(world.url("/failing"))
            .send()
            .await
            .unwrap();
        // The head of the stale copy is out when it shows that there is no place for its content.
        response.bytes().await.is_err().then_some(())
    });
    assert!(
        broken.await.is_some(),
        "the client sees that its answer is not complete"
    );
    for n in 0..8 {
        let answer = world.get(&format!("/after/{n}")).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "hello"),
            "{answer:?}"
        );
    }
}
