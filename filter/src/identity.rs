//! Whether Envoy knows who asks by other means than a field: dynamic metadata that a filter before
//! the cache wrote.
//!
//! What this decides: when it is worth asking. A hit must not pay for what hardly any configuration
//! has, so a request that goes the long way is always asked about, and a hit only in an Envoy in
//! which such metadata has been seen: any worker tells the others by one shared value. So that it
//! is seen where every request hits, one hit after each tick is asked about as well.

use larder_cache_core::policy::Policy;

use crate::host::Host;

/// The shared value that says that metadata of a client has been seen.
const SEEN: &str = "larder-identity";

/// What a VM knows of such metadata.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// Some request of this Envoy had any.
    seen: bool,
    /// The next hit is asked about.
    sample: bool,
}

impl Identity {
    /// Whether a filter has told Envoy who asks.
    pub(crate) fn is_identified<H: Host>(&mut self, host: &H, policy: &Policy) -> bool {
        let has = |namespace: &String| {
            let metadata = host.property(&["metadata", "filter_metadata", namespace]);
            metadata.is_some_and(|value| !value.is_empty())
        };
        let is_identified = policy.identity_metadata.iter().any(has);
        if is_identified && !std::mem::replace(&mut self.seen, true) {
            host.set_shared(SEEN, b"1");
        }
        is_identified
    }

    /// Whether any client may be known so: only then a hit is asked about.
    pub(crate) fn may_be_identified(&mut self) -> bool {
        let sampled = std::mem::take(&mut self.sample);
        self.seen || sampled
    }

    /// A tick has passed: learns what the other workers have seen.
    pub(crate) fn learn<H: Host>(&mut self, host: &H) {
        self.sample = true;
        if !self.seen {
            self.seen = host.shared(SEEN).0.is_some();
        }
    }
}
