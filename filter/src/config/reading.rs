//! Reading the JSON document, member by member.

use std::cell::Cell;
use std::sync::Arc;

use larder_cache_core::policy::Policy;
use larder_cache_core::rules::{Rule, Rules};
use larder_contract::store_api::LeaseTerms;
use serde_json::{Map, Value};

use super::{Config, DEFAULT_L1_BYTES, Mistake, Secret, Transport};

mod key;
mod lists;
mod matching;
mod policy;
mod request_fields;
mod route_policies;
mod values;

use values::{Values, joined, member};

/// A shorter debug token could be guessed.
const MIN_TOKEN_BYTES: usize = 16;
/// Every member of `store`.
const STORE_MEMBERS: [&str; 7] = [
    "enabled",
    "cluster",
    "transport",
    "token",
    "timeout_ms",
    "wait_ms",
    "distrust_after_ms",
];
/// How a token looks.
pub(super) const TOKEN_FORM: &str =
    "must be one token of at least 16 visible ASCII characters without a comma";

/// Reads a document.
#[derive(Default)]
pub(super) struct Reader {
    /// There is no store, so no rule can have one.
    storeless: bool,
    debug_token: Option<Arc<[u8]>>,
    values: Values,
}

impl Reader {
    /// What was mistaken, each with its path.
    pub(super) fn mistakes(self) -> Vec<Mistake> {
        self.values.mistakes
    }

    pub(super) fn config(&mut self, value: &Value) -> Config {
        let top = self.values.object(
            value,
            "",
            &[
                "store",
                "limits",
                "rules",
                "namespace",
                "refresh_cluster",
                "debug_token",
                "$schema",
                "route_policies",
            ],
        );
        let store = self
            .values
            .object(member(&top, "store"), "store", &STORE_MEMBERS);
        let store_enabled = self.values.flag(&store, "store", "enabled", true);
        self.storeless = !store_enabled;
        let [l1_bytes, collapse_wait_ms, lease_ms] = self.limits(member(&top, "limits"));
        let cluster = self
            .values
            .text(&store, "store", "cluster")
            .unwrap_or_else(|| "larder-sidecar".to_owned());
        self.debug_token = self.debug_token(&top);
        let namespace = self
            .values
            .text(&top, "", "namespace")
            .unwrap_or_else(|| "default".to_owned());
        let rules = self.rules(top.get("rules"));
        let [store_timeout_ms, store_wait_ms, distrust_after_ms] = self.store_times(&store);
        Config {
            store_enabled,
            store_cluster: cluster,
            store_transport: self.values.word(
                &store,
                "store",
                "transport",
                &[("stream", Transport::Stream), ("calls", Transport::Calls)],
                Transport::default(),
            ),
            store_token: self.token(&store),
            store_timeout_ms,
            store_wait_ms,
            distrust_after_ms,
            namespace: Arc::from(namespace.into_bytes()),
            l1_bytes,
            collapse_wait_ms,
            lease_ms,
            refresh_cluster: self.values.text(&top, "", "refresh_cluster"),
            refresh_cluster_found: Cell::new(None),
            rules: Arc::new(rules),
            route_policies: self.route_policies(&top),
        }
    }

    /// Milliseconds: the budget of a look-up, the longest wait for another Envoy, and how long level
    /// 1 is believed unheard.
    fn store_times(&mut self, store: &Map<String, Value>) -> [u64; 3] {
        let mut number =
            |name, default, min, max| self.values.number(store, "store", name, default, min, max);
        [
            number("timeout_ms", 50, 1, 10_000),
            number("wait_ms", 3_000, 0, LeaseTerms::MAX_WAIT_MS),
            number("distrust_after_ms", 5_000, 0, 600_000),
        ]
    }

    /// Bytes of level 1, the longest wait for a leader, and the longest lease.
    fn limits(&mut self, value: &Value) -> [u64; 3] {
        let limits = self.values.object(
            value,
            "limits",
            &["l1_bytes", "collapse_wait_ms", "lease_ms"],
        );
        let mut number = |name, default, min, max| {
            self.values
                .number(&limits, "limits", name, default, min, max)
        };
        [
            number("l1_bytes", DEFAULT_L1_BYTES, 0, 512 << 20),
            number("collapse_wait_ms", 10_000, 1, 30_000),
            number("lease_ms", 30_000, 100, LeaseTerms::MAX_LEASE_MS),
        ]
    }

    fn token(&mut self, store: &Map<String, Value>) -> Option<Secret> {
        let value = store.get("token").filter(|value| !value.is_null())?;
        let secret = value.as_str().and_then(Secret::new);
        if secret.is_none() {
            self.values.mistake("store.token", TOKEN_FORM);
        }
        secret
    }

    fn rules(&mut self, value: Option<&Value>) -> Rules {
        let Some(value) = value else {
            return Rules::new(vec![self.rule(&Value::Null, "rules")]);
        };
        let Value::Array(rules) = value else {
            self.values.mistake("rules", "must be a list");
            return Rules::default();
        };
        let rules: Vec<Rule> = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| self.rule(rule, &rule_path(index)))
            .collect();
        self.find_idle(&rules);
        Rules::new(rules)
    }

    fn rule(&mut self, value: &Value, path: &str) -> Rule {
        let rule = self.values.object(value, path, &["match", "policy"]);
        let matches = self.matches(member(&rule, "match"), &joined(path, "match"));
        let policy = self.policy(member(&rule, "policy"), &joined(path, "policy"));
        Rule {
            policy: Arc::new(Policy {
                is_by_path: matches.is_by_path(),
                ..policy
            }),
            matches,
        }
    }

    /// Rules that no request can meet: each is a slip, and would be waited for in vain.
    fn find_idle(&mut self, rules: &[Rule]) {
        for (index, rule) in rules.iter().enumerate() {
            if let Some(why) = rule.matches.contradiction() {
                let problem = format!("can never match: {why}");
                self.values
                    .mistake(&joined(&rule_path(index), "match"), &problem);
                continue;
            }
            let earlier = rules.iter().take(index);
            let shadow = earlier
                .enumerate()
                .find(|(_, earlier)| earlier.matches.covers(&rule.matches));
            if let Some((shadow, _)) = shadow {
                let shadow = rule_path(shadow);
                let problem = format!("can never match: {shadow} takes every request before it");
                self.values.mistake(&rule_path(index), &problem);
            }
        }
    }

    fn debug_token(&mut self, top: &Map<String, Value>) -> Option<Arc<[u8]>> {
        let token = self.values.text(top, "", "debug_token")?;
        let is_printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.len() < MIN_TOKEN_BYTES || !is_printable {
            let problem = format!(
                "must be {MIN_TOKEN_BYTES} or more printable ASCII characters without spaces"
            );
            self.values.mistake("debug_token", &problem);
        }
        Some(Arc::from(token.into_bytes()))
    }
}

fn rule_path(index: usize) -> String {
    format!("rules[{index}]")
}
