//! Reading single values of the document.

use larder_cache_core::fields::is_token;
use larder_contract::http_time::DeltaSeconds;
use serde_json::{Map, Value};

use crate::config::Mistake;

/// Reads values and collects mistakes; a mistaken value becomes its default, so that reading goes
/// on.
#[derive(Default)]
pub(super) struct Values {
    pub(super) mistakes: Vec<Mistake>,
}

impl Values {
    /// An object whose members are all known; anything else is a mistake and counts as empty.
    pub(super) fn object(
        &mut self,
        value: &Value,
        path: &str,
        known: &[&str],
    ) -> Map<String, Value> {
        match value {
            Value::Object(members) => {
                for name in members
                    .keys()
                    .filter(|name| !known.contains(&name.as_str()))
                {
                    self.mistake(
                        &joined(path, name),
                        &format!("is not known; known are {}", known.join(", ")),
                    );
                }
                members.clone()
            }
            Value::Null => Map::new(),
            _ => {
                self.mistake(
                    if path.is_empty() {
                        "the document"
                    } else {
                        path
                    },
                    "must be an object",
                );
                Map::new()
            }
        }
    }

    /// A text that is not empty.
    pub(super) fn text(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
    ) -> Option<String> {
        match object.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(_) => {
                self.mistake(&joined(path, name), "must be a text, not empty");
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
        default: bool,
    ) -> bool {
        match object.get(name) {
            None => default,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.mistake(&joined(path, name), "must be true or false");
                default
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
        default: u64,
        min: u64,
        max: u64,
    ) -> u64 {
        let Some(value) = object.get(name) else {
            return default;
        };
        match value.as_u64().filter(|number| (min..=max).contains(number)) {
            Some(number) => number,
            None => {
                self.mistake(
                    &joined(path, name),
                    &format!("must be a whole number from {min} to {max}"),
                );
                default
            }
        }
    }

    /// Seconds: a year at most.
    pub(super) fn seconds(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
        default: DeltaSeconds,
    ) -> DeltaSeconds {
        DeltaSeconds::new(self.number(object, path, name, default.as_secs(), 0, 365 * 86_400))
    }

    /// Each item of a list; `None` where the member is absent, or where `read` takes an item for
    /// none: then `problem` says what the list must be.
    pub(super) fn list<T>(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
        problem: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = object.get(name)?.as_array();
        let read = items.and_then(|items| items.iter().map(read).collect());
        if read.is_none() {
            self.mistake(&joined(path, name), problem);
        }
        read
    }

    /// One of some words, each with what it stands for; `default` where the member is absent.
    pub(super) fn word<T: Copy>(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        name: &str,
        words: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(text) = self.text(object, path, name) else {
            return default;
        };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => *meaning,
            None => {
                let quoted: Vec<String> = words
                    .iter()
                    .map(|(word, _)| format!("\"{word}\""))
                    .collect();
                let problem = format!("must be {}", alternatives(&quoted));
                self.mistake(&joined(path, name), &problem);
                default
            }
        }
    }

    /// Notes a mistake at a path.
    pub(super) fn mistake(&mut self, path: &str, problem: &str) {
        self.mistakes.push(Mistake {
            path: path.to_owned(),
            problem: problem.to_owned(),
        });
    }
}

/// A text that is not empty.
pub(super) fn text(item: &Value) -> Option<&str> {
    item.as_str().filter(|text| !text.is_empty())
}

/// A token (RFC 9110 §5.6.2), in lower case.
pub(super) fn token(item: &Value) -> Option<String> {
    item.as_str()
        .filter(|text| is_token(text.as_bytes()))
        .map(str::to_ascii_lowercase)
}

/// `a, b or c`.
fn alternatives(all: &[String]) -> String {
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The member, or null.
pub(super) fn member<'a>(object: &'a Map<String, Value>, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

/// The path of a member.
pub(super) fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
