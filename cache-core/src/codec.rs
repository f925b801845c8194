//! A stored response as an entry of the store, and back.
//!
//! What this decides: which numbers travel, the time marks the store compares, and how long it
//! keeps an entry. Everything that comes back is checked: a header that could split a response
//! makes the entry count as absent. What it leaves out: the bytes; those are
//! `larder_contract::entry`.

use std::sync::Arc;

use larder_contract::entry::{CacheType, EntryFault, EntryMeta, Headers, digest};
use larder_contract::http_time::{DeltaSeconds, Timestamp};

use crate::fields::{Fields, are_safe_to_emit};
use crate::partial::Part;
use crate::policy::Policy;
use crate::reuse;
use crate::stored_response::{ReuseTerms, SeenTreatment, StoredResponse};
use crate::vary::SelectingFields;

/// One year: nothing is kept longer in the store.
const MAX_TTL: DeltaSeconds = DeltaSeconds::new(365 * 86_400);

/// The meta of `stored` for a write at `now`. Its body goes beside it.
pub fn to_meta(stored: &StoredResponse, policy: &Policy, now: Timestamp) -> EntryMeta {
    let terms = &stored.terms;
    let fresh_until = reuse::fresh_until(stored);
    let windows = StaleWindows::of(terms, policy);
    let until = fresh_until
        .plus(windows.for_any.max(windows.grace))
        .plus(policy.keep);
    EntryMeta {
        url: stored.url.clone(),
        status: stored.status,
        headers: headers_of(&stored.fields),
        cache_type: cache_type(terms),
        max_age: terms.lifetime.as_secs(),
        use_stale_upto: windows.for_any.as_secs(),
        stale_while_revalidate: terms.stale_while_revalidate.as_secs(),
        stale_if_error: terms.stale_if_error.as_secs(),
        initial_age: stored.initial_age.as_secs(),
        must_revalidate: terms.must_revalidate,
        no_cache: terms.no_cache,
        public: stored.explicitly_public,
        request_time_ms: stored.request_time,
        response_time_ms: stored.response_time,
        // A response that must be validated before every use is never what a look-up wants as it
        // is.
        fresh_until_ms: if terms.no_cache {
            stored.response_time
        } else {
            fresh_until
        },
        serve_stale_until_ms: if terms.no_cache {
            stored.response_time
        } else {
            fresh_until.plus(windows.while_revalidating)
        },
        ttl_ms: until.millis_since(now).clamp(1, MAX_TTL.as_millis()),
        selecting: stored.selecting.clone().into(),
        tags: stored.tags.clone(),
        stale_from_ms: stored.stale_from,
        part_first: stored.part.map(|part| part.first),
        part_complete: stored.part.map(|part| part.complete),
        route: stored.route.seen(),
        body_length: stored.body.len() as u64,
        digest: digest(&stored.body),
    }
}

/// For how long a response may be served once it is stale. None of them where `must-revalidate`
/// forbids it.
struct StaleWindows {
    while_revalidating: DeltaSeconds,
    /// For whichever reason RFC 5861 knows.
    for_any: DeltaSeconds,
    grace: DeltaSeconds,
}

impl StaleWindows {
    fn of(terms: &ReuseTerms, policy: &Policy) -> Self {
        let most = if terms.must_revalidate {
            DeltaSeconds::ZERO
        } else {
            policy.max_stale
        };
        let while_revalidating = terms.stale_while_revalidate.min(most);
        let for_any = while_revalidating.max(terms.stale_if_error.min(most));
        Self {
            while_revalidating,
            for_any,
            grace: policy.grace.min(most),
        }
    }
}

/// Fields keep their text as an entry does.
fn headers_of(fields: &Fields) -> Headers {
    Headers::of(fields.lengths().collect(), fields.text().to_vec())
        .unwrap_or_else(|| Headers::from_pairs(fields.iter()))
}

fn cache_type(terms: &ReuseTerms) -> CacheType {
    let swr = terms.stale_while_revalidate > DeltaSeconds::ZERO;
    let sie = terms.stale_if_error > DeltaSeconds::ZERO;
    match (terms.must_revalidate || terms.no_cache, swr, sie) {
        (true, _, _) => CacheType::MustRevalidate,
        (false, true, true) => CacheType::Stale,
        (false, true, false) => CacheType::StaleWhileRevalidate,
        (false, false, true) => CacheType::StaleIfError,
        (false, false, false) => CacheType::Revalidate,
    }
}

