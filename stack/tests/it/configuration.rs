//! The filter's configuration, swapped while Envoy runs.

use crate::support::{On, World, patient};

#[tokio::test]
async fn a_swapped_configuration_takes_effect_without_a_restart_and_level_1_survives() {
    let mut world = World::on(On::Memory).await;
    world.get("/anything/x?mock-cache-control=max-age%3D60").await;
    let with_override = "/data?cache-control=max-age=60";
    world.get(with_override).await;
    assert!(world.get(with_override).await.is_hit());
    world.stack.swap_filter_config(include_str!("../../../envoy/filters/default.json")).await.unwrap();
    let answer = world.until(with_override, |answer| !answer.is_hit()).await;
    assert!(answer.says("no-freshness"), "the override is off now: {answer:?}");
    assert!(world.get("/anything/x?mock-cache-control=max-age%3D60").await.is_hit());
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_every_mistake_and_the_old_one_keeps_serving() {
    let mut world = World::on(On::Memory).await;
    let path = "/data?cache-control=max-age=60";
    world.get(path).await;
    let bad = r#"{"stor": 1, "rules": [{"policy": {"cache": "yes"}}]}"#;
    let error = world.stack.swap_filter_config(bad).await.unwrap_err().to_string();
    assert!(error.contains("stor is not known") && error.contains("rules[0].policy.cache"), "{error}");
    assert!(world.get(path).await.is_hit());
}

#[tokio::test]
async fn every_shipped_configuration_is_accepted() {
    let mut world = World::on(On::Memory).await;
    for config in [
        include_str!("../../../envoy/filters/default.json"),
        include_str!("../../../envoy/filters/rfc9111.json"),
        include_str!("../../../envoy/filters/demo.json"),
    ] {
        world.stack.swap_filter_config(config).await.unwrap();
    }
}

#[tokio::test]
async fn what_happened_is_counted_by_result_and_reason() {
    let world = World::with(On::Memory, patient()).await;
    world.get("/data?cache-control=max-age=60").await;
    world.get("/data?cache-control=max-age=60").await;
    let counted = larder_stack::eventually(std::time::Duration::from_secs(10), || async {
        let text = world.stack.admin_get("/stats/prometheus").await;
        let hit = text.lines().any(|line| line.starts_with("larder_requests") && line.contains("result=\"hit\""));
        let miss = text.lines().any(|line| line.starts_with("larder_requests") && line.contains("reason=\"uri-miss\""));
        (hit && miss).then_some(())
    });
    assert!(counted.await.is_some());
}
