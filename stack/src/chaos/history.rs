//! What happened: every event with its begin and end, by the one clock of this program.

use super::keys;
use super::schedule::Fault;

/// Microseconds since the start.
pub(crate) type Micros = u64;

/// Whom a client asked: one of the Envoys, and which of its lives (a killed one begins another).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Through {
    pub(crate) envoy: usize,
    pub(crate) life: u32,
}

/// A GET.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) through: Through,
    pub(crate) key: usize,
    pub(crate) begin: Micros,
    pub(crate) end: Micros,
    pub(crate) got: Got,
}

/// What a GET led to.
#[derive(Clone, Debug)]
pub(crate) enum Got {
    /// A version of the key, whole.
    Version(Answer),
    /// `200` with something else.
    Mangled(String),
    /// Another status, and what the cache says of it.
    Status(u16, String),
    /// No answer, and why.
    Nothing(String),
}

/// A version as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) version: u64,
    /// When the origin gave this content.
    pub(crate) generated: Micros,
    /// When the origin last gave it or confirmed it.
    pub(crate) approved: Micros,
    /// `x-cache-status: HIT`.
    pub(crate) hit: bool,
    /// `Cache-Status`.
    pub(crate) told: Box<str>,
}

impl Answer {
    /// Whether it says that it is served although it is stale.
    pub(crate) fn is_marked_stale(&self) -> bool {
        self.told.contains("detail=stale-")
    }
}

/// A PUT of the next version of a key. One client writes a key, one version after the other.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) through: Through,
    pub(crate) key: usize,
    pub(crate) version: u64,
    pub(crate) begin: Micros,
    pub(crate) end: Micros,
    /// The error is a status, or why there was no answer. Then it may have been carried out or not,
    /// or yet will be.
    pub(crate) answered: Result<(), String>,
}

/// What a purge concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Url(usize),
    Tag(usize),
    Prefix(usize),
    Everything,
}

impl Scope {
    /// Whether a key lies in it.
    pub(crate) fn covers(self, key: usize) -> bool {
        match self {
            Self::Url(one) => one == key,
            Self::Tag(tag) => keys::tag(key) == Some(tag),
            Self::Prefix(prefix) => keys::prefix(key) == prefix,
            Self::Everything => true,
        }
    }
}

/// An operator's order to a sidecar.
#[derive(Clone, Debug)]
pub(crate) struct Purge {
    pub(crate) sidecar: usize,
    pub(crate) scope: Scope,
    pub(crate) soft: bool,
    pub(crate) begin: Micros,
    pub(crate) end: Micros,
    /// Whether it was answered `200`.
    pub(crate) done: bool,
}

/// A fault from its begin until everything was put right again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) fault: Fault,
    pub(crate) begin: Micros,
    /// The largest number while it lasts.
    pub(crate) end: Micros,
}

/// A version became the origin's current one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    pub(crate) key: usize,
    pub(crate) version: u64,
    pub(crate) at: Micros,
}

/// All of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) reads: Vec<Read>,
    pub(crate) puts: Vec<Put>,
    pub(crate) purges: Vec<Purge>,
    pub(crate) spans: Vec<Span>,
    pub(crate) applied: Vec<Applied>,
}
