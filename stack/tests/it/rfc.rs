//! Sequences that the conformance suite does not ask: validation, ranges, variants, invalidation,
//! staleness, as a client meets them through two workers.

use crate::support::{Answer, On, World, patient, strict};

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmn";

/// 40 letters, fresh for a minute, with a strong tag, in ranges where asked.
fn letters(etag: &str) -> String {
    format!(
        r#"{{"body_size": 40, "ranges": true, "headers": [["cache-control", "max-age=60"], ["etag", "\"{etag}\""]]}}"#
    )
}

async fn a_range_of_something_new(on: On) {
    let world = World::with(on, patient()).await;
    world.becomes("/anything/film", &letters("1")).await;
    let part = world
        .send("GET", "/anything/film", &[("range", "bytes=2-5")])
        .await;
    assert_eq!(
        (part.status, part.body.as_str()),
        (206, "cdef"),
        "the part comes at once: {part:?}"
    );
    assert_eq!(part.header("content-range"), "bytes 2-5/40");
    let second = world
        .send("GET", "/anything/film", &[("range", "bytes=0-1")])
        .await;
    assert_eq!(
        (second.status, second.body.as_str()),
        (206, "ab"),
        "who asks again wants more: {second:?}"
    );
    world.sees("/anything/film", 3).await;
    let whole = world
        .until("/anything/film", |answer| answer.is_hit())
        .await;
    assert_eq!(whole.body, LETTERS);
    let several = world
        .send("GET", "/anything/film", &[("range", "bytes=0-0,-1")])
        .await;
    assert!(
        several.status == 206
            && several
                .header("content-type")
                .starts_with("multipart/byteranges"),
        "{several:?}"
    );
    assert!(
        several
            .body
            .contains("Content-Range: bytes 39-39/40\r\n\r\nn\r\n"),
        "{several:?}"
    );
    let beyond = world
        .send("GET", "/anything/film", &[("range", "bytes=40-")])
        .await;
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, "bytes */40")
    );
    assert_eq!(world.fetches("/anything/film").await, 3);
}

#[tokio::test]
async fn a_range_of_something_new_comes_at_once_and_the_whole_behind_it_on_memory() {
    a_range_of_something_new(On::Memory).await;
}

#[tokio::test]
async fn a_range_of_something_new_comes_at_once_and_the_whole_behind_it_on_redis() {
    a_range_of_something_new(On::Redis).await;
}

async fn a_part_is_completed(on: On) {
    let world = World::with(on, strict()).await;
    world.becomes("/anything/film", &letters("1")).await;
    let part = world
        .stored(world.send("GET", "/anything/film", &[("range", "bytes=0-19")]))
        .await;
    assert_eq!((part.status, part.body.as_str()), (206, &LETTERS[..20]));
    let within = world
        .send("GET", "/anything/film", &[("range", "bytes=5-6")])
        .await;
    assert_eq!(
        (within.status, within.is_hit(), within.body.as_str()),
        (206, true, "fg"),
        "{within:?}"
    );
    // The rest comes slowly and in pieces.
    let slow = letters("1").replace('{', r#"{"pieces": 4, "piece_delay_ms": 20, "#);
    world.becomes("/anything/film", &slow).await;
    let whole = world.stored(world.get("/anything/film")).await;
    assert_eq!(
        (whole.status, whole.body.as_str()),
        (200, LETTERS),
        "{whole:?}"
    );
    assert!(whole.says("fwd=partial; fwd-status=206"), "{whole:?}");
    let journal = world.journal("/anything/film").await;
    assert!(
        journal
            .iter()
            .any(|request| request["headers"].to_string().contains("bytes=20-")),
        "{journal:?}"
    );
    assert!(world.get("/anything/film").await.is_hit());
}

#[tokio::test]
async fn a_part_answers_within_itself_and_is_completed_on_memory() {
    a_part_is_completed(On::Memory).await;
}

#[tokio::test]
async fn a_part_answers_within_itself_and_is_completed_on_redis() {
    a_part_is_completed(On::Redis).await;
}

#[tokio::test]
async fn a_part_of_what_has_changed_is_replaced_by_the_new_whole() {
    let world = World::with(On::Memory, strict()).await;
    world.becomes("/anything/film", &letters("1")).await;
    world
        .stored(world.send("GET", "/anything/film", &[("range", "bytes=0-19")]))
        .await;
    world
        .becomes("/anything/film", &letters("2").replace("40", "30"))
        .await;
    let whole = world.get("/anything/film").await;
    assert_eq!(
        (whole.status, whole.body.as_str()),
        (200, &LETTERS[..30]),
        "{whole:?}"
    );
}

#[tokio::test]
async fn a_rest_that_does_not_fit_is_an_error_once_and_fetched_whole_then() {
    let world = World::with(On::Memory, strict()).await;
    world.becomes("/anything/film", &letters("1")).await;
    world
        .stored(world.send("GET", "/anything/film", &[("range", "bytes=0-19")]))
        .await;
    let lying = r#"{"body_size": 20, "status": 206, "headers": [["cache-control", "max-age=60"],
        ["etag", "\"2\""], ["content-range", "bytes 20-39/40"]]}"#;
    world.becomes("/anything/film", lying).await;
    let broken = world.get("/anything/film").await;
    assert!(
        broken.status == 502 && broken.says("detail=origin-broken"),
        "{broken:?}"
    );
    world.becomes("/anything/film", &letters("2")).await;
    let whole = world.get("/anything/film").await;
    assert_eq!(
        (whole.status, whole.body.as_str()),
        (200, LETTERS),
        "{whole:?}"
    );
}