/// The stored response that an entry describes; its framing, lengths and digest have been checked
/// by `entry::decode`.
pub fn from_entry((meta, body): (EntryMeta, &[u8])) -> Result<StoredResponse, EntryFault> {
    let (lengths, text) = meta.headers.into_parts();
    let length = |_: &[u8], line: usize| lengths.get(line).copied();
    let fields = Fields::from_text(text, 0, lengths.len(), length).ok_or(EntryFault::Meta)?;
    if !are_safe_to_emit(&fields) || !(200..=599).contains(&meta.status) {
        return Err(EntryFault::Meta);
    }
    let part = match (meta.part_first, meta.part_complete) {
        (Some(first), Some(complete)) => Some(Part { first, complete }),
        (None, None) => None,
        _ => return Err(EntryFault::Meta),
    };
    let end = |part: Part| part.first.checked_add(body.len() as u64);
    if part.is_some_and(|part| end(part).is_none_or(|end| end > part.complete)) {
        return Err(EntryFault::Meta);
    }
    Ok(StoredResponse {
        url: meta.url,
        status: meta.status,
        fields,
        body: Arc::from(body),
        part,
        request_time: meta.request_time_ms,
        response_time: meta.response_time_ms,
        initial_age: DeltaSeconds::new(meta.initial_age),
        terms: ReuseTerms {
            lifetime: DeltaSeconds::new(meta.max_age),
            stale_while_revalidate: DeltaSeconds::new(meta.stale_while_revalidate),
            stale_if_error: DeltaSeconds::new(meta.stale_if_error),
            must_revalidate: meta.must_revalidate,
            no_cache: meta.no_cache,
        },
        explicitly_public: meta.public,
        stale_from: meta.stale_from_ms,
        selecting: SelectingFields::from(meta.selecting),
        tags: meta.tags,
        route: meta.route.into(),
        treatment: SeenTreatment::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_contract::entry;
    use larder_contract::entry::RouteSeen;

    fn example() -> StoredResponse {
        StoredResponse {
            terms: ReuseTerms {
                lifetime: DeltaSeconds::new(5),
                stale_while_revalidate: DeltaSeconds::new(15),
                ..ReuseTerms::default()
            },
            ..StoredResponse::example()
        }
    }

    #[test]
    fn a_stored_response_survives_the_store() {
        let stored = example();
        let meta = to_meta(&stored, &Policy::default(), stored.response_time);
        let bytes = entry::encode(&meta, &stored.body);
        assert_eq!(from_entry(entry::decode(&bytes).unwrap()), Ok(stored));
    }

    #[test]
    fn what_was_seen_of_its_route_travels_along_and_an_entry_without_it_says_nothing() {
        let stored = example();
        let seen = Some(RouteSeen {
            at_ms: stored.response_time,
            changes: true,
        });
        for seen in [None, seen] {
            let meta = to_meta(
                &StoredResponse {
                    route: seen.into(),
                    ..stored.clone()
                },
                &Policy::default(),
                stored.response_time,
            );
            let bytes = entry::encode(&meta, &stored.body);
            assert_eq!(
                from_entry(entry::decode(&bytes).unwrap())
                    .unwrap()
                    .route
                    .seen(),
                seen
            );
        }
    }

    #[test]
    fn the_store_keeps_it_for_freshness_stale_window_and_keep_together() {
        let stored = example();
        let policy = Policy {
            keep: DeltaSeconds::new(100),
            ..Policy::default()
        };
        let meta = to_meta(&stored, &policy, stored.response_time.plus_millis(1_000));
        assert_eq!(meta.ttl_ms, (5 + 15 + 100 - 1) * 1_000);
        assert_eq!(
            (meta.max_age, meta.use_stale_upto, meta.cache_type),
            (5, 15, CacheType::StaleWhileRevalidate)
        );
    }

    #[test]
    fn an_entry_whose_header_could_split_a_response_is_refused() {
        let stored = example();
        let mut meta = to_meta(&stored, &Policy::default(), stored.response_time);
        for bad in [
            ("x", "a\r\nset-cookie: b"),
            ("x y", "a"),
            (":status", "200"),
            ("x", "a\0b"),
        ] {
            meta.headers = Headers::from_pairs([bad]);
            let entry = (meta.clone(), &*stored.body);
            assert_eq!(from_entry(entry), Err(EntryFault::Meta), "{bad:?}");
        }
    }

    #[test]
    fn an_entry_with_an_interim_or_impossible_status_is_refused() {
        let stored = example();
        for status in [0, 100, 101, 199, 600, 999] {
            let meta = EntryMeta {
                status,
                ..to_meta(&stored, &Policy::default(), stored.response_time)
            };
            assert_eq!(
                from_entry((meta, &*stored.body)),
                Err(EntryFault::Meta),
                "{status}"
            );
        }
    }
}
