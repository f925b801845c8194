//! Envoy as it is shipped stands at the edge: what clients claim does not count, and what is slow
//! or too much ends.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use larder_stack::process::Process;
use larder_stack::{Settings, eventually};
use reqwest::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Answer, On, World, larder_program, patient};

async fn exchange(address: &str, request: &[u8]) -> Vec<u8> {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer))
        .await
        .unwrap();
    answer
}

fn address(world: &World) -> String {
    world.stack.url().replace("http://", "")
}

#[tokio::test]
async fn what_a_client_claims_of_itself_does_not_reach_the_origin() {
    let world = World::with(On::Memory, patient()).await;
    let claims = [
        ("x-forwarded-proto", "https"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-internal", "true"),
    ];
    let answer = world.send("GET", "/anything/claims", &claims).await;
    assert_eq!(answer.status, 200);
    let seen = world.journal("/anything/claims").await[0]["headers"].to_string();
    assert!(seen.contains(r#"["x-forwarded-proto","http"]"#), "{seen}");
    assert!(
        !seen.contains("x-envoy-retry-on") && !seen.contains("x-envoy-internal"),
        "{seen}"
    );
    assert!(
        seen.contains("x-forwarded-for"),
        "the client's address is told: {seen}"
    );
}

#[tokio::test]
async fn a_field_name_with_an_underscore_is_refused() {
    let world = World::with(On::Memory, patient()).await;
    let answer = world
        .send("GET", "/anything/x", &[("x_forwarded_for", "1.2.3.4")])
        .await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(world.fetches("/anything/x").await, 0);
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn an_http_2_client_on_a_plain_port_does_not_choose_the_scheme() {
    let world = World::with(On::Memory, patient()).await;
    let host = address(&world);
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", host.as_str()),
        (":path", "/anything/s?mock-cache-control=max-age%3D60"),
    ];
    // HPACK literals without indexing (RFC 7541 §6.2.2).
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| {
            [
                &[0, length(name)],
                name.as_bytes(),
                &[length(value)],
                value.as_bytes(),
            ]
            .concat()
        })
        .collect();
    let hello = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, b""),
        frame(1, 5, 1, &block),
    ]
    .concat();
    let mut socket = tokio::net::TcpStream::connect(&host).await.unwrap();
    socket.write_all(&hello).await.unwrap();
    world.sees("/anything/s", 1).await;
    // The plain client finds what was stored: both ask for the same resource.
    let plain = world
        .until(
            "/anything/s?mock-cache-control=max-age%3D60",
            Answer::is_hit,
        )
        .await;
    assert!(
        plain.status == 200 && world.fetches("/anything/s").await <= 2,
        "{plain:?}"
    );
}

#[tokio::test]
async fn a_head_that_comes_slowly_is_ended() {
    let world = World::with(On::Memory, patient()).await;
    let answer = exchange(
        &address(&world),
        b"GET /data HTTP/1.1\r\nHost: a\r\nX-Slow: ",
    )
    .await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
}

#[tokio::test]
async fn only_this_machine_reaches_the_cache_unless_it_is_bound_otherwise() {
    let reached = |port: u16| TcpStream::connect(("127.0.0.2", port)).is_ok();
    let port = |world: &World| address(world).rsplit_once(':').unwrap().1.parse().unwrap();
    let own = World::with(On::Memory, patient()).await;
    assert!(!reached(port(&own)));
    let open = World::with(
        On::Memory,
        Settings {
            bind: "0.0.0.0".parse().unwrap(),
            ..patient()
        },
    )
    .await;
    assert!(reached(port(&open)));
    assert_eq!(open.get("/data").await.status, 200);
}

