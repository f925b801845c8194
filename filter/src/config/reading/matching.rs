//! A rule's `match`.

use larder_cache_core::fields::is_token;
use larder_cache_core::glob::Glob;
use larder_cache_core::rules::matching::{HostCondition, Match, ValueCondition};
use larder_cache_core::rules::path::PathCondition;
use serde_json::{Map, Value};

use super::Reader;
use super::values::{joined, member};

/// Every member of `match`.
const MATCH_MEMBERS: [&str; 12] = [
    "host",
    "path",
    "path_prefix",
    "path_suffix",
    "path_glob",
    "path_regex",
    "method",
    "methods",
    "header",
    "fields",
    "query",
    "cookies",
];

impl Reader {
    pub(super) fn matches(&mut self, value: &Value, path: &str) -> Match {
        let matches = &self.values.object(value, path, &MATCH_MEMBERS);
        let header = self
            .values
            .text(matches, path, "header")
            .map(|name| (name.to_ascii_lowercase(), ValueCondition::Present));
        let mut fields = self.named_values(matches, path, "fields");
        for (name, _) in &mut fields {
            if !is_token(name.as_bytes()) {
                self.values
                    .mistake(&joined(&joined(path, "fields"), name), "is no field name");
            }
            name.make_ascii_lowercase();
        }
        fields.extend(header);
        Match {
            host: self.host_condition(matches, path),
            path: self.path_conditions(matches, path),
            methods: self.methods(matches, path),
            fields,
            query: self.named_values(matches, path, "query"),
            cookies: self.named_values(matches, path, "cookies"),
        }
    }

    fn host_condition(
        &mut self,
        matches: &Map<String, Value>,
        path: &str,
    ) -> Option<HostCondition> {
        let text = self.values.text(matches, path, "host")?;
        let host = HostCondition::parse(&text);
        if host.is_none() {
            let problem = "must be a host such as shop.example or shop.example:8080, or *.example for all below it";
            self.values.mistake(&joined(path, "host"), problem);
        }
        host
    }

    fn path_conditions(&mut self, matches: &Map<String, Value>, path: &str) -> Vec<PathCondition> {
        let mut conditions = Vec::new();
        let mut add = |name, read: fn(&str) -> PathCondition| {
            let text = self.values.text(matches, path, name);
            conditions.extend(text.as_deref().map(read));
        };
        add("path", PathCondition::exact);
        add("path_prefix", PathCondition::prefix);
        add("path_suffix", PathCondition::suffix);
        add("path_glob", PathCondition::glob);
        let expression = self.values.text(matches, path, "path_regex");
        match expression.as_deref().map(PathCondition::expression) {
            None => {}
            Some(Ok(condition)) => conditions.push(condition),
            Some(Err(why)) => {
                let problem = format!("is no regular expression that can be used: {why}");
                self.values.mistake(&joined(path, "path_regex"), &problem);
            }
        }
        conditions
    }

    /// `method` is one, `methods` are several.
    fn methods(&mut self, matches: &Map<String, Value>, path: &str) -> Vec<String> {
        const PROBLEM: &str = "must be a list of methods such as \"GET\", not empty";
        let one = self.values.text(matches, path, "method");
        let method = |item: &Value| {
            let method = item.as_str().filter(|text| is_token(text.as_bytes()));
            method.map(str::to_owned)
        };
        let several = self.values.list(matches, path, "methods", PROBLEM, method);
        if several.as_ref().is_some_and(Vec::is_empty) {
            self.values.mistake(&joined(path, "methods"), PROBLEM);
        }
        let several = several.unwrap_or_default();
        match one {
            Some(_) if !several.is_empty() => {
                let problem = "cannot stand beside method";
                self.values.mistake(&joined(path, "methods"), problem);
                several
            }
            Some(method) => vec![method],
            None => several,
        }
    }

    /// Names with what their values have to be: `true`, `false`, or a text.
    fn named_values(
        &mut self,
        matches: &Map<String, Value>,
        path: &str,
        name: &str,
    ) -> Vec<(String, ValueCondition)> {
        let path = &joined(path, name);
        let members = match member(matches, name) {
            Value::Null => return Vec::new(),
            Value::Object(members) => members,
            _ => {
                let problem = "must be an object such as {\"lang\": \"de\", \"preview\": false}";
                self.values.mistake(path, problem);
                return Vec::new();
            }
        };
        let mut read = Vec::new();
        for (name, value) in members {
            let condition = match value {
                Value::Bool(true) => ValueCondition::Present,
                Value::Bool(false) => ValueCondition::Absent,
                Value::String(text) => ValueCondition::Like(Glob::new(text)),
                _ => {
                    let problem = "must be a value, in which * stands for any run of characters, true (it is there) or false (it is not)";
                    self.values.mistake(&joined(path, name), problem);
                    continue;
                }
            };
            read.push((name.clone(), condition));
        }
        read
    }
}
