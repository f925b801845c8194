//! A hit has exactly the fields of the miss, whatever Envoy's routes, error pages and filters do to
//! answers of its own.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use larder_stack::{Origins, Settings};
use serde_json::json;

use crate::raw_origin::{RawOrigin, Step, answer, head};
use crate::support::{Answer, On, World};

/// When the origin says that it made each answer: an hour ago, whenever the tests run, so that a
/// short lifetime is over and the longest staleness is not.
static DATE: LazyLock<(&str, &str)> = LazyLock::new(|| {
    let date = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(3600));
    ("date", date.leak())
});
const FRESH: (&str, &str) = ("cache-control", "max-age=2000000000");
const TYPE: (&str, &str) = ("content-type", "text/html");

/// Fields that each answer has of its own.
const OWN: [&str; 5] = [
    "age",
    "cache-status",
    "x-cache-status",
    "x-envoy-upstream-service-time",
    "transfer-encoding",
];

/// Status and fields, in an order of their own; the length is the content's, declared or not.
fn shown(answer: &Answer) -> (u16, Vec<(String, String)>) {
    let kept = answer
        .headers
        .iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()) && name != "content-length");
    let mut fields: Vec<_> = kept.cloned().collect();
    fields.sort();
    (answer.status, fields)
}

/// Adds fields on route, virtual host and route configuration, each behind what is there.
fn adding_routes(settings: Settings) -> Settings {
    let add = |name: &str| {
        let field = |name: &str, value: &str| json!({ "header": { "key": name, "value": value }, "append_action": "APPEND_IF_EXISTS_OR_ADD" });
        format!(
            "response_headers_to_add: {}",
            json!([field(name, "1"), field("access-control-allow-origin", "*")])
        )
    };
    edited(
        settings,
        &[
            (
                "- match: { prefix: \"/\" }\n",
                &format!(
                    "- match: {{ prefix: \"/\" }}\n                          {}\n",
                    add("x-route")
                ),
            ),
            (
                "domains: [\"*\"]\n",
                &format!(
                    "domains: [\"*\"]\n                      {}\n",
                    add("x-host")
                ),
            ),
            (
                "name: all\n                  virtual_hosts:\n",
                &format!(
                    "name: all\n                  {}\n                  virtual_hosts:\n",
                    add("x-table")
                ),
            ),
        ],
    )
}

/// Rewrites error pages: JSON for all, and a `404` becomes a `410`.
fn rewriting_error_pages(settings: Settings) -> Settings {
    let filter = json!({ "status_code_filter": { "comparison": { "op": "EQ", "value": { "default_value": 404, "runtime_key": "x" } } } });
    let config = json!({
        "mappers": [{ "filter": filter, "status_code": 410, "headers_to_add": [{ "header": { "key": "x-mapped", "value": "1" } }] }],
        "body_format": { "json_format": { "code": "%RESPONSE_CODE%", "text": "%LOCAL_REPLY_BODY%" } },
    });
    edited(
        settings,
        &[(
            "http_filters:\n",
            &format!("local_reply_config: {config}\n                http_filters:\n"),
        )],
    )
}

