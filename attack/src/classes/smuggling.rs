//! Smuggling: a request within a request, seen by one side only.

use std::time::Duration;

use crate::h2;
use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::Request;

/// `{p}` is the path of the smuggled request.
const SMUGGLED: &str = "GET {p} HTTP/1.1\r\nhost: shop.test\r\nx-smuggled: 1\r\n\r\n";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Smuggling,
        name: "content-of-a-hit",
        source: "Pingora CVE-2025-4366; Apache Traffic Server test conditional-get-hit; Varnish test f00008",
        expectation: "The content of a request that a hit answers is never read as the next request.",
        setting: Setting::Safe,
        inputs: &[
            "GET > counted",
            "GET > chunked",
            "HEAD > counted",
            "HEAD > chunked",
            "GET > conditional",
            "POST > counted",
            "OPTIONS > counted",
        ],
        check: |visit| Box::pin(content_of_a_hit(visit)),
    },
    Scenario {
        class: Class::Smuggling,
        name: "framing",
        source: "RFC 9112 §6.3, §11.2; Pingora CVE-2026-2833, CVE-2026-2835; Varnish CVE-2022-23959; Squid CVE-2023-46846",
        expectation: "A request with ambiguous framing hides no other request, and changes nothing for others.",
        setting: Setting::Safe,
        inputs: &[
            "content-length: {n}\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: {n}",
            "content-length: 0\r\ncontent-length: {n}",
            "content-length: 0, {n}",
            "content-length: +0",
            "content-length: -1",
            "content-length: 0x0",
            "content-length : 0",
            "transfer-encoding: xchunked",
            "transfer-encoding: identity, chunked",
            "transfer-encoding: chunked, identity",
            "transfer-encoding:\u{b}chunked",
            "transfer-encoding: chunked\r\ntransfer-encoding: x",
            "content-length: 99999999999999999999",
        ],
        check: |visit| Box::pin(framing(visit)),
    },
    Scenario {
        class: Class::Smuggling,
        name: "old-version",
        source: "Pingora CVE-2026-2835; RFC 9112 §6.1",
        expectation: "An HTTP/1.0 request with Transfer-Encoding, or an upgrade, hides no other request behind a hit.",
        setting: Setting::Safe,
        inputs: &[
            "HTTP/1.0 > transfer-encoding: chunked",
            "HTTP/1.0 > connection: keep-alive\r\ntransfer-encoding: chunked",
            "HTTP/1.1 > connection: upgrade\r\nupgrade: websocket",
            "HTTP/1.1 > connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA",
            "HTTP/1.1 > expect: 100-continue\r\ncontent-length: 0",
        ],
        check: |visit| Box::pin(old_version(visit)),
    },
    Scenario {
        class: Class::Smuggling,
        name: "pipelined-hits",
        source: "RFC 9112 §9.3.2; Kettle, HTTP/1.1 Must Die (2025)",
        expectation: "Requests that come in one packet are answered in order, each with its own content, as far as the connection lasts.",
        setting: Setting::Safe,
        inputs: &["GET GET GET", "HEAD GET GET", "GET HEAD GET"],
        check: |visit| Box::pin(pipelined(visit)),
    },
    Scenario {
        class: Class::Smuggling,
        name: "http2-fields",
        source: "Kettle, HTTP/2: The Sequel Is Always Worse (2021); RFC 9113 §8.2; Varnish CVE-2021-36740",
        expectation: "Fields that mean framing in HTTP/1.1, or hold its line ends, carry nothing from HTTP/2 to the origin.",
        setting: Setting::Safe,
        inputs: &[
            "transfer-encoding => chunked",
            "content-length => 9999",
            "x-a => b\r\n\r\nGET {p} HTTP/1.1\r\nx-smuggled: 1\r\nx: y",
            "x-a\r\nx-smuggled: 1\r\nx => y",
            "connection => x-smuggled",
            "host => evil.example",
            ":path => {p}",
            ":authority => evil.example\r\nx-smuggled: 1",
            "X-Upper => x",
        ],
        check: |visit| Box::pin(http2_fields(visit)),
    },
    Scenario {
        class: Class::Smuggling,
        name: "http2-empty-data",
        source: "RFC 9113 §8.1; RFC 9110 §6.4: no content is no content",
        expectation: "A GET whose HEADERS do not end the stream, and whose DATA is empty, is cached like any other.",
        setting: Setting::Safe,
        inputs: &["plain", "with content-length: 0"],
        check: |visit| Box::pin(http2_empty_data(visit)),
    },
    Scenario {
        class: Class::Smuggling,
        name: "cut-off-content",
        source: "RFC 9111 §3.3; RFC 9112 §8; Pingora test test_cache_h2_premature_end; Varnish test c00062",
        expectation: "Content that broke off is never served as whole.",
        setting: Setting::Safe,
        inputs: &[
            "counted > 1000",
            "chunked > 1000",
            "counted > 300000",
            "chunked > 300000",
        ],
        check: |visit| Box::pin(cut_off(visit)),
    },
];

