//! The cache on an Envoy that is configured as Envoy Gateway and as Istio configure it.
//!
//! Neither control plane runs here. What each of them renders from its resources (`deploy/`) stands
//! in Envoy's configuration in place of ours: the filter, how its code comes, how routes enable it,
//! and no listener that leads refreshes through the routes.

use std::time::{Duration, Instant};

use larder_stack::{Origins, Settings, eventually};
use reqwest::Client;
use serde_json::json;

use crate::raw_origin::{RawOrigin, Step, answer};
use crate::support::{Answer, On, World, patient, patient_with};

mod fetching;
mod rendered;

use rendered::{
    OTHER_POLICY, POLICY, digest, discovered, gateway_edits, gateway_filter, istio_filter, items,
    module, own_filter, registry, without_listener,
};

/// A plugin that does nothing but stand in the chain: the same module, so the same code.
const PASSING: &str = r#"{ "rules": [{ "policy": { "cache": false } }] }"#;
const OPERATOR: &str = "operator";

#[derive(Clone, Copy, Debug)]
enum Platform {
    EnvoyGateway,
    Istio,
}

/// A running system, and what it lives on.
struct Rendered {
    world: World,
    _registry: RawOrigin,
    _folder: tempfile::TempDir,
}

impl Platform {
    async fn with(self, settings: Settings) -> Rendered {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().display().to_string();
        let registry = registry().await;
        let envoy_edits = match self {
            Self::EnvoyGateway => {
                let digest = digest(&module());
                let config = patient_with(
                    r#"{ "namespace": "other", "rules": [{ "policy": { "query_override": true } }] }"#,
                );
                let filters = [
                    gateway_filter(OTHER_POLICY, &config, &digest, false),
                    gateway_filter(POLICY, &settings.filter_config, &digest, false),
                ];
                gateway_edits(&run_dir, &registry.address, &filters, true)
            }
            Self::Istio => {
                let plugins = [
                    ("shop.passing", PASSING),
                    ("shop.larder", settings.filter_config.as_str()),
                ];
                let filters = plugins.map(|(name, config)| {
                    let file = format!("{run_dir}/{name}.json");
                    std::fs::write(&file, istio_filter(name, config).to_string()).unwrap();
                    discovered(name, &file)
                });
                vec![(own_filter(&run_dir), items(&filters)), without_listener()]
            }
        };
        let settings = Settings {
            run_dir: Some(folder.path().to_owned()),
            sidecar_env: vec![("LARDER_PURGE_TOKEN".to_owned(), OPERATOR.to_owned())],
            token: Some("a-token-of-the-fleet".to_owned()),
            // The rule for health checks lets them pass, and Envoy Gateway hides what Envoy adds to
            // an origin's answer: nothing would tell that the filter is there.
            health_path: String::new(),
            envoy_edits: [envoy_edits, settings.envoy_edits].concat(),
            ..settings
        };
        let mut world = World::with(On::Memory, settings).await;
        // Each request on a connection of its own, so that all workers are met.
        world.client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
        if matches!(self, Self::EnvoyGateway) {
            // Each policy is an Envoy of its own to the sidecar; the start waits for one.
            for policy in [POLICY, OTHER_POLICY] {
                let follows = format!("{policy}: larder: purges may have been missed");
                let log = || async { world.stack.envoy_log().contains(&follows).then_some(()) };
                let follows = eventually(Duration::from_secs(10), log).await;
                assert!(follows.is_some(), "{policy}: {}", world.stack.envoy_log());
            }
        }
        Rendered {
            world,
            _registry: registry,
            _folder: folder,
        }
    }

    async fn start(self) -> Rendered {
        self.with(patient()).await
    }
}

