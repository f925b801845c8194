//! The contract between a filter and its sidecar: every message, built and read in this one place.
//!
//! What this decides: paths, status codes, field names and bodies of the sidecar's HTTP API, and the bytes of an entry
//! ([`crate::entry`]). What it leaves out: caching. To the store an entry is three points in time and some bytes; the time
//! marks are opaque to it, the rules behind them are the filter's.
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
//! Every answer that is not in this table is a fault of the store, and the filter goes on as if nothing was stored.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::http_time::Timestamp;
use crate::key::KeyDigest;
use crate::purge::Purge;
use crate::selectors::Selectors;

/// `POST`: look up an entry, and be given the lease or wait for its holder.
pub const LOOK_UP_PATH: &str = "/v1/look-up";
/// `PUT`: store an entry; the key's digest in hex follows.
pub const ENTRIES_PATH: &str = "/v1/entries/";
/// `POST`: give a lease back without an entry.
pub const RELEASE_PATH: &str = "/v1/release";
/// `POST`: drop everything stored under some keys.
pub const INVALIDATE_PATH: &str = "/v1/invalidate";

/// `GET`: what was purged since a cursor; a long poll.
pub const EVENTS_PATH: &str = "/v1/events";
/// `POST`: purge, with the operator's token.
pub const PURGE_PATH: &str = "/v1/purge";

/// Carries the fencing token: in a `201` the token granted, in a `PUT` the token held.
pub const FENCE_FIELD: &str = "x-larder-fence";
/// `1` in a `204` look-up answer: the key's last response was not storable, so nobody leads and nobody waits.
pub const UNCACHEABLE_FIELD: &str = "x-larder-uncacheable";

/// Says in every call of a filter which Envoy makes it and what time it is there: a [`ClockReading`]. Clocks differ, and
/// what was requested before a purge is told by time; so the sidecar puts all times that go to the store on the store's
/// clock.
pub const CLOCK_FIELD: &str = "x-larder-clock";
/// In a look-up's answer: by how many milliseconds the asker's clock is ahead of the store's, a negative number where it is
/// behind. The entry that comes along has the store's times. Absent where they agree.
pub const AHEAD_FIELD: &str = "x-larder-ahead";
/// In a poll's answer: for how many milliseconds before the poll came the sidecar had heard of no purge that others may have
/// made. Absent where it had heard of all.
pub const UNHEARD_FIELD: &str = "x-larder-unheard-ms";

/// Which Envoy makes a call, and what time it is there: `00000000000000a1:1700000000000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// A random number that all workers of an Envoy share.
    pub envoy: u64,
    /// When the call was made, on the Envoy's clock.
    pub now: Timestamp,
}

impl ClockReading {
    /// Reads it as it stands in [`CLOCK_FIELD`].
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (envoy, now) = std::str::from_utf8(value).ok()?.split_once(':')?;
        let envoy = (envoy.len() == 16).then(|| u64::from_str_radix(envoy, 16).ok()).flatten()?;
        Some(Self { envoy, now: Timestamp::from_millis(now.parse().ok()?) })
    }
}

impl fmt::Display for ClockReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.envoy, self.now.as_millis())
    }
}

/// Proof of a lease, refused on a write once the lease has lapsed or passed to another. 1 to 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub String);

impl Fence {
    /// Reads a fence as it stands in [`FENCE_FIELD`].
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let well_formed = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        well_formed.then(|| Self(text.to_owned()))
    }
}

/// *Look up, or give me the lease, or let me wait*, in one round trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookUp {
    /// What is asked for.
    pub key: KeyDigest,
    /// The presented request's fields. A variant matches when for each of its selectors `presented` holds the same
    /// token, or none where the selector is empty. Of several that match, the one with the latest response time counts.
    pub presented: Selectors,
    /// The filter's clock, which the entry's time marks are compared with.
    pub now_ms: Timestamp,
    /// Wanted when no entry matches or the one that does is no longer fresh; `None` asks for a plain look-up.
    pub lease: Option<LeaseTerms>,
}

/// Who asks for a lease: a random number, 16 hex digits in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub u64);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Holder {
    /// As a fence that names the holder only: good for giving back a lease whose grant was never seen.
    pub fn as_fence(self) -> Fence {
        Fence(self.to_string())
    }
}

impl Serialize for Holder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Holder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = (text.len() == 16).then(|| u64::from_str_radix(&text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| serde::de::Error::custom("a holder is 16 hex digits"))
    }
}

/// How a lease is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseTerms {
    /// 16 hex digits that the asker drew. The lease's fence ends in them, so that an asker who never saw the answer can
    /// still give the lease back.
    pub holder: Holder,
    /// After this many milliseconds without a write the lease lapses. 1 to [`Self::MAX_LEASE_MS`].
    pub lease_ms: u64,
    /// How long the answer may be held back while another holds the lease, in milliseconds. 0 to [`Self::MAX_WAIT_MS`]. The answer
    /// comes at once when the holder publishes, gives up, or lets its lease lapse; in the latter two cases this
    /// look-up takes part in the race for the lease again.
    pub wait_ms: u64,
}

impl LeaseTerms {
    /// The longest lease.
    pub const MAX_LEASE_MS: u64 = 600_000;
    /// The longest wait for a lease's holder.
    pub const MAX_WAIT_MS: u64 = 30_000;

