//! Herds whose leader is not like the others: what it brought upon itself reaches nobody, and
//! nobody stampedes.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use larder_stack::{Settings, eventually};

use crate::support::{Answer, On, World};

const FRESH: &str = r#""headers": [["cache-control", "max-age=60"]]"#;

/// The safe default.
fn safe() -> Settings {
    configured(r#"{"store": {"timeout_ms": 3000}}"#)
}

fn configured(filter_config: &str) -> Settings {
    Settings {
        filter_config: filter_config.to_owned(),
        ..Settings::default()
    }
}

/// A leader with these fields, and behind it so many clean requests.
async fn behind(
    world: &World,
    path: &str,
    leader: &[(&str, &str)],
    count: usize,
) -> (Answer, Vec<Answer>) {
    let followers = async {
        world.sees(path, 1).await;
        world.herd(path, count).await
    };
    join(world.send("GET", path, leader), followers).await
}

async fn behind_a_cookie(on: On) {
    let world = World::with(on, safe()).await;
    world
        .behave("/anything/z", &format!(r#"{{"delay_ms": 800, {FRESH}}}"#))
        .await;
    let (leader, clean) = behind(&world, "/anything/z", &[("cookie", "x=1")], 100).await;
    assert!(leader.status == 200 && clean.iter().all(|answer| answer.status == 200));
    assert_eq!(world.fetches("/anything/z").await, 2);
    world.until("/anything/z", Answer::is_hit).await;
}

#[tokio::test]
async fn a_hundred_clean_requests_behind_one_with_a_cookie_make_one_fetch_on_memory() {
    behind_a_cookie(On::Memory).await;
}

#[tokio::test]
async fn a_hundred_clean_requests_behind_one_with_a_cookie_make_one_fetch_on_redis() {
    behind_a_cookie(On::Redis).await;
}

#[tokio::test]
async fn sixty_behind_one_that_is_refused_for_its_own_request_make_one_fetch() {
    let world = World::with(On::Memory, safe()).await;
    for status in [400, 431] {
        let path = format!("/anything/{status}");
        // Each of the two origins refuses once.
        world
            .becomes(
                &path,
                &format!(r#"{{"status": {status}, "delay_ms": 500, "times": 1}}"#),
            )
            .await;
        world
            .behave(&path, &format!(r#"{{"delay_ms": 300, {FRESH}}}"#))
            .await;
        let (leader, clean) = behind(&world, &path, &[], 60).await;
        assert_eq!(leader.status, status);
        assert!(
            clean
                .iter()
                .filter(|answer| answer.status == status)
                .count()
                <= 1,
            "it is nobody else's"
        );
        assert!(
            world.fetches(&path).await <= 3,
            "{}",
            world.fetches(&path).await
        );
    }
}

#[tokio::test]
async fn a_private_error_reaches_none_of_those_who_waited() {
    let world = World::with(On::Memory, safe()).await;
    for (n, own) in [
        r#"["cache-control", "private"]"#,
        r#"["cache-control", "no-store"]"#,
        r#"["x", "y"]"#,
    ]
    .iter()
    .enumerate()
    {
        let path = format!("/anything/private-{n}");
        let error = r#"{"status": 500, "delay_ms": 500, "times": 1, "headers": [["set-cookie", "sid=alice"], OWN]}"#;
        world.becomes(&path, &error.replace("OWN", own)).await;
        world.behave(&path, &format!("{{{FRESH}}}")).await;
        let (leader, others) = behind(&world, &path, &[("cookie", "sid=alice")], 12).await;
        assert_eq!(
            (leader.status, leader.header("set-cookie")),
            (500, "sid=alice")
        );
        let got = others
            .iter()
            .filter(|answer| answer.header("set-cookie").is_empty() && answer.status == 200)
            .count();
        assert!(
            got >= 11,
            "at most the one that the other origin fails sees its own: {others:?}"
        );
    }
}

#[tokio::test]
async fn one_failure_is_not_everybodys() {
    let world = World::with(On::Memory, safe()).await;
    for (n, failure) in [r#""status": 500"#, r#""broken": true, "body_size": 100000"#]
        .iter()
        .enumerate()
    {
        let path = format!("/anything/failure-{n}");
        // Both origins fail once; whoever leads next may meet the second one.
        world
            .becomes(
                &path,
                &format!(r#"{{{failure}, "delay_ms": 500, "times": 1, {FRESH}}}"#),
            )
            .await;
        world
            .behave(&path, &format!(r#"{{"delay_ms": 300, {FRESH}}}"#))
            .await;
        let lone = world.send(
            "GET",
            &path,
            &[("x-other-origin", "1"), ("range", "bytes=0-0")],
        );
        assert!(lone.await.status != 200 || n == 1);
        let before = world.fetches(&path).await;
        let followers = async {
            world.sees(&path, before + 1).await;
            world.herd(&path, 20).await
        };
        let (leader, others) = join(world.client.get(world.url(&path)).send(), followers).await;
        let failed = leader.is_err() || leader.is_ok_and(|leader| leader.status() == 500 || n == 1);
        assert!(
            failed && others.iter().all(|answer| answer.status == 200),
            "{others:?}"
        );
        assert_eq!(world.fetches(&path).await, before + 2);
    }
}

#[tokio::test]
async fn behind_a_leader_that_hangs_one_successor_tries_at_a_time() {
    let config = r#"{"store": {"timeout_ms": 3000}, "limits": {"collapse_wait_ms": 1000}}"#;
    let world = World::with(On::Memory, configured(config)).await;
    // Both origins hang once.
    world
        .behave("/anything/h", r#"{"delay_ms": 30000, "times": 1}"#)
        .await;
    world.behave("/anything/h", &format!("{{{FRESH}}}")).await;
    let requests = (0..201).map(|_| {
        let request = world
            .client
            .get(world.url("/anything/h"))
            .timeout(Duration::from_secs(10));
        async move {
            request
                .send()
                .await
                .is_ok_and(|response| response.status() == 200)
        }
    });
    let answered = join_all(requests)
        .await
        .into_iter()
        .filter(|answered| *answered)
        .count();
    assert!(
        answered >= 199,
        "{answered} of 201: all but those whose own fetch hangs"
    );
    assert!(
        world.fetches("/anything/h").await <= 3,
        "{}",
        world.fetches("/anything/h").await
    );
}

#[tokio::test]
async fn slow_requests_to_other_urls_leave_a_herd_collapsed_without_a_shared_store() {
    let world = World::with(
        On::Memory,
        configured(r#"{"rules": [{"policy": {"shared_store": false}}]}"#),
    )
    .await;
    world
        .behave("/anything/slow", r#"{"delay_ms": 20000}"#)
        .await;
    let slow: Vec<_> = (0..400)
        .map(|n| {
            let url = world.url(&format!("/anything/slow?n={n}"));
            tokio::spawn(world.client.get(url).send())
        })
        .collect();
    world.sees("/anything/slow", 400).await;
    for n in 0..20 {
        let path = format!("/anything/victim-{n}");
        world
            .behave(&path, &format!(r#"{{"delay_ms": 200, {FRESH}}}"#))
            .await;
        world.herd(&path, 60).await;
        assert_eq!(world.fetches(&path).await, 1, "{path}");
    }
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn endless_content_keeps_nobody_waiting() {
    let world = World::with(
        On::Memory,
        configured(r#"{"rules": [{"policy": {"default_lifetime_s": 60}}]}"#),
    )
    .await;
    for (name, within_ms) in [("Application/X-NDJSON; a=b", 1_900), ("text/plain", 6_000)] {
        let path = format!("/anything/endless-{within_ms}");
        let endless = r#"{"chunked": true, "pieces": 10000, "piece_delay_ms": 500, "body_size": 100000, "headers": [["content-type", "NAME"]]}"#;
        world.behave(&path, &endless.replace("NAME", name)).await;
        let begun = Instant::now();
        let heads = join_all((0..30).map(|_| world.client.get(world.url(&path)).send())).await;
        assert!(
            heads
                .iter()
                .all(|head| head.as_ref().is_ok_and(|head| head.status() == 200))
        );
        assert!(
            begun.elapsed() < Duration::from_millis(within_ms),
            "{name}: {:?}",
            begun.elapsed()
        );
        assert_eq!(world.fetches(&path).await, 30, "each has its own");
    }
}

#[tokio::test]
async fn a_get_after_a_put_does_not_join_a_fetch_from_before_it() {
    let world = World::with(On::Memory, safe()).await;
    let version = |word: &str, delay: u64| {
        format!(
            r#"{{"delay_ms": {delay}, "headers": [["cache-control", "max-age=60"], ["x-version", "{word}"]]}}"#
        )
    };
    for round in 0..3 {
        let path = format!("/anything/put-{round}");
        world.becomes(&path, &version("old", 1_500)).await;
        let after = async {
            world.sees(&path, 1).await;
            world.becomes(&path, &version("new", 0)).await;
            assert_eq!(world.send("PUT", &path, &[]).await.status, 200);
            world.herd(&path, 12).await
        };
        let (before, after) = join(world.get(&path), after).await;
        assert_eq!(before.header("x-version"), "old");
        assert!(
            after
                .iter()
                .all(|answer| answer.header("x-version") == "new"),
            "{after:?}"
        );
        assert_eq!(
            world.get(&path).await.header("x-version"),
            "new",
            "and the late one took no place"
        );
    }
}

fn version(word: &str, delay: u64) -> String {
    let fields = format!(
        r#"["cache-control", "max-age=60"], ["cache-tag", "news"], ["x-version", "{word}"]"#
    );
    format!(r#"{{"delay_ms": {delay}, "headers": [{fields}]}}"#)
}

async fn purge(world: &World, scope: String) {
    let url = format!("http://{}/v1/purge", world.stack.sidecar_address().unwrap());
    let told = world
        .client
        .post(url)
        .bearer_auth("operator")
        .body(scope)
        .send()
        .await
        .unwrap();
    assert!(told.status().is_success());
}

#[tokio::test]
async fn a_get_after_a_purge_does_not_get_what_was_fetched_before_it() {
    let sidecar_env = vec![("LARDER_PURGE_TOKEN".to_owned(), "operator".to_owned())];
    let world = World::with(
        On::Memory,
        Settings {
            sidecar_env,
            ..safe()
        },
    )
    .await;
    let warm = || async {
        world
            .herd("/anything/canary", 40)
            .await
            .iter()
            .all(Answer::is_hit)
            .then_some(())
    };
    for by_tag in [true, false] {
        let path = format!("/anything/purged-{by_tag}");
        world.becomes("/anything/canary", &version("old", 0)).await;
        eventually(Duration::from_secs(10), warm)
            .await
            .expect("the canary is held by both workers");
        world.behave(&path, &version("old", 4_000)).await;
        let scopes = if by_tag {
            vec![r#"{"tag": "news"}"#.to_owned()]
        } else {
            [&*path, "/anything/canary"]
                .map(|path| format!(r#"{{"url": "{}"}}"#, world.url(path)))
                .to_vec()
        };
        let before = world.fetches(&path).await;
        let after = async {
            world.sees(&path, before + 1).await;
            world.becomes(&path, &version("new", 0)).await;
            world.behave("/anything/canary", &version("new", 0)).await;
            for scope in scopes {
                purge(&world, scope).await;
            }
            // Once both workers have heard of it.
            let heard = || async {
                let canaries = world.herd("/anything/canary", 40).await;
                canaries
                    .iter()
                    .all(|answer| answer.header("x-version") == "new")
                    .then_some(())
            };
            eventually(Duration::from_secs(3), heard)
                .await
                .expect("the purge is heard of");
            world.herd(&path, 12).await
        };
        let (first, after) = join(world.get(&path), after).await;
        assert_eq!(first.header("x-version"), "old");
        assert!(
            after
                .iter()
                .all(|answer| answer.header("x-version") == "new"),
            "by tag: {by_tag}: {after:?}"
        );
    }
}

#[tokio::test]
async fn ranges_of_many_urls_bring_no_wholes() {
    let world = World::with(On::Memory, safe()).await;
    let ranges = |n: usize| {
        let path = format!(
            "/anything/r?mock-body-size=1000000&mock-ranges=1&mock-cache-control=max-age%3D60&n={n}"
        );
        let world = &world;
        async move { world.send("GET", &path, &[("range", "bytes=0-0")]).await }
    };
    let wholes = async || {
        let journal = world.journal("/anything/r").await;
        journal
            .iter()
            .filter(|request| !request["headers"].to_string().contains("\"range\""))
            .count()
    };
    let begun = Instant::now();
    let parts = join_all((0..40).map(ranges)).await;
    assert!(
        parts
            .iter()
            .all(|part| part.status == 206 && part.body.len() == 1)
    );
    assert_eq!(wholes().await, 0);
    join_all((0..40).map(ranges)).await;
    let asked_again = eventually(Duration::from_secs(5), || async {
        (wholes().await > 0).then_some(())
    });
    assert!(asked_again.await.is_some(), "who asks again wants more");
    let most = (begun.elapsed().as_secs() as usize + 2) * 8;
    assert!(
        wholes().await <= most,
        "{} of at most {most}",
        wholes().await
    );
}

#[tokio::test]
async fn a_refresh_that_fails_is_not_tried_again_by_the_next_hit() {
    let world = World::with(On::Memory, safe()).await;
    let path = "/anything/refreshed";
    let stale = r#"{"headers": [["cache-control", "max-age=1, stale-while-revalidate=60"]]}"#;
    world.behave(path, stale).await;
    world.herd(path, 40).await;
    world.becomes(path, r#"{"status": 503}"#).await;
    world
        .until(path, |answer| answer.says("stale-while-revalidate"))
        .await;
    let before = world.fetches(path).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(world.herd(path, 20).await.iter().all(Answer::is_hit));
    }
    let tried = world.fetches(path).await - before;
    assert!(
        tried <= 4,
        "{tried} refreshes in three seconds: at 0, 1 and 3 s"
    );
    world.becomes(path, stale).await;
    world
        .until(path, |answer| answer.is_hit() && !answer.says("stale"))
        .await;
}

#[tokio::test]
async fn a_refresh_that_has_outgrown_everything_breaks_off_and_is_not_tried_again_at_once() {
    let world = World::with(On::Memory, safe()).await;
    let path = "/anything/grown";
    let stale = r#""headers": [["cache-control", "max-age=1, stale-while-revalidate=60"]]"#;
    world.behave(path, &format!("{{{stale}}}")).await;
    world.herd(path, 40).await;
    world
        .becomes(path, &format!(r#"{{"body_size": 24000000, {stale}}}"#))
        .await;
    world
        .until(path, |answer| answer.says("stale-while-revalidate"))
        .await;
    let before = world.fetches(path).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        // Read whole, it would have taken the place of what is served meanwhile.
        assert!(
            world
                .herd(path, 20)
                .await
                .iter()
                .all(|answer| answer.is_hit() && answer.body.len() < 1000)
        );
    }
    let read = world.fetches(path).await - before;
    assert!(read <= 4, "{read}");
}
