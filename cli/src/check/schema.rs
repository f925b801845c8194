//! The JSON Schema of the configuration, for editors and admission.
//!
//! The types here are never made: they only say what a document looks like. Tests hold them to the
//! parser member by member (`check::tests`).
#![expect(
    dead_code,
    reason = "the schema is derived from these; nothing is read into them"
)]

use std::collections::BTreeMap;

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

/// The schema, as it is written to `docs/config.schema.json`.
pub(super) fn text() -> String {
    let mut schema = schema_for!(Configuration).to_value();
    forbid_null(&mut schema);
    let schema = serde_json::to_string_pretty(&schema).unwrap_or_default();
    schema + "\n"
}

/// An optional member may be left out; written, it is no `null`.
fn forbid_null(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    members.insert("type".to_owned(), only);
                }
            }
            let is_null = |one: &Value| one.get("type").is_some_and(|kind| kind == "null");
            if let Some(Value::Array(choices)) = members.get("anyOf")
                && choices.iter().any(is_null)
                && let Some(Value::Object(other)) =
                    choices.iter().find(|one| !is_null(one)).cloned()
            {
                members.remove("anyOf");
                members.extend(other);
            }
            members.values_mut().for_each(forbid_null);
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_null),
        _ => {}
    }
}

/// Larder's filter configuration. docs/configuration.md says what each member decides, and why.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Configuration {
    /// Where an editor finds this schema. The filter passes over it.
    #[schemars(rename = "$schema")]
    schema: Option<String>,
    store: Option<Store>,
    limits: Option<Limits>,
    /// First match wins; a request that no rule matches passes untouched. One safe rule by default.
    rules: Option<Vec<Rule>>,
    /// Policies that Envoy's routes pick by name, in their metadata.
    route_policies: Option<std::collections::BTreeMap<String, Policy>>,
    /// Part of every cache key: keeps configurations apart in one store.
    #[schemars(length(min = 1), extend("default" = "default"))]
    namespace: Option<String>,
    /// Cluster that leads background refreshes through the routes.
    #[schemars(length(min = 1), extend("default" = "larder-refresh"))]
    refresh_cluster: Option<String>,
    /// A secret: what x-larder-debug says in requests that are told how they were answered.
    #[schemars(length(min = 16), regex(pattern = "^[!-~]+$"))]
    debug_token: Option<String>,
}

/// The store beyond level 1.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Store {
    /// Off: there is no store and no sidecar.
    #[schemars(extend("default" = true))]
    enabled: Option<bool>,
    /// Envoy cluster of the sidecar.
    #[schemars(length(min = 1), extend("default" = "larder-sidecar"))]
    cluster: Option<String>,
    /// How the sidecar is asked: on one gRPC stream for each worker, or by a call for each question.
    #[schemars(extend("default" = "stream"))]
    transport: Option<Transport>,
    /// What the filter presents to the sidecar. LARDER_TOKEN in Envoy's environment is the better
    /// place.
    #[schemars(length(min = 16), regex(pattern = "^[!-+\\--~]+$"))]
    token: Option<String>,
    /// Budget of a look-up, in milliseconds.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 50))]
    timeout_ms: Option<u64>,
    /// How long a leader waits for another Envoy's fetch, in milliseconds.
    #[schemars(range(min = 0, max = 30_000), extend("default" = 3_000))]
    wait_ms: Option<u64>,
    /// How long level 1 is believed without hearing what the fleet purges, in milliseconds; 0 is
    /// for ever.
    #[schemars(range(min = 0, max = 600_000), extend("default" = 5_000))]
    distrust_after_ms: Option<u64>,
}

/// Bounds of each worker.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Limits {
    /// Level 1 per worker, in bytes; 0 is off.
    #[schemars(range(min = 0, max = 536_870_912), extend("default" = 67_108_864))]
    l1_bytes: Option<u64>,
    /// How long a request waits for another's fetch, in milliseconds.
    #[schemars(range(min = 1, max = 30_000), extend("default" = 10_000))]
    collapse_wait_ms: Option<u64>,
    /// After how long a leader that has not finished is replaced, in milliseconds.
    #[schemars(range(min = 100, max = 600_000), extend("default" = 30_000))]
    lease_ms: Option<u64>,
}

/// Which requests, and what holds for them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rule {
    #[schemars(rename = "match")]
    matches: Option<Match>,
    policy: Option<Policy>,
}

