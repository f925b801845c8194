//! Members of a policy that are lists.

use larder_cache_core::glob::Glob;
use larder_cache_core::policy::StatusRange;
use serde_json::{Map, Value};

use super::Reader;
use super::values::{text, token};

impl Reader {
    /// Texts in which `*` stands for any run of characters; none where the member is absent.
    pub(super) fn globs(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
    ) -> Vec<Glob> {
        const PROBLEM: &str =
            "must be a list of names, in which * stands for any run of characters";
        let glob = |item: &Value| text(item).map(Glob::new);
        let globs = self.values.list(object, path, name, PROBLEM, glob);
        globs.unwrap_or_default()
    }

    /// Field names, in lower case.
    pub(super) fn field_names(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
        default: Vec<String>,
    ) -> Vec<String> {
        let names = self
            .values
            .list(object, path, name, "must be a list of field names", token);
        names.unwrap_or(default)
    }

    /// Media types, or families of them, in lower case.
    pub(super) fn media_types(&mut self, policy: &Map<String, Value>, path: &str) -> Vec<Glob> {
        const PROBLEM: &str = "must be a list of media types such as \"text/css\" or \"image/*\"";
        let types = self
            .values
            .list(policy, path, "lifetime_types", PROBLEM, media_type);
        types.unwrap_or_default()
    }

    /// Statuses as numbers, or classes of them as texts.
    pub(super) fn error_statuses(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
        default: Vec<StatusRange>,
    ) -> Vec<StatusRange> {
        const PROBLEM: &str =
            "must be a list of statuses from 400 to 599, such as 429, \"52x\" or \"5xx\"";
        let read = |item: &Value| {
            let statuses = match item {
                Value::Number(number) => StatusRange::parse(&number.to_string()),
                Value::String(text) => StatusRange::parse(text),
                _ => None,
            };
            statuses.filter(|statuses| statuses.first >= 400)
        };
        let statuses = self
            .values
            .list(policy, path, "error_statuses", PROBLEM, read);
        statuses.unwrap_or(default)
    }
}

fn media_type(item: &Value) -> Option<Glob> {
    let text = text(item)?;
    let (family, kind) = text.split_once('/')?;
    let is_whole = |half: &str| !half.is_empty() && !half.contains(['*', ' ', ';']);
    let is_type = is_whole(family) && (is_whole(kind) || kind == "*");
    is_type.then(|| Glob::new(&text.to_ascii_lowercase()))
}
