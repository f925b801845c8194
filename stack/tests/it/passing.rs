//! What must pass untouched, and what the origin's own words do.

use std::time::{Duration, Instant};

use larder_stack::{Origins, Settings};

use crate::support::{Answer, On, World, patient};

#[tokio::test]
async fn the_origins_own_cache_control_counts() {
    let world = World::on(On::Memory).await;
    for (value, stored) in [
        ("max-age=60", true),
        ("s-maxage=60", true),
        ("max-age=60, private", false),
        ("max-age=60, no-store", false),
        ("no-cache", false),
        ("max-age=0", false),
    ] {
        let path = format!(
            "/anything/{}?mock-cache-control={}",
            value.len(),
            value.replace('=', "%3D").replace(", ", ",")
        );
        if stored {
            world.stored(world.get(&path)).await;
        } else {
            world.get(&path).await;
        }
        assert_eq!(world.get(&path).await.is_hit(), stored, "{value}");
    }
}

#[tokio::test]
async fn credentials_and_cookies_are_not_shared() {
    let world = World::on(On::Memory).await;
    let path = "/anything/a?mock-cache-control=max-age%3D60";
    for _ in 0..2 {
        let request = world
            .client
            .get(world.url(path))
            .header("authorization", "Basic x");
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert!(!answer.is_hit(), "{answer:?}");
    }
    assert!(!world.get(path).await.is_hit(), "nothing was stored");
    let path = "/anything/c?mock-cache-control=max-age%3D60&mock-header=Set-Cookie:a%3Db";
    world.get(path).await;
    assert!(!world.get(path).await.is_hit());
}

#[tokio::test]
async fn the_clients_own_condition_gets_a_304_from_the_cache() {
    let world = World::on(On::Memory).await;
    let path = "/data?cache-control=max-age=60";
    let etag = world
        .stored(world.get(path))
        .await
        .header("etag")
        .to_owned();
    let request = world
        .client
        .get(world.url(path))
        .header("if-none-match", etag);
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert_eq!(
        (answer.status, answer.is_hit(), answer.body.as_str()),
        (304, true, "")
    );
    assert_eq!(world.fetches("/data").await, 1);
}

#[tokio::test]
async fn a_large_hit_is_the_origins_answer_to_the_byte_over_both_versions_of_http() {
    let world = World::on(On::Memory).await;
    let path = "/anything/large?mock-body-size=300000&mock-cache-control=max-age%3D60&mock-header=x-kept:yes";
    let miss = world.stored(world.get(path)).await;
    assert!(
        !miss.is_hit() && miss.body.len() == 300_000,
        "{} bytes",
        miss.body.len()
    );
    let http2 = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    for client in [&world.client, &http2] {
        let hit = Answer::of(client.get(world.url(path)).send().await.unwrap()).await;
        assert!(hit.is_hit() && hit.body == miss.body);
        for name in [
            "content-type",
            "content-length",
            "date",
            "etag",
            "x-kept",
            "cache-control",
        ] {
            assert_eq!(hit.header(name), miss.header(name), "{name}");
        }
        let head = client.head(world.url(path)).send().await.unwrap();
        assert_eq!(
            (
                &head.headers()["content-length"],
                &head.headers()["x-cache-status"]
            ),
            (&"300000".parse().unwrap(), &"HIT".parse().unwrap())
        );
        assert_eq!(head.text().await.unwrap(), "");
        let part = client
            .get(world.url(path))
            .header("range", "bytes=1000-200999")
            .send()
            .await
            .unwrap();
        assert_eq!(part.headers()["content-range"], "bytes 1000-200999/300000");
        assert_eq!(
            part.bytes().await.unwrap(),
            miss.body.as_bytes()[1000..201_000]
        );
    }
}

#[tokio::test]
async fn head_and_ranges_are_answered_from_a_stored_get() {
    let world = World::on(On::Memory).await;
    let path = "/data?cache-control=max-age=60";
    // Without level 1 a second request may come before the store has it.
    let whole = world.until(path, Answer::is_hit).await;
    let head = world.client.head(world.url(path)).send().await.unwrap();
    assert_eq!(head.headers()["x-cache-status"], "HIT");
    assert_eq!(
        head.headers()["content-length"],
        whole.body.len().to_string()
    );
    let part = world
        .client
        .get(world.url(path))
        .header("range", "bytes=2-5")
        .send()
        .await
        .unwrap();
    let part = Answer::of(part).await;
    assert_eq!((part.status, part.body.as_str()), (206, &whole.body[2..6]));
}

