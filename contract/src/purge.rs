//! What an operator or an unsafe method made untrue, and whether a stored response is among it.
//!
//! A purge is one mark with a time; what was requested up to that time and lies in its scope is gone, or, when it is
//! soft, stale from then on. So a purge costs the same whatever the number of entries: nothing is looked for when it is
//! made, each entry is judged when it is next looked at.
//!
//! What this decides: which responses a purge concerns, and what several purges together mean for one. What it leaves
//! out: how purges travel and where they are kept.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::http_time::Timestamp;
use crate::key::PrimaryKey;

/// Tags longer than this, in bytes, are not purge tags.
pub const MAX_TAG_BYTES: usize = 256;
/// More bytes of tags than this in one response keep it from being stored: a purge could miss it. Pages with a tag for each
/// thing they show have that many; whoever wants more is better served by a tag for the page.
pub const MAX_BYTES_OF_TAGS: usize = 16 << 10;
/// More tags than this do so, too.
pub const MAX_TAGS: usize = 4096;

/// Which responses a purge concerns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All variants of one resource.
    Key(PrimaryKey),
    /// Every response with this tag.
    Tag(String),
    /// Every response whose URL (`scheme://authority/path?query`) begins so.
    Prefix(String),
    /// Every response.
    Everything,
}

/// One purge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// What it concerns.
    pub scope: Scope,
    /// Stale from now on, instead of gone.
    pub soft: bool,
    /// What was requested until then is concerned.
    pub at_ms: Timestamp,
}

/// What purges mean for one stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Kept,
    /// It is stale since then.
    StaleSince(Timestamp),
    /// It is gone: the time of the purge.
    Gone(Timestamp),
}

/// The latest purge of either kind in one scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    hard: Timestamp,
    soft: Timestamp,
}

impl Times {
    fn add(&mut self, purge: &Purge) {
        let time = if purge.soft { &mut self.soft } else { &mut self.hard };
        *time = (*time).max(purge.at_ms);
    }

    fn latest(self) -> Timestamp {
        self.hard.max(self.soft)
    }
}

/// Purges that are remembered: by tag, by prefix, and of everything. Purges of single keys are not among them; whoever
/// keeps entries by key carries those out at once.
#[derive(Clone, Debug)]
pub struct Marks {
    tags: HashMap<String, Times>,
    prefixes: HashMap<String, Times>,
    everything: Times,
    latest: Timestamp,
    most: usize,
}

impl Marks {
    /// None yet. When more than `most` are remembered, the oldest becomes one of everything: whatever was requested
    /// before it is gone, so nothing purged comes back.
    pub fn new(most: usize) -> Self {
        let zero = Timestamp::default();
        Self { tags: HashMap::new(), prefixes: HashMap::new(), everything: Times::default(), latest: zero, most }
    }

    /// Remembers a purge.
    pub fn add(&mut self, purge: &Purge) {
        match &purge.scope {
            Scope::Key(_) => return,
            Scope::Tag(tag) => self.tags.entry(tag.clone()).or_default().add(purge),
            Scope::Prefix(prefix) => self.prefixes.entry(prefix.clone()).or_default().add(purge),
            Scope::Everything => self.everything.add(purge),
        }
        self.latest = self.latest.max(purge.at_ms);
        if self.tags.len() + self.prefixes.len() > self.most {
            self.fold_oldest();
        }
    }

