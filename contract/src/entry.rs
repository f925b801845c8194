//! One stored response: on the way to the sidecar, in the handoff between worker VMs, and in the
//! stores.
//!
//! It travels as one frame, whose bytes are described at the head of `frame`. In Redis it is one
//! hash per variant: each member of the meta is one field, the body is another, so that `redis-cli
//! HGETALL` shows it (`hash_fields`). Everything read is checked: version, lengths, digest. What
//! fails is not an entry. What this leaves out: what the numbers mean for caching; see `codec`.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::as_text::serialise_as_text;
use crate::http_time::Timestamp;
use crate::purge::Verdict;
use crate::selectors::{self, Selectors};
use crate::wire::FrameFault;

mod frame;
mod hash_fields;
mod headers;
mod in_frame;
mod selecting;

pub use frame::{MAGIC, check_body, decode, decode_meta, encode};
pub use hash_fields::{BODY_FIELD, from_hash_fields, to_hash_fields};
pub use headers::Headers;
pub use in_frame::Entry;
pub use selecting::{Selecting, SelectingField};

/// The version of the frame and of the Redis layout. An entry of another version is treated as
/// absent.
pub const VERSION: u8 = 2;

/// What is known of a stored response besides its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryMeta {
    /// The URL it was fetched from, for people who look into Redis and for purges by prefix. Not
    /// used to match.
    pub url: String,
    /// HTTP status code.
    pub status: u16,
    /// End-to-end header fields in order, names in lower case.
    pub headers: Headers,
    /// In one word what happens once it is stale.
    pub cache_type: CacheType,
    /// Freshness lifetime in seconds (RFC 9111 §4.2.1).
    pub max_age: u64,
    /// For how many seconds after `max_age` it may be used stale: the longer of its two stale
    /// windows (RFC 5861).
    pub use_stale_upto: u64,
    /// `stale-while-revalidate` in seconds.
    pub stale_while_revalidate: u64,
    /// `stale-if-error` in seconds.
    pub stale_if_error: u64,
    /// Age in seconds when the response was received: corrected_initial_age (RFC 9111 §4.2.3).
    pub initial_age: u64,
    /// Never served stale (RFC 9111 §5.2.2.2, §5.2.2.8, §5.2.2.10).
    pub must_revalidate: bool,
    /// Validated before every use (RFC 9111 §5.2.2.4).
    pub no_cache: bool,
    /// For everybody in so many words, credentials or not (RFC 9111 §3.5).
    pub public: bool,
    /// When the request was sent (RFC 9111 §4.2.3).
    pub request_time_ms: Timestamp,
    /// When the response was received (RFC 9111 §4.2.3).
    pub response_time_ms: Timestamp,
    /// Up to here a look-up answers `200`.
    pub fresh_until_ms: Timestamp,
    /// Up to here a look-up need not wait for the lease's holder.
    pub serve_stale_until_ms: Timestamp,
    /// How long the store keeps it, from the write on: freshness, stale windows and keep together.
    /// 1 ms to 1 year.
    pub ttl_ms: u64,
    /// Selecting header fields with their values in the request it answered (RFC 9111 §4.1).
    pub selecting: Selecting,
    /// Names under which it can be purged.
    pub tags: Vec<String>,
    /// When a soft purge ended its freshness; absent when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_from_ms: Option<Timestamp>,
    /// For a part of a representation, the offset of its first byte; absent for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_first: Option<u64>,
    /// For a part, the length of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_complete: Option<u64>,
    /// What was seen of the route by which it came; absent when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteSeen>,
    /// Bytes of the body.
    pub body_length: u64,
    /// Of the body: against damage, not against forgery.
    pub digest: BodyDigest,
}

/// In one word what happens to a response once it is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheType {
    /// It is validated first, whatever happens.
    MustRevalidate,
    /// It may be served while it is refreshed.
    StaleWhileRevalidate,
    /// It may be served when the origin fails.
    StaleIfError,
    /// Both.
    Stale,
    /// Neither was named.
    Revalidate,
}

/// What was seen of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSeen {
    /// When.
    pub at_ms: Timestamp,
    /// Whether it changes what its client sent, or what the origin answered.
    pub changes: bool,
}

impl EntryMeta {
    /// Its freshness ends at `time` at the latest: a soft purge. Its stale window moves along, so
    /// it never lives longer. Says whether that changes anything.
    pub fn end_freshness(&mut self, time: Timestamp) -> bool {
        if Verdict::StaleSince(time).beyond(self.stale_from_ms) == Verdict::Kept {
            return false;
        }
        self.stale_from_ms = Some(time);
        if self.fresh_until_ms > time {
            let window = self.serve_stale_until_ms.millis_since(self.fresh_until_ms);
            self.fresh_until_ms = time;
            self.serve_stale_until_ms = time.plus_millis(window);
        }
        true
    }

    /// All its times, moved by so many milliseconds: onto another clock.
    pub fn move_times(&mut self, by_ms: i64) {
        let times = [
            &mut self.request_time_ms,
            &mut self.response_time_ms,
            &mut self.fresh_until_ms,
            &mut self.serve_stale_until_ms,
        ];
        let seen = self.route.as_mut().map(|seen| &mut seen.at_ms);
        for time in times
            .into_iter()
            .chain(self.stale_from_ms.as_mut())
            .chain(seen)
        {
            *time = time.moved(by_ms);
        }
    }

    /// What it was selected by, as the store compares it.
    pub fn selectors(&self) -> Selectors {
        self.selecting.selectors()
    }

    /// Tells the variants of one key apart; see [`selectors::variant_id`].
    pub fn variant_id(&self) -> String {
        selectors::variant_id(&self.selectors())
    }
}

/// Why some bytes are not an entry. The variants are for counting and logs; all mean "nothing
/// stored".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFault {
    /// Too short, no magic, or a length that does not fit.
    Framing,
    /// Written by another version.
    Version,
    /// The meta is not what [`EntryMeta`] says.
    Meta,
    /// The body's length differs from the meta's.
    Length,
    /// The body's digest differs from the meta's.
    Digest,
}

impl fmt::Display for EntryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Framing => "not framed as an entry",
            Self::Version => "written by another version",
            Self::Meta => "meta unreadable",
            Self::Length => "body length differs",
            Self::Digest => "body digest differs",
        })
    }
}

impl std::error::Error for EntryFault {}

impl From<FrameFault> for EntryFault {
    fn from(_: FrameFault) -> Self {
        Self::Meta
    }
}

/// The XXH3-128 of a body. `xxh3:` and hex digits in Redis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BodyDigest(pub [u8; 16]);

/// The digest of `body`.
pub fn digest(body: &[u8]) -> BodyDigest {
    BodyDigest(xxh3_128(body).to_be_bytes())
}

impl fmt::Display for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xxh3:{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BodyDigest {
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text.strip_prefix("xxh3:")?, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

serialise_as_text!(BodyDigest, "a digest is `xxh3:` and 32 hex digits");

#[cfg(test)]
mod tests;
