//! What an operator or an unsafe method made untrue, and whether a stored response is among it.
//!
//! A purge is one mark with a time; what was requested up to that time and lies in its scope is
//! gone, or, when it is soft, stale from then on. So a purge costs the same whatever the number of
//! entries: nothing is looked for when it is made, each entry is judged when it is next looked at.
//!
//! What this decides: which responses a purge concerns (`requested`), what several purges together
//! mean for one ([`Marks`]), and how long that single keys were made untrue is remembered. What it
//! leaves out: how purges travel and where they are kept.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::http_time::Timestamp;
use crate::key::KeyDigest;
use requested::reaches;

mod marks;
pub mod remembered;
pub mod requested;

pub use marks::Marks;

/// Tags longer than this, in bytes, are not purge tags.
pub const MAX_TAG_BYTES: usize = 256;
/// More bytes of tags than this in one response keep it from being stored: a purge could miss it.
/// Pages with a tag for each thing they show have that many; whoever wants more is better served by
/// a tag for the page.
pub const MAX_BYTES_OF_TAGS: usize = 16 << 10;
/// More tags than this do so, too.
pub const MAX_TAGS: usize = 4096;

/// Which responses a purge concerns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All variants of one resource. Known by its digest alone: URLs may be long, and most were
    /// never stored.
    #[serde(rename = "digest")]
    Key(KeyDigest),
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

impl Verdict {
    /// What two verdicts on one response mean together: gone, or else stale since the earlier time.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Gone(one), Self::Gone(two)) => Self::Gone(one.max(two)),
            (Self::StaleSince(one), Self::StaleSince(two)) => Self::StaleSince(one.min(two)),
            (Self::Kept, verdict) | (verdict @ Self::Gone(_), _) | (verdict, Self::Kept) => verdict,
            (_, gone) => gone,
        }
    }

    /// What it adds for a response that earlier ones have made stale since `stale_from`: nothing
    /// where that is not changed.
    #[must_use]
    pub fn beyond(self, stale_from: Option<Timestamp>) -> Self {
        let known = stale_from.map_or(Self::Kept, Self::StaleSince);
        if known.and(self) == known {
            Self::Kept
        } else {
            self
        }
    }
}

impl Purge {
    /// What it means for a response in its scope that was requested then.
    pub fn verdict(&self, requested: Timestamp) -> Verdict {
        match (reaches(self.at_ms, requested), self.soft) {
            (false, _) => Verdict::Kept,
            (true, false) => Verdict::Gone(self.at_ms),
            (true, true) => Verdict::StaleSince(self.at_ms),
        }
    }
}

/// The tags of a response: the members of `fields`, between commas or white space, each once.
/// `None` when there are more, or longer ones, than can be purged.
pub fn tags_of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<String>> {
    let (mut tags, mut known): (Vec<String>, HashSet<&[u8]>) = (Vec::new(), HashSet::new());
    let mut bytes = 0;
    let separates = |byte: &u8| matches!(byte, b',' | b' ' | b'\t');
    for tag in values
        .flat_map(|value| value.split(separates))
        .filter(|tag| !tag.is_empty())
    {
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

    #[test]
    fn tags_are_split_at_commas_and_spaces_and_are_bounded() {
        let tags = |value: &str| tags_of([value.as_bytes()].into_iter());
        assert_eq!(tags("a, b c,,a").unwrap(), ["a", "b", "c"]);
        assert_eq!(tags("").unwrap(), Vec::<String>::new());
        assert!(tags(&"x".repeat(257)).is_none());
        let many = |count: usize| {
            (0..count)
                .map(|n| n.to_string())
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(
            tags(&many(2_000)).unwrap().len(),
            2_000,
            "a long list is ordinary"
        );
        assert!(tags(&many(4_097)).is_none(), "too many");
        let long = |count: usize| {
            (0..count)
                .map(|n| format!("{n:0>128}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(tags(&long(128)).unwrap().len(), 128);
        assert!(tags(&long(129)).is_none(), "too many bytes");
        assert_eq!(
            tags(&"a,".repeat(20_000)).unwrap(),
            ["a"],
            "the same one counts once"
        );
    }

    #[test]
    fn two_verdicts_mean_the_worse_and_of_two_soft_ones_the_earlier() {
        let at = Timestamp::from_millis;
        use Verdict::{Gone, Kept, StaleSince};
        for (one, other, both) in [
            (Kept, Kept, Kept),
            (Kept, StaleSince(at(1)), StaleSince(at(1))),
            (StaleSince(at(1)), StaleSince(at(2)), StaleSince(at(1))),
            (Gone(at(1)), Gone(at(2)), Gone(at(2))),
            (Gone(at(1)), StaleSince(at(2)), Gone(at(1))),
            (Gone(at(1)), Kept, Gone(at(1))),
        ] {
            assert_eq!((one.and(other), other.and(one)), (both, both));
        }
    }

    #[test]
    fn a_verdict_adds_nothing_to_what_is_stale_for_as_long() {
        let at = Timestamp::from_millis;
        use Verdict::{Gone, Kept, StaleSince};
        for (verdict, stale_from, beyond) in [
            (Kept, None, Kept),
            (Kept, Some(at(2)), Kept),
            (StaleSince(at(2)), None, StaleSince(at(2))),
            (StaleSince(at(2)), Some(at(2)), Kept),
            (StaleSince(at(3)), Some(at(2)), Kept),
            (StaleSince(at(1)), Some(at(2)), StaleSince(at(1))),
            (Gone(at(1)), Some(at(2)), Gone(at(1))),
        ] {
            assert_eq!(
                verdict.beyond(stale_from),
                beyond,
                "{verdict:?} {stale_from:?}"
            );
        }
    }

    #[test]
    fn a_purge_of_one_key_travels_as_a_digest_whatever_the_length_of_its_url() {
        let key = crate::key::PrimaryKey::new(b"n", b"http", b"a", &[b'x'; 40_000]).digest();
        let purge = Purge {
            scope: Scope::Key(key),
            soft: false,
            at_ms: Timestamp::from_millis(5),
        };
        let json = serde_json::to_string(&purge).unwrap();
        assert!(json.len() < 200, "{json}");
        assert_eq!(serde_json::from_str::<Purge>(&json).unwrap(), purge);
    }
}
