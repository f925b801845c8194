//! Errors that clients may get: the origin was away, or the Envoy that they asked was.

use crate::chaos::history::{Micros, Span};
use crate::chaos::schedule::Kind;

/// How long after such a fault requests may still fail: those that waited for what failed, and new
/// connections.
const AFTER: Micros = 1_500_000;

/// Whether a request through an Envoy may have failed without the cache's doing.
pub(super) fn are_excused(spans: &[Span], envoy: usize, begin: Micros, end: Micros) -> bool {
    spans.iter().any(|span| {
        let its_own = span.fault.side == envoy
            && matches!(span.fault.kind, Kind::FreezeEnvoy | Kind::RestartEnvoy);
        let meets = span.begin <= end && begin <= span.end.saturating_add(AFTER);
        meets && (its_own || span.fault.kind.is_the_origins())
    })
}
