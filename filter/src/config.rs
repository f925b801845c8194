//! The plugin's JSON configuration (`docs/configuration.md`), read into policies.
//!
//! What this decides: names, bounds and defaults of every setting. Unknown members are refused, and every mistake is
//! reported in one message with its path, so that one edit mends them all.

use std::sync::Arc;

use larder_cache_core::fields::is_token;
use larder_cache_core::http_time::DeltaSeconds;
use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use serde_json::{Map, Value};

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Envoy cluster of the sidecar.
    pub store_cluster: String,
    /// How long a look-up may take before the request goes on without the store, in milliseconds.
    pub store_timeout_ms: u64,
    /// How long a leader waits for another Envoy's fetch, in milliseconds.
    pub store_wait_ms: u64,
    /// Part of every cache key.
    pub namespace: Arc<[u8]>,
    /// Bound of level 1 in bytes, per worker.
    pub l1_bytes: u64,
    /// How long a request waits for another's fetch, in milliseconds.
    pub collapse_wait_ms: u64,
    /// After how long a leader that has not finished is replaced, in milliseconds.
    pub lease_ms: u64,
    /// Cluster for background refreshes instead of the one the route picked.
    pub refresh_cluster: Option<String>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default)]
struct Rule {
    host: Option<String>,
    path_prefix: Option<String>,
    path: Option<String>,
    method: Option<String>,
    header: Option<String>,
    policy: Arc<Policy>,
}

impl Config {
    /// Reads the JSON text. The error lists every mistake, one line each.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = if text.iter().all(u8::is_ascii_whitespace) { b"{}" } else { text };
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
        let mut reader = Reader::default();
        let config = reader.config(&value);
        if reader.mistakes.is_empty() { Ok(config) } else { Err(reader.mistakes.join("; ")) }
    }

    /// The policy of the first rule that matches; without one the request is left alone.
    pub fn policy_for(&self, request: &Request) -> Option<&Arc<Policy>> {
        self.rules.iter().find(|rule| rule.matches(request)).map(|rule| &rule.policy)
    }
}

impl Rule {
    fn matches(&self, request: &Request) -> bool {
        let path = request.path();
        let without_query = path.split(|&byte| byte == b'?').next().unwrap_or_default();
        self.host.as_ref().is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(request.authority()))
            && self.path_prefix.as_ref().is_none_or(|prefix| path.starts_with(prefix.as_bytes()))
            && self.path.as_ref().is_none_or(|exact| without_query == exact.as_bytes())
            && self.method.as_ref().is_none_or(|method| method.as_bytes() == request.method())
            && self.header.as_ref().is_none_or(|name| request.fields.contains(name))
    }
}

/// Reads values and collects mistakes; a mistaken value becomes its default, so that reading goes on.
#[derive(Default)]
struct Reader {
    mistakes: Vec<String>,
}

impl Reader {
    fn config(&mut self, value: &Value) -> Config {
        let top = self.object(value, "", &["store", "limits", "rules", "namespace", "refresh_cluster"]);
        let store = self.object(member(&top, "store"), "store", &["cluster", "timeout_ms", "wait_ms"]);
        let limits_names = ["l1_bytes", "collapse_wait_ms", "lease_ms"];
        let limits = self.object(member(&top, "limits"), "limits", &limits_names);
        let cluster = self.text(&store, "store", "cluster").unwrap_or_else(|| "larder-sidecar".to_owned());
        let namespace = self.text(&top, "", "namespace").unwrap_or_else(|| "default".to_owned());
        Config {
            store_cluster: cluster,
            store_timeout_ms: self.number(&store, "store", "timeout_ms", 50, 1, 10_000),
            store_wait_ms: self.number(&store, "store", "wait_ms", 3_000, 0, 30_000),
            namespace: Arc::from(namespace.into_bytes()),
            l1_bytes: self.number(&limits, "limits", "l1_bytes", 64 << 20, 64 << 10, 512 << 20),
            collapse_wait_ms: self.number(&limits, "limits", "collapse_wait_ms", 10_000, 1, 30_000),
            lease_ms: self.number(&limits, "limits", "lease_ms", 30_000, 100, 600_000),
            refresh_cluster: self.text(&top, "", "refresh_cluster"),
            rules: self.rules(top.get("rules")),
        }
    }

