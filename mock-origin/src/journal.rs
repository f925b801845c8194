//! What really reached the origin, in order of arrival. Bounded; health checks and `/_control` are
//! not in it.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

/// Requests kept; older ones are dropped and counted.
pub const CAPACITY: usize = 10_000;

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Arrived {
    /// Its number, from 1.
    pub n: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Method.
    pub method: String,
    /// Path and query as received.
    pub target: String,
    /// All header fields in order, repeats kept.
    pub headers: Vec<(String, String)>,
    /// Bytes of content that came with it.
    pub body_bytes: usize,
}

/// All requests so far.
#[derive(Debug, Default)]
pub struct Journal {
    arrived: VecDeque<Arrived>,
    count: u64,
    by_path: BTreeMap<String, u64>,
}

impl Journal {
    /// Notes a request down; its number is set here.
    pub fn note(&mut self, mut request: Arrived) {
        self.count += 1;
        request.n = self.count;
        let path = request
            .target
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned();
        *self.by_path.entry(path).or_default() += 1;
        if self.arrived.len() == CAPACITY {
            self.arrived.pop_front();
        }
        self.arrived.push_back(request);
    }

    /// The requests whose path is `path`, or all.
    pub fn requests(&self, path: Option<&str>) -> Vec<&Arrived> {
        let is_at = |request: &&Arrived| {
            path.is_none_or(|path| request.target.split('?').next() == Some(path))
        };
        self.arrived.iter().filter(is_at).collect()
    }

    /// Counts by path, the dropped ones included.
    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.by_path
    }

    /// How many requests there were.
    pub fn total(&self) -> u64 {
        self.count
    }
}
