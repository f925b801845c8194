//! Whether a history keeps the promise of `docs/design.md` ("What an invalidation promises").
//!
//! What this decides: from when on a read may no longer be answered with something older. Through
//! the Envoy that answered a PUT: at once. Through another, and after a purge: [`Terms::calm`]
//! later where no fault was near, else [`Terms::distrust`] and [`Terms::slack`] later. What it
//! leaves out: what is merely slow.

use super::history::{Answer, Got, History, Micros, Read, Span};
use super::keys;

mod calm;
mod errors;

#[cfg(test)]
mod tests;

pub(crate) use calm::Calm;

/// The numbers of the promise, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Until an invalidation has reached another Envoy while both reach the store.
    pub(crate) calm: Micros,
    /// `store.distrust_after_ms`.
    pub(crate) distrust: Micros,
    /// On top of it, for what a busy machine delays and for noticing that an Envoy is lost.
    pub(crate) slack: Micros,
    /// How long after a fault connections may take to be there again.
    pub(crate) recovery: Micros,
}

/// Which part of the promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// The Envoy that answered the PUT served an older version.
    OwnPut,
    /// Another Envoy did, although no fault was near.
    CalmPut,
    /// Another Envoy did, longer than it may believe without hearing.
    DistrustedPut,
    /// What was purged was served, although no fault was near.
    CalmPurge,
    /// What was purged was served, longer than an Envoy may believe without hearing.
    DistrustedPurge,
    /// What was purged softly was served as fresh.
    SoftPurge,
    /// A version that was not written yet.
    Unwritten,
    /// Something that is no version of the key.
    Foreign,
    /// An error, or no answer, that no origin caused.
    ClientError,
}

impl Rule {
    /// In a few words.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::OwnPut => "the Envoy that answered a PUT served an older version",
            Self::CalmPut => {
                "another Envoy served a version older than an answered PUT, and no fault was near"
            }
            Self::DistrustedPut => {
                "another Envoy served a version older than an answered PUT for too long"
            }
            Self::CalmPurge => "what was purged was served, and no fault was near",
            Self::DistrustedPurge => "what was purged was served for too long",
            Self::SoftPurge => "what was purged softly was served as fresh",
            Self::Unwritten => "a version that was not written yet was served",
            Self::Foreign => "something was served that is no version of the key",
            Self::ClientError => "a client got an error, or no answer, that no origin caused",
        }
    }
}

/// What a violation goes back to, by its place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Put(usize),
    Purge(usize),
    Nothing,
}

/// Who saw the violation, by the place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Read(usize),
    Put(usize),
}

/// The promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) seen: Seen,
    pub(crate) cause: Cause,
}

/// What lies behind the verdicts on reads: answered PUTs and done purges of each key, in the order
/// of time.
struct Orders {
    puts: Vec<Vec<usize>>,
    purges: Vec<Vec<usize>>,
    applied: Vec<Vec<(u64, Micros)>>,
}

impl Orders {
    fn of(history: &History) -> Self {
        let of_each =
            |orders: &dyn Fn(usize) -> Vec<usize>| (0..keys::COUNT).map(orders).collect::<Vec<_>>();
        let mut puts = of_each(&|key| {
            let answered = history
                .puts
                .iter()
                .enumerate()
                .filter(|(_, put)| put.key == key && put.answered.is_ok());
            answered.map(|(at, _)| at).collect()
        });
        let mut purges = of_each(&|key| {
            let done = history
                .purges
                .iter()
                .enumerate()
                .filter(|(_, purge)| purge.done && purge.scope.covers(key));
            done.map(|(at, _)| at).collect()
        });
        puts.iter_mut()
            .for_each(|puts| puts.sort_by_key(|put| history.puts[*put].version));
        purges
            .iter_mut()
            .for_each(|purges| purges.sort_by_key(|purge| history.purges[*purge].begin));
        let mut applied = vec![vec![(0, 0)]; keys::COUNT];
        for one in &history.applied {
            applied[one.key].push((one.version, one.at));
        }
        Self {
            puts,
            purges,
            applied,
        }
    }
}

/// Every violation, in the order of the reads; at most one for each read.
pub(crate) fn judge(history: &History, terms: Terms) -> Vec<Violation> {
    Judge::of(history, terms).violations()
}

/// A history, read for what the verdicts need.
struct Judge<'a> {
    history: &'a History,
    orders: Orders,
    calm: Calm,
    terms: Terms,
}

/// What is broken, and by what.
type Verdict = (Rule, Cause);

impl<'a> Judge<'a> {
    fn of(history: &'a History, terms: Terms) -> Self {
        Self {
            history,
            orders: Orders::of(history),
            calm: Calm::of(&history.spans, terms.recovery),
            terms,
        }
    }