    /// What the purges so far mean for a response.
    pub fn verdict(&self, url: &str, tags: &[String], requested: Timestamp) -> Verdict {
        // Nearly every response is newer than the last purge.
        if requested > self.latest {
            return Verdict::Kept;
        }
        let by_tag = tags.iter().filter_map(|tag| self.tags.get(tag));
        let by_prefix =
            self.prefixes.iter().filter(|(prefix, _)| url.starts_with(prefix.as_str())).map(|(_, times)| times);
        let all = by_tag.chain(by_prefix).chain(std::iter::once(&self.everything));
        let times = all.fold(Times::default(), |sum, times| Times {
            hard: sum.hard.max(times.hard),
            soft: sum.soft.max(times.soft),
        });
        if requested <= times.hard {
            Verdict::Gone(times.hard)
        } else if requested <= times.soft {
            Verdict::StaleSince(times.soft)
        } else {
            Verdict::Kept
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.tags.len() + self.prefixes.len()
    }

    /// Whether nothing was ever purged.
    pub fn is_empty(&self) -> bool {
        self.latest == Timestamp::default()
    }

    /// As purges, to be kept elsewhere.
    pub fn to_purges(&self) -> Vec<Purge> {
        let tags = self.tags.iter().map(|(tag, times)| (Scope::Tag(tag.clone()), *times));
        let prefixes = self.prefixes.iter().map(|(prefix, times)| (Scope::Prefix(prefix.clone()), *times));
        let all = tags.chain(prefixes).chain(std::iter::once((Scope::Everything, self.everything)));
        all.flat_map(|(scope, times)| {
            let of = move |soft, at_ms| Purge { scope: scope.clone(), soft, at_ms };
            [of(false, times.hard), of(true, times.soft)]
        })
        .filter(|purge| purge.at_ms > Timestamp::default())
        .collect()
    }

    fn fold_oldest(&mut self) {
        let times = self.tags.values().chain(self.prefixes.values());
        let Some(oldest) = times.map(|times| times.latest()).min() else { return };
        self.tags.retain(|_, times| times.latest() > oldest);
        self.prefixes.retain(|_, times| times.latest() > oldest);
        self.everything.hard = self.everything.hard.max(oldest);
    }
}

impl Purge {
    /// What this purge alone means for a response kept under a primary key.
    pub fn verdict(&self, key: &PrimaryKey, url: &str, tags: &[String], requested: Timestamp) -> Verdict {
        let concerned = match &self.scope {
            Scope::Key(own) => own == key,
            Scope::Tag(tag) => tags.contains(tag),
            Scope::Prefix(prefix) => url.starts_with(prefix.as_str()),
            Scope::Everything => true,
        };
        match (concerned && requested <= self.at_ms, self.soft) {
            (false, _) => Verdict::Kept,
            (true, false) => Verdict::Gone(self.at_ms),
            (true, true) => Verdict::StaleSince(self.at_ms),
        }
    }
}

/// The tags of a response: the members of `fields`, between commas or white space, each once. `None` when there are more, or
/// longer ones, than can be purged.
pub fn tags_of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<String>> {
    let (mut tags, mut known): (Vec<String>, HashSet<&[u8]>) = (Vec::new(), HashSet::new());
    let mut bytes = 0;
    let separates = |byte: &u8| matches!(byte, b',' | b' ' | b'\t');
    for tag in values.flat_map(|value| value.split(separates)).filter(|tag| !tag.is_empty()) {
        if !known.insert(tag) {
            continue;
        }
        bytes += tag.len();
        if tag.len() > MAX_TAG_BYTES || bytes > MAX_BYTES_OF_TAGS || known.len() > MAX_TAGS {
            return None;
        }
        tags.push(String::from_utf8_lossy(tag).into_owned());
    }
    Some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn tag(tag: &str, time: u64, soft: bool) -> Purge {
        Purge { scope: Scope::Tag(tag.to_owned()), soft, at_ms: at(time) }
    }

    fn verdict(marks: &Marks, tags: &[&str], requested: u64) -> Verdict {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        marks.verdict("http://a/shop/1?x", &tags, at(requested))
    }

    #[test]
    fn a_purge_concerns_what_was_requested_until_then() {
        let mut marks = Marks::new(10);
        marks.add(&tag("news", 100, false));
        assert_eq!(verdict(&marks, &["news"], 100), Verdict::Gone(at(100)));
        assert_eq!(verdict(&marks, &["news"], 101), Verdict::Kept);
        assert_eq!(verdict(&marks, &["sport"], 50), Verdict::Kept);
    }

    #[test]
    fn soft_means_stale_and_hard_wins() {
        let mut marks = Marks::new(10);
        marks.add(&tag("a", 100, true));
        assert_eq!(verdict(&marks, &["a"], 90), Verdict::StaleSince(at(100)));
        marks.add(&tag("b", 95, false));
        assert_eq!(verdict(&marks, &["a", "b"], 90), Verdict::Gone(at(95)));
        assert_eq!(verdict(&marks, &["a", "b"], 96), Verdict::StaleSince(at(100)));
    }

    #[test]
    fn a_prefix_and_everything_reach_their_urls() {
        let mut marks = Marks::new(10);
        marks.add(&Purge { scope: Scope::Prefix("http://a/shop/".into()), soft: false, at_ms: at(100) });
        assert_eq!(verdict(&marks, &[], 100), Verdict::Gone(at(100)));
        assert_eq!(marks.verdict("http://a/other", &[], at(100)), Verdict::Kept);
        marks.add(&Purge { scope: Scope::Everything, soft: false, at_ms: at(200) });
        assert_eq!(marks.verdict("http://a/other", &[], at(200)), Verdict::Gone(at(200)));
    }

    #[test]
    fn tags_are_split_at_commas_and_spaces_and_are_bounded() {
        let tags = |value: &str| tags_of([value.as_bytes()].into_iter());
        assert_eq!(tags("a, b c,,a").unwrap(), ["a", "b", "c"]);
        assert_eq!(tags("").unwrap(), Vec::<String>::new());
        assert!(tags(&"x".repeat(257)).is_none());
        let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(tags(&many(2_000)).unwrap().len(), 2_000, "a long list is ordinary");
        assert!(tags(&many(4_097)).is_none(), "too many");
        let long = |count: usize| (0..count).map(|n| format!("{n:0>128}")).collect::<Vec<_>>().join(" ");
        assert_eq!(tags(&long(128)).unwrap().len(), 128);
        assert!(tags(&long(129)).is_none(), "too many bytes");
        assert_eq!(tags(&"a,".repeat(20_000)).unwrap(), ["a"], "the same one counts once");
    }

    proptest! {
        #[test]
        fn what_was_purged_never_comes_back_however_many_purges_follow(
            purges in proptest::collection::vec((0u8..20, 1u64..1000, any::<bool>()), 1..60), most in 1usize..8,
            asked in 0u8..20, requested in 0u64..1000,
        ) {
            let (mut bounded, mut unbounded) = (Marks::new(most), Marks::new(1000));
            for (name, time, soft) in purges {
                let purge = tag(&name.to_string(), time, soft);
                bounded.add(&purge);
                unbounded.add(&purge);
            }
            let rank = |verdict| match verdict { Verdict::Kept => 0, Verdict::StaleSince(_) => 1, Verdict::Gone(_) => 2 };
            let asked = [asked.to_string()];
            let tags: Vec<&str> = asked.iter().map(String::as_str).collect();
            prop_assert!(rank(verdict(&bounded, &tags, requested)) >= rank(verdict(&unbounded, &tags, requested)));
            prop_assert!(bounded.len() <= most);
        }

        #[test]
        fn marks_survive_as_purges(purges in proptest::collection::vec((0u8..5, 1u64..100, any::<bool>()), 0..20), requested in 0u64..100) {
            let mut marks = Marks::new(100);
            for (name, time, soft) in purges {
                marks.add(&tag(&name.to_string(), time, soft));
            }
            let mut again = Marks::new(100);
            for purge in marks.to_purges() {
                again.add(&purge);
            }
            for name in ["0", "1", "2", "3", "4"] {
                prop_assert_eq!(verdict(&again, &[name], requested), verdict(&marks, &[name], requested));
            }
        }
    }
}
