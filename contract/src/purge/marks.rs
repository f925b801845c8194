//! Purges by tag, by prefix, and of everything, as whoever keeps responses remembers them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::requested::reaches;
use super::{Purge, Scope, Verdict};
use crate::http_time::Timestamp;

/// What remembering one costs beside its name, in bytes: its times and its place in the table.
const MARK_OVERHEAD: usize = 96;
/// Soft purges of one scope that are told apart. What was requested before so many and was never asked for meanwhile is
/// gone.
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
        self.soft.last().map_or(self.hard, |soft| self.hard.max(*soft))
    }
}

/// Purges that are remembered: by tag, by prefix, and of everything. Purges of single keys are not among them; whoever
/// keeps entries by key carries those out at once.
///
/// Adding one costs the same whatever it concerns. A verdict costs a look at each tag of the response and, by prefix, a few
/// at a sorted table, however many are remembered.
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
    /// None yet. When they take more than `most` bytes, the oldest quarter becomes one of everything: whatever was
    /// requested before it is gone, so nothing purged comes back.
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

    /// How many purges were added so far. What was judged at this number need not be judged again before it changes.
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
        let sum = by_tag.fold(self.everything.verdict(requested), |sum, times| sum.and(times.verdict(requested)));
        sum.and(self.verdict_by_prefix(url.as_bytes(), requested))
    }

    /// The prefixes of `url` among those remembered are found from the longest to the shortest. The greatest that is not
    /// behind a text is a prefix of it, or no prefix of it is longer than what the two have in common.
    fn verdict_by_prefix(&self, url: &[u8], requested: Timestamp) -> Verdict {
        let (mut verdict, mut text) = (Verdict::Kept, Some(url));
        while let Some(part) = text {
            let not_behind = (Bound::Unbounded, Bound::Included(part));
            let Some((prefix, times)) = self.prefixes.range::<[u8], _>(not_behind).next_back() else { break };
            let common = prefix.iter().zip(part).take_while(|(one, other)| one == other).count();
            text = if common == prefix.len() {
                verdict = verdict.and(times.verdict(requested));
                common.checked_sub(1).and_then(|shorter| part.get(..shorter))
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
        let tags = self.tags.iter().map(|(tag, times)| (Scope::Tag(tag.to_string()), times));
        let text = |prefix: &[u8]| String::from_utf8_lossy(prefix).into_owned();
        let prefixes = self.prefixes.iter().map(|(prefix, times)| (Scope::Prefix(text(prefix)), times));
        let all = tags.chain(prefixes).chain(std::iter::once((Scope::Everything, &self.everything)));
        all.flat_map(|(scope, times)| {
            let all = std::iter::once((false, times.hard)).chain(times.soft.iter().map(|time| (true, *time)));
            all.map(move |(soft, at_ms)| Purge { scope: scope.clone(), soft, at_ms })
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
        self.prefixes.retain(|prefix, times| stays(prefix.len(), times));
        self.everything.add(false, cut);
        self.folded += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Room for one mark with a short name.
    const MARK: usize = MARK_OVERHEAD + 16;

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
        let mut marks = Marks::new(10 * MARK);
        marks.add(&tag("news", 100, false));
        assert_eq!(verdict(&marks, &["news"], 100), Verdict::Gone(at(100)));
        assert_eq!(verdict(&marks, &["news"], 101), Verdict::Kept);
        assert_eq!(verdict(&marks, &["sport"], 50), Verdict::Kept);
    }

    #[test]
    fn soft_means_stale_and_hard_wins() {
        let mut marks = Marks::new(10 * MARK);
        marks.add(&tag("a", 100, true));
        assert_eq!(verdict(&marks, &["a"], 90), Verdict::StaleSince(at(100)));
        marks.add(&tag("b", 95, false));
        assert_eq!(verdict(&marks, &["a", "b"], 90), Verdict::Gone(at(95)));
        assert_eq!(verdict(&marks, &["a", "b"], 96), Verdict::StaleSince(at(100)));
    }

    #[test]
    fn a_prefix_and_everything_reach_their_urls() {
        let mut marks = Marks::new(10 * MARK);
        marks.add(&Purge { scope: Scope::Prefix("http://a/shop/".into()), soft: false, at_ms: at(100) });
        assert_eq!(verdict(&marks, &[], 100), Verdict::Gone(at(100)));
        assert_eq!(marks.verdict("http://a/other", &[], at(100)), Verdict::Kept);
        marks.add(&Purge { scope: Scope::Everything, soft: false, at_ms: at(200) });
        assert_eq!(marks.verdict("http://a/other", &[], at(200)), Verdict::Gone(at(200)));
    }

    #[test]
    fn what_several_soft_purges_reached_is_stale_since_the_first_after_it() {
        let mut marks = Marks::new(10 * MARK);
        for time in [100, 300, 200] {
            marks.add(&tag("a", time, true));
        }
        for (requested, since) in [(50, 100), (100, 100), (101, 200), (300, 300)] {
            assert_eq!(verdict(&marks, &["a"], requested), Verdict::StaleSince(at(since)), "{requested}");
        }
        for time in [400, 500] {
            marks.add(&tag("a", time, true));
        }
        assert_eq!(verdict(&marks, &["a"], 100), Verdict::Gone(at(100)), "five went over it");
        assert_eq!(verdict(&marks, &["a"], 101), Verdict::StaleSince(at(200)));
    }

    #[test]
    fn at_the_bound_many_become_one_at_once_and_the_rest_stays_exact() {
        let mut marks = Marks::new(1_000 * MARK);
        for n in 1..=5_000 {
            marks.add(&tag(&n.to_string(), n, false));
            assert!(marks.bytes() <= 1_000 * MARK);
        }
        assert!((1..=20).contains(&marks.folded()), "{}", marks.folded());
        assert_eq!(verdict(&marks, &["5000"], 5_000), Verdict::Gone(at(5_000)));
        assert_eq!(verdict(&marks, &["other"], 4_500), Verdict::Kept);
        assert!(matches!(verdict(&marks, &["other"], 1), Verdict::Gone(_)));
    }

    proptest! {
        #[test]
        fn prefixes_are_found_as_if_each_was_tried(
            purges in proptest::collection::vec(("[ab]{0,5}", 1u64..100, any::<bool>()), 0..40), url in "[abc]{0,7}",
            requested in 0u64..100,
        ) {
            let mut marks = Marks::new(1000 * MARK);
            let mut each: std::collections::BTreeMap<String, Times> = BTreeMap::new();
            for (prefix, time, soft) in purges {
                marks.add(&Purge { scope: Scope::Prefix(prefix.clone()), soft, at_ms: at(time) });
                each.entry(prefix).or_default().add(soft, at(time));
            }
            let concerned = each.iter().filter(|(prefix, _)| url.starts_with(prefix.as_str()));
            let expected = concerned.fold(Verdict::Kept, |sum, (_, times)| sum.and(times.verdict(at(requested))));
            prop_assert_eq!(marks.verdict(&url, &[], at(requested)), expected);
        }

        #[test]
        fn what_was_purged_never_comes_back_however_many_purges_follow(
            purges in proptest::collection::vec((0u8..20, 1u64..1000, any::<bool>()), 1..60), most in 1usize..8,
            asked in 0u8..20, requested in 0u64..1000,
        ) {
            let (mut bounded, mut unbounded) = (Marks::new(most * MARK), Marks::new(1000 * MARK));
            for (name, time, soft) in purges {
                let purge = tag(&name.to_string(), time, soft);
                bounded.add(&purge);
                unbounded.add(&purge);
            }
            let rank = |verdict| match verdict { Verdict::Kept => 0, Verdict::StaleSince(_) => 1, Verdict::Gone(_) => 2 };
            let asked = [asked.to_string()];
            let tags: Vec<&str> = asked.iter().map(String::as_str).collect();
            prop_assert!(rank(verdict(&bounded, &tags, requested)) >= rank(verdict(&unbounded, &tags, requested)));
            prop_assert!(bounded.bytes() <= most * MARK);
        }

        #[test]
        fn marks_survive_as_purges(purges in proptest::collection::vec((0u8..5, 1u64..100, any::<bool>()), 0..20), requested in 0u64..100) {
            let mut marks = Marks::new(100 * MARK);
            for (name, time, soft) in purges {
                marks.add(&tag(&name.to_string(), time, soft));
            }
            let mut again = Marks::new(100 * MARK);
            for purge in marks.to_purges() {
                again.add(&purge);
            }
            for name in ["0", "1", "2", "3", "4"] {
                prop_assert_eq!(verdict(&again, &[name], requested), verdict(&marks, &[name], requested));
            }
        }
    }
}
