//! The API over HTTP, and its document.

use std::time::{Duration, Instant};

use larder_sidecar::listening;
use larder_sidecar::serving::Patience;
use larder_sidecar::{Access, Token, Tokens};
use larder_stack::eventually;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

#[path = "common/served.rs"]
mod served;

use served::{on_memory, serve};

/// A sidecar on a free port, on memory, that asks for no token but to purge.
async fn sidecar(token: Option<&str>) -> String {
    sidecar_with(Access {
        purge: token.map(Token::new),
        ..Access::default()
    })
    .await
}

async fn sidecar_with(access: Access) -> String {
    let address = serve(on_memory(), access, Patience::default()).await;
    format!("http://{address}")
}

/// The sidecar's counters.
async fn metrics(client: &Client, sidecar: &str) -> String {
    let answer = client.get(format!("{sidecar}/metrics")).send().await;
    answer.unwrap().text().await.unwrap()
}

/// Path and method of each operation in the document.
fn documented() -> Vec<(&'static str, String)> {
    let mut path = "";
    let mut operations = Vec::new();
    for line in include_str!("../../docs/sidecar-api.yaml").lines() {
        if let Some(named) = line
            .strip_prefix("  /")
            .and_then(|line| line.strip_suffix(':'))
        {
            path = named;
        } else if let Some(method) = line
            .strip_prefix("    ")
            .and_then(|line| line.strip_suffix(':'))
            && ["get", "put", "post"].contains(&method)
        {
            operations.push((path, method.to_uppercase()));
        }
    }
    operations
}

#[tokio::test]
async fn the_document_names_every_path_and_no_other() {
    let documented = documented();
    // What is served cannot be listed, only counted.
    let routes = include_str!("../src/routes.rs").matches(".route(").count();
    assert_eq!(documented.len(), routes, "{documented:?}");
    let (sidecar, client) = (sidecar(None).await, Client::new());
    for (path, method) in documented {
        let url = format!("{sidecar}/{}", path.replace("{key}", "x"));
        let status = client
            .request(method.parse().unwrap(), url)
            .send()
            .await
            .unwrap()
            .status();
        assert!(
            ![404, 405].contains(&status.as_u16()),
            "{method} /{path}: {status}"
        );
    }
}

