//! The plugin's JSON configuration (`docs/configuration.md`), read into policies.
//!
//! What this decides: names, bounds and defaults of every setting. Unknown members are refused, and every mistake is
//! reported in one message with its path, so that one edit mends them all.

use std::sync::Arc;

use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use serde_json::Value;

mod reading;

use reading::Reader;

/// Bound of level 1 where the configuration names none.
pub const DEFAULT_L1_BYTES: u64 = 64 << 20;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether there is a store beyond level 1.
    pub store_enabled: bool,
    /// Envoy cluster of the sidecar.
    pub store_cluster: String,
    /// How long a look-up may take before the request goes on without the store, in milliseconds.
    pub store_timeout_ms: u64,
    /// How long a leader waits for another Envoy's fetch, in milliseconds.
    pub store_wait_ms: u64,
    /// How long level 1 is believed without hearing what the fleet purges and invalidates, in milliseconds; 0 is for ever.
    pub distrust_after_ms: u64,
    /// Part of every cache key.
    pub namespace: Arc<[u8]>,
    /// Bound of level 1 in bytes, per worker; 0 is off.
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
    fn without_a_store_no_rule_shares_and_none_may_ask_for_it() {
        let config = Config::parse(br#"{"store": {"enabled": false}}"#).unwrap();
        let policy = config.policy_for(&Request::new("GET", "a", "/")).unwrap();
        assert_eq!((config.store_enabled, policy.shared_store), (false, false));
        let text = br#"{"store": {"enabled": false}, "rules": [{"policy": {"shared_store": true}}]}"#;
        assert!(Config::parse(text).unwrap_err().contains("rules[0].policy.shared_store"));
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