#[tokio::test]
async fn a_slow_large_body_reaches_the_client_as_it_comes_and_is_not_stored() {
    let world = World::on(On::Memory).await;
    let path = "/anything/large?mock-body-size=10000000&mock-pieces=10&mock-piece-delay-ms=400\
                &mock-chunked=1&mock-cache-control=max-age%3D60";
    let begun = Instant::now();
    let mut response = world.client.get(world.url(path)).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert!(
        !first.is_empty() && begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    let mut length = first.len();
    while let Some(chunk) = response.chunk().await.unwrap() {
        length += chunk.len();
    }
    assert_eq!(length, 10_000_000);
    assert!(begun.elapsed() > Duration::from_secs(3));
    assert!(
        !world
            .client
            .get(world.url(path))
            .send()
            .await
            .unwrap()
            .headers()["x-cache-status"]
            .eq("HIT")
    );
}

#[tokio::test]
async fn an_event_stream_passes_event_by_event() {
    let world = World::on(On::Memory).await;
    let begun = Instant::now();
    let mut response = world
        .client
        .get(world.url("/sse?n=3&interval_ms=3000"))
        .send()
        .await
        .unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"data: event 0"));
    assert!(
        begun.elapsed() < Duration::from_millis(2900),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_websocket_passes() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::on(On::Memory).await;
    let address = world.stack.url().replace("http://", "");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let hello = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(hello.as_bytes()).await.unwrap();
    let mut bytes = vec![0; 4096];
    let length = socket.read(&mut bytes).await.unwrap();
    assert!(
        bytes[..length].starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&bytes[..length])
    );
    // One masked text frame "hi", mask 0.
    socket
        .write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'])
        .await
        .unwrap();
    let length = socket.read(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..length], [0x81, 2, b'h', b'i']);
}

#[tokio::test]
async fn a_successful_put_takes_what_was_stored_before_it_from_every_worker() {
    let settings = Settings {
        origins: Origins::Mock(1),
        ..patient()
    };
    let world = World::with(On::Redis, settings).await;
    let path = "/data?cache-control=max-age=60";
    for round in 0..20 {
        world.herd(path, 8).await;
        // Without level 1 a request may come before the store has it.
        let before = world.until(path, Answer::is_hit).await;
        let put = world.client.put(world.url("/data")).send().await.unwrap();
        assert_eq!(put.status().as_u16(), 200);
        for answer in world.herd(path, 8).await {
            assert_ne!(answer.body, before.body, "round {round}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn hostile_headers_and_queries_do_no_harm() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::on(On::Memory).await;
    let address = world.stack.url().replace("http://", "");
    let long = "a".repeat(8000);
    for line in [
        b"GET /data?cache-control=%ff%fe HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /data?cache-control=%0d%0a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET /data HTTP/1.1\r\nHost: a\r\nx-a: \xff\xfe\x80\r\ncookie: \xff\r\ncache-control: \xff\r\n\r\n".to_vec(),
        b"GET /data HTTP/1.1\r\nHost: a\r\nif-none-match: \xff\",,,*\r\nrange: bytes=\xff\r\n\r\n".to_vec(),
        format!("GET /data?{long}&cache-control={long} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
        format!("GET /data HTTP/1.1\r\nHost: a\r\naccept-encoding: {long}\r\n\r\n").into_bytes(),
        b"GET /data HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
        b"M-SEARCH /data HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"GET http://b/data HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ] {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        socket.write_all(&line).await.unwrap();
        let mut bytes = vec![0; 65536];
        let length = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut bytes)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&bytes[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 ") && !answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
    assert_eq!(world.get("/data").await.status, 200);
    assert!(
        !world.stack.envoy_log().contains("panicked"),
        "{}",
        world.stack.envoy_log()
    );
}
