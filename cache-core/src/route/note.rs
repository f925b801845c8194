//! What is known of a route, beside what came by it.

use std::sync::atomic::{AtomicU64, Ordering};

use larder_contract::entry::RouteSeen;
use larder_contract::http_time::Timestamp;

/// How background refreshes reach the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefreshPath {
    /// Through the routes, like any request.
    #[default]
    Routed,
    /// Straight to the cluster that the route picked.
    Straight,
}

/// What is known of the route by which a stored response came. It is learnt after the response has
/// been stored, so it is the one thing about a stored response that may change, and no part of what
/// makes two of them equal.
#[derive(Debug, Default)]
pub struct RouteNote(AtomicU64);

impl RouteNote {
    /// What was seen; `None` when nothing was.
    pub fn seen(&self) -> Option<RouteSeen> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            bits => Some(RouteSeen {
                at_ms: Timestamp::from_millis(bits >> 1),
                changes: bits & 1 == 1,
            }),
        }
    }

    /// Notes down what was seen.
    pub fn note(&self, seen: RouteSeen) {
        self.0.store(
            seen.at_ms.as_millis() << 1 | u64::from(seen.changes),
            Ordering::Relaxed,
        );
    }
}

impl From<Option<RouteSeen>> for RouteNote {
    fn from(seen: Option<RouteSeen>) -> Self {
        let note = Self::default();
        if let Some(seen) = seen {
            note.note(seen);
        }
        note
    }
}

impl Clone for RouteNote {
    fn clone(&self) -> Self {
        Self::from(self.seen())
    }
}

impl PartialEq for RouteNote {
    /// Always: see [`RouteNote`].
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for RouteNote {}