    /// What is out of range, in words.
    pub fn mistake(self) -> Option<String> {
        let (lease, wait) = (Self::MAX_LEASE_MS, Self::MAX_WAIT_MS);
        let wrong = !(1..=lease).contains(&self.lease_ms) || self.wait_ms > wait;
        wrong.then(|| format!("lease_ms is 1 to {lease}, wait_ms at most {wait}"))
    }
}

/// The answer to a [`LookUp`]. Entries are whole [`crate::entry::Entry`] encodings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUpAnswer {
    /// `200`: an entry that is fresh, or any that matches when no lease was asked for.
    Entry(Vec<u8>),
    /// `201`: go and fetch; what matched but is no longer fresh comes along.
    Lease {
        /// To be shown when the result is stored.
        fence: Fence,
        /// For revalidation, or to be served stale.
        stale: Option<Vec<u8>>,
    },
    /// `202`: another holds the lease. At once when the matching entry may be served stale meanwhile, else after the wait.
    Held {
        /// For use where staleness is allowed.
        stale: Option<Vec<u8>>,
    },
    /// `204`: nothing matches and no lease was given: either none was asked for, or responses under this key are known
    /// to be not storable.
    Nothing {
        /// Whether the key is marked as not storable.
        uncacheable: bool,
    },
}

/// A [`LookUpAnswer`] as a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerParts {
    /// HTTP status code.
    pub status: u16,
    /// Value of [`FENCE_FIELD`].
    pub fence: Option<Fence>,
    /// Whether [`UNCACHEABLE_FIELD`] is `1`.
    pub uncacheable: bool,
    /// The message's content: an entry or empty.
    pub body: Vec<u8>,
}

impl LookUpAnswer {
    /// The message that says this.
    pub fn into_parts(self) -> AnswerParts {
        let parts = |status, fence, uncacheable, body: Option<Vec<u8>>| AnswerParts {
            status,
            fence,
            uncacheable,
            body: body.unwrap_or_default(),
        };
        match self {
            Self::Entry(entry) => parts(200, None, false, Some(entry)),
            Self::Lease { fence, stale } => parts(201, Some(fence), false, stale),
            Self::Held { stale } => parts(202, None, false, stale),
            Self::Nothing { uncacheable } => parts(204, None, uncacheable, None),
        }
    }

    /// Reads the message. `None` when it is none of the four: a fault of the store.
    pub fn from_parts(parts: AnswerParts) -> Option<Self> {
        let stale = |body: Vec<u8>| (!body.is_empty()).then_some(body);
        match parts.status {
            200 if !parts.body.is_empty() => Some(Self::Entry(parts.body)),
            201 => Some(Self::Lease { fence: parts.fence?, stale: stale(parts.body) }),
            202 => Some(Self::Held { stale: stale(parts.body) }),
            204 => Some(Self::Nothing { uncacheable: parts.uncacheable }),
            _ => None,
        }
    }
}

/// Give a lease back without an entry; whoever waits for it is woken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The key the lease is for.
    pub key: KeyDigest,
    /// The lease, or its holder alone. A fence that holds none is ignored.
    pub fence: Fence,
    /// For so many milliseconds look-ups are told that the key is not storable; 0 for not at all. More than
    /// [`Self::MAX_UNCACHEABLE_MS`] counts as that.
    pub uncacheable_ms: u64,
}

impl Release {
    /// The longest time for which a key is known as not storable.
    pub const MAX_UNCACHEABLE_MS: u64 = 600_000;
}

/// Drop every variant under some keys that was requested up to now, refuse writes of such ones, and tell all Envoys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invalidate {
    /// At most [`Invalidate::MAX_KEYS`].
    pub digests: Vec<KeyDigest>,
    /// All keys: an Envoy had more to tell than it could keep.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everything: bool,
    /// A write whose entry was requested at or before this time is refused as if its lease had lapsed.
    pub now_ms: Timestamp,
}

impl Invalidate {
    /// One unsafe request concerns its own URI and those in `Location` and `Content-Location` (RFC 9111 §4.4).
    pub const MAX_KEYS: usize = 64;
}

/// The question of `GET /v1/events`, as its query: what has been purged since a cursor?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsSince {
    /// The cursor of the last answer. `None`: the answer comes at once and is empty, the place to begin.
    pub after: Option<String>,
    /// How long the answer may be held back until there is something. 0 to [`Events::MAX_WAIT_MS`].
    pub wait_ms: u64,
    /// Which Envoy asks: at most 32 ASCII letters and digits; empty for somebody who is not watched.
    pub envoy: String,
    /// Whether this Envoy lately forwarded unsafe requests; see `sessions` in the sidecar.
    pub writes: bool,
}

impl EventsSince {
    /// The path with the query that asks this.
    pub fn path(&self) -> String {
        let mut path = format!("{EVENTS_PATH}?envoy={}&writes={}", self.envoy, self.writes);
        if let Some(cursor) = &self.after {
            path.push_str(&format!("&wait_ms={}&after={cursor}", self.wait_ms));
        }
        path
    }

    /// What is malformed, in words.
    pub fn mistake(&self) -> Option<String> {
        let well_formed = self.envoy.len() <= 32 && self.envoy.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (!well_formed).then(|| "envoy is at most 32 letters and digits".to_owned())
    }
}

/// What has been purged since a cursor: the answer to [`EventsSince`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// To be given as `after` next. Opaque.
    pub cursor: String,
    /// The cursor given is not known any more: something may have been missed, and level 1 has to be emptied.
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
