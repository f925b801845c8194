//! The contract between a filter and its sidecar: every message, built and read in this one place.
//!
//! What this decides: paths, status codes, field names and bodies of the sidecar's HTTP API, and
//! the bytes of an entry ([`crate::entry`]). What it leaves out: caching. To the store an entry is
//! three points in time and some bytes; the time marks are opaque to it, the rules behind them are
//! the filter's.
//!
//! | request | body | answers |
//! |---|---|---|
//! | `POST /v1/look-up` | [`LookUp`] | `200` entry, `201` lease (and the stale entry), `202` held by another (and the stale entry), `204` nothing |
//! | `PUT /v1/entries/{key}` | an [`crate::entry::Entry`] | `204` stored, `409` refused: fence, `413` too large |
//! | `POST /v1/release` | [`Release`] | `204` |
//! | `POST /v1/invalidate` | [`Invalidate`] | `204` |
//! | `GET /v1/events?…` | [`EventsSince`] as the query | `200` [`Events`] |
//! | `POST /v1/purge` | [`Order`](crate::purge_order::Order) | `200` what was purged |
//!
//! Every answer that is not in this table is a fault of the store, and the filter goes on as if
//! nothing was stored.

use serde::{Deserialize, Serialize};

use crate::http_time::Timestamp;
use crate::key::KeyDigest;

mod clock;
mod events;
mod lease;
mod look_up;

pub use clock::{AHEAD_FIELD, CLOCK_FIELD, ClockReading, name_of};
pub use events::{EVENTS_PATH, Events, EventsSince, UNHEARD_FIELD};
pub use lease::{FENCE_FIELD, Fence, Holder, LeaseTerms};
pub use look_up::{AnswerParts, LOOK_UP_PATH, LookUp, LookUpAnswer, UNCACHEABLE_FIELD};

/// `PUT`: store an entry; the key's digest in hex follows.
pub const ENTRIES_PATH: &str = "/v1/entries/";
/// `POST`: give a lease back without an entry.
pub const RELEASE_PATH: &str = "/v1/release";
/// `POST`: drop everything stored under some keys.
pub const INVALIDATE_PATH: &str = "/v1/invalidate";

/// `POST`: purge, with the operator's token.
pub const PURGE_PATH: &str = "/v1/purge";

/// Give a lease back without an entry; whoever waits for it is woken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The key the lease is for.
    pub key: KeyDigest,
    /// The lease, or its holder alone. A fence that holds none is ignored.
    pub fence: Fence,
    /// For so many milliseconds look-ups are told that the key is not storable; 0 for not at all.
    /// More than [`Self::MAX_UNCACHEABLE_MS`] counts as that.
    pub uncacheable_ms: u64,
}

impl Release {
    /// The longest time for which a key is known as not storable.
    pub const MAX_UNCACHEABLE_MS: u64 = 600_000;

    /// Gives a lease back and says nothing else of its key.
    pub fn of(key: KeyDigest, fence: Fence) -> Self {
        Self {
            key,
            fence,
            uncacheable_ms: 0,
        }
    }
}

/// Drop every variant under some keys that was requested up to now, refuse writes of such ones, and
/// tell all Envoys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invalidate {
    /// At most [`Invalidate::MAX_KEYS`].
    pub digests: Vec<KeyDigest>,
    /// All keys: an Envoy had more to tell than it could keep.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everything: bool,
    /// A write whose entry was requested at or before this time is refused as if its lease had
    /// lapsed.
    pub now_ms: Timestamp,
}

impl Invalidate {
    /// One unsafe request concerns its own URI and those in `Location` and `Content-Location` (RFC
    /// 9111 §4.4).
    pub const MAX_KEYS: usize = 64;
}

/// What a store says to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAnswer {
    /// `204`.
    Stored,
    /// `409`: the lease lapsed or passed to another, or the key was invalidated meanwhile.
    Fenced,
    /// `413`: over the store's bound for one entry.
    TooLarge,
}

impl WriteAnswer {
    /// The HTTP status code that says this.
    pub fn status(self) -> u16 {
        match self {
            Self::Stored => 204,
            Self::Fenced => 409,
            Self::TooLarge => 413,
        }
    }
}

#[cfg(test)]
mod tests;
