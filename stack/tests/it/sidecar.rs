//! Who may ask the sidecar, and a sidecar that begins before its store.

use std::time::Duration;

use larder_stack::{Origins, RedisServer, Settings, Stack, StoreKind, eventually};

use crate::support::{Answer, On, World, metric, patient, with_level_1};

const TOKEN: &str = "the-token-of-this-fleet";

/// Another Envoy in front of the same origins and the same sidecar.
async fn another(world: &World, token: Option<&str>) -> Stack {
    let origins = (0..2)
        .map(|index| world.stack.origin_url(index).replace("http://", ""))
        .collect();
    let settings = Settings {
        origins: Origins::Addresses(origins),
        sidecar: world.stack.sidecar_address().map(str::to_owned),
        token: token.map(str::to_owned),
        ..patient()
    };
    Stack::start(with_level_1(settings), |_| {}).await.unwrap()
}

async fn ask(world: &World, stack: &Stack, path: &str) -> Answer {
    let host = world.stack.url().replace("http://", "");
    Answer::of(
        world
            .client
            .get(format!("{}{path}", stack.url()))
            .header("host", host)
            .send()
            .await
            .unwrap(),
    )
    .await
}

/// Whether another Envoy gets from the store what the world's Envoy has fetched, under fresh paths.
async fn shares(world: &World, stack: &Stack, within: Duration) -> bool {
    let mut n = 0;
    let shared = eventually(within, || {
        n += 1;
        let path = format!(
            "/data?shared={}-{n}&cache-control=max-age=60",
            stack.envoy_id()
        );
        async move {
            world.get(&path).await;
            let hit = eventually(Duration::from_millis(300), || async {
                ask(world, stack, &path).await.is_hit().then_some(())
            });
            (hit.await.is_some()
                && world.fetches("/data").await > 0
                && fetched_once(world, &path).await)
                .then_some(())
        }
    });
    shared.await.is_some()
}

async fn fetched_once(world: &World, path: &str) -> bool {
    let query = path
        .split_once('?')
        .map_or("", |(_, query)| query.split('&').next().unwrap_or_default());
    let seen = world.journal("/data").await;
    seen.iter()
        .filter(|request| request.to_string().contains(query))
        .count()
        == 1
}

#[tokio::test]
async fn envoys_with_the_token_share_and_one_with_another_only_misses() {
    let mut world = World::with(
        On::Memory,
        Settings {
            token: Some(format!("{TOKEN},the-one-before-that")),
            ..patient()
        },
    )
    .await;
    let sidecar = format!(
        "http://{}/v1/events",
        world.stack.sidecar_address().unwrap()
    );
    assert_eq!(
        world.client.get(&sidecar).send().await.unwrap().status(),
        401
    );
    let fellow = another(&world, Some(TOKEN)).await;
    assert!(shares(&world, &fellow, Duration::from_secs(20)).await);
    // A swapped configuration needs no token of its own.
    let config = patient()
        .filter_config
        .replacen('{', r#"{ "namespace": "default","#, 1);
    world.stack.swap_filter_config(&config).await.unwrap();
    assert!(shares(&world, &fellow, Duration::from_secs(20)).await);

    let stranger = another(&world, Some("a-token-of-another-fleet")).await;
    for n in 0..30 {
        let answer = ask(
            &world,
            &stranger,
            &format!("/data?stranger={n}&cache-control=max-age=60"),
        )
        .await;
        assert!(answer.status == 200 && !answer.is_hit(), "{answer:?}");
    }
    assert!(!shares(&world, &stranger, Duration::from_secs(1)).await);
    let counted = eventually(Duration::from_secs(10), || async {
        (metric(&stranger, "larder.store_refused").await > 0).then_some(())
    });
    assert!(counted.await.is_some());
    let log = stranger.envoy_log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("token")).collect();
    assert!(
        lines.len() == 1 && lines[0].contains("store.token") && lines[0].contains("LARDER_TOKEN"),
        "{lines:?}"
    );
    fellow.stop().await;
    stranger.stop().await;
}

#[tokio::test]
async fn a_stack_begins_without_redis_and_finds_it_when_it_comes() {
    let mut redis = RedisServer::start().await.unwrap();
    redis.kill();
    let world = World::with(On::Memory, Settings::default()).await;
    let settings = Settings {
        store: StoreKind::Redis(redis.url()),
        ..Settings::default()
    };
    let stack = Stack::start(settings, |_| {}).await.unwrap();
    let ready = || async {
        let url = format!("http://{}/readyz", stack.sidecar_address().unwrap());
        world
            .client
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let said = ready().await;
    assert!(
        said.contains("degraded") && said.contains("REDIS_URL"),
        "{said}"
    );
    let answer = Answer::of(
        world
            .client
            .get(format!("{}/data", stack.url()))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(answer.status, 200);
    redis.restart().await.unwrap();
    let well = eventually(Duration::from_secs(10), || async {
        ready().await.contains("\"ready\"").then_some(())
    });
    assert!(well.await.is_some(), "{}", ready().await);
    stack.stop().await;
}
