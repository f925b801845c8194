//! Members of a policy that are lists.

use larder_cache_core::glob::Glob;
use larder_cache_core::policy::StatusRange;
use serde_json::{Map, Value};

use super::Reader;
use super::values::joined;

impl Reader {
    /// Texts in which `*` stands for any run of characters; none where the member is absent.
    pub(super) fn globs(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
    ) -> Vec<Glob> {
        let texts = self.texts(
            object,
            path,
            name,
            "must be a list of names, in which * stands for any run of characters",
        );
        texts.iter().map(|text| Glob::new(text)).collect()
    }

    /// Texts that are not empty; `problem` says what is wrong with anything else.
    pub(super) fn texts(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
        problem: &str,
    ) -> Vec<String> {
        let Some(value) = object.get(name) else {
            return Vec::new();
        };
        let text = |item: &Value| {
            item.as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let texts = value
            .as_array()
            .and_then(|items| items.iter().map(text).collect());
        texts.unwrap_or_else(|| {
            self.values.mistake(&joined(path, name), problem);
            Vec::new()
        })
    }

    /// Media types, or families of them, in lower case.
    pub(super) fn media_types(&mut self, policy: &Map<String, Value>, path: &str) -> Vec<Glob> {
        const NAME: &str = "lifetime_types";
        const PROBLEM: &str = "must be a list of media types such as \"text/css\" or \"image/*\"";
        let texts = self.texts(policy, path, NAME, PROBLEM);
        let is_type = |text: &String| {
            let halves = text.split_once('/');
            halves.is_some_and(|(family, kind)| {
                let is_whole = |half: &str| !half.is_empty() && !half.contains(['*', ' ', ';']);
                is_whole(family) && (is_whole(kind) || kind == "*")
            })
        };
        if !texts.iter().all(is_type) {
            self.values.mistake(&joined(path, NAME), PROBLEM);
        }
        texts
            .iter()
            .map(|text| Glob::new(&text.to_ascii_lowercase()))
            .collect()
    }

    /// Statuses as numbers, or classes of them as texts.
    pub(super) fn error_statuses(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
        default: Vec<StatusRange>,
    ) -> Vec<StatusRange> {
        let Some(value) = policy.get("error_statuses") else {
            return default;
        };
        let read = |item: &Value| {
            let statuses = match item {
                Value::Number(number) => StatusRange::parse(&number.to_string()),
                Value::String(text) => StatusRange::parse(text),
                _ => None,
            };
            statuses.filter(|statuses| statuses.first >= 400)
        };
        let read = value
            .as_array()
            .and_then(|items| items.iter().map(read).collect());
        read.unwrap_or_else(|| {
            let problem =
                "must be a list of statuses from 400 to 599, such as 429, \"52x\" or \"5xx\"";
            self.values
                .mistake(&joined(path, "error_statuses"), problem);
            default
        })
    }
}