/// All given members must hold.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Match {
    /// shop.example, shop.example:8080, or *.example.com for all below a name.
    #[schemars(length(min = 1))]
    host: Option<String>,
    /// The whole path, without query.
    #[schemars(length(min = 1))]
    path: Option<String>,
    /// What path and query begin with.
    #[schemars(length(min = 1))]
    path_prefix: Option<String>,
    /// What the path ends with, without query.
    #[schemars(length(min = 1))]
    path_suffix: Option<String>,
    /// The whole path, without query; * stands for any run of characters.
    #[schemars(length(min = 1))]
    path_glob: Option<String>,
    /// A regular expression that fits somewhere in the path, without query.
    #[schemars(length(min = 1))]
    path_regex: Option<String>,
    /// The method.
    #[schemars(length(min = 1))]
    method: Option<String>,
    /// The method is one of these.
    #[schemars(length(min = 1))]
    methods: Option<Vec<Text>>,
    /// The field is present.
    #[schemars(length(min = 1))]
    header: Option<String>,
    /// Request fields by value.
    fields: Option<BTreeMap<String, Expected>>,
    /// Query parameters by value.
    query: Option<BTreeMap<String, Expected>>,
    /// Cookies by value.
    cookies: Option<BTreeMap<String, Expected>>,
}

/// true: there is one. false: there is none. A text: one of them is it, and * in it stands for any
/// run of characters.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Expected {
    Presence(bool),
    Like(String),
}

/// A text that is not empty.
#[derive(JsonSchema)]
struct Text(#[schemars(length(min = 1))] String);

/// A field name.
#[derive(JsonSchema)]
struct FieldName(#[schemars(regex(pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"))] String);

/// A field name, or a family of them: x-jwt-*.
#[derive(JsonSchema)]
struct FieldPattern(
    #[schemars(regex(
        pattern = "^([!#$%&'+.^_`|~0-9A-Za-z-]+|[!#$%&'+.^_`|~0-9A-Za-z-]{3,}\\*)$"
    ))]
    String,
);

/// A media type, or a family of them: image/*.
#[derive(JsonSchema)]
struct MediaType(#[schemars(regex(pattern = "^[^/*; ]+/([^/*; ]+|\\*)$"))] String);

/// How requests are cached.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Policy {
    /// What the others default to.
    #[schemars(extend("default" = "safe"))]
    profile: Option<Profile>,
    /// Off: requests and responses pass untouched.
    #[schemars(extend("default" = true))]
    cache: Option<bool>,
    /// ?cache-control=… stands in for the origin's lifetimes: clients choose.
    #[schemars(extend("default" = false))]
    query_override: Option<bool>,
    /// Concurrent requests for one thing become one fetch.
    #[schemars(extend("default" = true))]
    collapse: Option<bool>,
    /// Off: responses stay in the level 1 of the worker that fetched them.
    shared_store: Option<bool>,
    /// At which request the shared store is written: 2 leaves what is asked for once in level 1.
    #[schemars(range(min = 1, max = 2), extend("default" = 1))]
    share_after: Option<u64>,
    /// Lifetime of a 200 that names none, in seconds.
    #[schemars(range(min = 0, max = 31_536_000))]
    default_lifetime_s: Option<u64>,
    /// A lifetime guessed from Last-Modified.
    heuristic_freshness: Option<bool>,
    /// Which directives of requests count.
    request_directives: Option<Directives>,
    /// Responses with Set-Cookie may be stored, and everybody gets the cookie.
    store_set_cookie: Option<bool>,
    /// Responses to requests with Cookie may be stored without public or s-maxage.
    store_with_cookie: Option<bool>,
    /// Requests with credentials may get any stored response.
    reuse_with_authorization: Option<bool>,
    /// Request fields that say who asks.
    identity_fields: Option<Vec<FieldPattern>>,
    /// Namespaces of Envoy's dynamic metadata that say who asks.
    identity_metadata: Option<Vec<Text>>,
    /// Request fields that origins look at although no Vary names them. A list replaces the
    /// default and selects; an object changes the default.
    unkeyed_fields: Option<UnkeyedFields>,
    /// Every final status with an explicit lifetime may be stored.
    store_any_status: Option<bool>,
    /// Kept past its last use, for validation, in seconds.
    #[schemars(range(min = 0, max = 31_536_000), extend("default" = 300))]
    keep_s: Option<u64>,
    /// Nothing is served staler than this, in seconds.
    #[schemars(range(min = 0, max = 31_536_000), extend("default" = 86_400))]
    max_stale_s: Option<u64>,
    /// Larger content passes and is not stored.
    #[schemars(range(min = 1_024, max = 16_777_216), extend("default" = 1_048_576))]
    max_object_bytes: Option<u64>,
    /// How long nobody waits under a key whose answer was not storable, in seconds.
    #[schemars(range(min = 0, max = 31_536_000), extend("default" = 10))]
    uncacheable_for_s: Option<u64>,
    /// RFC 9213 fields that speak instead of Cache-Control.
    targeted_fields: Option<Vec<FieldName>>,
    /// Lifetimes in seconds of responses that name none, by status (404) or class (5xx, 52x).
    status_lifetimes_s: Option<StatusLifetimes>,
    /// How long past its lifetime a response may answer when no origin can be reached, in seconds.
    #[schemars(range(min = 0, max = 31_536_000))]
    grace_s: Option<u64>,
    /// What a Range of something not stored leads to.
    range_on_miss: Option<RangeOnMiss>,
    /// More ranges in one request get the whole response.
    #[schemars(range(min = 0, max = 64), extend("default" = 8))]
    max_ranges: Option<u64>,
    /// Accept-Language selects by its languages and weights instead of its text.
    normalise_accept_language: Option<bool>,
    /// The answer to a POST whose Content-Location is its own URL answers later GETs.
    store_post: Option<bool>,
    /// Response fields whose members are the response's purge tags.
    tag_fields: Option<Vec<FieldName>>,
    /// Clients do not get these fields.
    #[schemars(extend("default" = false))]
    strip_tag_fields: Option<bool>,
    /// PURGE of a URL from a client drops it everywhere.
    #[schemars(extend("default" = false))]
    allow_purge: Option<bool>,
    /// Who is told how an answer came about.
    tell: Option<Tell>,
    key: Option<Key>,
    /// Cookies that count as absent; * stands for any run of characters.
    ignore_cookies: Option<Vec<Text>>,
    /// Responses with Set-Cookie are stored and served without it.
    #[schemars(extend("default" = false))]
    strip_set_cookie: Option<bool>,
    /// stale-while-revalidate and stale-if-error count beside s-maxage.
    #[schemars(extend("default" = false))]
    stale_with_s_maxage: Option<bool>,
    /// Statuses of the origin's that count as an error.
    error_statuses: Option<Vec<ErrorStatus>>,
    /// How long after an error the origin is left alone, in seconds.
    #[schemars(range(min = 0, max = 3_600), extend("default" = 0))]
    error_cooldown_s: Option<u64>,
    /// Response fields that a 304 leaves as they are stored.
    keep_on_304: Option<Vec<FieldPattern>>,
    /// Lifetimes are shorter by up to so much.
    #[schemars(range(min = 0, max = 50), extend("default" = 0))]
    lifetime_jitter_percent: Option<u64>,
    /// Media types of which the rule's own lifetimes are.
    lifetime_types: Option<Vec<MediaType>>,
    /// For people.
    comment: Option<Value>,
}

