//! The names that all keys of one URL do not share: what the fleet tells each other.

/// The channel on which keys are named whose waiters should look again.
pub(super) fn wake_channel(namespace: &str) -> String {
    format!("{namespace}:wake")
}

/// The marks of purges: a hash.
pub(super) fn marks_key(namespace: &str) -> String {
    format!("{namespace}:{{purges}}:marks")
}

/// The last purges: a stream.
pub(super) fn log_key(namespace: &str) -> String {
    format!("{namespace}:{{purges}}:log")
}

/// Never there; a script that begins with dropping it may write although Redis is full.
pub(super) fn unused_key(namespace: &str) -> String {
    format!("{namespace}:{{purges}}:unused")
}

/// The Envoys that follow at any sidecar: a hash.
pub(super) fn envoys_key(namespace: &str) -> String {
    format!("{namespace}:{{purges}}:envoys")
}
