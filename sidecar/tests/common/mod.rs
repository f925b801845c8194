//! What tests store.

use larder_contract::entry::{CacheType, EntryMeta, Headers, Selecting, digest};
use larder_contract::http_time::Timestamp;

/// The meta of a response to `GET http://a/` that was requested and received at once, and is of no
/// use when no longer fresh.
pub(crate) fn meta_of(body: &[u8], requested: Timestamp, fresh_until: Timestamp) -> EntryMeta {
    EntryMeta {
        url: "http://a/".to_owned(),
        status: 200,
        headers: Headers::default(),
        cache_type: CacheType::Revalidate,
        max_age: 60,
        use_stale_upto: 0,
        stale_while_revalidate: 0,
        stale_if_error: 0,
        initial_age: 0,
        must_revalidate: false,
        no_cache: false,
        public: false,
        request_time_ms: requested,
        response_time_ms: requested,
        fresh_until_ms: fresh_until,
        serve_stale_until_ms: fresh_until,
        ttl_ms: 600_000,
        selecting: Selecting::default(),
        tags: Vec::new(),
        stale_from_ms: None,
        part_first: None,
        part_complete: None,
        route: None,
        body_length: body.len() as u64,
        digest: digest(body),
    }
}