fn smuggled(visit: &Visit) -> (String, String) {
    let path = format!("{}/smuggled", visit.path);
    (SMUGGLED.replace("{p}", &path), path)
}

/// Nothing reached the origin that hid in something else, and the page is what it was.
async fn nothing_hid(visit: &Visit, page: &str, path: &str) -> Verdict {
    ensure!(
        visit.journal(path).await.is_empty(),
        "the smuggled request reached the origin"
    );
    for request in visit.journal(&visit.path).await {
        ensure!(
            !request["headers"].to_string().contains("x-smuggled"),
            "a smuggled field reached the origin"
        );
    }
    let own = visit.get(page).await;
    let is_own = own.text().contains(&format!("\"target\":\"{page}\""));
    ensure!(
        own.is_whole(200) && is_own,
        "a clean client got {}",
        own.shown()
    );
    Ok(())
}

async fn content_of_a_hit(visit: Visit) -> Verdict {
    let (method, form) = visit.pair();
    let (page, other) = (
        visit.page(&[("cache-control", "max-age=60"), ("header", "etag: \"1\"")]),
        visit.page(&[]),
    );
    visit.warm(&page).await?;
    let (inner, path) = smuggled(&visit);
    let condition = if form == "conditional" {
        "if-none-match: \"1\"\r\n"
    } else {
        ""
    };
    let content = if form == "chunked" {
        format!(
            "transfer-encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
            inner.len()
        )
    } else {
        format!("content-length: {}\r\n\r\n{inner}", inner.len())
    };
    let first = format!("{method} {page} HTTP/1.1\r\nhost: shop.test\r\n{condition}{content}");
    let second = String::from_utf8_lossy(&Request::get(&other).bytes()).into_owned();
    let answers = visit
        .raw(
            (first + &second).as_bytes(),
            &[method, "GET"],
            Duration::from_secs(3),
        )
        .await;
    // The connection may have been closed, which is safe as well.
    if let Some(second) = answers.get(1).filter(|answer| answer.status != 0) {
        let is_own = second.text().contains(&format!("\"target\":\"{other}\""));
        ensure!(
            is_own,
            "the second answer belongs to another request: {}",
            second.shown()
        );
    }
    nothing_hid(&visit, &page, &path).await
}

async fn framing(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    visit.warm(&page).await?;
    let (inner, path) = smuggled(&visit);
    // Hidden behind "0\r\n\r\n", the end of chunked content, and counted as content by the other
    // reading.
    let hidden = format!("0\r\n\r\n{inner}");
    let fields = visit.input.replace("{n}", &hidden.len().to_string());
    for method in ["GET", "POST"] {
        let bytes =
            format!("{method} {page} HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n\r\n{hidden}");
        visit
            .raw(bytes.as_bytes(), &[method], Duration::from_secs(2))
            .await;
    }
    // By one reading the second request is a request of its own: then nothing is hidden, but the
    // framing must be plain.
    let seen = visit.journal(&path).await.len();
    ensure!(
        seen == 0,
        "the request behind ambiguous framing reached the origin {seen} times"
    );
    nothing_hid(&visit, &page, &path).await
}

