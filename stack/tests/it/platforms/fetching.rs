//! A module that does not come: what clients get then.

use std::path::Path;
use std::time::Duration;

use larder_stack::process::Process;
use larder_stack::render::{EnvoyConfig, edited};
use larder_stack::{eventually, launch};
use serde_json::json;

use crate::raw_origin::{RawOrigin, answer};
use crate::support::Answer;

use super::rendered::{
    POLICY, digest, discovered, gateway_edits, gateway_filter, istio_filter, items, module,
    own_filter, registry, without_listener,
};

const LEVEL_1_ONLY: &str = include_str!("../../../../envoy/filters/level-1-only.json");

/// Istio's agent, whose file a plugin is discovered from.
fn agent_writes(folder: &Path, resource: &str) {
    let part = folder.join("part");
    std::fs::write(&part, resource).unwrap();
    std::fs::rename(part, folder.join("larder.json")).unwrap();
}

/// An Envoy with one worker whose module comes from `registry`.
async fn fetching(registry: &str, digest: &str, fail_open: bool) -> Fetching {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().display().to_string();
    let filters = [gateway_filter(POLICY, LEVEL_1_ONLY, digest, fail_open)];
    let edits = gateway_edits(&run_dir, registry, &filters, false);
    started(folder, &edits).await
}

/// An Envoy with one worker and a configuration that was changed so.
async fn started(folder: tempfile::TempDir, edits: &[(String, String)]) -> Fetching {
    let origin = RawOrigin::start().await;
    let lifetime = ("cache-control", "max-age=600");
    origin.answers("/page", answer("200 OK", &[lifetime], b"the page"));
    let config = EnvoyConfig {
        listen: ("127.0.0.1", 0),
        admin_port: 0,
        metrics: None,
        host: None,
        run_dir: folder.path(),
        access_log: "",
        origins: std::slice::from_ref(&origin.address),
        sidecars: &["127.0.0.1:1".to_owned()],
        health_path: "",
        health_interval: "1s",
        custom_methods: false,
    };
    let config = config
        .render(include_str!("../../../../envoy/envoy.yaml"))
        .unwrap();
    let config = edited(config, edits).unwrap();
    let (envoy, url) = launch::plain_envoy(folder.path(), &config).await.unwrap();
    Fetching {
        envoy,
        url,
        origin,
        folder,
    }
}

struct Fetching {
    envoy: Process,
    url: String,
    origin: RawOrigin,
    folder: tempfile::TempDir,
}

impl Fetching {
    async fn get(&self) -> Answer {
        let response = reqwest::get(format!("{}/page", self.url)).await;
        Answer::of(response.unwrap_or_else(|error| panic!("{error}: {}", self.envoy.output())))
            .await
    }

    /// Envoy's log names the cause, once.
    async fn logs(&self, words: &str) {
        let said = eventually(Duration::from_secs(5), || async {
            self.envoy.output().contains(words).then_some(())
        });
        assert!(said.await.is_some(), "{words}: {}", self.envoy.output());
    }
}

/// What it means for clients that the module did not come.
async fn without_the_module(registry: &str, digest: &str, words: &str) {
    for fail_open in [false, true] {
        let fetching = fetching(registry, digest, fail_open).await;
        for _ in 0..3 {
            let answer = fetching.get().await;
            let told = (answer.status, answer.body.as_str());
            let expected = if fail_open {
                (200, "the page")
            } else {
                (503, "")
            };
            assert_eq!(told, expected, "fail_open {fail_open}: {answer:?}");
            assert_eq!(answer.header("cache-status"), "", "{answer:?}");
        }
        let asked = fetching.origin.connections();
        assert_eq!(asked > 0, fail_open, "the origin was asked {asked} times");
        fetching.logs(words).await;
    }
}

#[tokio::test]
async fn a_module_with_the_right_digest_is_fetched_and_caches() {
    let registry = registry().await;
    let fetching = fetching(&registry.address, &digest(&module()), false).await;
    assert!(fetching.get().await.says("stored"));
    assert!(fetching.get().await.is_hit());
}

#[tokio::test]
async fn a_module_with_another_digest_closes_the_route_or_leaves_it_uncached() {
    let registry = registry().await;
    without_the_module(&registry.address, &digest(b"another"), "failed to load").await;
}

#[tokio::test]
async fn a_registry_that_is_away_closes_the_route_or_leaves_it_uncached() {
    let nobody = format!("127.0.0.1:{}", launch::free_port().unwrap());
    without_the_module(&nobody, &digest(&module()), "failed to load").await;
}

/// With `FAIL_RELOAD` and `FAIL_CLOSE` Istio's agent puts a filter that refuses all in the place of a
/// plugin whose module it cannot fetch.
#[tokio::test]
async fn istio_refuses_all_until_its_agent_has_the_module() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().display().to_string();
    let types = "type.googleapis.com/envoy";
    let refusing = json!({ "resources": [{
        "@type": format!("{types}.config.core.v3.TypedExtensionConfig"),
        "name": "shop.larder",
        "typed_config": { "@type": format!("{types}.extensions.filters.http.rbac.v3.RBAC"), "rules": {} },
    }] });
    agent_writes(folder.path(), &refusing.to_string());
    let filters = [discovered("shop.larder", &format!("{run_dir}/larder.json"))];
    let edits = [(own_filter(&run_dir), items(&filters)), without_listener()];
    let fetching = started(folder, &edits).await;
    assert_eq!(fetching.get().await.status, 403);
    assert_eq!(fetching.origin.connections(), 0);
    let plugin = istio_filter("shop.larder", LEVEL_1_ONLY).to_string();
    agent_writes(fetching.folder.path(), &plugin);
    let cached = eventually(Duration::from_secs(10), || async {
        fetching.get().await.is_hit().then_some(())
    });
    assert!(cached.await.is_some(), "{}", fetching.envoy.output());
}