#[tokio::test]
async fn a_head_freshens_what_it_agrees_with() {
    let world = World::with(On::Memory, strict()).await;
    let of = |secs: u32| {
        format!(
            r#"{{"body_size": 40, "headers": [["cache-control", "max-age={secs}"], ["etag", "\"1\""]]}}"#
        )
    };
    world.becomes("/anything/x", &of(1)).await;
    // Without level 1 a HEAD may come before the store has it.
    world.until("/anything/x", Answer::is_hit).await;
    let fetched = world.fetches("/anything/x").await;
    world.becomes("/anything/x", &of(60)).await;
    let head = larder_stack::eventually(std::time::Duration::from_secs(5), || async {
        let head = world.send("HEAD", "/anything/x", &[]).await;
        (!head.is_hit()).then_some(head)
    });
    assert!(head.await.unwrap().says("fwd=stale"));
    // Only from the cache: without level 1 a GET may come before the store has what the HEAD
    // changed.
    let freshened = larder_stack::eventually(std::time::Duration::from_secs(5), || async {
        let answer = world
            .send("GET", "/anything/x", &[("cache-control", "only-if-cached")])
            .await;
        answer.is_hit().then_some(answer)
    });
    assert_eq!(freshened.await.unwrap().body, LETTERS);
    let journal = world.journal("/anything/x").await;
    assert_eq!(
        journal
            .iter()
            .filter(|request| request["method"] == "GET")
            .count(),
        fetched,
        "{journal:?}"
    );
}

