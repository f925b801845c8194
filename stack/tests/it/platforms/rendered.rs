//! What the control planes make of their resources: filters, routes and clusters as Envoy gets them.
//!
//! Read in Envoy Gateway's and Istio's sources; `docs/platforms.md` has the table.

use larder_stack::stack;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::raw_origin::{RawOrigin, answer};

const TYPES: &str = "type.googleapis.com/";
/// As Envoy Gateway names the filter of a policy, and its VM.
pub(super) const POLICY: &str = "envoyextensionpolicy/shop/larder/wasm/0";
pub(super) const OTHER_POLICY: &str = "envoyextensionpolicy/shop/other/wasm/0";
pub(super) fn module() -> Vec<u8> {
    std::fs::read(stack::filter_module(&stack::project_root()).unwrap()).unwrap()
}

/// Where the module is served, as by Envoy Gateway's control plane.
pub(super) async fn registry() -> RawOrigin {
    let registry = RawOrigin::start().await;
    let wasm = answer("200 OK", &[("content-type", "application/wasm")], &module());
    registry.answers("/module.wasm", wasm);
    registry
}

pub(super) fn string_value(text: &str) -> Value {
    json!({ "@type": format!("{TYPES}google.protobuf.StringValue"), "value": text })
}

/// A filter as Envoy Gateway renders it: off until a route enables it, its code from elsewhere.
pub(super) fn gateway_filter(policy: &str, config: &str, digest: &str, fail_open: bool) -> Value {
    let mut plugin = json!({
        "name": policy,
        "configuration": string_value(config),
        "vm_config": {
            "vm_id": policy,
            "runtime": "envoy.wasm.runtime.v8",
            "environment_variables": { "host_env_keys": ["LARDER_TOKEN"] },
            "code": { "remote": {
                "http_uri": { "uri": "http://envoy-gateway/module.wasm", "cluster": "wasm_cluster", "timeout": "10s" },
                "sha256": digest,
            } },
        },
    });
    if fail_open {
        plugin["fail_open"] = json!(true);
    }
    json!({
        "name": format!("envoy.filters.http.wasm/{policy}"),
        "disabled": true,
        "typed_config": { "@type": format!("{TYPES}envoy.extensions.filters.http.wasm.v3.Wasm"), "config": plugin },
    })
}

/// What a route says that a policy is attached to.
pub(super) fn enabled(policy: &str) -> Value {
    json!({ format!("envoy.filters.http.wasm/{policy}"): { "@type": format!("{TYPES}envoy.config.route.v3.FilterConfig"), "config": {} } })
}

/// A filter as Istio renders it, discovered: its code is the file that the agent has fetched, and no
/// VM has a name.
pub(super) fn istio_filter(name: &str, config: &str) -> Value {
    let wasm = stack::filter_module(&stack::project_root()).unwrap();
    let plugin = json!({
        "name": name,
        "root_id": "larder",
        "configuration": string_value(config),
        "failure_policy": "FAIL_RELOAD",
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "environment_variables": { "host_env_keys": ["LARDER_TOKEN"] },
            "code": { "local": { "filename": wasm } },
        },
    });
    json!({ "resources": [{
        "@type": format!("{TYPES}envoy.config.core.v3.TypedExtensionConfig"),
        "name": name,
        "typed_config": { "@type": format!("{TYPES}envoy.extensions.filters.http.wasm.v3.Wasm"), "config": plugin },
    }] })
}

pub(super) fn discovered(name: &str, file: &str) -> Value {
    let types = ["wasm.v3.Wasm", "rbac.v3.RBAC"]
        .map(|name| format!("{TYPES}envoy.extensions.filters.http.{name}"));
    json!({
        "name": name,
        "config_discovery": {
            "config_source": { "path_config_source": { "path": file }, "resource_api_version": "V3" },
            "type_urls": types,
        },
    })
}

/// Our filter in `envoy.yaml` as it is rendered for this folder.
pub(super) fn own_filter(run_dir: &str) -> String {
    format!(
        "- name: larder
                    config_discovery:
                      config_source:
                        path_config_source: {{ path: \"{run_dir}/filter.ecds.json\", watched_directory: {{ path: \"{run_dir}\" }} }}
                        resource_api_version: V3
                      type_urls: [\"{TYPES}envoy.extensions.filters.http.wasm.v3.Wasm\"]
"
    )
}

pub(super) fn items(filters: &[Value]) -> String {
    let lines = filters
        .iter()
        .map(|filter| format!("{:18}- {filter}\n", ""));
    lines.collect::<String>().trim_start().to_owned()
}

/// The cluster that the control plane's code comes from.
pub(super) fn wasm_cluster(address: &str) -> (String, String) {
    let (host, port) = address.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let endpoint = json!({ "endpoint": { "address": { "socket_address": { "address": host, "port_value": port } } } });
    let cluster = json!({
        "name": "wasm_cluster",
        "connect_timeout": "10s",
        "type": "STRICT_DNS",
        "load_assignment": { "cluster_name": "wasm_cluster", "endpoints": [{ "lb_endpoints": [endpoint] }] },
    });
    (
        "\n    - name: origin\n".to_owned(),
        format!("\n    - {cluster}\n\n    - name: origin\n"),
    )
}

/// What the control planes leave out: refreshes have no listener of their own.
pub(super) fn without_listener() -> (String, String) {
    let named = |name: &str| format!("- name: {name}\n      connect_timeout: 1s\n");
    (named("larder-refresh"), named("elsewhere"))
}

pub(super) fn edit(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

/// The changes to `envoy.yaml` after which it is what Envoy Gateway renders from two policies: one
/// on the route that takes everything, another on `/anything/other`, and none on `/anything/plain`.
pub(super) fn gateway_edits(
    run_dir: &str,
    registry: &str,
    filters: &[Value],
    routes: bool,
) -> Vec<(String, String)> {
    let route = |path: &str, more: Value| {
        let mut route =
            json!({ "match": { "path_separated_prefix": path }, "route": { "cluster": "origin" } });
        route
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        format!("- {route}\n{:24}", "")
    };
    let policies = json!({ "typed_per_filter_config": enabled(OTHER_POLICY) });
    let others = if routes {
        route("/anything/plain", json!({})) + &route("/anything/other", policies)
    } else {
        String::new()
    };
    vec![
        (own_filter(run_dir), items(filters)),
        (
            "- match: { prefix: \"/\" }\n".to_owned(),
            format!(
                "{others}- match: {{ prefix: \"/\" }}\n{:26}typed_per_filter_config: {}\n",
                "",
                enabled(POLICY)
            ),
        ),
        edit("merge_slashes: false", "merge_slashes: true"),
        edit("action: KEEP_UNCHANGED", "action: UNESCAPE_AND_REDIRECT"),
        edit(
            "http.router.v3.Router\n",
            "http.router.v3.Router\n                      suppress_envoy_headers: true\n",
        ),
        wasm_cluster(registry),
        without_listener(),
    ]
}

pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
