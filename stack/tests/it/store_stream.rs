//! The store stream between a real Envoy and its sidecar, and what takes its place.

use std::time::Duration;

use bytes::Bytes;
use larder_contract::store_stream::{PATH, Said};
use larder_stack::link::{Link, Mode};
use larder_stack::{Settings, Stack, eventually};

use crate::support::{On, World, calls_only, metric, patient, patient_with, with_level_1};

const PATIENCE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(3);

/// Both workers' streams and the main thread's.
async fn all_streams_are_open(stack: &Stack, within: Duration) -> bool {
    let open = eventually(within, || async {
        (metric(stack, "larder.store_streams$").await == 3).then_some(())
    });
    open.await.is_some()
}

/// An Envoy whose sidecar is at this address, and the stack that its origins belong to.
async fn in_front_of(sidecar: &str) -> (World, Stack) {
    let mut world = World::on(On::Memory).await;
    let origins = larder_stack::Origins::Addresses(world.stack.origin_addresses());
    let settings = Settings {
        origins,
        sidecar: Some(sidecar.to_owned()),
        ..patient()
    };
    let stack = Stack::start(with_level_1(settings), |_| {}).await.unwrap();
    let first = std::mem::replace(&mut world.stack, stack);
    (world, first)
}

async fn misses(world: &World, from: usize, count: usize) {
    for n in from..from + count {
        let path = format!("/data?n={n}&cache-control=max-age=60");
        let answer = world.get(&path).await;
        assert!(answer.status == 200 && !answer.is_hit(), "{answer:?}");
    }
}

#[tokio::test]
async fn every_worker_asks_on_a_stream_of_its_own_and_calls_nobody() {
    if calls_only() {
        return; // the same with calls is the next test
    }
    for on in [On::Memory, On::Redis] {
        let world = World::on(on).await;
        assert!(all_streams_are_open(&world.stack, PATIENCE).await);
        misses(&world, 0, 40).await;
        let counted = eventually(PATIENCE, || async {
            (metric(&world.stack, "way.stream").await >= 80).then_some(())
        });
        assert!(counted.await.is_some(), "a look-up and a write for each");
        // What was asked before the welcome: a poll, and what the start's own request asked.
        assert!(metric(&world.stack, "way.call").await < 10);
        assert_eq!(metric(&world.stack, "larder.store_faults").await, 0);
    }
}

#[tokio::test]
async fn with_calls_asked_for_there_is_no_stream() {
    let config = patient().filter_config.replacen(
        "\"timeout_ms\"",
        "\"transport\": \"calls\", \"timeout_ms\"",
        1,
    );
    let settings = Settings {
        filter_config: config,
        ..patient()
    };
    let world = World::with(On::Memory, settings).await;
    misses(&world, 0, 10).await;
    let counted = eventually(PATIENCE, || async {
        (metric(&world.stack, "way.call").await >= 20).then_some(())
    });
    assert!(counted.await.is_some());
    assert_eq!(metric(&world.stack, "way.stream").await, 0);
}

#[tokio::test]
async fn a_stream_that_is_cut_or_garbled_is_open_again_at_once_and_no_client_notices() {
    if calls_only() {
        return;
    }
    let sidecar = World::on(On::Memory).await;
    let link = Link::to(sidecar.stack.sidecar_address().unwrap())
        .await
        .unwrap();
    let (world, _origins) = in_front_of(&link.address()).await;
    assert!(all_streams_are_open(&world.stack, PATIENCE).await);
    for round in 0..6 {
        match round % 3 {
            0 => link.cut(),
            1 => {
                link.become_(Mode::Reset);
                misses(&world, round * 100, 10).await;
                link.become_(Mode::Open);
            }
            _ => {
                link.garble(true);
                misses(&world, round * 100, 10).await;
                link.garble(false);
                link.cut();
            }
        }
        misses(&world, round * 100 + 50, 10).await;
        assert!(
            all_streams_are_open(&world.stack, SOON).await,
            "round {round}"
        );
    }
}

/// Answers the greeting on a store stream as a sidecar of version 9 would, and knows nothing else.
async fn sidecar_of_version_9() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut answer))) = connection.accept().await {
                    let head = http::Response::builder();
                    if request.uri().path() != PATH {
                        let head = head.status(404).body(()).unwrap();
                        answer.send_response(head, true).unwrap();
                        continue;
                    }
                    let head = head.header("content-type", "application/grpc");
                    let mut stream = answer.send_response(head.body(()).unwrap(), false).unwrap();
                    let mut frame = vec![0, 0, 0, 0, 2];
                    Said::OtherVersion { version: 9 }.write(&mut frame);
                    stream.send_data(Bytes::from(frame), false).unwrap();
                    let trailers = http::HeaderMap::from_iter([(
                        http::HeaderName::from_static("grpc-status"),
                        http::HeaderValue::from_static("9"),
                    )]);
                    stream.send_trailers(trailers).unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_sidecar_of_another_version_costs_hits_only_and_is_named_in_one_line() {
    if calls_only() {
        return;
    }
    let (world, _origins) = in_front_of(&sidecar_of_version_9().await).await;
    misses(&world, 0, 40).await;
    let said = eventually(PATIENCE, || async {
        let log = world.stack.envoy_log();
        log.contains("the sidecar's store stream is another (version 9, and this filter version 1)")
            .then_some(())
    });
    assert!(said.await.is_some(), "{}", world.stack.envoy_log());
}

#[tokio::test]
async fn a_stalled_sidecar_costs_a_look_up_its_budget_and_not_more() {
    if calls_only() {
        return;
    }
    let settings = Settings {
        filter_config: patient_with("{ \"rules\": [{ \"policy\": {} }] }").replace("3000", "200"),
        ..patient()
    };
    let world = World::with(On::Memory, settings).await;
    assert!(all_streams_are_open(&world.stack, PATIENCE).await);
    world.stack.pause_sidecar();
    let begun = std::time::Instant::now();
    let answer = world.get("/data?n=1&max-age=60").await;
    let took = begun.elapsed();
    world.stack.resume_sidecar();
    assert_eq!(answer.status, 200);
    assert!(took >= Duration::from_millis(190), "{took:?}: it was asked");
    assert!(took < Duration::from_millis(1_500), "{took:?}");
}