/// CORS before the cache.
fn with_cors(settings: Settings) -> Settings {
    let policy = json!({ "envoy.filters.http.cors": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{ "safe_regex": { "regex": ".*" } }], "expose_headers": "x-kept",
    } });
    let filter = json!({ "name": "envoy.filters.http.cors", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors" } });
    let settings = edited(
        settings,
        &[(
            "domains: [\"*\"]\n",
            &format!("domains: [\"*\"]\n                      typed_per_filter_config: {policy}\n"),
        )],
    );
    settings.with_filters_before(&[filter])
}

fn edited(mut settings: Settings, edits: &[(&str, &str)]) -> Settings {
    settings.envoy_edits.extend(
        edits
            .iter()
            .map(|(from, to)| ((*from).to_owned(), (*to).to_owned())),
    );
    settings
}

/// A stack before an origin of raw bytes; each request comes on a connection of its own, so that
/// both workers are met.
async fn world(settings: Settings) -> (World, RawOrigin) {
    let origin = RawOrigin::start().await;
    let settings = Settings {
        origins: Origins::Addresses(vec![origin.address.clone()]),
        ..settings
    };
    let mut world = World::with(On::Memory, settings).await;
    world.client = reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    (world, origin)
}

fn plain() -> Settings {
    let config = r#"{ "store": { "timeout_ms": 3000 }, "rules": [{ "policy": { "range_on_miss": "part" } }] }"#;
    Settings {
        health_path: String::new(),
        filter_config: config.to_owned(),
        ..Settings::default()
    }
}

fn without_stop_iteration(settings: Settings) -> Settings {
    Settings {
        stop_iteration: false,
        ..settings
    }
}

/// The answers to some requests of a cross-origin client, one after the other.
async fn ask(world: &World, path: &str, count: usize, more: &[(&str, &str)]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for _ in 0..count {
        let fields = [&[("origin", "http://a")], more].concat();
        answers.push(world.send("GET", path, &fields).await);
    }
    answers
}

fn has_length(answer: &Answer, length: usize) -> bool {
    answer.header("content-length") == length.to_string()
}

/// Responses of every kind: their paths, and the lengths of their content.
fn every_kind(origin: &RawOrigin) -> Vec<(String, usize)> {
    let kept = [
        *DATE,
        FRESH,
        TYPE,
        ("x-kept", "a"),
        ("x-kept", "b"),
        ("etag", "\"1\""),
    ];
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for size in [0, 10, 3_000, 20_000, 100_000] {
        origin.answers(
            &format!("/{size}"),
            answer("200 OK", &kept, &vec![b'x'; size]),
        );
        kinds.push((format!("/{size}"), size));
    }
    let long = [*DATE, FRESH, TYPE, ("x-long", &"y".repeat(5000))];
    let chunked = head(
        "200 OK",
        &[*DATE, FRESH, TYPE, ("transfer-encoding", "chunked")],
    );
    for (path, size, sent) in [
        ("/typeless", 5, answer("200 OK", &[*DATE, FRESH], b"hello")),
        (
            "/missing",
            7,
            answer("404 Not Found", &[*DATE, FRESH, TYPE], b"nothing"),
        ),
        ("/long-head", 5, answer("200 OK", &long, b"hello")),
        (
            "/chunked",
            5,
            [chunked, b"5\r\nhello\r\n0\r\n\r\n".to_vec()].concat(),
        ),
    ] {
        origin.answers(path, sent);
        kinds.push((path.to_owned(), size));
    }
    kinds
}

/// Each kind of stored response: once from the origin, then from the cache, on both workers.
async fn hits_equal_the_miss(settings: Settings) {
    let (world, origin) = world(settings).await;
    for (path, size) in every_kind(&origin) {
        let miss = world.stored(ask(&world, &path, 1, &[])).await.remove(0);
        assert!(!miss.is_hit(), "{miss:?}");
        let again = ask(&world, &path, 10, &[]).await;
        assert!(
            again.iter().filter(|answer| answer.is_hit()).count() >= 5,
            "{path}: {again:?}"
        );
        for hit in again.iter().filter(|answer| answer.is_hit()) {
            assert_eq!(
                (shown(hit), hit.body == miss.body),
                (shown(&miss), true),
                "{path}: {hit:?}"
            );
            assert!(
                has_length(hit, size) && hit.header("x-envoy-upstream-service-time").is_empty(),
                "{hit:?}"
            );
        }
        let head = world.send("HEAD", &path, &[("origin", "http://a")]).await;
        let is_like_the_miss = (shown(&head), head.is_hit(), has_length(&head, size));
        assert_eq!(
            is_like_the_miss,
            (shown(&miss), true, true),
            "{path}: {head:?}"
        );
        if size > 5 && miss.status == 200 {
            parts_and_confirmations_equal(&world, &path, size, &miss).await;
        }
    }
    followers_equal_the_leader(&world, &origin).await;
}

async fn parts_and_confirmations_equal(world: &World, path: &str, size: usize, miss: &Answer) {
    let mut part = ask(world, path, 1, &[("range", "bytes=1-2")])
        .await
        .remove(0);
    assert!(
        part.is_hit() && part.body == miss.body[1..3] && has_length(&part, 2),
        "{path}: {part:?}"
    );
    assert_eq!(part.header("content-range"), format!("bytes 1-2/{size}"));
    part.headers.retain(|(name, _)| name != "content-range");
    assert_eq!(shown(&part).1, shown(miss).1, "{path}");
    let unchanged = ask(world, path, 1, &[("if-none-match", "\"1\"")])
        .await
        .remove(0);
    assert_eq!(
        (
            unchanged.status,
            unchanged.is_hit(),
            unchanged.body.as_str()
        ),
        (304, true, ""),
        "{path}"
    );
    assert_eq!(
        (unchanged.header("content-type"), unchanged.header("etag")),
        ("", "\"1\""),
        "{unchanged:?}"
    );
}

async fn followers_equal_the_leader(world: &World, origin: &RawOrigin) {
    let waiting = [*DATE, FRESH, TYPE, ("x-kept", "a"), ("x-kept", "b")];
    let slow = answer("200 OK", &waiting, b"hello");
    origin.script("/slow", move |_| {
        vec![
            Step::Wait(Duration::from_millis(300)),
            Step::Send(slow.clone()),
        ]
    });
    let asked = (0..12).map(|_| ask(world, "/slow", 1, &[]));
    let herd: Vec<Answer> = futures_util::future::join_all(asked)
        .await
        .into_iter()
        .flatten()
        .collect();
    let miss = herd
        .iter()
        .find(|answer| !answer.is_hit() && !answer.says("collapsed"))
        .unwrap();
    assert!(
        herd.iter()
            .filter(|answer| answer.says("collapsed"))
            .count()
            >= 3,
        "{herd:?}"
    );
    for follower in &herd {
        assert_eq!(
            (shown(follower), &follower.body),
            (shown(miss), &miss.body),
            "{follower:?}"
        );
    }
}

#[tokio::test]
async fn a_hit_has_the_fields_of_the_miss() {
    hits_equal_the_miss(plain()).await;
}

#[tokio::test]
async fn a_hit_has_the_fields_of_the_miss_where_routes_add_some() {
    hits_equal_the_miss(adding_routes(plain())).await;
}

#[tokio::test]
async fn a_hit_has_the_fields_of_the_miss_where_error_pages_are_rewritten() {
    hits_equal_the_miss(rewriting_error_pages(plain())).await;
}

#[tokio::test]
async fn a_hit_has_the_fields_of_the_miss_behind_a_cors_filter() {
    hits_equal_the_miss(with_cors(plain())).await;
}

/// The content of an error comes in every way: the stale copy in its place is the same, and there
/// at once.
async fn stale_copies_equal_the_miss(settings: Settings) {
    let (world, origin) = world(settings).await;
    let stale = [
        *DATE,
        ("cache-control", "max-age=1, stale-if-error=2000000000"),
        TYPE,
        ("x-kept", "a"),
        ("x-kept", "b"),
    ];
    let error = |content: &[u8]| {
        vec![Step::Send(answer(
            "500 Oops",
            &[*DATE, ("x-error", "1")],
            content,
        ))]
    };
    let chunked = Step::Send(head("500 Oops", &[*DATE, ("transfer-encoding", "chunked")]));
    let piece = Step::Send(b"5\r\nhello\r\n".to_vec());
    let last = Step::Send(b"0\r\n\r\n".to_vec());
    let later = Step::Wait(Duration::from_secs(3));
    for (path, steps) in [
        ("/short", error(b"oops")),
        ("/long", error(&[b'e'; 10_000])),
        ("/huge", error(&vec![b'e'; 3_000_000])),
        (
            "/chunked",
            vec![chunked.clone(), piece.clone(), last.clone()],
        ),
        ("/no-piece", vec![chunked.clone(), last.clone()]),
        (
            "/trickling",
            vec![chunked, piece.clone(), later, piece, last],
        ),
        ("/closed", vec![Step::Close]),
    ] {
        origin.answers(path, answer("200 OK", &stale, &[b'x'; 3_000]));
        let miss = world.stored(ask(&world, path, 1, &[])).await.remove(0);
        origin.script(path, move |_| steps.clone());
        for _ in 0..3 {
            let begun = Instant::now();
            let again = ask(&world, path, 1, &[]).await.remove(0);
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "{path}: {:?}",
                begun.elapsed()
            );
            assert_eq!(
                (shown(&again), again.body == miss.body),
                (shown(&miss), true),
                "{path}: {again:?}"
            );
            assert!(
                again.says("stale-if-error") && has_length(&again, 3_000),
                "{path}: {again:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_stale_copy_in_place_of_an_error_has_the_fields_of_the_miss() {
    stale_copies_equal_the_miss(adding_routes(with_cors(plain()))).await;
}

#[tokio::test]
async fn a_stale_copy_in_place_of_an_error_has_the_fields_of_the_miss_without_stop_iteration() {
    stale_copies_equal_the_miss(without_stop_iteration(rewriting_error_pages(with_cors(
        plain(),
    ))))
    .await;
}

#[tokio::test]
async fn a_stale_copy_in_place_of_an_error_without_content_has_the_fields_of_the_miss_where_routes_add_some()
 {
    let (world, origin) = world(adding_routes(plain())).await;
    let stale = ("cache-control", "max-age=1, stale-if-error=2000000000");
    origin.answers(
        "/a",
        answer("200 OK", &[*DATE, stale, TYPE, ("x-kept", "a")], b"hello"),
    );
    let miss = world.stored(ask(&world, "/a", 1, &[])).await.remove(0);
    origin.answers("/a", answer("503 Oops", &[*DATE, ("x-kept", "b")], b""));
    for again in ask(&world, "/a", 3, &[]).await {
        assert_eq!(
            (shown(&again), &again.body),
            (shown(&miss), &miss.body),
            "{again:?}"
        );
    }
    let head = world.send("HEAD", "/a", &[]).await;
    assert!(
        head.says("stale-if-error") && has_length(&head, 5),
        "{head:?}"
    );
    assert_eq!(shown(&head), shown(&miss));
}

#[tokio::test]
async fn a_stale_copy_leaves_the_connection_to_the_origin_open() {
    let (world, origin) = world(without_stop_iteration(Settings {
        workers: 1,
        ..plain()
    }))
    .await;
    origin.answers(
        "/a",
        answer(
            "200 OK",
            &[
                *DATE,
                ("cache-control", "max-age=1, stale-if-error=2000000000"),
            ],
            b"hello",
        ),
    );
    world.stored(ask(&world, "/a", 1, &[])).await;
    origin.answers("/a", answer("500 Oops", &[*DATE], &[b'e'; 10_000]));
    ask(&world, "/a", 1, &[]).await;
    let before = origin.connections();
    for answer in ask(&world, "/a", 10, &[]).await {
        assert!(answer.says("stale-if-error"), "{answer:?}");
    }
    assert_eq!(origin.connections(), before);
}

/// What the origin confirms has the fields of the miss as well, where its `304` leaves no place for
/// content.
async fn confirmed_answers_equal_the_miss(settings: Settings) {
    let (world, origin) = world(settings).await;
    for (path, typed) in [("/typed", true), ("/typeless", false)] {
        let fields = [
            *DATE,
            ("cache-control", "no-cache"),
            ("etag", "\"1\""),
            ("x-kept", "a"),
            TYPE,
        ];
        let fields = if typed {
            fields.to_vec()
        } else {
            fields[..4].to_vec()
        };
        origin.script(path, move |request| {
            let confirmed = request.contains("if-none-match: \"1\"");
            vec![Step::Send(match confirmed {
                true => head(
                    "304 Not Modified",
                    &[*DATE, ("etag", "\"1\""), ("x-kept", "a")],
                ),
                false => answer("200 OK", &fields, b"hello"),
            })]
        });
        let miss = world.stored(ask(&world, path, 1, &[])).await.remove(0);
        for again in ask(&world, path, 6, &[]).await {
            assert_eq!(
                (shown(&again), &again.body),
                (shown(&miss), &miss.body),
                "{path}: {again:?}"
            );
        }
        let other = world.get(path).await;
        assert_eq!(other.body, miss.body, "{path}: {other:?}");
        let unchanged = ask(&world, path, 1, &[("if-none-match", "\"1\"")])
            .await
            .remove(0);
        assert_eq!(
            (unchanged.status, unchanged.body.as_str()),
            (304, ""),
            "{path}: {unchanged:?}"
        );
    }
}

#[tokio::test]
async fn what_the_origin_confirms_has_the_fields_of_the_miss() {
    confirmed_answers_equal_the_miss(plain()).await;
}

#[tokio::test]
async fn what_the_origin_confirms_has_the_fields_of_the_miss_where_routes_add_some() {
    confirmed_answers_equal_the_miss(adding_routes(without_stop_iteration(plain()))).await;
}

#[tokio::test]
async fn what_the_origin_confirms_has_the_fields_of_the_miss_behind_a_cors_filter() {
    confirmed_answers_equal_the_miss(with_cors(plain())).await;
}

#[tokio::test]
async fn once_an_error_page_was_rewritten_the_origin_is_asked_for_the_whole() {
    let (world, origin) = world(rewriting_error_pages(Settings {
        workers: 1,
        ..plain()
    }))
    .await;
    origin.script("/a", |request| {
        let confirmed = request.contains("if-none-match: \"1\"");
        vec![Step::Send(match confirmed {
            true => head("304 Not Modified", &[*DATE, ("etag", "\"1\"")]),
            false => answer(
                "200 OK",
                &[
                    *DATE,
                    ("cache-control", "no-cache"),
                    ("etag", "\"1\""),
                    TYPE,
                ],
                b"hello",
            ),
        })]
    });
    origin.answers("/hit", answer("200 OK", &[*DATE, FRESH, TYPE], b"hello"));
    world.until("/hit", Answer::is_hit).await;
    for again in ask(&world, "/a", 6, &[]).await {
        assert_eq!(
            (again.body.as_str(), again.header("content-type")),
            ("hello", "text/html"),
            "{again:?}"
        );
    }
}

/// What three conditional requests on one connection bring; nothing comes behind it.
async fn three_confirmations(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut text = String::new();
    for _ in 0..3 {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nif-none-match: \"1\"\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = [0; 4096];
        let length = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    let stray = tokio::time::timeout(Duration::from_millis(200), socket.read_u8()).await;
    assert!(stray.is_err(), "{path}: {stray:?} after {text}");
    text
}

#[tokio::test]
async fn answers_without_content_leave_nothing_on_the_clients_connection() {
    let (world, origin) = world(rewriting_error_pages(plain())).await;
    let stale = ("cache-control", "max-age=1, stale-if-error=2000000000");
    for (path, lifetime) in [("/hit", FRESH), ("/stale", stale)] {
        origin.answers(
            path,
            answer(
                "200 OK",
                &[*DATE, lifetime, ("etag", "\"1\""), TYPE],
                b"hello",
            ),
        );
        world.stored(ask(&world, path, 1, &[])).await;
        ask(&world, path, 2, &[]).await;
    }
    origin.script("/confirmed", |request| {
        let confirmed = request.contains("if-none-match: \"1\"");
        vec![Step::Send(match confirmed {
            true => head("304 Not Modified", &[*DATE, ("etag", "\"1\"")]),
            false => answer(
                "200 OK",
                &[
                    *DATE,
                    ("cache-control", "no-cache"),
                    ("etag", "\"1\""),
                    TYPE,
                ],
                b"hello",
            ),
        })]
    });
    world.stored(ask(&world, "/confirmed", 1, &[])).await;
    origin.answers("/empty", head("204 No Content", &[*DATE, FRESH, TYPE]));
    world.stored(ask(&world, "/empty", 1, &[])).await;
    ask(&world, "/empty", 2, &[]).await;
    origin.answers("/stale", answer("500 Oops", &[*DATE], &[b'e'; 10_000]));
    let address = world.stack.url().replace("http://", "");
    for (path, status) in [
        ("/hit", "304"),
        ("/stale", "304"),
        ("/empty", "204"),
        ("/confirmed", "304"),
    ] {
        let text = three_confirmations(&address, path).await;
        let heads: Vec<&str> = text.split("\r\n\r\n").collect();
        let begins = format!("HTTP/1.1 {status} ");
        assert!(
            heads.len() == 4 && heads[..3].iter().all(|head| head.starts_with(&begins)),
            "{path}: {text}"
        );
        assert!(
            heads[3].is_empty() && !text.contains("transfer-encoding"),
            "{path}: {text}"
        );
    }
}

/// A part with a strong validator, as it is sent.
fn sent_part(range: &str, content: &[u8]) -> Vec<u8> {
    let fields = [
        *DATE,
        FRESH,
        TYPE,
        ("etag", "\"1\""),
        ("content-range", range),
    ];
    answer("206 Partial Content", &fields, content)
}

#[tokio::test]
async fn a_part_is_completed_on_the_way_and_a_broken_promise_breaks_the_answer_off() {
    for settings in [plain(), without_stop_iteration(plain())] {
        let (world, origin) = world(settings).await;
        let whole: Vec<u8> = (0..200_000_u32)
            .map(|n| b'a' + u8::try_from(n % 26).unwrap())
            .collect();
        let first = sent_part("bytes 0-99999/200000", &whole[..100_000]);
        for (path, rest, expected) in [
            (
                "/good",
                sent_part("bytes 100000-199999/200000", &whole[100_000..]),
                200,
            ),
            (
                "/other",
                sent_part("bytes 100001-199999/200000", &whole[100_001..]),
                502,
            ),
        ] {
            let first = first.clone();
            origin.script(path, move |request| {
                vec![Step::Send(if request.contains("bytes=0-99999") {
                    first.clone()
                } else {
                    rest.clone()
                })]
            });
            world
                .stored(ask(&world, path, 1, &[("range", "bytes=0-99999")]))
                .await;
            let held = larder_stack::eventually(Duration::from_secs(5), || async {
                let answer = ask(&world, path, 1, &[]).await.remove(0);
                (answer.says("fwd=partial") || answer.is_hit()).then_some(answer)
            });
            let answer = held.await.unwrap();
            assert_eq!(answer.status, expected, "{path}: {:?}", answer.headers);
            if expected == 200 {
                assert!(
                    answer.body.as_bytes() == whole && has_length(&answer, 200_000),
                    "{:?}",
                    answer.headers
                );
                assert_eq!(answer.header("content-range"), "");
                let hit = world.until(path, Answer::is_hit).await;
                assert!(hit.body.as_bytes() == whole);
            }
        }
        an_answer_whose_rest_is_short_breaks_off(&world, &origin, first).await;
    }
}

async fn an_answer_whose_rest_is_short_breaks_off(
    world: &World,
    origin: &RawOrigin,
    first: Vec<u8>,
) {
    let range = ("content-range", "bytes 100000-199999/200000");
    let short = [
        *DATE,
        FRESH,
        TYPE,
        ("etag", "\"1\""),
        range,
        ("transfer-encoding", "chunked"),
    ];
    let piece = b"5\r\nhello\r\n0\r\n\r\n".to_vec();
    let steps = vec![
        Step::Send(head("206 Partial Content", &short)),
        Step::Send(piece),
    ];
    origin.script("/short", move |request| {
        if request.contains("bytes=0-99999") {
            vec![Step::Send(first.clone())]
        } else {
            steps.clone()
        }
    });
    world
        .stored(ask(world, "/short", 1, &[("range", "bytes=0-99999")]))
        .await;
    let response = world
        .client
        .get(world.url("/short"))
        .header("origin", "http://a")
        .send()
        .await
        .unwrap();
    assert!(
        response.bytes().await.is_err(),
        "the client sees that it is not complete"
    );
}
