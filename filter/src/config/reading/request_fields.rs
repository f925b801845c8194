//! The members that are lists of field names, and what says who asks.

use larder_cache_core::field_names::{FieldNames, FieldPattern};
use larder_cache_core::policy::{Handling, UnkeyedFields};
use serde_json::{Map, Value};

use super::Reader;
use super::values::{joined, text};

/// What a list of patterns has to be.
pub(super) const PATTERNS: &str =
    "must be a list of field names, which may end in * after three letters or more";

impl Reader {
    /// A list of field names and families of them.
    pub(super) fn patterns(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
        name: &str,
        default: FieldNames,
    ) -> FieldNames {
        let patterns = self.values.list(policy, path, name, PATTERNS, pattern);
        patterns.map_or(default, FieldNames::new)
    }

    pub(super) fn identity_metadata(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
        default: Vec<String>,
    ) -> Vec<String> {
        const PROBLEM: &str =
            "must be a list of metadata namespaces such as \"envoy.filters.http.jwt_authn\"";
        let namespace = |item: &Value| text(item).map(str::to_owned);
        let namespaces = self
            .values
            .list(policy, path, "identity_metadata", PROBLEM, namespace);
        namespaces.unwrap_or(default)
    }

    /// A list in place of the default, all of which selects; or an object that changes the default
    /// field by field.
    pub(super) fn unkeyed_fields(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
        default: UnkeyedFields,
    ) -> UnkeyedFields {
        let rule = |(name, handling): (&String, &Value)| {
            Some((FieldPattern::parse(name)?, handling_of(handling)?))
        };
        let read = match policy.get("unkeyed_fields") {
            None => return default,
            Some(Value::Array(items)) => {
                let select = |item| Some((pattern(item)?, Handling::Select));
                items
                    .iter()
                    .map(select)
                    .collect::<Option<Vec<_>>>()
                    .map(UnkeyedFields::new)
            }
            Some(Value::Object(members)) => members
                .iter()
                .map(rule)
                .collect::<Option<Vec<_>>>()
                .map(|rules| default.with(rules)),
            Some(_) => None,
        };
        read.unwrap_or_else(|| {
            let choices =
                "or an object that gives some \"select\", \"strip\", \"bypass\" or \"ignore\"";
            self.values.mistake(
                &joined(path, "unkeyed_fields"),
                &format!("{PATTERNS}, {choices}"),
            );
            default
        })
    }
}

pub(super) fn pattern(item: &Value) -> Option<FieldPattern> {
    FieldPattern::parse(item.as_str()?)
}

fn handling_of(value: &Value) -> Option<Handling> {
    match value.as_str()? {
        "select" => Some(Handling::Select),
        "strip" => Some(Handling::Strip),
        "bypass" => Some(Handling::Bypass),
        "ignore" => Some(Handling::Ignore),
        _ => None,
    }
}
