//! The members that are lists of field names, and what says who asks.

use larder_cache_core::field_names::{FieldNames, FieldPattern};
use larder_cache_core::policy::{Handling, UnkeyedFields};
use serde_json::{Map, Value};

use super::Reader;
use super::values::joined;

/// What a list of patterns has to be.
const PATTERNS: &str =
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
        let Some(value) = policy.get(name) else {
            return default;
        };
        match value
            .as_array()
            .and_then(|items| items.iter().map(pattern).collect::<Option<Vec<_>>>())
        {
            Some(patterns) => FieldNames::new(patterns),
            None => {
                self.values.mistake(&joined(path, name), PATTERNS);
                default
            }
        }
    }

    pub(super) fn identity_metadata(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
        default: Vec<String>,
    ) -> Vec<String> {
        let Some(value) = policy.get("identity_metadata") else {
            return default;
        };
        let text = |item: &Value| {
            item.as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        match value
            .as_array()
            .and_then(|items| items.iter().map(text).collect())
        {
            Some(namespaces) => namespaces,
            None => {
                let problem = "must be a list of metadata namespaces such as \"envoy.filters.http.jwt_authn\"";
                self.values
                    .mistake(&joined(path, "identity_metadata"), problem);
                default
            }
        }
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

fn pattern(item: &Value) -> Option<FieldPattern> {
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