    fn violations(&self) -> Vec<Violation> {
        let reads = self
            .history
            .reads
            .iter()
            .enumerate()
            .filter_map(|(at, read)| {
                let (rule, cause) = self.on_read(read)?;
                Some(Violation {
                    rule,
                    seen: Seen::Read(at),
                    cause,
                })
            });
        let failed = self.history.puts.iter().enumerate().filter(|(_, put)| {
            put.answered.is_err()
                && !errors::are_excused(&self.history.spans, put.through.envoy, put.begin, put.end)
        });
        let seen = failed.map(|(at, _)| Seen::Put(at));
        reads
            .chain(seen.map(|seen| Violation {
                rule: Rule::ClientError,
                seen,
                cause: Cause::Nothing,
            }))
            .collect()
    }

    fn on_read(&self, read: &Read) -> Option<Verdict> {
        match &read.got {
            Got::Version(answer) => self.on_version(read, answer),
            Got::Mangled(_) => Some((Rule::Foreign, Cause::Nothing)),
            Got::Status(..) | Got::Nothing(_) => {
                let excused = errors::are_excused(
                    &self.history.spans,
                    read.through.envoy,
                    read.begin,
                    read.end,
                );
                (!excused).then_some((Rule::ClientError, Cause::Nothing))
            }
        }
    }

    fn on_version(&self, read: &Read, answer: &Answer) -> Option<Verdict> {
        let is_it = |(version, at): &(u64, Micros)| *version == answer.version && *at <= read.end;
        if !self.orders.applied[read.key].iter().any(is_it) {
            return Some((Rule::Unwritten, Cause::Nothing));
        }
        self.by_puts(read, answer)
            .or_else(|| self.by_purges(read, answer))
    }

    /// The first answered PUT after which the read was answered too old.
    fn by_puts(&self, read: &Read, answer: &Answer) -> Option<Verdict> {
        let (history, terms) = (self.history, &self.terms);
        let puts = &self.orders.puts[read.key];
        let newer = puts.partition_point(|put| history.puts[*put].version <= answer.version);
        puts[newer..]
            .iter()
            .take_while(|put| history.puts[**put].end < read.begin)
            .find_map(|&at| {
                let put = &history.puts[at];
                let settled = put.end + terms.calm;
                let rule = if put.through == read.through {
                    Rule::OwnPut
                } else if self.calm.is_calm(put.begin, settled) && read.begin > settled {
                    Rule::CalmPut
                } else if read.begin > put.end + terms.distrust + terms.slack
                    && !self.is_spared(read, answer)
                {
                    Rule::DistrustedPut
                } else {
                    return None;
                };
                Some((rule, Cause::Put(at)))
            })
    }

    /// The first done purge after which the read was answered with what it covers.
    fn by_purges(&self, read: &Read, answer: &Answer) -> Option<Verdict> {
        let (history, terms) = (self.history, &self.terms);
        let purges = &self.orders.purges[read.key];
        let from = purges.partition_point(|purge| history.purges[*purge].begin <= answer.generated);
        let to = purges.partition_point(|purge| history.purges[*purge].begin < read.begin);
        purges[from..to.max(from)].iter().find_map(|&at| {
            let purge = &history.purges[at];
            let was_calm = self.calm.is_calm(purge.begin, purge.end + terms.calm);
            let bound = if was_calm {
                terms.calm
            } else {
                terms.distrust + terms.slack
            };
            if read.begin <= purge.end + bound {
                return None;
            }
            let confirmed = answer.approved >= purge.begin;
            let rule = match (purge.soft, was_calm) {
                (true, _) if confirmed || !answer.hit || answer.is_marked_stale() => return None,
                (true, _) => Rule::SoftPurge,
                // Asked for while the purge was made, the origin has confirmed it: that may have
                // come after the purge.
                (false, true) if confirmed && answer.approved <= purge.end => return None,
                // Behind the purge nothing is there any more that the origin could confirm.
                (false, true) => Rule::CalmPurge,
                (false, false) if confirmed || self.is_spared(read, answer) => return None,
                (false, false) => Rule::DistrustedPurge,
            };
            Some((rule, Cause::Purge(at)))
        })
    }

    /// An Envoy that cannot hear goes on serving what `stale-if-error` allows while the origin is
    /// away too.
    fn is_spared(&self, read: &Read, answer: &Answer) -> bool {
        let origin_away = |span: &Span| {
            span.fault.kind.is_the_origins() && span.begin <= read.end && read.begin <= span.end
        };
        answer.told.contains("detail=stale-if-error") && self.history.spans.iter().any(origin_away)
    }
}
