//! The order of filters: what stands before the cache is asked about hits, too; what stands behind
//! it is not. Each filter is tried in both places, so that the fault that the document names is
//! seen.

use larder_stack::Settings;
use serde_json::{Value, json};

use super::{compressor, filter, with_cluster};
use crate::raw_origin::{RawOrigin, Step, head};
use crate::support::{Answer, On, World, patient};
use crate::whose::{bearer, jwt_authn};

const PAGE: &str = "/anything/x?mock-cache-control=public,max-age%3D60";

/// On which side of the cache a filter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Before,
    Behind,
}

const BOTH: [Side; 2] = [Side::Before, Side::Behind];

async fn world(settings: Settings, side: Side, neighbour: Value) -> World {
    let settings = match side {
        Side::Before => settings.with_filters_before(&[neighbour]),
        Side::Behind => settings.with_filters_behind(&[neighbour]),
    };
    World::with(On::Memory, settings).await
}

/// A page is stored for who may see it; then somebody else asks for it.
async fn somebody_else_gets(world: &World, allowed: (&str, &str)) -> Answer {
    let stored = world.stored(world.send("GET", PAGE, &[allowed])).await;
    assert_eq!(stored.status, 200, "{stored:?}");
    assert!(world.send("GET", PAGE, &[allowed]).await.is_hit());
    world.get(PAGE).await
}

fn is_refused(side: Side, answer: &Answer, status: u16) {
    match side {
        Side::Before => assert_eq!(
            (answer.status, answer.is_hit()),
            (status, false),
            "{answer:?}"
        ),
        Side::Behind => assert!(answer.is_hit(), "nobody was asked: {answer:?}"),
    }
}

#[tokio::test]
async fn rbac_before_the_cache_is_asked_about_hits_and_behind_it_is_not() {
    for side in BOTH {
        let allowed =
            json!({ "header": { "name": "x-role", "string_match": { "exact": "admin" } } });
        let policy = json!({ "permissions": [{ "any": true }], "principals": [allowed, { "header": { "name": ":path", "string_match": { "exact": "/health-check" } } }] });
        let rbac = filter(
            "rbac",
            "rbac.v3.RBAC",
            json!({ "rules": { "action": "ALLOW", "policies": { "a": policy } } }),
        );
        let world = world(patient(), side, rbac).await;
        let other = somebody_else_gets(&world, ("x-role", "admin")).await;
        is_refused(side, &other, 403);
    }
}

#[tokio::test]
async fn jwt_authn_before_the_cache_is_asked_about_hits_and_behind_it_is_not() {
    for side in BOTH {
        let mut jwt = jwt_authn(json!({}));
        jwt["typed_config"]["rules"][0]["requires"] = json!({ "provider_name": "test" });
        let world = world(patient(), side, jwt).await;
        let other = somebody_else_gets(&world, ("authorization", &bearer("ann"))).await;
        is_refused(side, &other, 401);
    }
}

/// Lets through who sends `x-pass`, and tells the origin who that is.
async fn authority() -> RawOrigin {
    let service = RawOrigin::start().await;
    for path in ["/anything/x", "/anything/mine"] {
        service.script(path, |request| {
            let pass = request
                .lines()
                .find_map(|line| line.strip_prefix("x-pass: "));
            vec![Step::Send(match pass {
                Some(user) => head(
                    "200 OK",
                    &[("x-current-user", user), ("content-length", "0")],
                ),
                None => head("403 Forbidden", &[("content-length", "0")]),
            })]
        });
    }
    service
}

fn ext_authz(settings: Settings, service: &RawOrigin) -> (Settings, Value) {
    let server = json!({ "uri": "http://authority", "cluster": "authority", "timeout": "5s" });
    let names = |name: &str| json!({ "patterns": [{ "exact": name }] });
    let authz = filter(
        "ext_authz",
        "ext_authz.v3.ExtAuthz",
        json!({
            "http_service": {
                "server_uri": server,
                "authorization_response": { "allowed_upstream_headers": names("x-current-user") },
            },
            "allowed_headers": names("x-pass"),
        }),
    );
    (with_cluster(settings, "authority", &service.address), authz)
}

#[tokio::test]
async fn ext_authz_before_the_cache_is_asked_about_hits_and_behind_it_is_not() {
    let service = authority().await;
    for side in BOTH {
        let settings = Settings {
            health_path: String::new(),
            ..patient()
        };
        let (settings, authz) = ext_authz(settings, &service);
        let world = world(settings, side, authz).await;
        let other = somebody_else_gets(&world, ("x-pass", "ann")).await;
        is_refused(side, &other, 403);
    }
}

