//! A sidecar that does not accept the filter's token.
//!
//! What this decides: that it costs hits and nothing else, that it is said in one line for each
//! Envoy, not for each request or worker, and counted.

use larder_contract::http_time::Timestamp;

use crate::host::{Host, Swap};
use crate::metrics::{self, Metrics};

/// When it was said last, in shared data.
const SAID: &str = "larder/token-refused";
/// It is said again after so long.
const AGAIN_MS: u64 = 600_000;

/// Whether the sidecar's status says that the token is not the right one; then it is counted and,
/// once, said.
pub(crate) fn is_refused<H: Host>(
    host: &H,
    metrics: &mut Metrics,
    status: u16,
    now: Timestamp,
) -> bool {
    if !matches!(status, 401 | 429) {
        return false;
    }
    metrics.event(metrics::STORE_REFUSED);
    let (said, version) = host.shared(SAID);
    let last = said
        .as_deref()
        .and_then(|bytes| bytes.first_chunk::<8>())
        .map(|bytes| u64::from_be_bytes(*bytes));
    let recently = last.is_some_and(|last| now.as_millis() < last.saturating_add(AGAIN_MS));
    if !recently && host.swap_shared(SAID, &now.as_millis().to_be_bytes(), version) == Swap::Done {
        let what = "larder: the sidecar refuses this filter's token, so nothing is shared: store.token, or LARDER_TOKEN \
                    in Envoy's environment, has to be one of the sidecar's LARDER_TOKEN";
        host.log(log::Level::Error, what);
    }
    true
}