/// What is left out of the key and what is put into it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Key {
    /// Query parameters that do not count; * stands for any run of characters.
    query_ignore: Option<Vec<Text>>,
    /// The query parameters that count; all others do not.
    query_only: Option<Vec<Text>>,
    /// Parameters count in any order.
    #[schemars(extend("default" = false))]
    sort_query: Option<bool>,
    /// http and https are one.
    #[schemars(extend("default" = false))]
    ignore_scheme: Option<bool>,
    /// All ports are one.
    #[schemars(extend("default" = false))]
    ignore_port: Option<bool>,
    /// One host that all hosts count as.
    #[schemars(length(min = 1))]
    host: Option<String>,
    /// Request fields that count by their exact values.
    fields: Option<Vec<FieldPattern>>,
    /// Cookies that count by their values; * stands for any run of characters.
    cookies: Option<Vec<Text>>,
    buckets: Option<Buckets>,
    /// key: the origin gets what the key names. all: what the client sent.
    origin_sees: Option<OriginSees>,
}

/// Values that stand for whatever the client sends, the preferred first.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
struct Buckets {
    #[schemars(length(min = 1))]
    accept: Option<Vec<Text>>,
    #[schemars(length(min = 1))]
    accept_encoding: Option<Vec<Text>>,
    #[schemars(length(min = 1))]
    accept_language: Option<Vec<Text>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum OriginSees {
    Key,
    All,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Transport {
    Stream,
    Calls,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Profile {
    Safe,
    Rfc9111,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum RangeOnMiss {
    Whole,
    Part,
    Pass,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Tell {
    All,
    Trusted,
    None,
}

/// true for all, false for none, or a list of some.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Directives {
    All(bool),
    Some(Vec<Directive>),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Directive {
    MaxAge,
    MaxStale,
    MinFresh,
    NoCache,
    NoStore,
    OnlyIfCached,
    StaleIfError,
    Pragma,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum UnkeyedFields {
    Select(Vec<FieldPattern>),
    Change(BTreeMap<String, Handling>),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Handling {
    Select,
    Strip,
    Bypass,
    Ignore,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ErrorStatus {
    One(#[schemars(range(min = 400, max = 599))] u16),
    Class(#[schemars(regex(pattern = "^[45]([0-9][0-9]|[0-9]x|xx)$"))] String),
}

/// Seconds by status or class.
#[derive(JsonSchema)]
struct StatusLifetimes(
    #[schemars(extend("propertyNames" = {"pattern": "^[2345]([0-9][0-9]|[0-9]x|xx)$"}))]
    BTreeMap<String, Seconds>,
);

/// Seconds: a year at most.
#[derive(JsonSchema)]
struct Seconds(#[schemars(range(min = 0, max = 31_536_000))] u64);