#[tokio::test]
async fn nobody_purges_where_no_token_is_set() {
    let sidecar = sidecar(None).await;
    let order = Client::new()
        .post(format!("{sidecar}/v1/purge"))
        .bearer_auth("")
        .json(&json!({ "everything": true }));
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
    let cursor = events(String::new()).await["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let poll = events(format!("after={cursor}&wait_ms=20000"));
    let order = async {
        let order = client
            .post(format!("{sidecar}/v1/purge"))
            .bearer_auth("t")
            .json(&json!({ "tag": "news" }));
        order.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let (heard, told) = tokio::join!(poll, order);
    assert_eq!(heard["events"][0]["scope"], json!({ "tag": "news" }));
    assert!(
        told["purged"][0]["effect"]
            .as_str()
            .unwrap()
            .starts_with("every response with the tag news")
    );
}

#[tokio::test]
async fn what_is_too_large_or_not_understood_is_refused_and_the_sidecar_lives_on() {
    let (sidecar, client) = (sidecar(Some("t")).await, Client::new());
    let key = "0".repeat(64);
    for (method, path, body) in [
        ("PUT", format!("/v1/entries/{key}"), vec![0; 4096]),
        (
            "PUT",
            format!("/v1/entries/{key}"),
            b"LRD\x02rubbish".to_vec(),
        ),
        (
            "PUT",
            format!("/v1/entries/{key}"),
            b"LRD\x01\0\0\0\x02{}of version 1".to_vec(),
        ),
        ("PUT", "/v1/entries/x".to_owned(), Vec::new()),
        ("POST", "/v1/look-up".to_owned(), b"{}".to_vec()),
        ("POST", "/v1/look-up".to_owned(), vec![0xff; 600]),
        ("POST", "/v1/release".to_owned(), b"[]".to_vec()),
        (
            "POST",
            "/v1/invalidate".to_owned(),
            br#"{"digests": ["xyz"], "now_ms": 1}"#.to_vec(),
        ),
        ("GET", "/v1/events?wait_ms=soon".to_owned(), Vec::new()),
    ] {
        let request = client
            .request(method.parse().unwrap(), format!("{sidecar}{path}"))
            .body(body);
        let status = request.send().await.unwrap().status();
        assert!(status.is_client_error(), "{method} {path}: {status}");
    }
    assert!(
        client
            .get(format!("{sidecar}/healthz"))
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    let metrics = metrics(&client, &sidecar).await;
    assert!(
        metrics.contains("larder_sidecar_purges_total 0"),
        "{metrics}"
    );
}

const TOKEN: &str = "the-token-of-this-fleet";

/// Every request of the contract, as something on the network may try it.
fn requests(client: &Client, sidecar: &str) -> Vec<RequestBuilder> {
    let key = "0".repeat(64);
    vec![
        client.post(format!("{sidecar}/v1/look-up")).json(&json!({
            "key": key, "presented": {}, "now_ms": 1, "lease": null
        })),
        client
            .put(format!("{sidecar}/v1/entries/{key}"))
            .body("forged"),
        client
            .post(format!("{sidecar}/v1/release"))
            .json(&json!({ "key": key, "fence": "00", "uncacheable_ms": 0 })),
        client
            .post(format!("{sidecar}/v1/invalidate"))
            .json(&json!({ "digests": [], "now_ms": 1 })),
        client.get(format!("{sidecar}/v1/events")),
        client.get(format!("{sidecar}/v1/whatever-comes-later")),
    ]
}

#[tokio::test]
async fn nothing_of_the_contract_is_open_without_the_token_and_health_is() {
    let tokens = Tokens::parse("LARDER_TOKEN", &format!("{TOKEN},the-token-to-come")).unwrap();
    let sidecar = sidecar_with(Access {
        tokens,
        purge: Some(Token::new("operator")),
    })
    .await;
    let client = Client::new();
    for wrong in [None, Some("another-token-of-length"), Some("operator")] {
        for request in requests(&client, &sidecar) {
            let request = if let Some(token) = wrong {
                request.bearer_auth(token)
            } else {
                request
            };
            let status = request.send().await.unwrap().status();
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{wrong:?}");
        }
    }
    for token in [TOKEN, "the-token-to-come"] {
        for request in requests(&client, &sidecar) {
            let status = request.bearer_auth(token).send().await.unwrap().status();
            assert_ne!(status, StatusCode::UNAUTHORIZED);
        }
    }
    // Purging asks for the operator's token, and for no other.
    let purge = |token| {
        client
            .post(format!("{sidecar}/v1/purge"))
            .bearer_auth(token)
            .json(&json!({ "tag": "x" }))
            .send()
    };
    assert_eq!(
        purge(TOKEN).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(purge("operator").await.unwrap().status(), StatusCode::OK);
    for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
        assert_eq!(
            client
                .get(format!("{sidecar}{path}"))
                .send()
                .await
                .unwrap()
                .status(),
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn whoever_guesses_is_turned_away_and_the_right_token_is_not() {
    let tokens = Tokens::parse("LARDER_TOKEN", TOKEN).unwrap();
    let sidecar = sidecar_with(Access {
        tokens,
        purge: Some(Token::new("operator")),
    })
    .await;
    let client = Client::new();
    let events = |token: String| {
        client
            .get(format!("{sidecar}/v1/events"))
            .bearer_auth(token)
            .send()
    };
    let mut last = StatusCode::OK;
    for n in 0..30 {
        last = events(format!("a-guess-of-some-length-{n}"))
            .await
            .unwrap()
            .status();
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let order = client
        .post(format!("{sidecar}/v1/purge"))
        .bearer_auth("guess")
        .json(&json!({ "tag": "x" }));
    assert_eq!(
        order.send().await.unwrap().status(),
        StatusCode::TOO_MANY_REQUESTS,
        "the operator's token as well"
    );
    assert_eq!(
        events(TOKEN.to_owned()).await.unwrap().status(),
        StatusCode::OK
    );
    let metrics = metrics(&client, &sidecar).await;
    assert!(
        metrics.contains("larder_sidecar_refused_attempts_total 31"),
        "{metrics}"
    );
}

#[tokio::test]
async fn beyond_this_machine_it_listens_with_a_token_only() {
    for open in ["0.0.0.0:0", "[::]:0"] {
        let problem = listening::bind(open, false).await.unwrap_err();
        assert!(
            problem.contains("LARDER_TOKEN") && problem.contains(open) && !problem.contains('\n'),
            "{problem}"
        );
    }
    assert!(listening::bind("0.0.0.0:0", true).await.is_ok());
    let folder = tempfile::tempdir().unwrap();
    for here in [
        "127.0.0.1:0",
        "localhost:0",
        &format!("unix:{}", folder.path().join("s").display()),
    ] {
        assert!(listening::bind(here, false).await.is_ok(), "{here}");
    }
}

#[tokio::test]
async fn a_file_of_tokens_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let tokens = Tokens::from_file("LARDER_TOKEN_FILE", &path).unwrap();
    tokio::spawn(
        tokens
            .clone()
            .follow_file("LARDER_TOKEN_FILE", path.clone()),
    );
    let sidecar = sidecar_with(Access {
        tokens,
        purge: None,
    })
    .await;
    let client = Client::new();
    let is_valid = |token: &'static str| {
        let request = client
            .get(format!("{sidecar}/v1/events"))
            .bearer_auth(token);
        async move { request.send().await.unwrap().status().is_success() }
    };
    assert!(is_valid(TOKEN).await && !is_valid("the-token-to-come").await);
    std::fs::write(&path, "the-token-to-come").unwrap();
    let changed = || async { is_valid("the-token-to-come").await.then_some(()) };
    eventually(Duration::from_secs(10), changed).await.unwrap();
    assert!(!is_valid(TOKEN).await);
    std::fs::write(&path, "").unwrap();
    assert!(
        is_valid("the-token-to-come").await,
        "an empty file opens nothing"
    );
}

/// Asks for `/livez` over HTTP/2 on a connection of its own and says how long the answer took. The
/// client's kernel acknowledges late, as it does whenever it has had its turn.
async fn first_answer(address: &str) -> Duration {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    redis::io::tcp::socket2::SockRef::from(&stream)
        .set_tcp_quickack(false)
        .unwrap();
    let begun = Instant::now();
    // Method GET, scheme http, path and authority, in the static table's numbers (RFC 7541 appendix
    // A).
    let head = [b"\x82\x86\x44\x06/livez\x41\x01a".as_slice()].concat();
    let mut asked = vec![0, 0, u8::try_from(head.len()).unwrap(), 1, 5, 0, 0, 0, 1];
    asked.extend_from_slice(&head);
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream.write_all(settings).await.unwrap();
    stream.write_all(&asked).await.unwrap();
    loop {
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.unwrap();
        let mut rest = vec![0; usize::from(frame[1]) << 8 | usize::from(frame[2])];
        stream.read_exact(&mut rest).await.unwrap();
        // DATA with END_STREAM.
        if frame[3] == 0 && frame[4] & 1 == 1 {
            return begun.elapsed();
        }
    }
}

#[tokio::test]
async fn the_first_answer_on_a_fresh_connection_is_not_held_back() {
    let sidecar = sidecar(None).await;
    let address = sidecar.trim_start_matches("http://");
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(first_answer(address).await);
    }
    // Held back it takes 40 ms, every time.
    assert!(
        times.iter().min().unwrap() < &Duration::from_millis(20),
        "{times:?}"
    );
}