async fn a_post_answers_later_gets(on: On) {
    let world = World::with(on, strict()).await;
    let own = r#"{"body_size": 40, "headers": [["cache-control", "max-age=60"], ["content-location", "/anything/x"]]}"#;
    world.becomes("/anything/x", own).await;
    world.send("POST", "/anything/x", &[]).await;
    // Without level 1 a GET may come before the store has it.
    world.until("/anything/x", Answer::is_hit).await;
    for _ in 0..6 {
        let answer = world.get("/anything/x").await;
        assert_eq!(
            (answer.is_hit(), answer.body.as_str()),
            (true, LETTERS),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_posts_own_representation_answers_later_gets_on_memory() {
    a_post_answers_later_gets(On::Memory).await;
}

#[tokio::test]
async fn a_posts_own_representation_answers_later_gets_on_redis() {
    a_post_answers_later_gets(On::Redis).await;
}

#[tokio::test]
async fn each_language_liked_best_has_its_own_variant() {
    let world = World::with(On::Memory, strict()).await;
    let in_language = |language: &str| {
        format!(
            r#"{{"headers": [["cache-control", "max-age=60"], ["content-language", "{language}"]], "vary": "accept-language"}}"#
        )
    };
    world.becomes("/anything/x", &in_language("de")).await;
    world
        .stored(world.send("GET", "/anything/x", &[("accept-language", "de, en;q=0.5")]))
        .await;
    world.becomes("/anything/x", &in_language("fr")).await;
    let french = world
        .stored(world.send("GET", "/anything/x", &[("accept-language", "fr, de;q=0.5")]))
        .await;
    assert!(!french.is_hit(), "{french:?}");
    for (accepted, language) in [
        ("DE;q=0.9, en;q=0.8", "de"),
        ("de", "de"),
        ("en;q=0.1,fr;q=0.2", "fr"),
    ] {
        let answer = world
            .send("GET", "/anything/x", &[("accept-language", accepted)])
            .await;
        assert_eq!(
            (answer.is_hit(), answer.header("content-language")),
            (true, language),
            "{accepted}: {answer:?}"
        );
    }
    assert_eq!(world.fetches("/anything/x").await, 2);
}

#[tokio::test]
async fn a_lost_origin_is_bridged_by_grace_but_never_against_must_revalidate() {
    let mut world = World::with(On::Memory, strict()).await;
    let (plain, strict) = (
        "/anything/plain?mock-cache-control=max-age%3D1",
        "/anything/strict?mock-cache-control=max-age%3D1,must-revalidate",
    );
    for path in [plain, strict] {
        world.stored(world.get(path)).await;
    }
    world.stack.kill_origin(0);
    world.stack.kill_origin(1);
    let stale = world
        .until(plain, |answer| answer.says("detail=stale-if-error"))
        .await;
    assert_eq!((stale.status, stale.is_hit()), (200, true));
    assert!(stale.header("age").parse::<u64>().unwrap() >= 1);
    let refused = world.until(strict, |answer| answer.status != 200).await;
    assert!(
        refused.status == 502 && refused.says("detail=no-origin"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_304_with_anothers_tag_answers_once_and_the_next_request_fetches_anew() {
    let world = World::with(On::Memory, strict()).await;
    let fresh = |tag: &str| {
        format!(
            r#"{{"body_size": 40, "headers": [["cache-control", "max-age=1"], ["etag", "\"{tag}\""]]}}"#
        )
    };
    world.becomes("/anything/x", &fresh("1")).await;
    world.stored(world.get("/anything/x")).await;
    world
        .becomes(
            "/anything/x",
            r#"{"status": 304, "body_size": 0, "headers": [["etag", "\"2\""]]}"#,
        )
        .await;
    let confirmed = world.until("/anything/x", |answer| !answer.is_hit()).await;
    assert_eq!(
        (confirmed.status, confirmed.body.as_str()),
        (200, LETTERS),
        "{confirmed:?}"
    );
    assert!(confirmed.says("detail=unexpected-304"), "{confirmed:?}");
    world.becomes("/anything/x", &fresh("2")).await;
    assert_eq!(world.get("/anything/x").await.header("etag"), "\"2\"");
}

#[tokio::test]
async fn a_change_takes_the_urls_it_names_with_it_but_none_of_another_origin() {
    let world = World::with(On::Memory, strict()).await;
    let path = |name: &str| format!("/anything/{name}?mock-cache-control=max-age%3D60");
    for name in ["a", "b", "c"] {
        world.stored(world.get(&path(name))).await;
        assert!(world.get(&path(name)).await.is_hit());
    }
    let elsewhere = format!("http://elsewhere.example{}", path("c"));
    let headers = format!(
        r#"{{"status": 201, "headers": [["location", "{}"], ["content-location", "{elsewhere}"]]}}"#,
        path("b")
    );
    world.becomes("/anything/a", &headers).await;
    world.send("POST", &path("a"), &[]).await;
    world.behave_plainly().await;
    assert!(!world.get(&path("a")).await.is_hit());
    assert!(!world.get(&path("b")).await.is_hit());
    assert!(world.get(&path("c")).await.is_hit());
}
