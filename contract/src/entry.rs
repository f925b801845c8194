//! The bytes of one entry: on the way to the sidecar, in the handoff between worker VMs, and as a
//! Redis hash.
//!
//! ```text
//! 0      3      4            8                8+n
//! +------+------+------------+----------------+------------------+
//! | LRD  | 0x01 | n (u32 BE) | meta: JSON (n) | body: the rest   |
//! +------+------+------------+----------------+------------------+
//! ```
//!
//! In Redis the same entry is one hash per variant: each member of the meta is one field, the body
//! is another, so that `redis-cli HGETALL` shows it. Everything read is checked: version, lengths,
//! digest. What fails is not an entry. What this leaves out: what the numbers mean for caching; see
//! `codec`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::http_time::Timestamp;
use crate::purge::Verdict;
use crate::selectors::{self, Selectors};

/// First bytes of every encoded entry; the last one is the version.
pub const MAGIC: [u8; 4] = *b"LRD\x01";

/// The version of the meta and of the Redis layout. An entry of another version is treated as
/// absent.
pub const VERSION: u32 = 1;

/// The Redis hash field that holds the body.
pub const BODY_FIELD: &str = "body";

const HEADER_LEN: usize = 8;

/// A stored response as the store sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Everything but the body.
    pub meta: EntryMeta,
    /// The response's content.
    pub body: Vec<u8>,
}

/// What is known of a stored response besides its body. Text is Latin-1 widened to Unicode, so any
/// byte of a header value survives JSON; see [`crate::latin1`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryMeta {
    /// [`VERSION`].
    pub version: u32,
    /// The URL it was fetched from, for people who look into Redis. Not used to match.
    pub url: String,
    /// HTTP status code.
    pub status: u16,
    /// End-to-end header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// In one word what happens once it is stale: `must-revalidate`, `stale-while-revalidate`,
    /// `stale-if-error`, `stale` (both) or `revalidate` (neither named).
    pub cache_type: String,
    /// Freshness lifetime in seconds (RFC 9111 §4.2.1).
    pub max_age: u64,
    /// For how many seconds after `max_age` it may be used stale: the longer of its two stale
    /// windows (RFC 5861).
    pub use_stale_upto: u64,
    /// `stale-while-revalidate` in seconds.
    pub stale_while_revalidate: u64,
    /// `stale-if-error` in seconds.
    pub stale_if_error: u64,
    /// The entity tag, quotes and `W/` included, or empty.
    pub etag: String,
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
    /// Selecting header fields with their values in the request it answered; `None` where absent
    /// (RFC 9111 §4.1).
    pub selecting: Vec<(String, Option<String>)>,
    /// `selecting` as the store compares it.
    pub selectors: Selectors,
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
    /// `xxh3:` and the XXH3-128 of the body in hex: against damage, not against forgery.
    pub digest: String,
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

    /// Tells the variants of one key apart; see [`selectors::variant_id`].
    pub fn variant_id(&self) -> String {
        selectors::variant_id(&self.selectors)
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

/// `xxh3:` and the XXH3-128 of `body` in hex.
pub fn digest(body: &[u8]) -> String {
    format!("xxh3:{:032x}", xxhash_rust::xxh3::xxh3_128(body))
}

/// Writes an entry in the frame above.
pub fn encode(meta: &EntryMeta, body: &[u8]) -> Vec<u8> {
    let json = serde_json::to_vec(meta).unwrap_or_default();
    let len = u32::try_from(json.len()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(HEADER_LEN + json.len() + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(body);
    bytes
}

/// Reads the meta and where the body begins, without checking the body: what the sidecar needs of
/// an entry in transit.
pub fn decode_meta(bytes: &[u8]) -> Result<(EntryMeta, usize), EntryFault> {
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(EntryFault::Framing)?;
    if magic[..3] != MAGIC[..3] {
        return Err(EntryFault::Framing);
    }
    if magic[3] != MAGIC[3] {
        return Err(EntryFault::Version);
    }
    let (len, rest) = rest.split_first_chunk::<4>().ok_or(EntryFault::Framing)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| EntryFault::Framing)?;
    let json = rest.get(..len).ok_or(EntryFault::Framing)?;
    let meta: EntryMeta = serde_json::from_slice(json).map_err(|_| EntryFault::Meta)?;
    if meta.version != VERSION {
        return Err(EntryFault::Version);
    }
    Ok((meta, HEADER_LEN + len))
}

/// Reads an entry and checks its body against its meta.
pub fn decode(bytes: &[u8]) -> Result<Entry, EntryFault> {
    let (meta, body_start) = decode_meta(bytes)?;
    let body = bytes.get(body_start..).ok_or(EntryFault::Framing)?;
    check_body(&meta, body)?;
    Ok(Entry {
        meta,
        body: body.to_vec(),
    })
}

/// Checks length and digest of a body.
pub fn check_body(meta: &EntryMeta, body: &[u8]) -> Result<(), EntryFault> {
    if u64::try_from(body.len()) != Ok(meta.body_length) {
        return Err(EntryFault::Length);
    }
    if digest(body) != meta.digest {
        return Err(EntryFault::Digest);
    }
    Ok(())
}

/// The meta as hash fields: text as it is, all else as JSON. The body goes into [`BODY_FIELD`]
/// beside them.
pub fn to_hash_fields(meta: &EntryMeta) -> Vec<(String, String)> {
    let Ok(serde_json::Value::Object(members)) = serde_json::to_value(meta) else {
        return Vec::new();
    };
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    members
        .into_iter()
        .map(|(name, value)| (name, text(value)))
        .collect()
}

/// Reads hash fields back; fields that are no member of the meta are refused, as is a missing one.
pub fn from_hash_fields<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<EntryMeta, EntryFault> {
    const TEXT: [&str; 4] = ["url", "cache_type", "etag", "digest"];
    let mut members = serde_json::Map::new();
    for (name, value) in fields {
        if name == BODY_FIELD {
            continue;
        }
        let value = if TEXT.contains(&name) {
            let text = std::str::from_utf8(value).map_err(|_| EntryFault::Meta)?;
            serde_json::Value::String(text.to_owned())
        } else {
            serde_json::from_slice(value).map_err(|_| EntryFault::Meta)?
        };
        members.insert(name.to_owned(), value);
    }
    let meta: EntryMeta = serde_json::from_value(members.into()).map_err(|_| EntryFault::Meta)?;
    if meta.version != VERSION {
        Err(EntryFault::Version)
    } else {
        Ok(meta)
    }
}

#[cfg(test)]
mod tests;