    fn rules(&mut self, value: Option<&Value>) -> Vec<Rule> {
        let Some(value) = value else { return vec![Rule::default()] };
        let Value::Array(rules) = value else {
            self.mistake("rules", "must be a list");
            return Vec::new();
        };
        rules.iter().enumerate().map(|(index, rule)| self.rule(rule, &format!("rules[{index}]"))).collect()
    }

    fn rule(&mut self, value: &Value, path: &str) -> Rule {
        let rule = self.object(value, path, &["match", "policy"]);
        let match_path = format!("{path}.match");
        let matches =
            self.object(member(&rule, "match"), &match_path, &["host", "path_prefix", "path", "method", "header"]);
        let header = self.text(&matches, &match_path, "header").map(|name| name.to_ascii_lowercase());
        Rule {
            host: self.text(&matches, &match_path, "host"),
            path_prefix: self.text(&matches, &match_path, "path_prefix"),
            path: self.text(&matches, &match_path, "path"),
            method: self.text(&matches, &match_path, "method"),
            header,
            policy: Arc::new(self.policy(member(&rule, "policy"), &format!("{path}.policy"))),
        }
    }

    fn policy(&mut self, value: &Value, path: &str) -> Policy {
        const NAMES: [&str; 17] = [
            "profile",
            "cache",
            "query_override",
            "collapse",
            "default_lifetime_s",
            "heuristic_freshness",
            "request_directives",
            "store_set_cookie",
            "store_with_cookie",
            "reuse_with_authorization",
            "store_any_status",
            "keep_s",
            "max_stale_s",
            "max_object_bytes",
            "uncacheable_for_s",
            "targeted_fields",
            "comment",
        ];
        let policy = self.object(value, path, &NAMES);
        let base = match self.text(&policy, path, "profile").as_deref() {
            None | Some("safe") => Policy::default(),
            Some("rfc9111") => Policy::strict(),
            Some(_) => {
                self.mistake(&format!("{path}.profile"), "must be \"safe\" or \"rfc9111\"");
                Policy::default()
            }
        };
        let lifetime = policy.contains_key("default_lifetime_s");
        let lifetime = lifetime.then(|| self.seconds(&policy, path, "default_lifetime_s", DeltaSeconds::ZERO));
        let mut flag = |name, default| self.flag(&policy, path, name, default);
        Policy {
            cache: flag("cache", base.cache),
            query_override: flag("query_override", base.query_override),
            collapse: flag("collapse", base.collapse),
            default_lifetime: lifetime,
            heuristic_freshness: flag("heuristic_freshness", base.heuristic_freshness),
            request_directives: flag("request_directives", base.request_directives),
            store_set_cookie: flag("store_set_cookie", base.store_set_cookie),
            store_with_cookie: flag("store_with_cookie", base.store_with_cookie),
            reuse_with_authorization: flag("reuse_with_authorization", base.reuse_with_authorization),
            store_any_status: flag("store_any_status", base.store_any_status),
            keep: self.seconds(&policy, path, "keep_s", base.keep),
            max_stale: self.seconds(&policy, path, "max_stale_s", base.max_stale),
            max_object_bytes: self.number(&policy, path, "max_object_bytes", base.max_object_bytes, 1024, 16 << 20),
            uncacheable_for: self.seconds(&policy, path, "uncacheable_for_s", base.uncacheable_for),
            targeted_fields: self.names(&policy, path, "targeted_fields", base.targeted_fields),
        }
    }

