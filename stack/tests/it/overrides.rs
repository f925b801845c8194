//! Every row of the override table (`docs/configuration.md`), in the order in which time passes.

use crate::support::{On, World};

async fn must_revalidate(on: On) {
    let world = World::on(on).await;
    let path = "/data?id=1&cache-control=must-revalidate,max-age=2";
    assert!(!world.stored(world.get(path)).await.is_hit());
    let hit = world.get(path).await;
    assert!(hit.is_hit() && hit.says("larder; hit"), "{hit:?}");
    let validated = world.until(path, |answer| !answer.is_hit()).await;
    assert!(
        validated.says("fwd=stale; fwd-status=304; stored"),
        "{validated:?}"
    );
    assert_eq!((validated.status, &validated.body), (200, &hit.body));
    let journal = world.journal("/data").await;
    assert_eq!(journal.len(), 2);
    assert_eq!(
        journal
            .iter()
            .filter(|request| request["headers"].to_string().contains("if-none-match"))
            .count(),
        1
    );
    assert_eq!(
        journal[0]["target"], "/data?id=1",
        "the parameter is not forwarded"
    );
    // Never stale, not even when the origin fails.
    world.behave("/data", r#"{"status": 503}"#).await;
    let failed = world.until(path, |answer| !answer.is_hit()).await;
    assert_eq!(failed.status, 503);
}

#[tokio::test]
async fn must_revalidate_hits_then_validates_and_is_never_stale_on_memory() {
    must_revalidate(On::Memory).await;
}

#[tokio::test]
async fn must_revalidate_hits_then_validates_and_is_never_stale_on_redis() {
    must_revalidate(On::Redis).await;
}

async fn stale_if_error(on: On) {
    let mut world = World::on(on).await;
    let path = "/data?cache-control=max-age=2,stale-if-error=4";
    world.stored(world.get(path)).await;
    assert!(world.get(path).await.is_hit());
    let validated = world.until(path, |answer| !answer.is_hit()).await;
    assert!(
        validated.says("fwd-status=304"),
        "a living origin is asked: {validated:?}"
    );
    world.stack.kill_origin(0);
    world.stack.kill_origin(1);
    let stale = world
        .until(path, |answer| answer.says("stale-if-error"))
        .await;
    assert!(stale.is_hit() && stale.status == 200, "{stale:?}");
    let gone = world.until(path, |answer| answer.status != 200).await;
    assert_eq!(gone.status, 502);
    assert!(!gone.is_hit() && gone.says("detail=no-origin"), "{gone:?}");
    world.stack.restart_origin(0).await.unwrap();
    world.until(path, |answer| answer.status == 200).await;
}

#[tokio::test]
async fn stale_if_error_serves_the_copy_within_its_window_and_502_after_it_on_memory() {
    stale_if_error(On::Memory).await;
}

#[tokio::test]
async fn stale_if_error_serves_the_copy_within_its_window_and_502_after_it_on_redis() {
    stale_if_error(On::Redis).await;
}

async fn stale_while_revalidate(on: On) {
    let world = World::on(on).await;
    let path = "/data?cache-control=stale-while-revalidate=3,max-age=2";
    world.stored(world.get(path)).await;
    assert!(world.get(path).await.is_hit());
    let stale = world
        .until(path, |answer| answer.says("stale-while-revalidate"))
        .await;
    assert!(stale.is_hit() && stale.says("hit"), "{stale:?}");
    world.sees("/data", 2).await;
    let fresh = world
        .until(path, |answer| answer.is_hit() && !answer.says("detail"))
        .await;
    assert!(
        fresh.says("larder; hit; ttl=2") || fresh.says("larder; hit; ttl=1"),
        "{fresh:?}"
    );
    // Past both windows, without traffic in between: a blocking fetch.
    world
        .behave(
            "/anything/late",
            r#"{"headers": [["cache-control", "max-age=1, stale-while-revalidate=1"]]}"#,
        )
        .await;
    world.stored(world.get("/anything/late")).await;
    let begun = std::time::Instant::now();
    larder_stack::eventually(std::time::Duration::from_secs(5), || async {
        (begun.elapsed().as_millis() > 2_100).then_some(())
    })
    .await;
    let late = world.get("/anything/late").await;
    assert!(!late.is_hit() && late.says("fwd=stale"), "{late:?}");
}

#[tokio::test]
async fn stale_while_revalidate_serves_at_once_and_refreshes_once_on_memory() {
    stale_while_revalidate(On::Memory).await;
}

#[tokio::test]
async fn stale_while_revalidate_serves_at_once_and_refreshes_once_on_redis() {
    stale_while_revalidate(On::Redis).await;
}

#[tokio::test]
async fn a_malformed_override_is_a_400_that_names_the_directive() {
    let world = World::on(On::Memory).await;
    for (value, directive) in [
        ("max-age=x", "max-age=x"),
        ("no-store", "no-store"),
        ("max-age", "max-age"),
    ] {
        let answer = world.get(&format!("/data?cache-control={value}")).await;
        assert_eq!(answer.status, 400);
        let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(json["directive"], directive);
    }
    assert_eq!(world.fetches("/data").await, 0);
}

#[tokio::test]
async fn one_clients_override_does_not_change_what_another_gets() {
    let world = World::on(On::Memory).await;
    let long = "/data?cache-control=max-age=60";
    world.stored(world.get(long)).await;
    assert!(world.get(long).await.is_hit());
    assert!(!world.get("/data?cache-control=max-age=61").await.is_hit());
    assert!(!world.get("/data").await.is_hit());
    assert!(
        world.get("/data?cache-control=MAX-AGE=060").await.is_hit(),
        "the same override, written otherwise"
    );
    // A change of the resource is a change under every override.
    world.client.put(world.url("/data")).send().await.unwrap();
    assert!(!world.get(long).await.is_hit());
}

#[tokio::test]
async fn an_entry_in_redis_can_be_read_with_hgetall_and_ends_by_itself() {
    let world = World::on(On::Redis).await;
    world
        .get("/data?id=9&cache-control=stale-while-revalidate=15,max-age=5")
        .await;
    let redis = world.redis.as_ref().unwrap();
    let key = larder_stack::eventually(std::time::Duration::from_secs(5), || async {
        redis
            .cli(&["KEYS", "larder:*:v:*"])
            .lines()
            .next()
            .filter(|key| !key.is_empty())
            .map(str::to_owned)
    });
    let key = key.await.expect("an entry");
    let hash = redis.cli(&["HGETALL", &key]);
    for part in [
        "cache_type\nstale-while-revalidate",
        "max_age\n5",
        "use_stale_upto\n15",
        "etag\n\"",
        "headers\n[",
        "This is item 9.",
    ] {
        assert!(hash.contains(part), "{part} is not in {hash}");
    }
    for key in redis.cli(&["KEYS", "*"]).lines() {
        let ttl: i64 = redis.cli(&["TTL", key]).trim().parse().unwrap();
        assert!(ttl > 0, "{key} has no end");
    }
    let ttl: i64 = redis.cli(&["TTL", &key]).trim().parse().unwrap();
    assert!(
        (300..=320).contains(&ttl),
        "freshness + stale window + keep, not {ttl}"
    );
}
