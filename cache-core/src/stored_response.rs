//! What is kept of a response (RFC 9111 §3), with everything prepared that its reuse needs.
//!
//! What this decides: which numbers are worked out once, when a response is stored, so that a hit
//! only compares times. What it leaves out: whether it may be stored (`storability`) and reused
//! (`reuse`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use larder_contract::http_time::{DeltaSeconds, Timestamp};
use larder_contract::purge::Verdict;

use crate::fields::Fields;
use crate::partial::part::Part;
use crate::route::note::RouteNote;
use crate::vary::SelectingFields;

/// A stored response. Immutable: freshening makes a new one (RFC 9111 §4.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The URL it was fetched from, for people; matching uses keys.
    pub url: String,
    /// HTTP status code.
    pub status: u16,
    /// End-to-end fields, without `Age`, as they are sent again.
    pub fields: Fields,
    /// The content: all of it, or `part`.
    pub body: Arc<[u8]>,
    /// Which part of the representation the content is; `None` for the whole (RFC 9111 §3.3).
    pub part: Option<Part>,
    /// When the request was sent (RFC 9111 §4.2.3).
    pub request_time: Timestamp,
    /// When the response was received (RFC 9111 §4.2.3).
    pub response_time: Timestamp,
    /// corrected_initial_age (RFC 9111 §4.2.3).
    pub initial_age: DeltaSeconds,
    /// What the response says about its own reuse.
    pub terms: ReuseTerms,
    /// Whether its own words make it everybody's, credentials or not (RFC 9111 §3.5).
    pub explicitly_public: bool,
    /// A soft purge ended its freshness then, whatever its lifetime.
    pub stale_from: Option<Timestamp>,
    /// The request fields that chose this variant (RFC 9111 §4.1).
    pub selecting: SelectingFields,
    /// Names under which it can be purged.
    pub tags: Vec<String>,
    /// What was seen of the route by which it came.
    pub route: RouteNote,
    /// What this process has seen of answers from it.
    pub treatment: SeenTreatment,
}

impl StoredResponse {
    /// Bytes it takes, roughly, with what holding it costs.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 512;
        let tags: usize = self
            .tags
            .iter()
            .map(|tag| tag.len() + size_of::<String>())
            .sum();
        self.body.len() + self.fields.text_len() + self.url.len() + tags + OVERHEAD
    }

    /// What purges leave of it.
    pub fn left_by(self: Arc<Self>, verdict: Verdict) -> Option<Arc<Self>> {
        match verdict {
            Verdict::Kept => Some(self),
            Verdict::StaleSince(time) => Some(self.stale_since(time)),
            Verdict::Gone(_) => None,
        }
    }

    /// The same, stale since `time` at the latest: a soft purge.
    #[must_use]
    pub fn stale_since(self: Arc<Self>, time: Timestamp) -> Arc<Self> {
        match Verdict::StaleSince(time).beyond(self.stale_from) {
            Verdict::Kept => self,
            _ => Arc::new(Self {
                stale_from: Some(time),
                ..(*self).clone()
            }),
        }
    }
}

/// How the origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answered, with an error (RFC 5861 §4).
    ErrorStatus,
    /// It gave no answer: the cache is disconnected (RFC 9111 §4.2.4).
    Disconnected,
}

/// What becomes of an answer of the cache's own on its way through the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It reaches the client as it was given.
    Exact,
    /// The host adds to it or rewrites it.
    Changed,
}

/// The [`Treatment`] seen last, if any was, and whether the origin failed. It is no part of the response: it does not count in a
/// comparison, is not encoded, and is unknown for a clone, which may be answered with under other
/// circumstances.
#[derive(Debug, Default)]
pub struct SeenTreatment {
    treatment: AtomicU8,
    /// Until when the origin is left alone, in milliseconds after the epoch, times two; and 1 if it
    /// did not answer at all.
    failed: AtomicU64,
}

impl SeenTreatment {
    const EXACT: u8 = 1;
    const CHANGED: u8 = 2;

    /// What was seen, if anything was.
    pub fn get(&self) -> Option<Treatment> {
        match self.treatment.load(Ordering::Relaxed) {
            Self::EXACT => Some(Treatment::Exact),
            Self::CHANGED => Some(Treatment::Changed),
            _ => None,
        }
    }

    /// Remembers what was seen. Once changed it stays so: the host may treat the same answer in
    /// several ways.
    pub fn note(&self, seen: Treatment) {
        let seen = if seen == Treatment::Exact {
            Self::EXACT
        } else {
            Self::CHANGED
        };
        self.treatment.fetch_max(seen, Ordering::Relaxed);
    }

    /// Remembers that the origin failed when it was asked about the response, and until when it is
    /// not asked again.
    pub fn note_failure(&self, failure: Failure, until: Timestamp) {
        let lost = u64::from(failure == Failure::Disconnected);
        self.failed
            .store(until.as_millis() << 1 | lost, Ordering::Relaxed);
    }

    /// How the origin failed a moment ago, while it is left alone for that.
    pub fn recent_failure(&self, now: Timestamp) -> Option<Failure> {
        let failed = self.failed.load(Ordering::Relaxed);
        let failure = if failed & 1 == 1 {
            Failure::Disconnected
        } else {
            Failure::ErrorStatus
        };
        (now.as_millis() < failed >> 1).then_some(failure)
    }
}

impl Clone for SeenTreatment {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for SeenTreatment {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for SeenTreatment {}

/// What a response, or the override that stands in for it, says about its own reuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReuseTerms {
    /// freshness_lifetime (RFC 9111 §4.2.1).
    pub lifetime: DeltaSeconds,
    /// How long past its lifetime it may be served while it is refreshed (RFC 5861 §3).
    pub stale_while_revalidate: DeltaSeconds,
    /// How long past its lifetime it may be served when the origin fails (RFC 5861 §4).
    pub stale_if_error: DeltaSeconds,
    /// Never served stale: `must-revalidate`, `proxy-revalidate`, `s-maxage` (RFC 9111 §5.2.2.2,
    /// .8, .10).
    pub must_revalidate: bool,
    /// Validated before every use (RFC 9111 §5.2.2.4).
    pub no_cache: bool,
}

#[cfg(test)]
impl StoredResponse {
    /// A plain `200` received a million seconds after the epoch, to be varied by tests.
    pub(crate) fn example() -> Self {
        Self {
            url: "http://a.example/".to_owned(),
            status: 200,
            fields: Fields::from_pairs([("content-type", "text/plain"), ("etag", "\"1\"")]),
            body: Arc::from(b"hello".as_slice()),
            part: None,
            request_time: Timestamp::from_millis(1_000_000_000),
            response_time: Timestamp::from_millis(1_000_000_000),
            initial_age: DeltaSeconds::ZERO,
            terms: ReuseTerms::default(),
            explicitly_public: false,
            stale_from: None,
            selecting: SelectingFields::default(),
            tags: Vec::new(),
            route: RouteNote::default(),
            treatment: SeenTreatment::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_treatment_that_changed_an_answer_once_is_remembered_and_no_part_of_the_response() {
        let stored = StoredResponse::example();
        assert_eq!(stored.treatment.get(), None);
        stored.treatment.note(Treatment::Changed);
        stored.treatment.note(Treatment::Exact);
        assert_eq!(stored.treatment.get(), Some(Treatment::Changed));
        let copy = stored.clone();
        assert_eq!(copy.treatment.get(), None);
        assert_eq!(copy, stored);
    }
}
