//! What tests store.

use larder_contract::entry::{EntryMeta, VERSION, digest};
use larder_contract::http_time::Timestamp;
use larder_contract::selectors::Selectors;

/// The meta of a response to `GET http://a/` that was requested and received at once, and is of no
/// use when no longer fresh.
pub(crate) fn meta_of(body: &[u8], requested: Timestamp, fresh_until: Timestamp) -> EntryMeta {
    EntryMeta {
        version: VERSION,
        url: "http://a/".to_owned(),
        status: 200,
        headers: Vec::new(),
        cache_type: "revalidate".to_owned(),
        max_age: 60,
        use_stale_upto: 0,
        stale_while_revalidate: 0,
        stale_if_error: 0,
        etag: String::new(),
        initial_age: 0,
        must_revalidate: false,
        no_cache: false,
        public: false,
        request_time_ms: requested,
        response_time_ms: requested,
        fresh_until_ms: fresh_until,
        serve_stale_until_ms: fresh_until,
        ttl_ms: 600_000,
        selecting: Vec::new(),
        selectors: Selectors::new(),
        tags: Vec::new(),
        stale_from_ms: None,
        part_first: None,
        part_complete: None,
        route: None,
        body_length: body.len() as u64,
        digest: digest(body),
    }
}
