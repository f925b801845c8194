//! Many requests, one fetch: across streams and across workers.

use larder_stack::Settings;
use serde_json::json;

use crate::support::{Answer, On, World, patient};

const HERD: usize = 500;

fn all_alike(answers: &[Answer]) {
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == answers[0].body),
        "{answers:?}"
    );
}

async fn cold(on: On) {
    let world = World::with(on, patient()).await;
    world.behave("/data", r#"{"delay_ms": 300}"#).await;
    let answers = world
        .herd("/data?cache-control=must-revalidate,max-age=3", HERD)
        .await;
    all_alike(&answers);
    assert_eq!(world.fetches("/data").await, 1);
    assert!(
        answers
            .iter()
            .filter(|answer| answer.says("collapsed"))
            .count()
            > HERD / 2
    );
    // Expired: one validation for all.
    world
        .until("/anything/clock?mock-cache-control=max-age%3D3", |answer| {
            answer.is_hit()
        })
        .await;
    world
        .until("/anything/clock?mock-cache-control=max-age%3D3", |answer| {
            !answer.is_hit()
        })
        .await;
    let answers = world
        .herd("/data?cache-control=must-revalidate,max-age=3", HERD)
        .await;
    all_alike(&answers);
    let journal = world.journal("/data").await;
    assert_eq!(journal.len(), 2, "one more for all");
}

#[tokio::test]
async fn five_hundred_requests_on_a_cold_and_on_an_expired_key_make_one_fetch_each_on_memory() {
    cold(On::Memory).await;
}

#[tokio::test]
async fn five_hundred_requests_on_a_cold_and_on_an_expired_key_make_one_fetch_each_on_redis() {
    cold(On::Redis).await;
}

#[tokio::test]
async fn five_hundred_stale_hits_are_answered_at_once_and_make_one_refresh() {
    let world = World::with(On::Memory, patient()).await;
    let path = "/data?cache-control=max-age=1,stale-while-revalidate=60";
    world.herd(path, 50).await;
    world.behave("/data", r#"{"delay_ms": 4000}"#).await;
    world
        .until(path, |answer| answer.says("stale-while-revalidate"))
        .await;
    let before = std::time::Instant::now();
    let answers = world.herd(path, HERD).await;
    assert!(
        before.elapsed().as_millis() < 3000,
        "nobody waits for the refresh: {:?}",
        before.elapsed()
    );
    all_alike(&answers);
    assert!(answers.iter().all(Answer::is_hit));
    world.sees("/data", 2).await;
}

#[tokio::test]
async fn the_next_one_leads_when_the_leaders_client_leaves() {
    let world = World::on(On::Memory).await;
    world.behave("/data", r#"{"delay_ms": 700}"#).await;
    let path = "/data?cache-control=max-age=60";
    let leader = world
        .client
        .get(world.url(path))
        .timeout(std::time::Duration::from_millis(300))
        .send();
    let herd = async {
        world.sees("/data", 1).await;
        world.herd(path, 50).await
    };
    let (leader, answers) = futures_util::future::join(leader, herd).await;
    assert!(leader.is_err(), "it left");
    all_alike(&answers);
    assert_eq!(world.fetches("/data").await, 2);
}

#[tokio::test]
async fn an_origins_error_that_meets_a_second_one_is_shared_with_those_who_waited() {
    let world = World::on(On::Memory).await;
    world
        .behave("/data", r#"{"status": 500, "delay_ms": 2000}"#)
        .await;
    let answers = world.herd("/data?cache-control=max-age=60", 100).await;
    assert!(
        answers.iter().all(|answer| answer.status == 500),
        "{answers:?}"
    );
    let fetches = world.fetches("/data").await;
    assert!(
        (2..=4).contains(&fetches),
        "the leader, its successor, and who came between: {fetches}"
    );
    world.behave_plainly().await;
    assert_eq!(
        world.get("/data?cache-control=max-age=60").await.status,
        200,
        "it was not stored"
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_all_who_waited_and_is_not_stored() {
    let world = World::on(On::Memory).await;
    let broken = r#"{"broken": true, "body_size": 100000, "delay_ms": 2000}"#;
    world.behave("/data", broken).await;
    let requests = (0..100).map(|_| async {
        let response = world
            .client
            .get(world.url("/data?cache-control=max-age=60"))
            .send()
            .await
            .ok()?;
        let status = response.status().as_u16();
        response.bytes().await.ok().map(|_| status)
    });
    let ends = futures_util::future::join_all(requests).await;
    assert!(
        ends.iter()
            .all(|end| end.is_none_or(|status| status == 502)),
        "{ends:?}"
    );
    assert!(world.fetches("/data").await <= 4, "nobody stampedes");
    world.behave_plainly().await;
    let whole = world.get("/data?cache-control=max-age=60").await;
    assert!(whole.status == 200 && !whole.is_hit());
}

#[tokio::test]
async fn an_answer_that_is_not_storable_frees_all_who_waited_at_its_head() {
    let world = World::on(On::Memory).await;
    let slow = json!({"headers": [["cache-control", "private"]], "delay_ms": 300});
    world.behave("/anything/mine", &slow.to_string()).await;
    let answers = world.herd("/anything/mine", 50).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && !answer.is_hit() && !answer.says("collapsed"))
    );
    assert_eq!(
        world.fetches("/anything/mine").await,
        50,
        "each gets its own"
    );
    let next = world.get("/anything/mine").await;
    assert!(
        next.says("detail=uncacheable") || next.says("detail=private"),
        "{next:?}"
    );
}

#[tokio::test]
async fn each_variant_has_its_own_leader() {
    let world = World::on(On::Memory).await;
    let vary = json!({"vary": "accept-language", "headers": [["cache-control", "max-age=60"]], "delay_ms": 200});
    world.behave("/anything/v", &vary.to_string()).await;
    let ask = |language: &'static str| {
        let request = world
            .client
            .get(world.url("/anything/v"))
            .header("accept-language", language);
        async move { Answer::of(request.send().await.unwrap()).await }
    };
    let (german, french) = futures_util::future::join(
        futures_util::future::join_all((0..100).map(|_| ask("de"))),
        futures_util::future::join_all((0..100).map(|_| ask("fr"))),
    )
    .await;
    assert!(german.iter().all(|answer| answer.body.contains("\"de\"")));
    assert!(french.iter().all(|answer| answer.body.contains("\"fr\"")));
    assert_eq!(world.fetches("/anything/v").await, 2);
}

#[tokio::test]
async fn two_envoys_over_one_redis_make_one_fetch() {
    let world = World::with(On::Redis, patient()).await;
    let origins = world.stack.origin_addresses();
    let settings = Settings {
        origins: larder_stack::Origins::Addresses(origins),
        ..patient()
    };
    let store = larder_stack::StoreKind::Redis(world.redis.as_ref().unwrap().url());
    let other = larder_stack::Stack::start(Settings { store, ..settings }, |_| {})
        .await
        .unwrap();
    world
        .behave(
            "/anything/fleet",
            r#"{"delay_ms": 500, "headers": [["cache-control", "max-age=60"]]}"#,
        )
        .await;
    let there = |_| async {
        let url = format!("{}/anything/fleet", other.url());
        // The key holds the authority: both Envoys are asked for the same one.
        Answer::of(
            world
                .client
                .get(url)
                .header("host", "fleet.example")
                .send()
                .await
                .unwrap(),
        )
        .await
    };
    let here = |_| async {
        let request = world
            .client
            .get(world.url("/anything/fleet"))
            .header("host", "fleet.example");
        Answer::of(request.send().await.unwrap()).await
    };
    let (here, there) = futures_util::future::join(
        futures_util::future::join_all((0..100).map(here)),
        futures_util::future::join_all((0..100).map(there)),
    )
    .await;
    all_alike(&here);
    all_alike(&there);
    assert_eq!(world.fetches("/anything/fleet").await, 1);
    other.stop().await;
}
