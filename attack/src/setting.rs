//! What scenarios run against: a stack for each configuration, shared by all scenarios that want
//! it.

use std::path::Path;
use std::time::Duration;

use larder_stack::{Origins, RedisServer, Settings, Stack, StoreKind, eventually};
use serde_json::{Value, json};

use crate::rogue::Rogue;
use crate::target::Target;

/// A configuration of the running product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Setting {
    /// `default.json`: what one gets who decides nothing.
    Safe,
    /// An operator's own lifetimes, also for errors, and short waits.
    Operator,
    /// A filter that may not stop at the headers, as Istio and Envoy Gateway load it.
    NoStop,
    /// `jwt_authn` and `ext_authz` before the cache.
    Identity,
    /// Routes that rewrite paths and hosts and add fields, and a rewriting of Envoy's own answers.
    Routes,
    /// An origin that answers with any bytes.
    Rogue,
    /// After a swap of the filter's configuration.
    Swapped,
    /// Clients are told nothing about the cache.
    Discreet,
    /// One check at a time, with overrides by query: what is measured here must not be disturbed.
    Flood,
    /// Redis with sealed entries.
    Sealed,
}

/// The sidecar's purge token.
pub(crate) const TOKEN: &str = "the-operators-token-of-the-attack-suite";

impl Setting {
    /// All of them, in the order in which they run.
    pub(crate) const ALL: [Self; 10] = [
        Self::Safe,
        Self::Operator,
        Self::NoStop,
        Self::Identity,
        Self::Routes,
        Self::Rogue,
        Self::Swapped,
        Self::Discreet,
        Self::Flood,
        Self::Sealed,
    ];

    /// Checks that may run at the same time.
    pub(crate) fn at_once(self) -> usize {
        match self {
            Self::Flood | Self::Sealed | Self::Swapped => 1,
            _ => 24,
        }
    }

    /// Whether it exists on this kind of store.
    pub(crate) fn is_on(self, redis: bool) -> bool {
        redis || self != Self::Sealed
    }

    /// The filter's configuration. The store gets more time than by default, for the machine is
    /// busy with the attack.
    fn filter(self) -> Value {
        let mut config: Value = json!({
            "store": { "timeout_ms": 3000 },
            "rules": [
                { "match": { "path": "/health-check" }, "policy": { "cache": false } },
                { "policy": { "profile": "safe" } },
            ],
        });
        let policy = &mut config["rules"][1]["policy"];
        match self {
            Self::Operator => {
                policy["default_lifetime_s"] = json!(60);
                policy["status_lifetimes_s"] = json!({ "4xx": 60 });
                config["limits"] = json!({ "collapse_wait_ms": 1500 });
            }
            // Every hit comes from Redis.
            Self::Sealed => config["limits"] = json!({ "l1_bytes": 0 }),
            Self::Discreet => policy["tell"] = json!("none"),
            Self::Flood => policy["query_override"] = json!(true),
            _ => {}
        }
        config
    }

    fn envoy_edits(self) -> Vec<(String, String)> {
        match self {
            Self::Identity => identity_filters(),
            Self::Routes => rewriting_routes(),
            _ => Vec::new(),
        }
    }

    /// Starts everything.
    pub(crate) async fn start(self, redis: bool) -> Result<Target, String> {
        let redis = if redis {
            Some(RedisServer::start().await?)
        } else {
            None
        };
        let rogue = if self == Self::Rogue {
            Some(Rogue::start().await?)
        } else {
            None
        };
        let origins = match &rogue {
            Some((_, address)) => Origins::Addresses(vec![address.clone()]),
            None => Origins::Mock(1),
        };
        let mut sidecar_env = vec![("LARDER_PURGE_TOKEN".to_owned(), TOKEN.to_owned())];
        if self == Self::Sealed {
            sidecar_env.push((
                "LARDER_STORE_SECRET".to_owned(),
                "the-seal-of-the-attack-suite-0123456789".to_owned(),
            ));
        }
        let settings = Settings {
            origins,
            health_path: if rogue.is_some() {
                String::new()
            } else {
                "/health-check".to_owned()
            },
            store: redis
                .as_ref()
                .map_or(StoreKind::Memory, |redis| StoreKind::Redis(redis.url())),
            filter_config: self.filter().to_string(),
            sidecar_env,
            envoy_edits: self.envoy_edits(),
            ..Settings::default()
        };
        let mut stack = Stack::start(settings, |_| {}).await?;
        match self {
            Self::NoStop => forbid_stopping(&stack).await?,
            Self::Swapped => swap(&mut stack, self.filter()).await?,
            _ => {}
        }
        Ok(Target::new(stack, redis, rogue.map(|(rogue, _)| rogue)))
    }
}

