//! Requests as HTTP/2 frames them: some clients end one that has no content with an empty DATA
//! frame.

use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_stack::Settings;

use crate::support::{On, World, patient};

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With its head.
    Head,
    /// With an empty DATA frame right behind it.
    EmptyFrame,
    /// With two of them, of which the second ends the stream.
    TwoEmptyFrames,
    /// With content.
    Content,
    /// With content, some time later.
    LateContent,
    /// With an empty DATA frame, long after.
    LateEmptyFrame,
}

struct Got {
    status: u16,
    said: String,
    body: Bytes,
}

/// One request on a connection of its own.
async fn send(world: &World, method: &str, path: &str, end: End) -> Got {
    let address = world.stack.url().replace("http://", "");
    let socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::builder()
        .method(method)
        .uri(world.url(path))
        .body(())
        .unwrap();
    let (response, mut stream) = client.send_request(request, end == End::Head).unwrap();
    match end {
        End::Head => {}
        End::EmptyFrame => stream.send_data(Bytes::new(), true).unwrap(),
        End::TwoEmptyFrames => {
            stream.send_data(Bytes::new(), false).unwrap();
            stream.send_data(Bytes::new(), true).unwrap();
        }
        End::Content => stream
            .send_data(Bytes::from_static(b"hello"), true)
            .unwrap(),
        End::LateContent | End::LateEmptyFrame => {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let content = if end == End::LateContent {
                Bytes::from_static(b"hello")
            } else {
                Bytes::new()
            };
            stream.send_data(content, true).unwrap();
        }
    }
    let response = tokio::time::timeout(Duration::from_secs(10), response)
        .await
        .unwrap()
        .unwrap();
    let said = response.headers()["cache-status"]
        .to_str()
        .unwrap()
        .to_owned();
    let status = response.status().as_u16();
    let (mut content, mut body) = (response.into_body(), Vec::new());
    while let Some(piece) = content.data().await {
        body.extend_from_slice(&piece.unwrap());
    }
    Got {
        status,
        said,
        body: body.into(),
    }
}

#[tokio::test]
async fn a_get_that_ends_with_an_empty_frame_is_cached_like_any_other() {
    let world = World::with(
        On::Memory,
        Settings {
            stop_iteration: true,
            ..patient()
        },
    )
    .await;
    if std::env::var("LARDER_STOP_ITERATION").is_ok_and(|value| value == "0") {
        return;
    }
    for (path, end) in [
        ("/anything/one", End::EmptyFrame),
        ("/anything/two", End::TwoEmptyFrames),
    ] {
        let path = format!("{path}?mock-cache-control=max-age%3D60&mock-body-size=20000");
        let miss = send(&world, "GET", &path, end).await;
        assert!(
            miss.status == 200 && miss.said.contains("fwd=uri-miss; fwd-status=200; stored"),
            "{}",
            miss.said
        );
        let seen = larder_stack::eventually(Duration::from_secs(5), || async {
            let hit = send(&world, "GET", &path, end).await;
            hit.said.contains("larder; hit").then_some(hit)
        });
        let hit = seen.await.unwrap();
        assert!(hit.body == miss.body && hit.status == 200);
        // Whoever waits for a tick does so for 20 ms at least; a busy machine holds up some, not all.
        let mut took = Vec::new();
        for _ in 0..12 {
            let begun = Instant::now();
            let hit = send(&world, "GET", &path, end).await;
            assert!(hit.said.contains("larder; hit"));
            took.push(begun.elapsed());
        }
        let is_quick = |took: &&Duration| **took < Duration::from_millis(20);
        let quick = took.iter().filter(is_quick).count();
        assert!(quick >= 3, "no tick is waited for: {took:?}");
        let head = send(&world, "HEAD", &path, end).await;
        assert!(
            head.said.contains("larder; hit") && head.body.is_empty(),
            "{}",
            head.said
        );
    }
}

async fn content_passes(settings: Settings) {
    let world = World::with(On::Memory, settings).await;
    let path = "/anything/fat?mock-cache-control=max-age%3D60";
    world.until(path, crate::support::Answer::is_hit).await;
    for round in 0..2 {
        for end in [End::Content, End::LateContent, End::LateEmptyFrame] {
            let got = send(&world, "GET", path, end).await;
            assert!(
                got.said
                    .contains("fwd=bypass; fwd-status=200; detail=unsupported-request"),
                "{end:?}: {}",
                got.said
            );
            let expected = if end == End::LateEmptyFrame {
                "\"body_bytes\":0"
            } else {
                "\"body_bytes\":5"
            };
            let body = String::from_utf8_lossy(&got.body);
            assert!(body.contains(expected), "round {round}, {end:?}: {body}");
        }
    }
    let cold = "/anything/cold?mock-cache-control=max-age%3D60";
    send(&world, "GET", cold, End::Content).await;
    assert!(
        !world.get(cold).await.is_hit(),
        "an answer to content is not for others"
    );
    assert_eq!(send(&world, "GET", path, End::Head).await.status, 200);
}

#[tokio::test]
async fn content_of_a_get_reaches_the_origin_and_no_hit_answers_it() {
    content_passes(patient()).await;
}

#[tokio::test]
async fn content_of_a_get_reaches_the_origin_without_stop_iteration() {
    content_passes(Settings {
        stop_iteration: false,
        ..patient()
    })
    .await;
}
