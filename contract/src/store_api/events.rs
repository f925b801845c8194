//! Following what is purged.

use serde::{Deserialize, Serialize};

use crate::purge::Purge;

/// `GET`: what was purged since a cursor; a long poll.
pub const EVENTS_PATH: &str = "/v1/events";
/// In a poll's answer: for how many milliseconds before the poll came the sidecar had heard of no
/// purge that others may have made. Absent where it had heard of all.
pub const UNHEARD_FIELD: &str = "x-larder-unheard-ms";

/// The question of `GET /v1/events`, as its query: what has been purged since a cursor?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsSince {
    /// The cursor of the last answer. `None`: the answer comes at once and is empty, the place to
    /// begin.
    pub after: Option<String>,
    /// How long the answer may be held back until there is something. 0 to [`Events::MAX_WAIT_MS`].
    pub wait_ms: u64,
    /// Which Envoy asks: at most 32 ASCII letters and digits; empty for somebody who is not
    /// watched.
    pub envoy: String,
}

impl EventsSince {
    /// The path with the query that asks this.
    pub fn path(&self) -> String {
        let mut path = format!("{EVENTS_PATH}?envoy={}", self.envoy);
        if let Some(cursor) = &self.after {
            path.push_str(&format!("&wait_ms={}&after={cursor}", self.wait_ms));
        }
        path
    }

    /// What is malformed, in words.
    pub fn mistake(&self) -> Option<String> {
        let well_formed =
            self.envoy.len() <= 32 && self.envoy.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (!well_formed).then(|| "envoy is at most 32 letters and digits".to_owned())
    }
}

/// What has been purged since a cursor: the answer to [`EventsSince`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// To be given as `after` next. Opaque.
    pub cursor: String,
    /// The cursor given is not known any more: something may have been missed, and level 1 has to
    /// be emptied.
    pub reset: bool,
    /// In the order in which they were made.
    pub events: Vec<Purge>,
}

impl Events {
    /// Events in one answer at most.
    pub const MOST: usize = 256;
    /// The longest `wait_ms`.
    pub const MAX_WAIT_MS: u64 = 30_000;
}