    /// An object whose members are all known; anything else is a mistake and counts as empty.
    fn object(&mut self, value: &Value, path: &str, known: &[&str]) -> Map<String, Value> {
        match value {
            Value::Object(members) => {
                for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
                    self.mistake(&joined(path, name), &format!("is not known; known are {}", known.join(", ")));
                }
                members.clone()
            }
            Value::Null => Map::new(),
            _ => {
                self.mistake(if path.is_empty() { "the document" } else { path }, "must be an object");
                Map::new()
            }
        }
    }

    fn text(&mut self, object: &Map<String, Value>, path: &str, name: &str) -> Option<String> {
        match object.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(_) => {
                self.mistake(&joined(path, name), "must be a text, not empty");
                None
            }
        }
    }

    fn flag(&mut self, object: &Map<String, Value>, path: &str, name: &str, default: bool) -> bool {
        match object.get(name) {
            None => default,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.mistake(&joined(path, name), "must be true or false");
                default
            }
        }
    }

    fn number(&mut self, object: &Map<String, Value>, path: &str, name: &str, default: u64, min: u64, max: u64) -> u64 {
        let Some(value) = object.get(name) else { return default };
        match value.as_u64().filter(|number| (min..=max).contains(number)) {
            Some(number) => number,
            None => {
                self.mistake(&joined(path, name), &format!("must be a whole number from {min} to {max}"));
                default
            }
        }
    }

    fn seconds(&mut self, object: &Map<String, Value>, path: &str, name: &str, default: DeltaSeconds) -> DeltaSeconds {
        DeltaSeconds::new(self.number(object, path, name, default.as_secs(), 0, 365 * 86_400))
    }

    fn names(&mut self, object: &Map<String, Value>, path: &str, name: &str, default: Vec<String>) -> Vec<String> {
        let Some(value) = object.get(name) else { return default };
        let read = |item: &Value| item.as_str().filter(|text| is_token(text.as_bytes())).map(str::to_ascii_lowercase);
        match value.as_array().and_then(|items| items.iter().map(read).collect::<Option<Vec<_>>>()) {
            Some(names) => names,
            None => {
                self.mistake(&joined(path, name), "must be a list of field names");
                default
            }
        }
    }

    fn mistake(&mut self, path: &str, problem: &str) {
        self.mistakes.push(format!("{path} {problem}"));
    }
}

fn member<'a>(object: &'a Map<String, Value>, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_document_is_the_safe_default_for_every_path() {
        for text in ["", "{}", " \n"] {
            let config = Config::parse(text.as_bytes()).unwrap();
            assert_eq!(**config.policy_for(&Request::new("GET", "a", "/x")).unwrap(), Policy::default());
        }
    }

    #[test]
    fn every_mistake_is_in_the_one_message_with_its_path() {
        let text = br#"{"stor": 1, "store": {"timeout_ms": 0}, "limits": [],
            "rules": [{"match": {"path": 3}, "policy": {"cache": "yes", "keep_s": -1, "profile": "x", "bogus": 1}}]}"#;
        let message = Config::parse(text).unwrap_err();
        for part in [
            "stor ",
            "store.timeout_ms",
            "limits must",
            "rules[0].match.path",
            "rules[0].policy.cache",
            "rules[0].policy.keep_s",
            "rules[0].policy.profile",
            "rules[0].policy.bogus",
        ] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let text = br#"{"rules": [
            {"match": {"path_prefix": "/private"}, "policy": {"cache": false}},
            {"match": {"path": "/data"}, "policy": {"query_override": true}}]}"#;
        let config = Config::parse(text).unwrap();
        let policy = |path: &str| config.policy_for(&Request::new("GET", "a", path)).cloned();
        assert!(!policy("/private/x").unwrap().cache);
        assert!(policy("/data?x=1").unwrap().query_override);
        assert!(policy("/data2").is_none());
    }

    #[test]
    fn what_is_not_json_is_refused_without_a_panic() {
        for text in ["{", "[]", "1", "\"x\"", "{\"rules\": {}}", "\u{0}"] {
            assert!(Config::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
