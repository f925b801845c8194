//! What time it is here.

use std::time::{SystemTime, UNIX_EPOCH};

use larder_cache_core::http_time::Timestamp;

/// Milliseconds since the Unix epoch, by this machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
