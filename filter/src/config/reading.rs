//! Reading the JSON document, member by member.

use std::cell::Cell;
use std::sync::Arc;

use larder_cache_core::policy::{Policy, RangeOnMiss, StatusRange, Tell};
use larder_contract::http_time::DeltaSeconds;
use larder_contract::store_api::LeaseTerms;
use serde_json::{Map, Value};

use super::{Config, DEFAULT_L1_BYTES, Rule, Secret, Transport};

mod request_fields;
mod values;

use values::{Values, joined, member, names};

/// Every member of a policy.
const POLICY_MEMBERS: [&str; 31] = [
    "profile",
    "cache",
    "query_override",
    "collapse",
    "shared_store",
    "default_lifetime_s",
    "heuristic_freshness",
    "request_directives",
    "store_set_cookie",
    "store_with_cookie",
    "reuse_with_authorization",
    "identity_fields",
    "identity_metadata",
    "unkeyed_fields",
    "store_any_status",
    "keep_s",
    "max_stale_s",
    "max_object_bytes",
    "uncacheable_for_s",
    "targeted_fields",
    "status_lifetimes_s",
    "grace_s",
    "range_on_miss",
    "max_ranges",
    "normalise_accept_language",
    "store_post",
    "tag_fields",
    "strip_tag_fields",
    "allow_purge",
    "tell",
    "comment",
];

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
    pub(super) fn mistakes(self) -> Vec<String> {
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
        Config {
            store_enabled,
            store_cluster: cluster,
            store_transport: self.transport(&store),
            store_token: self.token(&store),
            store_timeout_ms: self
                .values
                .number(&store, "store", "timeout_ms", 50, 1, 10_000),
            store_wait_ms: self.values.number(
                &store,
                "store",
                "wait_ms",
                3_000,
                0,
                LeaseTerms::MAX_WAIT_MS,
            ),
            distrust_after_ms: self.values.number(
                &store,
                "store",
                "distrust_after_ms",
                5_000,
                0,
                600_000,
            ),
            namespace: Arc::from(namespace.into_bytes()),
            l1_bytes,
            collapse_wait_ms,
            lease_ms,
            refresh_cluster: self.values.text(&top, "", "refresh_cluster"),
            refresh_cluster_found: Cell::new(None),
            rules: self.rules(top.get("rules")),
        }
    }

    fn transport(&mut self, store: &Map<String, Value>) -> Transport {
        match self.values.text(store, "store", "transport").as_deref() {
            None | Some("stream") => Transport::Stream,
            Some("calls") => Transport::Calls,
            Some(_) => {
                self.values
                    .mistake("store.transport", "must be \"stream\" or \"calls\"");
                Transport::Stream
            }
        }
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

    fn rules(&mut self, value: Option<&Value>) -> Vec<Rule> {
        let Some(value) = value else {
            return vec![self.rule(&Value::Null, "rules")];
        };
        let Value::Array(rules) = value else {
            self.values.mistake("rules", "must be a list");
            return Vec::new();
        };
        rules
            .iter()
            .enumerate()
            .map(|(index, rule)| self.rule(rule, &format!("rules[{index}]")))
            .collect()
    }

    fn rule(&mut self, value: &Value, path: &str) -> Rule {
        let rule = self.values.object(value, path, &["match", "policy"]);
        let match_path = format!("{path}.match");
        let matches = self.values.object(
            member(&rule, "match"),
            &match_path,
            &["host", "path_prefix", "path", "method", "header"],
        );
        let header = self
            .values
            .text(&matches, &match_path, "header")
            .map(|name| name.to_ascii_lowercase());
        Rule {
            host: self.values.text(&matches, &match_path, "host"),
            path_prefix: self.values.text(&matches, &match_path, "path_prefix"),
            path: self.values.text(&matches, &match_path, "path"),
            method: self.values.text(&matches, &match_path, "method"),
            header,
            policy: Arc::new(self.policy(member(&rule, "policy"), &format!("{path}.policy"))),
        }
    }

    fn policy(&mut self, value: &Value, path: &str) -> Policy {
        let policy = self.values.object(value, path, &POLICY_MEMBERS);
        let base = match self.values.text(&policy, path, "profile").as_deref() {
            None | Some("safe") => Policy::default(),
            Some("rfc9111") => Policy::strict(),
            Some(_) => {
                self.values.mistake(
                    &format!("{path}.profile"),
                    "must be \"safe\" or \"rfc9111\"",
                );
                Policy::default()
            }
        };
        let lifetime = policy.contains_key("default_lifetime_s");
        let lifetime = lifetime.then(|| {
            self.values
                .seconds(&policy, path, "default_lifetime_s", DeltaSeconds::ZERO)
        });
        let base = self.switches(&policy, path, base);
        let base = self.bounds(&policy, path, base);
        Policy {
            default_lifetime: lifetime,
            identity_fields: self.identity_fields(&policy, path, base.identity_fields),
            identity_metadata: self.identity_metadata(&policy, path, base.identity_metadata),
            unkeyed_fields: self.unkeyed_fields(&policy, path, base.unkeyed_fields),
            shared_store: self.shared_store(&policy, path),
            status_lifetimes: self.status_lifetimes(&policy, path),
            request_directives: self.request_directives(&policy, path, base.request_directives),
            range_on_miss: self.range_on_miss(&policy, path, base.range_on_miss),
            tell: self.tell(&policy, path, base.tell),
            debug_token: self.debug_token.clone(),
            tag_fields: self
                .values
                .names(&policy, path, "tag_fields", base.tag_fields),
            targeted_fields: self.values.names(
                &policy,
                path,
                "targeted_fields",
                base.targeted_fields,
            ),
            ..base
        }
    }

    /// What is on or off.
    fn switches(&mut self, policy: &Map<String, Value>, path: &str, base: Policy) -> Policy {
        let mut flag = |name, default| self.values.flag(policy, path, name, default);
        Policy {
            cache: flag("cache", base.cache),
            query_override: flag("query_override", base.query_override),
            collapse: flag("collapse", base.collapse),
            heuristic_freshness: flag("heuristic_freshness", base.heuristic_freshness),
            normalise_accept_language: flag(
                "normalise_accept_language",
                base.normalise_accept_language,
            ),
            store_post: flag("store_post", base.store_post),
            strip_tag_fields: flag("strip_tag_fields", base.strip_tag_fields),
            allow_purge: flag("allow_purge", base.allow_purge),
            store_set_cookie: flag("store_set_cookie", base.store_set_cookie),
            store_with_cookie: flag("store_with_cookie", base.store_with_cookie),
            reuse_with_authorization: flag(
                "reuse_with_authorization",
                base.reuse_with_authorization,
            ),
            store_any_status: flag("store_any_status", base.store_any_status),
            ..base
        }
    }

    /// How long, how many, how large.
    fn bounds(&mut self, policy: &Map<String, Value>, path: &str, base: Policy) -> Policy {
        let mut seconds = |name, default| self.values.seconds(policy, path, name, default);
        let grace = seconds("grace_s", base.grace);
        let keep = seconds("keep_s", base.keep);
        let max_stale = seconds("max_stale_s", base.max_stale);
        let uncacheable_for = seconds("uncacheable_for_s", base.uncacheable_for);
        let mut number =
            |name, default, min, max| self.values.number(policy, path, name, default, min, max);
        let max_ranges = number("max_ranges", base.max_ranges, 0, 64);
        let max_object_bytes = number("max_object_bytes", base.max_object_bytes, 1024, 16 << 20);
        Policy {
            grace,
            keep,
            max_stale,
            uncacheable_for,
            max_ranges,
            max_object_bytes,
            ..base
        }
    }

    /// Without a store no rule has one.
    fn shared_store(&mut self, policy: &Map<String, Value>, path: &str) -> bool {
        let shared = self
            .values
            .flag(policy, path, "shared_store", !self.storeless);
        if shared && self.storeless {
            self.values.mistake(
                &joined(path, "shared_store"),
                "cannot be true while store.enabled is false",
            );
        }
        shared
    }

    /// `true` for all, `false` for none, or a list of some.
    fn request_directives(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
        default: Vec<String>,
    ) -> Vec<String> {
        let all = || Policy::REQUEST_DIRECTIVES.map(str::to_owned).to_vec();
        let known = |names: &Vec<String>| {
            names
                .iter()
                .all(|name| Policy::REQUEST_DIRECTIVES.contains(&name.as_str()))
        };
        match policy.get("request_directives") {
            None => default,
            Some(Value::Bool(on)) => on.then(all).unwrap_or_default(),
            Some(value) => match names(value).filter(known) {
                Some(names) => names,
                None => {
                    let problem = format!(
                        "must be true, false or a list of {}",
                        Policy::REQUEST_DIRECTIVES.join(", ")
                    );
                    self.values
                        .mistake(&joined(path, "request_directives"), &problem);
                    default
                }
            },
        }
    }

    fn status_lifetimes(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
    ) -> Vec<(StatusRange, DeltaSeconds)> {
        let Some(value) = policy.get("status_lifetimes_s") else {
            return Vec::new();
        };
        let path = joined(path, "status_lifetimes_s");
        let Value::Object(members) = value else {
            self.values
                .mistake(&path, "must be an object such as {\"404\": 10, \"5xx\": 1}");
            return Vec::new();
        };
        let mut lifetimes: Vec<(StatusRange, DeltaSeconds)> = Vec::new();
        for name in members.keys() {
            let lifetime = self
                .values
                .seconds(members, &path, name, DeltaSeconds::ZERO);
            match StatusRange::parse(name) {
                Some(statuses) => lifetimes.push((statuses, lifetime)),
                None => self.values.mistake(
                    &joined(&path, name),
                    "must be a status such as 404, or a class such as 5xx",
                ),
            }
        }
        // One status says more than a class.
        lifetimes.sort_by_key(|(statuses, _)| statuses.last - statuses.first);
        lifetimes
    }

    fn range_on_miss(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
        default: RangeOnMiss,
    ) -> RangeOnMiss {
        match self.values.text(policy, path, "range_on_miss").as_deref() {
            None => default,
            Some("whole") => RangeOnMiss::Whole,
            Some("part") => RangeOnMiss::Part,
            Some("pass") => RangeOnMiss::Pass,
            Some(_) => {
                self.values.mistake(
                    &joined(path, "range_on_miss"),
                    "must be \"whole\", \"part\" or \"pass\"",
                );
                default
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

    fn tell(&mut self, policy: &Map<String, Value>, path: &str, default: Tell) -> Tell {
        match self.values.text(policy, path, "tell").as_deref() {
            None => default,
            Some("all") => Tell::All,
            Some("none") => Tell::None,
            Some("trusted") => {
                if self.debug_token.is_none() {
                    self.values.mistake(
                        &joined(path, "tell"),
                        "cannot be \"trusted\" without debug_token",
                    );
                }
                Tell::Trusted
            }
            Some(_) => {
                self.values.mistake(
                    &joined(path, "tell"),
                    "must be \"all\", \"trusted\" or \"none\"",
                );
                default
            }
        }
    }
}
