//! The filter's configuration, swapped while Envoy runs.

use crate::support::{Answer, On, World, patient, patient_with};
use larder_stack::Settings;

#[tokio::test]
async fn a_swapped_configuration_takes_effect_without_a_restart_and_level_1_survives() {
    let mut world = World::on(On::Memory).await;
    world
        .stored(world.get("/anything/x?mock-cache-control=max-age%3D60"))
        .await;
    let with_override = "/data?cache-control=max-age=60";
    world.stored(world.get(with_override)).await;
    assert!(world.get(with_override).await.is_hit());
    world
        .stack
        .swap_filter_config(&patient_with(include_str!(
            "../../../envoy/filters/default.json"
        )))
        .await
        .unwrap();
    let answer = world.until(with_override, |answer| !answer.is_hit()).await;
    assert!(
        answer.says("no-freshness"),
        "the override is off now: {answer:?}"
    );
    assert!(
        world
            .get("/anything/x?mock-cache-control=max-age%3D60")
            .await
            .is_hit()
    );
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_every_mistake_and_the_old_one_keeps_serving() {
    let mut world = World::on(On::Memory).await;
    let path = "/data?cache-control=max-age=60";
    world.stored(world.get(path)).await;
    let bad = r#"{"stor": 1, "rules": [{"policy": {"cache": "yes"}}]}"#;
    let error = world
        .stack
        .swap_filter_config(bad)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("stor is not known") && error.contains("rules[0].policy.cache"),
        "{error}"
    );
    assert!(world.get(path).await.is_hit());
}

#[tokio::test]
async fn every_shipped_configuration_is_accepted() {
    let mut world = World::on(On::Memory).await;
    for config in [
        include_str!("../../../envoy/filters/default.json"),
        include_str!("../../../envoy/filters/rfc9111.json"),
        include_str!("../../../envoy/filters/demo.json"),
        include_str!("../../../envoy/filters/level-1-only.json"),
    ] {
        world.stack.swap_filter_config(config).await.unwrap();
    }
}

#[tokio::test]
async fn without_a_store_every_worker_caches_for_itself_and_a_change_reaches_them_all() {
    let config = include_str!("../../../envoy/filters/level-1-only.json");
    let config = config.replacen('{', r#"{ "limits": { "l1_bytes": 67108864 },"#, 1);
    let mut world = World::with(
        On::Memory,
        Settings {
            filter_config: config,
            workers: 2,
            ..Settings::default()
        },
    )
    .await;
    world.stack.kill_sidecar();
    let path = "/anything/x?mock-cache-control=max-age%3D60";
    let all_hit = |answers: &[Answer]| answers.iter().all(Answer::is_hit);
    let warm = larder_stack::eventually(std::time::Duration::from_secs(10), || async {
        all_hit(&world.herd(path, 16).await).then_some(())
    });
    warm.await.unwrap();
    assert!(
        world.fetches("/anything/x").await <= 2,
        "one for each worker"
    );
    assert_eq!(world.send("PUT", path, &[]).await.status, 200);
    assert!(!all_hit(&world.herd(path, 16).await));
}

#[tokio::test]
async fn what_happened_is_counted_with_labels_and_measured() {
    let settings = patient();
    let config = settings
        .filter_config
        .replacen('{', r#"{ "limits": { "l1_bytes": 65536 },"#, 1);
    let world = World::with(
        On::Memory,
        Settings {
            filter_config: config,
            ..settings
        },
    )
    .await;
    world
        .becomes(
            "/anything/slow",
            r#"{"delay_ms": 300, "headers": [["cache-control", "max-age=60"]]}"#,
        )
        .await;
    futures_util::future::join_all((0..20).map(|_| world.get("/anything/slow"))).await;
    for n in 0..40 {
        let path = format!("/anything/{n}?mock-body-size=4000&mock-cache-control=max-age%3D60");
        world.get(&path).await;
        world.get(&path).await;
    }
    // A sample of the text format as a name with what its labels have to contain.
    let wanted = [
        ("larder_requests", r#"result="hit""#),
        ("larder_requests", r#"reason="uri-miss""#),
        ("larder_leaders", ""),
        ("larder_followers", ""),
        ("larder_wait_ms_count", ""),
        ("larder_store_ms_count", ""),
        ("larder_level1_bytes", ""),
        ("larder_level1_evictions", ""),
    ];
    let missing = || async {
        let text = world.stack.admin_get("/stats/prometheus").await;
        let counted = |name: &str, label: &str| {
            text.lines().any(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap_or_default();
                series.split('{').next() == Some(name)
                    && series.contains(label)
                    && value.parse::<f64>().is_ok_and(|value| value > 0.0)
            })
        };
        wanted
            .iter()
            .filter(|(name, label)| !counted(name, label))
            .map(|(name, label)| format!("{name} {label}"))
            .collect::<Vec<_>>()
    };
    let all = larder_stack::eventually(std::time::Duration::from_secs(15), || async {
        missing().await.is_empty().then_some(())
    });
    assert!(all.await.is_some(), "not counted: {:?}", missing().await);
}