/// Loads the filter once more, without `allow_on_headers_stop_iteration`.
async fn forbid_stopping(stack: &Stack) -> Result<(), String> {
    const ALLOWED: &str = "\"allow_on_headers_stop_iteration\": true";
    let folder: &Path = stack.run_dir();
    let (path, part) = (
        folder.join("filter.ecds.json"),
        folder.join("filter.ecds.part"),
    );
    let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
    if !text.contains(ALLOWED) {
        return Err(format!(
            "the filter's configuration has no {ALLOWED} to change"
        ));
    }
    let reloads = || async {
        let stats = stack
            .admin_get("/stats?filter=extension_config_discovery.*config_reload$")
            .await;
        stats
            .lines()
            .filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok())
            .sum::<u64>()
    };
    let before = reloads().await;
    let forbidden = text.replace(ALLOWED, "\"allow_on_headers_stop_iteration\": false");
    std::fs::write(&part, forbidden)
        .and_then(|()| std::fs::rename(part, path))
        .map_err(|error| error.to_string())?;
    let reloaded = eventually(Duration::from_secs(10), || async {
        (reloads().await > before).then_some(())
    });
    reloaded
        .await
        .ok_or_else(|| "Envoy has not loaded the filter that may not stop".to_owned())
}

/// Gives the filter another configuration that means the same.
async fn swap(stack: &mut Stack, mut config: Value) -> Result<(), String> {
    config["rules"][1]["policy"]["comment"] = json!("after the swap");
    Ok(stack.swap_filter_config(&config.to_string()).await?)
}

/// Where the cache stands among the filters of the ingress.
const CACHE: &str = "                  - name: larder\n                    config_discovery:";
/// Where the list of routes begins.
const ROUTES: &str = "routes:\n";

fn before(anchor: &str, indent: usize, items: &[Value]) -> (String, String) {
    let lines: String = items
        .iter()
        .map(|item| format!("{:indent$}- {item}\n", ""))
        .collect();
    (anchor.to_owned(), format!("{lines}{anchor}"))
}

/// Three ways in which `jwt_authn` tells the origin who somebody is, and one of `ext_authz`. The
/// token itself is removed.
fn identity_filters() -> Vec<(String, String)> {
    let key = json!({ "keys": [{
        "kty": "oct", "alg": "HS256", "kid": "attack", "k": "bGFyZGVyLWF0dGFjay1zdWl0ZS1zZWNyZXQtb2YtMzJi",
    }]});
    let provider = |more: Value| {
        let mut provider = json!({ "issuer": "attack", "forward": false, "local_jwks": { "inline_string": key.to_string() } });
        for (name, value) in more.as_object().into_iter().flatten() {
            provider[name] = value.clone();
        }
        provider
    };
    let rule = |name: &str| json!({ "match": { "prefix": format!("/anything/{name}/") }, "requires": { "provider_name": name } });
    let jwt = json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {
                "jwt-claim": provider(json!({ "claim_to_headers": [{ "header_name": "x-jwt-sub", "claim_name": "sub" }] })),
                "jwt-payload": provider(json!({ "forward_payload_header": "x-jwt-payload" })),
                "jwt-metadata": provider(json!({ "payload_in_metadata": "who" })),
            },
            "rules": [rule("jwt-claim"), rule("jwt-payload"), rule("jwt-metadata")],
        },
    });
    let exact = |name: &str| json!({ "patterns": [{ "exact": name }] });
    let authz = json!({
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "allowed_headers": exact("x-session"),
            "http_service": {
                "server_uri": { "uri": "http://origin", "cluster": "origin", "timeout": "2s" },
                "path_prefix": "/anything/authz",
                "authorization_response": { "allowed_upstream_headers": exact("x-auth-request-user") },
            },
        },
    });
    vec![before(CACHE, 18, &[jwt, authz])]
}

/// Routes as operators write them. What `/routed/` adds, a hit has to have too.
fn rewriting_routes() -> Vec<(String, String)> {
    let add = |name: &str, value: &str| json!([{ "header": { "key": name, "value": value } }]);
    let route = |prefix: &str, rewrite: &str, more: Value| {
        let mut route = json!({
            "match": { "prefix": prefix },
            "route": { "cluster": "origin", "prefix_rewrite": rewrite, "timeout": "0s" },
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            route[name] = value.clone();
        }
        route
    };
    let routed = route(
        "/routed/",
        "/anything/routed/",
        json!({ "response_headers_to_add": add("x-route", "added") }),
    );
    let v2 = route(
        "/v2/",
        "/anything/v1/",
        json!({ "request_headers_to_add": add("x-backend-key", "secret") }),
    );
    let mut hosted = route("/hosted/", "/anything/hosted/", json!({}));
    hosted["route"]["host_rewrite_literal"] = json!("inner.test");
    let lines: String = [routed, v2, hosted]
        .iter()
        .map(|route| format!("{:24}- {route}\n", ""))
        .collect();
    let local = json!({
        "mappers": [{
            "filter": { "status_code_filter": { "comparison": { "op": "GE", "value": { "default_value": 200, "runtime_key": "attack" } } } },
            "body": { "inline_string": "rewritten by local_reply_config" },
        }],
    });
    let filters = "                http_filters:\n                  # The filter's";
    vec![
        (ROUTES.to_owned(), format!("{ROUTES}{lines}")),
        (
            filters.to_owned(),
            format!("                local_reply_config: {local}\n{filters}"),
        ),
    ]
}
