//! Hangs: a client that gets no answer, or no end of it, because of the cache.

use std::time::Duration;

use serde_json::json;

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::target::PATIENCE;
use crate::visit::Visit;
use crate::wire::{Connection, Request};

const SIZES: &[&str] = &[
    "0",
    "10",
    "10000",
    "300000",
    "10000 chunked",
    "300000 chunked",
    "0 in place of an answer",
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Hangs,
        name: "stale-if-error",
        source: "RFC 5861 §4; proxy-wasm header callbacks that may not stop",
        expectation: "Where a stale answer may stand in for an error, it comes at once, whatever content the error has.",
        setting: Setting::Safe,
        inputs: SIZES,
        check: |visit| Box::pin(stale_if_error(visit)),
    },
    Scenario {
        class: Class::Hangs,
        name: "stale-if-error-without-stopping",
        source: "Istio WasmPlugin and Envoy Gateway cannot set allow_on_headers_stop_iteration",
        expectation: "The same where the filter may not stop at the headers.",
        setting: Setting::NoStop,
        inputs: SIZES,
        check: |visit| Box::pin(stale_if_error(visit)),
    },
    Scenario {
        class: Class::Hangs,
        name: "plain-answers-without-stopping",
        source: "envoyproxy/envoy#28826, #23047; proxy-wasm-cpp-host#423",
        expectation: "Misses, hits and validations are answered where the filter may not stop at the headers.",
        setting: Setting::NoStop,
        inputs: &[
            "max-age=60",
            "no-cache",
            "max-age=1",
            "no-store",
            "max-age=1, stale-while-revalidate=60",
        ],
        check: |visit| Box::pin(plain(visit)),
    },
    Scenario {
        class: Class::Hangs,
        name: "content-without-an-end",
        source: "darkweak/souin#600; WHATWG server-sent events; RFC 2046 §5.1",
        expectation: "Nobody waits behind content that has no end.",
        setting: Setting::Operator,
        inputs: &[
            "application/x-ndjson",
            "application/stream+json",
            "application/json-seq",
            "multipart/x-mixed-replace; boundary=x",
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "application/octet-stream",
            "video/mp2t",
        ],
        check: |visit| Box::pin(without_an_end(visit)),
    },
    Scenario {
        class: Class::Hangs,
        name: "request-on-a-hit",
        source: "RFC 9110 §9, §10.1.1; Pingora tests for 1xx and 101",
        expectation: "Every method and every expectation gets an answer when the page is stored.",
        setting: Setting::Safe,
        inputs: &[
            "HEAD >",
            "OPTIONS >",
            "TRACE >",
            "DELETE >",
            "PATCH > content-length: 0",
            "GET > expect: 100-continue",
            "POST > expect: 100-continue\r\ncontent-length: 0",
            "GET > connection: upgrade\r\nupgrade: websocket",
            "GET > te: trailers",
            "GET > connection: close",
        ],
        check: |visit| Box::pin(on_a_hit(visit)),
    },
    Scenario {
        class: Class::Hangs,
        name: "client-that-does-not-read",
        source: "CWE-400, slow read",
        expectation: "A client that takes no byte of a large hit keeps nobody else from it.",
        setting: Setting::Safe,
        inputs: &["200"],
        check: |visit| Box::pin(not_reading(visit)),
    },
    Scenario {
        class: Class::Hangs,
        name: "request-that-does-not-end",
        source: "CWE-400, slow loris",
        expectation: "A request whose content never comes keeps nobody else from the page.",
        setting: Setting::Safe,
        inputs: &["GET", "POST"],
        check: |visit| Box::pin(not_ending(visit)),
    },
];

async fn stale_if_error(visit: Visit) -> Verdict {
    let control = json!([["cache-control", "max-age=1, stale-if-error=60"]]);
    visit
        .behave(&json!({ "headers": control, "times": 1 }))
        .await?;
    let size: usize = visit
        .input
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .unwrap_or_default();
    let reset = visit.input.contains("in place");
    let chunked = visit.input.contains("chunked");
    visit
        .behave(&json!({ "status": 500, "body_size": size, "chunked": chunked, "reset": reset }))
        .await?;
    visit.get(&visit.path).await;
    visit.a_second_passes().await;
    for _ in 0..2 {
        let answer = visit
            .send_within(Request::get(&visit.path), Duration::from_secs(3))
            .await;
        ensure!(
            answer.is_whole(200),
            "it was {} ({:?})",
            answer.status,
            answer.end
        );
    }
    Ok(())
}

async fn plain(visit: Visit) -> Verdict {
    let page = visit.page(&[
        ("cache-control", visit.input),
        ("header", "etag: \"1\""),
        ("conditional", "1"),
        ("body-size", "20000"),
    ]);
    for round in 0..6 {
        if round == 3 {
            visit.a_second_passes().await;
        }
        let answer = visit
            .send_within(Request::get(&page), Duration::from_secs(3))
            .await;
        ensure!(
            answer.is_whole(200) && answer.content.len() == 20_000,
            "it was {} ({:?})",
            answer.status,
            answer.end
        );
    }
    Ok(())
}

/// The leader's content goes on for ever. Who comes next has to get a first byte soon.
async fn without_an_end(visit: Visit) -> Verdict {
    let page = visit.page(&[
        ("header", &format!("content-type: {}", visit.input)),
        ("endless", "1"),
        ("body-size", "100"),
        ("piece-delay-ms", "100"),
    ]);
    let leading = tokio::spawn({
        let (visit, page) = (visit.clone(), page.clone());
        async move {
            visit
                .send_within(Request::get(&page), Duration::from_secs(6))
                .await
        }
    });
    visit.sees(1).await?;
    let follower = visit
        .send_within(Request::get(&page), Duration::from_secs(4))
        .await;
    leading.abort();
    ensure!(
        follower.status == 200 && !follower.content.is_empty(),
        "who came next got nothing within 4 s"
    );
    Ok(())
}

async fn on_a_hit(visit: Visit) -> Verdict {
    let (method, fields) = visit.input.split_once(" >").unwrap_or_default();
    let page = visit.page(&[("cache-control", "max-age=60")]);
    visit.warm(&page).await?;
    let fields = fields.trim();
    let fields = if fields.is_empty() {
        String::new()
    } else {
        format!("{fields}\r\n")
    };
    let bytes = format!("{method} {page} HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n");
    let answers = visit
        .raw(bytes.as_bytes(), &[method], Duration::from_secs(4))
        .await;
    ensure!(
        answers.iter().all(|answer| answer.status != 0),
        "there was no answer"
    );
    Ok(())
}

async fn not_reading(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60"), ("body-size", "900000")]);
    visit.warm(&page).await?;
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut connection = Connection::open(visit.target.cache(), PATIENCE).await?;
        connection.write(&Request::get(&page).bytes()).await;
        idle.push(connection);
    }
    let answers = visit.herd(&Request::get(&page), 10).await;
    ensure!(
        answers
            .iter()
            .all(|answer| answer.is_whole(200) && answer.content.len() == 900_000),
        "others were not served"
    );
    Ok(())
}

async fn not_ending(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut connection = Connection::open(visit.target.cache(), PATIENCE).await?;
        let head = format!(
            "{} {page} HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 10\r\n\r\nx",
            visit.input
        );
        connection.write(head.as_bytes()).await;
        idle.push(connection);
    }
    let answers = visit.herd(&Request::get(&page), 10).await;
    ensure!(
        answers.iter().all(|answer| answer.is_whole(200)),
        "others were not served"
    );
    visit.warm(&page).await.map(drop)
}
