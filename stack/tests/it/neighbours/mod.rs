//! The cache among Envoy's own filters, as in anybody's `envoy.yaml`: `docs/in-your-envoy.md` says
//! in which order and why; each claim is here.
//!
//! What is elsewhere: hits behind CORS, routes that add fields and rewritten error pages
//! (`answers.rs`); background refreshes by rewriting routes (`routes.rs`); nobody gets another's
//! page behind `jwt_authn` (`whose.rs`).

use serde_json::{Value, json};

use crate::support::Answer;
use larder_stack::Settings;

mod document;
mod hits;
mod order;
mod route_policies;
mod tls;

/// A filter that runs a script.
fn lua(script: &str) -> Value {
    filter(
        "lua",
        "lua.v3.Lua",
        json!({ "default_source_code": { "inline_string": script } }),
    )
}

/// A filter of Envoy's own, by the last part of its name and its type.
fn filter(name: &str, kind: &str, config: Value) -> Value {
    let mut typed =
        json!({ "@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}") });
    typed
        .as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    json!({ "name": format!("envoy.filters.http.{name}"), "typed_config": typed })
}

/// The compressor, for any length.
fn compressor() -> Value {
    filter(
        "compressor",
        "compressor.v3.Compressor",
        json!({
            "compressor_library": { "name": "gzip", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip",
            } },
            "response_direction_config": {
                "common_config": { "min_content_length": 30, "content_type": ["application/json", "text/html"] },
                "remove_accept_encoding_header": true,
                "weaken_etag_on_compress": true,
            },
        }),
    )
}

/// Status and fields that a hit has in common with the miss: all but those about this answer alone.
fn shown(answer: &Answer) -> (u16, Vec<(String, String)>) {
    const OWN: [&str; 6] = [
        "age",
        "cache-status",
        "date",
        "x-cache-status",
        "x-envoy-upstream-service-time",
        "x-request-id",
    ];
    let fields = answer.headers.iter();
    let mut fields: Vec<_> = fields
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .cloned()
        .collect();
    fields.sort();
    (answer.status, fields)
}

/// One more cluster, with one host.
fn with_cluster(mut settings: Settings, name: &str, address: &str) -> Settings {
    let (host, port) = address.rsplit_once(':').unwrap();
    let address = json!({ "socket_address": { "address": host, "port_value": port.parse::<u16>().unwrap() } });
    let endpoints = json!([{ "lb_endpoints": [{ "endpoint": { "address": address } }] }]);
    let cluster = json!({ "name": name, "load_assignment": { "cluster_name": name, "endpoints": endpoints } });
    let at = "  clusters:\n".to_owned();
    let line = format!("{at}    - {cluster}\n");
    settings.envoy_edits.push((at, line));
    settings
}