#[tokio::test]
async fn a_stale_copy_stands_in_for_an_error_larger_than_any_buffer() {
    let world = World::with(On::Memory, patient()).await;
    let fresh =
        r#"{"body_size": 40, "headers": [["cache-control", "max-age=1, stale-if-error=60"]]}"#;
    world.becomes("/anything/e", fresh).await;
    world.until("/anything/e", Answer::is_hit).await;
    world
        .becomes("/anything/e", r#"{"status": 500, "body_size": 5000000}"#)
        .await;
    let stale = world
        .until("/anything/e", |answer| answer.says("detail=stale-if-error"))
        .await;
    assert_eq!((stale.status, stale.body.len()), (200, 40), "{stale:?}");
}

#[tokio::test]
async fn a_get_with_content_larger_than_any_buffer_is_answered() {
    let world = World::with(On::Redis, patient()).await;
    let content = "a".repeat(2_000_000);
    let url = world.url("/anything/x?mock-cache-control=max-age%3D60");
    for method in ["GET", "POST", "PUT"] {
        let request = world
            .client
            .request(method.parse().unwrap(), &url)
            .body(content.clone());
        assert_eq!(
            request.send().await.unwrap().status().as_u16(),
            200,
            "{method}"
        );
    }
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// An Envoy whose configuration was rendered with a listener for metrics, and that listener's port.
fn with_metrics_listener(world: &World, folder: &Path) -> (Process, u16) {
    let [port, admin, metrics] = free_ports();
    let root = larder_stack::stack::project_root();
    let wasm = larder_stack::stack::filter_module(&root).unwrap();
    let rendered = Command::new(larder_program())
        .current_dir(&root)
        .args([
            "render",
            "--origins",
            &world.stack.origin_url(0).replace("http://", ""),
            "--sidecar",
            "127.0.0.1:1",
        ])
        .args([
            "--port",
            &port.to_string(),
            "--admin-port",
            &admin.to_string(),
            "--metrics-port",
            &metrics.to_string(),
        ])
        .arg("--run-dir")
        .arg(folder)
        .arg("--out")
        .arg(folder)
        .arg("--wasm")
        .arg(wasm)
        .output()
        .unwrap();
    assert!(rendered.status.success(), "{rendered:?}");
    let mut command = Command::new(larder_stack::stack::envoy_binary(&root).unwrap());
    command.arg("-c").arg(folder.join("envoy.yaml"));
    command.args([
        "--concurrency",
        "1",
        "--use-dynamic-base-id",
        "-l",
        "warning",
    ]);
    let envoy = Process::start("envoy", command, &folder.join("log")).unwrap();
    (envoy, metrics)
}

/// What the metrics listener refuses.
const NOT_SERVED: [(&str, &str); 9] = [
    ("POST", "/stats/prometheus"),
    ("HEAD", "/stats/prometheus"),
    ("POST", "/quitquitquit"),
    ("GET", "/"),
    ("GET", "/config_dump"),
    ("GET", "/stats"),
    ("GET", "/stats/prometheus/"),
    ("GET", "/stats/prometheus/../../config_dump"),
    ("GET", "/stats/prometheus%2f..%2f..%2fconfig_dump"),
];

#[tokio::test]
async fn the_metrics_listener_serves_the_metrics_and_nothing_else() {
    let world = World::with(On::Memory, patient()).await;
    let folder = tempfile::tempdir().unwrap();
    let (envoy, metrics) = with_metrics_listener(&world, folder.path());
    let client = Client::new();
    let ask = |method: &str, path: &str| {
        let url = format!("http://127.0.0.1:{metrics}{path}");
        client.request(method.parse().unwrap(), url).send()
    };
    let text = eventually(Duration::from_secs(30), || async {
        let response = ask("GET", "/stats/prometheus")
            .await
            .ok()
            .filter(|response| response.status() == 200)?;
        response.text().await.ok()
    });
    let text = text.await.unwrap_or_else(|| panic!("{}", envoy.output()));
    assert!(text.contains("envoy_cluster_upstream_cx_total"), "{text}");
    for (method, path) in NOT_SERVED {
        assert_eq!(
            ask(method, path).await.unwrap().status(),
            404,
            "{method} {path}"
        );
    }
}