async fn what_was_fetched_once_is_a_hit_for_every_worker(platform: Platform) {
    let rendered = platform.start().await;
    let world = &rendered.world;
    let path = "/data?id=1&cache-control=max-age=600";
    let miss = world.stored(world.get(path)).await;
    assert!(miss.says("fwd=uri-miss") && miss.says("stored"), "{miss:?}");
    for _ in 0..20 {
        let hit = world.get(path).await;
        assert!(hit.is_hit() && hit.body == miss.body, "{hit:?}");
    }
    assert_eq!(world.fetches("/data").await, 1);
}

async fn a_herd_makes_one_fetch(platform: Platform) {
    let rendered = platform.start().await;
    let world = &rendered.world;
    world.behave("/data", r#"{"delay_ms": 300}"#).await;
    let answers = world
        .herd("/data?id=2&cache-control=max-age=600", 200)
        .await;
    let body = &answers[0].body;
    assert!(body.contains("item 2"), "{:?}", answers[0]);
    assert!(answers.iter().all(|answer| answer.body == *body));
    assert_eq!(world.fetches("/data").await, 1);
}

async fn what_is_purged_is_gone(platform: Platform) {
    let rendered = platform.start().await;
    let world = &rendered.world;
    for round in 0..4 {
        let path = format!("/data?id={round}&cache-control=max-age=600");
        world.stored(world.get(&path)).await;
        assert!(world.get(&path).await.is_hit(), "{round}");
        let sidecar = world.stack.sidecar_address().unwrap();
        let order = json!({ "url": world.url(&format!("/data?id={round}")) });
        let request = world
            .client
            .post(format!("http://{sidecar}/v1/purge"))
            .bearer_auth(OPERATOR)
            .body(order.to_string());
        let told = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(told.status, 200, "{told:?}");
        let next = world.get(&path).await;
        assert!(!next.is_hit(), "{round}: {next:?}");
    }
}

async fn what_is_stale_is_confirmed_by_the_origin(platform: Platform) {
    let rendered = platform.start().await;
    let world = &rendered.world;
    let path = "/data?id=4&cache-control=must-revalidate,max-age=1";
    let miss = world.stored(world.get(path)).await;
    let confirmed = world.until(path, |answer| !answer.is_hit()).await;
    assert!(
        confirmed.says("fwd=stale; fwd-status=304; stored") && confirmed.body == miss.body,
        "{confirmed:?}"
    );
}

/// The error's content comes only after the decision: without `allow_on_headers_stop_iteration` it
/// would never come if the head were held back.
async fn a_stale_copy_stands_in_for_an_error_page(platform: Platform) {
    let origin = RawOrigin::start().await;
    let demo = patient();
    let settings = Settings {
        origins: Origins::Addresses(vec![origin.address.clone()]),
        ..demo
    };
    let rendered = platform.with(settings).await;
    let world = &rendered.world;
    let lifetime = ("cache-control", "max-age=1, stale-if-error=600");
    origin.answers("/page", answer("200 OK", &[lifetime], b"the page"));
    assert_eq!(world.stored(world.get("/page")).await.body, "the page");
    origin.script("/page", |_| {
        let error = answer(
            "503 Oops",
            &[("content-type", "text/html")],
            b"an error page",
        );
        let (head, content) = error.split_at(error.len() - 4);
        vec![
            Step::Send(head.to_vec()),
            Step::Wait(Duration::from_secs(2)),
            Step::Send(content.to_vec()),
        ]
    });
    let begun = Instant::now();
    let stale = world
        .until("/page", |answer| answer.says("stale-if-error"))
        .await;
    assert_eq!((stale.status, stale.body.as_str()), (200, "the page"));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

/// Without the listener that takes the routes a refresh goes straight to the route's cluster.
async fn a_stale_hit_is_refreshed_behind_it(platform: Platform) {
    let rendered = platform.start().await;
    let world = &rendered.world;
    let path = "/data?id=5&cache-control=stale-while-revalidate=600,max-age=1";
    world.stored(world.get(path)).await;
    let stale = |answer: &Answer| answer.says("detail=stale-while-revalidate");
    world.until(path, stale).await;
    world.sees("/data", 2).await;
    let fresh = world.until(path, |answer| !stale(answer)).await;
    assert!(fresh.is_hit(), "{fresh:?}");
}

macro_rules! on_both {
    ($($scenario:ident: $gateway:ident, $istio:ident;)*) => { $(
        #[tokio::test]
        async fn $gateway() {
            $scenario(Platform::EnvoyGateway).await;
        }

        #[tokio::test]
        async fn $istio() {
            $scenario(Platform::Istio).await;
        }
    )* };
}

on_both! {
    what_was_fetched_once_is_a_hit_for_every_worker: envoy_gateway_hits_on_every_worker, istio_hits_on_every_worker;
    a_herd_makes_one_fetch: envoy_gateway_makes_one_fetch_for_a_herd, istio_makes_one_fetch_for_a_herd;
    what_is_purged_is_gone: envoy_gateway_serves_nothing_purged, istio_serves_nothing_purged;
    what_is_stale_is_confirmed_by_the_origin: envoy_gateway_has_the_origin_confirm, istio_has_the_origin_confirm;
    a_stale_copy_stands_in_for_an_error_page: envoy_gateway_replaces_an_error_page, istio_replaces_an_error_page;
    a_stale_hit_is_refreshed_behind_it: envoy_gateway_refreshes_in_the_background, istio_refreshes_in_the_background;
}

#[tokio::test]
async fn a_route_without_a_policy_is_not_cached_and_one_with_another_policy_is_apart() {
    let rendered = Platform::EnvoyGateway.start().await;
    let world = &rendered.world;
    let plain = "/anything/plain?mock-cache-control=max-age%3D600";
    for _ in 0..3 {
        let answer = world.get(plain).await;
        assert_eq!((answer.status, answer.header("cache-status")), (200, ""));
    }
    assert_eq!(world.fetches("/anything/plain").await, 3);
    let other = "/anything/other?cache-control=max-age=600";
    let miss = world.stored(world.get(other)).await;
    assert!(miss.says("stored"), "{miss:?}");
    assert!(world.get(other).await.is_hit());
    assert_eq!(world.fetches("/anything/other").await, 1);
}

/// Envoy Gateway puts its compressor behind the cache: what it compresses is stored so, as the
/// variant of those who take it.
#[tokio::test]
async fn a_hit_is_compressed_as_the_miss_was_by_a_compressor_behind_the_cache() {
    let origin = RawOrigin::start().await;
    let fields = [
        ("cache-control", "max-age=600"),
        ("content-type", "text/plain"),
    ];
    origin.answers("/page", answer("200 OK", &fields, &[b'x'; 3_000]));
    let router = "- name: envoy.filters.http.router\n";
    let types = "type.googleapis.com/envoy.extensions";
    let compressor = json!({
        "name": "envoy.filters.http.compressor",
        "typed_config": {
            "@type": format!("{types}.filters.http.compressor.v3.Compressor"),
            "compressor_library": {
                "name": "gzip",
                "typed_config": { "@type": format!("{types}.compression.gzip.compressor.v3.Gzip") },
            },
        },
    });
    let edit = format!("- {compressor}\n{:18}{router}", "");
    let settings = Settings {
        origins: Origins::Addresses(vec![origin.address.clone()]),
        envoy_edits: vec![(router.to_owned(), edit)],
        ..patient()
    };
    let rendered = Platform::EnvoyGateway.with(settings).await;
    let world = &rendered.world;
    let gzip = [("accept-encoding", "gzip")];
    let miss = world.stored(world.send("GET", "/page", &gzip)).await;
    let hit = world.send("GET", "/page", &gzip).await;
    assert!(!miss.is_hit() && hit.is_hit(), "{miss:?} {hit:?}");
    for answer in [&miss, &hit] {
        assert_eq!(answer.header("content-encoding"), "gzip", "{answer:?}");
    }
    assert_eq!(hit.body, miss.body);
    let plain = world.get("/page").await;
    assert_eq!(
        (plain.header("content-encoding"), plain.body.len()),
        ("", 3_000)
    );
}
