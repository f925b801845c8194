//! Keys as an operator sets them: what shares an entry, what the origin sees, and that whatever
//! drops a URL meets it.

use std::process::Command;
use std::time::Duration;

use larder_stack::{Settings, eventually};

use crate::support::{On, World, larder_program, patient};

const TOKEN: &str = "keys-test";

const CONFIG: &str = r#"{
  "store": { "timeout_ms": 3000 },
  "rules": [
    { "match": { "methods": ["GET", "HEAD"] },
      "policy": {
        "key": {
          "query_ignore": ["utm_*"],
          "sort_query": true,
          "cookies": ["currency"],
          "buckets": { "accept-language": ["de", "en"] }
        },
        "ignore_cookies": ["_ga*"],
        "strip_set_cookie": true } },
    {}
  ]
}"#;

const FRESH: &str =
    r#"{"headers": [["cache-control", "max-age=600"], ["vary", "accept-language"]]}"#;

/// Polls until a request is answered from the cache.
async fn becomes_hit(world: &World, path: &str, fields: &[(&str, &str)]) {
    let seen = eventually(Duration::from_secs(10), || async {
        let answer = world.send("GET", path, fields).await;
        answer.is_hit().then_some(())
    });
    let last = world.send("GET", path, fields).await;
    assert!(seen.await.is_some(), "{path} {fields:?}: {last:?}");
}

async fn keys_as_set(on: On) {
    let settings = Settings {
        filter_config: CONFIG.to_owned(),
        sidecar_env: vec![("LARDER_PURGE_TOKEN".to_owned(), TOKEN.to_owned())],
        ..patient()
    };
    let world = World::with(on, settings).await;
    let path = "/anything/p";
    world.becomes(path, FRESH).await;
    what_does_not_count(&world, path).await;
    what_counts(&world, path).await;
    // The rule of a POST is another than that of a GET.
    let changed = format!("{path}?b=2&utm_source=x&a=1");
    assert_eq!(world.send("POST", &changed, &[]).await.status, 200);
    let journal = world.journal(path).await;
    let last = journal.iter().rfind(|request| request["method"] == "POST");
    let seen = last.unwrap().to_string();
    assert!(
        seen.contains("utm_source=x"),
        "it goes on as it came: {seen}"
    );
    let plain = format!("{path}?a=1&b=2");
    let fields = [("accept-language", "de")];
    assert!(!world.send("GET", &plain, &fields).await.is_hit());
    purged(&world, path).await;
}

async fn what_does_not_count(world: &World, path: &str) {
    let first = format!("{path}?b=2&utm_source=mail&a=1");
    let fields = [("accept-language", "de-AT, en;q=0.5"), ("cookie", "_ga=1")];
    becomes_hit(world, &first, &fields).await;
    for (query, language, cookie) in [
        ("?a=1&b=2", "de", ""),
        ("?a=1&b=2&utm_medium=y", "de-CH, fr;q=0.1", "_ga=2; _gat=3"),
    ] {
        let mut fields = vec![("accept-language", language)];
        fields.extend((!cookie.is_empty()).then_some(("cookie", cookie)));
        becomes_hit(world, &format!("{path}{query}"), &fields).await;
    }
    for request in world.journal(path).await {
        let seen = request.to_string();
        assert!(
            seen.contains("?a=1&b=2") && !seen.contains("utm_") && !seen.contains("_ga"),
            "{seen}"
        );
        assert!(!seen.contains("de-AT") && !seen.contains("de-CH"), "{seen}");
    }
}

async fn what_counts(world: &World, path: &str) {
    let url = format!("{path}?a=1&b=2");
    for fields in [
        [("accept-language", "en"), ("cookie", "_ga=1")],
        [("accept-language", "de"), ("cookie", "currency=EUR")],
    ] {
        let first = world.send("GET", &url, &fields).await;
        assert!(!first.is_hit(), "{fields:?}: {first:?}");
        becomes_hit(world, &url, &fields).await;
    }
}

/// `larder purge --config` finds what a client's URL is stored under.
async fn purged(world: &World, path: &str) {
    let fields = [("accept-language", "de")];
    let asked = format!("{path}?utm_source=x&b=2&a=1");
    becomes_hit(world, &asked, &fields).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("filter.json");
    std::fs::write(&config, CONFIG).unwrap();
    let sidecar = format!("http://{}", world.stack.sidecar_address().unwrap());
    let purge = Command::new(larder_program())
        .args(["purge", "--token", TOKEN, "--sidecar", &sidecar])
        .args(["--url", &world.url(&asked)])
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    assert!(purge.status.success(), "{purge:?}");
    let before = world.fetches(path).await;
    let answer = world.send("GET", &asked, &fields).await;
    assert!(
        !answer.is_hit() && world.fetches(path).await > before,
        "{answer:?}"
    );
}

#[tokio::test]
async fn keys_are_as_the_operator_sets_them_on_memory() {
    keys_as_set(On::Memory).await;
}

#[tokio::test]
async fn keys_are_as_the_operator_sets_them_on_redis() {
    keys_as_set(On::Redis).await;
}
