//! Purges by tag, by prefix, and of everything, as whoever keeps responses remembers them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::requested::reaches;
use super::{Purge, Scope, Verdict};
use crate::http_time::Timestamp;

/// What remembering one costs beside its name, in bytes: its times and its place in the table.
const MARK_OVERHEAD: usize = 96;
/// Soft purges of one scope that are told apart. What was requested before so many and was never
/// asked for meanwhile is gone.
const MAX_SOFT: usize = 4;

/// The purges of one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Times {
    /// The latest.
    hard: Timestamp,
    /// Ascending: a response is stale since the first that came after it.
    soft: Vec<Timestamp>,
}

impl Times {
    fn add(&mut self, soft: bool, time: Timestamp) {
        if !soft {
            self.hard = self.hard.max(time);
        } else if let Err(place) = self.soft.binary_search(&time) {
            self.soft.insert(place, time);
            if self.soft.len() > MAX_SOFT {
                self.hard = self.hard.max(self.soft.remove(0));
            }
        }
    }

    fn verdict(&self, requested: Timestamp) -> Verdict {
        // Time zero stands for no hard purge.
        if self.hard > Timestamp::default() && reaches(self.hard, requested) {
            return Verdict::Gone(self.hard);
        }
        let first = self.soft.iter().find(|time| reaches(**time, requested));
        first.map_or(Verdict::Kept, |time| Verdict::StaleSince(*time))
    }

    fn latest(&self) -> Timestamp {
        self.soft
            .last()
            .map_or(self.hard, |soft| self.hard.max(*soft))
    }
}

/// Purges that are remembered: by tag, by prefix, and of everything. Purges of single keys are not
/// among them; whoever keeps entries by key carries those out at once.
///
/// Adding one costs the same whatever it concerns. A verdict costs a look at each tag of the
/// response and, by prefix, a few at a sorted table, however many are remembered.
#[derive(Clone, Debug)]
pub struct Marks {
    tags: HashMap<Box<str>, Times>,
    prefixes: BTreeMap<Box<[u8]>, Times>,
    everything: Times,
    latest: Timestamp,
    added: u64,
    bytes: usize,
    most: usize,
    folded: u64,
}

impl Marks {
    /// None yet. When they take more than `most` bytes, the oldest quarter becomes one of
    /// everything: whatever was requested before it is gone, so nothing purged comes back.
    pub fn new(most: usize) -> Self {
        Self {
            tags: HashMap::new(),
            prefixes: BTreeMap::new(),
            everything: Times::default(),
            latest: Timestamp::default(),
            added: 0,
            bytes: 0,
            most,
            folded: 0,
        }
    }

    /// Another bound, in bytes.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
        self.fold_while_full();
    }

    /// Remembers a purge.
    pub fn add(&mut self, purge: &Purge) {
        let times = match &purge.scope {
            Scope::Key(_) => return,
            Scope::Everything => &mut self.everything,
            Scope::Tag(tag) => {
                if !self.tags.contains_key(tag.as_str()) {
                    self.bytes += tag.len() + MARK_OVERHEAD;
                }
                self.tags.entry(tag.as_str().into()).or_default()
            }
            Scope::Prefix(prefix) => {
                if !self.prefixes.contains_key(prefix.as_bytes()) {
                    self.bytes += prefix.len() + MARK_OVERHEAD;
                }
                self.prefixes.entry(prefix.as_bytes().into()).or_default()
            }
        };
        times.add(purge.soft, purge.at_ms);
        self.latest = self.latest.max(purge.at_ms);
        self.added += 1;
        self.fold_while_full();
    }

    /// How many purges were added so far. What was judged at this number need not be judged again
    /// before it changes.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// What the purges so far mean for a response.
    pub fn verdict(&self, url: &str, tags: &[String], requested: Timestamp) -> Verdict {
        // Nearly every response is newer than the last purge.
        if requested > self.latest {
            return Verdict::Kept;
        }
        let by_tag = tags.iter().filter_map(|tag| self.tags.get(tag.as_str()));
        let sum = by_tag.fold(self.everything.verdict(requested), |sum, times| {
            sum.and(times.verdict(requested))
        });
        sum.and(self.verdict_by_prefix(url.as_bytes(), requested))
    }

    /// The prefixes of `url` among those remembered are found from the longest to the shortest. The
    /// greatest that is not behind a text is a prefix of it, or no prefix of it is longer than what
    /// the two have in common.
    fn verdict_by_prefix(&self, url: &[u8], requested: Timestamp) -> Verdict {
        let (mut verdict, mut text) = (Verdict::Kept, Some(url));
        while let Some(part) = text {
            let not_behind = (Bound::Unbounded, Bound::Included(part));
            let Some((prefix, times)) = self.prefixes.range::<[u8], _>(not_behind).next_back()
            else {
                break;
            };
            let common = prefix
                .iter()
                .zip(part)
                .take_while(|(one, other)| one == other)
                .count();
            text = if common == prefix.len() {
                verdict = verdict.and(times.verdict(requested));
                common
                    .checked_sub(1)
                    .and_then(|shorter| part.get(..shorter))
            } else {
                part.get(..common)
            };
        }
        verdict
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often the oldest had to become one of everything.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// Whether nothing was ever purged.
    pub fn is_empty(&self) -> bool {
        self.latest == Timestamp::default()
    }

    /// As purges, to be kept elsewhere.
    pub fn to_purges(&self) -> Vec<Purge> {
        let tags = self
            .tags
            .iter()
            .map(|(tag, times)| (Scope::Tag(tag.to_string()), times));
        let text = |prefix: &[u8]| String::from_utf8_lossy(prefix).into_owned();
        let prefixes = self
            .prefixes
            .iter()
            .map(|(prefix, times)| (Scope::Prefix(text(prefix)), times));
        let all = tags
            .chain(prefixes)
            .chain(std::iter::once((Scope::Everything, &self.everything)));
        all.flat_map(|(scope, times)| {
            let all = std::iter::once((false, times.hard))
                .chain(times.soft.iter().map(|time| (true, *time)));
            all.map(move |(soft, at_ms)| Purge {
                scope: scope.clone(),
                soft,
                at_ms,
            })
        })
        .filter(|purge| purge.at_ms > Timestamp::default())
        .collect()
    }

    fn fold_while_full(&mut self) {
        while self.bytes > self.most {
            let all = self.tags.values().chain(self.prefixes.values());
            let mut times: Vec<Timestamp> = all.map(Times::latest).collect();
            let quarter = times.len() / 4;
            if times.is_empty() {
                return;
            }
            let (_, cut, _) = times.select_nth_unstable(quarter);
            self.fold_until(*cut);
        }
    }

    fn fold_until(&mut self, cut: Timestamp) {
        let bytes = &mut self.bytes;
        let mut stays = |name: usize, times: &Times| {
            let stays = times.latest() > cut;
            *bytes -= if stays { 0 } else { name + MARK_OVERHEAD };
            stays
        };
        self.tags.retain(|tag, times| stays(tag.len(), times));
        self.prefixes
            .retain(|prefix, times| stays(prefix.len(), times));
        self.everything.add(false, cut);
        self.folded += 1;
    }
}

#[cfg(test)]
mod tests;