#[tokio::test]
async fn behind_ext_authz_that_says_who_asks_nobody_gets_anothers_page() {
    let service = authority().await;
    let (settings, authz) = ext_authz(
        Settings {
            health_path: String::new(),
            ..patient()
        },
        &service,
    );
    let world = world(settings, Side::Before, authz).await;
    let page = r#"{"headers": [["cache-control", "max-age=60"]], "reflect": "x-current-user"}"#;
    world.behave("/anything/mine", page).await;
    for user in ["ann", "bob", "ann"] {
        let answer = world
            .send("GET", "/anything/mine", &[("x-pass", user)])
            .await;
        assert!(!answer.is_hit() && answer.body.contains(user), "{answer:?}");
    }
    assert_eq!(world.get("/anything/mine").await.status, 403);
}

#[tokio::test]
async fn a_limit_before_the_cache_counts_hits_and_behind_it_does_not() {
    for side in BOTH {
        let limit = |config: Value| {
            let mut limit = json!({ "stat_prefix": "x" });
            limit
                .as_object_mut()
                .unwrap()
                .extend(config.as_object().unwrap().clone());
            limit
        };
        let everything = json!({ "default_value": { "numerator": 100 } });
        let bucket = json!({
            "token_bucket": { "max_tokens": 3, "fill_interval": "600s" },
            "filter_enabled": everything, "filter_enforced": everything,
        });
        let mut config = limit(bucket);
        config["@type"] = json!(
            "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
        );
        let route = json!({
            "match": { "prefix": "/anything/x" }, "route": { "cluster": "origin" },
            "typed_per_filter_config": { "envoy.filters.http.local_ratelimit": config },
        });
        let kind = "local_ratelimit.v3.LocalRateLimit";
        let ours = filter("local_ratelimit", kind, limit(json!({})));
        let world = world(patient().with_routes_before(&[route]), side, ours).await;
        world.stored(world.get(PAGE)).await;
        let mut statuses = Vec::new();
        for _ in 0..6 {
            statuses.push(world.get(PAGE).await.status);
        }
        let limited = statuses.iter().filter(|status| **status == 429).count();
        assert_eq!(
            limited,
            if side == Side::Before { 4 } else { 0 },
            "{side:?}: {statuses:?}"
        );
    }
}

fn with_cors_policy(mut settings: Settings) -> Settings {
    let policy = json!({ "envoy.filters.http.cors": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{ "suffix": ".example" }],
    } });
    let line =
        format!("domains: [\"*\"]\n                      typed_per_filter_config: {policy}\n");
    settings
        .envoy_edits
        .push(("domains: [\"*\"]\n".to_owned(), line));
    settings
}

#[tokio::test]
async fn cors_before_the_cache_speaks_to_each_site_and_behind_it_to_the_first() {
    for side in BOTH {
        let cors = filter("cors", "cors.v3.Cors", json!({}));
        let world = world(with_cors_policy(patient()), side, cors).await;
        // Somebody without a site stores the page.
        world.stored(world.get(PAGE)).await;
        for site in ["https://a.example", "https://b.example"] {
            let answer = world.send("GET", PAGE, &[("origin", site)]).await;
            assert!(answer.is_hit(), "{side:?}: {answer:?}");
            let allowed = answer.header("access-control-allow-origin");
            let expected = if side == Side::Before { site } else { "" };
            assert_eq!(allowed, expected, "{side:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn the_compressor_before_the_cache_needs_one_copy_and_behind_it_one_for_each_accept_encoding()
{
    let path = "/anything/x?mock-body-size=5000&mock-cache-control=max-age%3D60&mock-header=content-type:text/html";
    let texts = ["gzip", "gzip, br", "gzip;q=0.9", "identity"];
    for side in BOTH {
        let world = world(patient(), side, compressor()).await;
        for text in texts {
            let asked = [("accept-encoding", text)];
            if side == Side::Behind || text == texts[0] {
                world.stored(world.send("GET", path, &asked)).await;
            }
            let hit = world.send("GET", path, &asked).await;
            assert!(hit.is_hit(), "{side:?} {text}: {hit:?}");
            let coding = if text == "identity" { "" } else { "gzip" };
            assert_eq!(hit.header("content-encoding"), coding, "{side:?} {text}");
        }
        let fetches = world.fetches("/anything/x").await;
        assert_eq!(
            fetches,
            if side == Side::Before { 1 } else { texts.len() },
            "{side:?}"
        );
    }
}
