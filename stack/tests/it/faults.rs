//! Origins and stores that die at bad moments. A fault of the store never reaches a client.

use std::time::{Duration, Instant};

use larder_stack::Settings;

use crate::support::{On, World};

#[tokio::test]
async fn an_unhealthy_origin_gets_no_requests_until_it_is_well_again() {
    let world = World::on(On::Memory).await;
    let health = |status: u16| {
        let url = format!("{}/health-check?status={status}", world.stack.origin_url(0));
        world.client.put(url).send()
    };
    health(503).await.unwrap();
    world
        .until("/data", |answer| answer.header("x-origin") == "origin-2")
        .await;
    let settled = larder_stack::eventually(Duration::from_secs(10), || async {
        let answers = world.herd("/data", 20).await;
        answers
            .iter()
            .all(|answer| answer.header("x-origin") == "origin-2")
            .then_some(())
    });
    assert!(settled.await.is_some());
    health(200).await.unwrap();
    world
        .until("/data", |answer| answer.header("x-origin") == "origin-1")
        .await;
}

#[tokio::test]
async fn without_a_healthy_origin_the_answer_is_502() {
    let mut world = World::on(On::Memory).await;
    world.stack.kill_origin(0);
    world.stack.kill_origin(1);
    let answer = world.until("/data", |answer| answer.status != 200).await;
    assert_eq!(answer.status, 502);
    assert!(answer.says("detail=no-origin"), "{answer:?}");
}

/// With the store in trouble every answer is right and soon there; and hits come back by
/// themselves.
async fn store_trouble(
    on: On,
    break_it: impl AsyncFn(&mut World),
    mend_it: impl AsyncFn(&mut World),
) {
    let mut world = World::with(on, Settings::default()).await;
    assert_eq!(
        world.get("/data?n=0&cache-control=max-age=60").await.status,
        200
    );
    break_it(&mut world).await;
    for n in 1..30 {
        let begun = Instant::now();
        let answer = world
            .get(&format!("/data?n={n}&cache-control=max-age=60"))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(
            begun.elapsed() < Duration::from_millis(2000),
            "{:?}: {answer:?}",
            begun.elapsed()
        );
        assert!(!answer.is_hit());
    }
    let answer = world.get("/data?n=30&cache-control=max-age=60").await;
    assert!(
        answer.says("detail=store-"),
        "the reason is told: {answer:?}"
    );
    mend_it(&mut world).await;
    let mut n = 100;
    let recovered = larder_stack::eventually(Duration::from_secs(15), || {
        n += 1;
        let path = format!("/data?n={n}&cache-control=max-age=60");
        let world = &world;
        async move { (!world.get(&path).await.says("detail=store-")).then_some(()) }
    });
    assert!(recovered.await.is_some(), "it recovers by itself");
}

#[tokio::test]
async fn a_killed_sidecar_costs_nothing_but_hits() {
    store_trouble(
        On::Memory,
        async |world| world.stack.kill_sidecar(),
        async |world| world.stack.restart_sidecar().await.unwrap(),
    )
    .await;
}

#[tokio::test]
async fn a_sidecar_that_never_answers_costs_nothing_but_hits() {
    store_trouble(
        On::Memory,
        async |world| world.stack.pause_sidecar(),
        async |world| world.stack.resume_sidecar(),
    )
    .await;
}

#[tokio::test]
async fn a_killed_redis_costs_nothing_but_hits() {
    store_trouble(
        On::Redis,
        async |world| world.redis.as_mut().unwrap().kill(),
        async |world| world.redis.as_mut().unwrap().restart().await.unwrap(),
    )
    .await;
}

#[tokio::test]
async fn rubbish_in_redis_is_a_miss() {
    let world = World::with(On::Redis, Settings::default()).await;
    let redis = world.redis.as_ref().unwrap();
    for n in 0..4 {
        world
            .get(&format!("/data?n={n}&cache-control=max-age=60"))
            .await;
    }
    let stored = larder_stack::eventually(Duration::from_secs(5), || async {
        let keys = redis.cli(&["KEYS", "larder:*:v:*"]);
        (keys.lines().count() == 4).then_some(keys)
    });
    let keys = stored.await.expect("four entries");
    for (n, key) in keys.lines().enumerate() {
        match n {
            0 => redis.cli(&["HSET", key, "body", "tampered"]),
            1 => redis.cli(&["HSET", key, "headers", "[[\"x\",\"a\\r\\nb: c\"]]"]),
            2 => redis.cli(&["HDEL", key, "digest"]),
            _ => redis.cli(&["SET", key, "a string"]),
        };
    }
    // Another Envoy, whose level 1 is empty, gets to see what is in Redis.
    let origins = world.stack.origin_addresses();
    let settings = Settings {
        origins: larder_stack::Origins::Addresses(origins),
        store: larder_stack::StoreKind::Redis(redis.url()),
        ..Settings::default()
    };
    let other = larder_stack::Stack::start(settings, |_| {}).await.unwrap();
    let host = world.stack.url().replace("http://", "");
    for n in 0..4 {
        let url = format!("{}/data?n={n}&cache-control=max-age=60", other.url());
        let response = world
            .client
            .get(url)
            .header("host", &host)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["x-cache-status"], "MISS");
        assert!(response.text().await.unwrap().contains("This is item 1."));
    }
    other.stop().await;
}

#[tokio::test]
async fn a_redis_that_is_full_costs_nothing_but_hits() {
    let world = World::with(On::Redis, Settings::default()).await;
    let set = |bytes: &str| {
        let redis = world.redis.as_ref().unwrap();
        assert!(
            redis
                .cli(&["CONFIG", "SET", "maxmemory", bytes])
                .contains("OK")
        );
    };
    set("1");
    for n in 0..20 {
        let answer = world
            .get(&format!("/data?n={n}&cache-control=max-age=60"))
            .await;
        assert_eq!((answer.status, answer.is_hit()), (200, false), "{answer:?}");
    }
    let entries = || world.redis.as_ref().unwrap().cli(&["KEYS", "larder:*:v:*"]);
    assert_eq!(entries().trim(), "", "nothing went in");
    set("0");
    let mut n = 100;
    let recovered = larder_stack::eventually(Duration::from_secs(15), || {
        n += 1;
        let (world, path) = (&world, format!("/data?n={n}&cache-control=max-age=60"));
        async move {
            world.get(&path).await;
            (!entries().trim().is_empty()).then_some(())
        }
    });
    assert!(recovered.await.is_some(), "it recovers by itself");
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_costs_nothing_but_hits() {
    let follow = |world: &mut World, master: [&str; 2]| {
        let redis = world.redis.as_ref().unwrap();
        assert!(
            redis
                .cli(&["REPLICAOF", master[0], master[1]])
                .contains("OK")
        );
    };
    store_trouble(
        On::Redis,
        async |world| follow(world, ["127.0.0.1", "1"]),
        async |world| follow(world, ["NO", "ONE"]),
    )
    .await;
}
