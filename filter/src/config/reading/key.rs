//! A policy's `key`: what is left out of the key, and what is put into it.

use std::sync::Arc;

use larder_cache_core::policy::key::QueryKept;
use larder_cache_core::policy::key::bucket::{self, Buckets};
use larder_cache_core::policy::{Handling, KeyRules, UnkeyedFields};
use larder_cache_core::rules::matching::HostCondition;
use larder_contract::key::canonical_authority;
use serde_json::{Map, Value};

use super::Reader;
use super::request_fields::{PATTERNS, pattern};
use super::values::{joined, member, text};

/// Every member of `key`.
const KEY_MEMBERS: [&str; 10] = [
    "query_ignore",
    "query_only",
    "sort_query",
    "ignore_scheme",
    "ignore_port",
    "host",
    "fields",
    "cookies",
    "buckets",
    "origin_sees",
];

impl Reader {
    pub(super) fn key_rules(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
    ) -> Option<Arc<KeyRules>> {
        let path = &joined(path, "key");
        let key = &self
            .values
            .object(member(policy, "key"), path, &KEY_MEMBERS);
        let mut flag = |name| self.values.flag(key, path, name, false);
        let (sort_query, ignore_scheme, ignore_port) = (
            flag("sort_query"),
            flag("ignore_scheme"),
            flag("ignore_port"),
        );
        let rules = KeyRules {
            query: self.query_kept(key, path),
            sort_query,
            ignore_scheme,
            ignore_port,
            host: self.key_host(key, path),
            cookies: self.globs(key, path, "cookies"),
            buckets: self.buckets(member(key, "buckets"), &joined(path, "buckets")),
            origin_sees_all: self.origin_sees_all(key, path),
        };
        (rules != KeyRules::default()).then(|| Arc::new(rules))
    }

    /// Fields that are put into the key select as those do that no `Vary` names.
    pub(super) fn key_fields(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
        unkeyed: UnkeyedFields,
    ) -> UnkeyedFields {
        let Some(Value::Object(key)) = policy.get("key") else {
            return unkeyed;
        };
        let path = joined(path, "key");
        let patterns = self.values.list(key, &path, "fields", PATTERNS, pattern);
        match patterns {
            Some(patterns) if !patterns.is_empty() => {
                unkeyed.with(patterns.into_iter().map(|name| (name, Handling::Select)))
            }
            _ => unkeyed,
        }
    }

    fn query_kept(&mut self, key: &Map<String, Value>, path: &str) -> QueryKept {
        let (ignored, only) = (
            self.globs(key, path, "query_ignore"),
            self.globs(key, path, "query_only"),
        );
        match (
            key.contains_key("query_ignore"),
            key.contains_key("query_only"),
        ) {
            (true, true) => {
                let problem = "cannot stand beside query_ignore: one says what counts, the other what does not";
                self.values.mistake(&joined(path, "query_only"), problem);
                QueryKept::All
            }
            (true, false) if !ignored.is_empty() => QueryKept::Without(ignored),
            (false, true) => QueryKept::Only(only),
            _ => QueryKept::All,
        }
    }

    fn key_host(&mut self, key: &Map<String, Value>, path: &str) -> Option<Box<[u8]>> {
        let text = self.values.text(key, path, "host")?;
        match HostCondition::parse(&text) {
            Some(HostCondition::Exact(host)) => {
                Some(canonical_authority(b"", host.as_bytes()).as_ref().into())
            }
            _ => {
                let problem = "must be one host, with its port if that is not the default one";
                self.values.mistake(&joined(path, "host"), problem);
                None
            }
        }
    }

    fn buckets(&mut self, value: &Value, path: &str) -> Vec<Buckets> {
        let fields = self.values.object(value, path, &bucket::FIELDS);
        let mut all = Vec::new();
        for field in fields.keys() {
            const PROBLEM: &str = "must be a list of values of that field, the preferred first, such as [\"br, gzip\", \"gzip\"]";
            let value = |item: &Value| text(item).map(str::to_owned);
            let texts = self.values.list(&fields, path, field, PROBLEM, value);
            if texts.as_ref().is_some_and(Vec::is_empty) {
                self.values.mistake(&joined(path, field), PROBLEM);
            }
            let texts = texts.unwrap_or_default();
            all.extend(Buckets::new(field, texts.iter().map(String::as_str)));
        }
        all
    }

    fn origin_sees_all(&mut self, key: &Map<String, Value>, path: &str) -> bool {
        match self.values.text(key, path, "origin_sees").as_deref() {
            None | Some("key") => false,
            Some("all") => true,
            Some(_) => {
                let problem =
                    "must be \"key\" (what the key names) or \"all\" (what the client sent)";
                self.values.mistake(&joined(path, "origin_sees"), problem);
                false
            }
        }
    }
}