async fn old_version(visit: Visit) -> Verdict {
    let (version, fields) = visit.pair();
    let page = visit.page(&[("cache-control", "max-age=60")]);
    visit.warm(&page).await?;
    let (inner, path) = smuggled(&visit);
    let ends = if fields.contains("chunked") {
        "0\r\n\r\n"
    } else {
        ""
    };
    // What follows the head must be seen once at most, and under its own name.
    let bytes = format!("GET {page} {version}\r\nhost: shop.test\r\n{fields}\r\n\r\n{ends}{inner}");
    visit
        .raw(bytes.as_bytes(), &["GET", "GET"], Duration::from_secs(2))
        .await;
    ensure!(
        visit.journal(&path).await.len() <= 1,
        "the following request reached the origin twice"
    );
    let own = visit.get(&page).await;
    ensure!(
        own.text().contains(&format!("\"target\":\"{page}\"")),
        "a clean client got {}",
        own.shown()
    );
    Ok(())
}

async fn pipelined(visit: Visit) -> Verdict {
    let methods: Vec<&str> = visit.input.split(' ').collect();
    let mut bytes = Vec::new();
    let mut pages = Vec::new();
    for (index, method) in methods.iter().enumerate() {
        let page = crate::visit::page(
            &format!("{}/{index}", visit.path),
            &[("cache-control", "max-age=60")],
        );
        visit.warm(&page).await?;
        bytes.extend(Request::new(method, &page).bytes());
        pages.push(page);
    }
    let answers = visit.raw(&bytes, &methods, Duration::from_secs(3)).await;
    // Envoy closes a connection on which it has answered two pipelined requests itself; with a
    // direct_response too.
    let came = answers.iter().take_while(|answer| answer.status != 0);
    let mut count = 0;
    for ((answer, page), method) in came.zip(&pages).zip(&methods) {
        let is_own = *method == "HEAD" || answer.text().contains(&format!("\"target\":\"{page}\""));
        ensure!(
            answer.is_whole(200) && is_own,
            "{page} got {}",
            answer.shown()
        );
        count += 1;
    }
    ensure!(count >= 1, "not one was answered");
    Ok(())
}

fn http2_request(page: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "shop.test"),
        (":path", page),
    ]
}

async fn http2_fields(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    let (inner, path) = smuggled(&visit);
    let line = visit.input.replace("{p}", &path);
    let (name, value) = line.split_once(" => ").unwrap_or_default();
    let mut fields = http2_request(&page);
    fields.push((name, value));
    visit.frames(&[h2::headers(&fields, true)]).await?;
    visit
        .frames(&[
            h2::headers(&fields, false),
            h2::last_data(format!("0\r\n\r\n{inner}").as_bytes()),
        ])
        .await?;
    nothing_hid(&visit, &page, &path).await
}

async fn http2_empty_data(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    let mut fields = http2_request(&page);
    if visit.input.starts_with("with") {
        fields.push(("content-length", "0"));
    }
    for _ in 0..4 {
        let ended = visit
            .frames(&[h2::headers(&fields, false), h2::last_data(b"")])
            .await?;
        ensure!(
            ended.is_ok && ended.is_whole,
            "it was not answered: {ended:?}"
        );
        visit.time_passes(50).await;
    }
    let fetches = visit.fetches().await;
    ensure!(fetches <= 2, "four requests made {fetches} fetches");
    Ok(())
}

async fn cut_off(visit: Visit) -> Verdict {
    let (form, size) = visit.pair();
    let size: usize = size.parse().unwrap_or_default();
    let page = visit.page(&[
        ("cache-control", "max-age=60"),
        ("broken", "1"),
        ("body-size", &size.to_string()),
        ("chunked", if form == "chunked" { "1" } else { "0" }),
    ]);
    for _ in 0..3 {
        let answer = visit.get(&page).await;
        ensure!(
            !answer.is_whole(200),
            "half of the content was served as whole ({} bytes)",
            answer.content.len()
        );
        ensure!(!answer.is_hit(), "half of the content was stored");
    }
    Ok(())
}
