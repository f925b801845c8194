//! Where in a document a member stands.

use jsonc_parser::ast::{ObjectProp, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use larder_filter::config::Mistake;

/// The places of a document's members.
pub(super) struct Positions<'a> {
    text: &'a str,
    /// `None` for what is not JSON.
    root: Option<Value<'a>>,
}

impl<'a> Positions<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let parsed = parse_to_ast(text, &CollectOptions::default(), &ParseOptions::default());
        Self {
            text,
            root: parsed.ok().and_then(|parsed| parsed.value),
        }
    }

    /// Line and column, from 1, of what a path such as `rules[0].match.host` names: of the member's
    /// name, or of the nearest member around it that the document has.
    pub(super) fn at(&self, path: &str) -> (usize, usize) {
        let offset = self.root.as_ref().map_or(0, |root| {
            if path == "the document" {
                root.start()
            } else {
                descend(root, path, root.start())
            }
        });
        let before = self.text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or_default();
        (before.matches('\n').count() + 1, column.chars().count() + 1)
    }

    /// Members that their object has twice: the last one counts, in silence.
    pub(super) fn twice(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        if let Some(root) = &self.root {
            find_twice(root, "", &mut found);
        }
        found
    }
}

/// The offset of what `path` names within `value`; `so_far` is where `value`'s own name stands.
fn descend(value: &Value<'_>, path: &str, so_far: usize) -> usize {
    match value {
        Value::Object(object) => {
            // Names may have dots in them: the longest that fits is meant. Of two the last counts.
            let fits = |prop: &&ObjectProp<'_>| rest_behind(path, prop.name.as_str()).is_some();
            let named = object.properties.iter().filter(fits);
            match named.max_by_key(|prop| prop.name.as_str().len()) {
                Some(prop) => {
                    let rest = rest_behind(path, prop.name.as_str()).unwrap_or_default();
                    descend(&prop.value, rest, prop.start())
                }
                None => so_far,
            }
        }
        Value::Array(array) => {
            let index = path.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let element = index.and_then(|(index, rest)| {
                let element = array.elements.get(index.parse::<usize>().ok()?)?;
                Some((element, rest.strip_prefix('.').unwrap_or(rest)))
            });
            match element {
                Some((element, rest)) => descend(element, rest, element.start()),
                None => so_far,
            }
        }
        _ => so_far,
    }
}

/// What of a path remains behind a member's name.
fn rest_behind<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(name)?;
    match rest.strip_prefix('.') {
        Some(rest) => Some(rest),
        None => (rest.is_empty() || rest.starts_with('[')).then_some(rest),
    }
}

fn find_twice(value: &Value<'_>, path: &str, found: &mut Vec<Mistake>) {
    match value {
        Value::Object(object) => {
            for (index, prop) in object.properties.iter().enumerate() {
                let name = prop.name.as_str();
                let path = if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}.{name}")
                };
                let earlier = object.properties.iter().take(index);
                if earlier.clone().any(|earlier| earlier.name.as_str() == name) {
                    found.push(Mistake {
                        path: path.clone(),
                        problem: "is given twice; the last one counts".to_owned(),
                    });
                }
                find_twice(&prop.value, &path, found);
            }
        }
        Value::Array(array) => {
            for (index, element) in array.elements.iter().enumerate() {
                find_twice(element, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}
