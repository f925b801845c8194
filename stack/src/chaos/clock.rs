//! The one clock of a run.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::history::Micros;

/// Counts from the moment when the clients begin. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<OnceLock<Instant>>);

impl Clock {
    /// Counts from now, unless it does already.
    pub(crate) fn begin(&self) {
        self.0.get_or_init(Instant::now);
    }

    /// Time since the begin.
    pub(crate) fn now(&self) -> Micros {
        self.0.get().map_or(0, |begun| {
            u64::try_from(begun.elapsed().as_micros()).unwrap_or(Micros::MAX)
        })
    }

    /// Waits for a time in milliseconds since the begin.
    pub(crate) async fn until(&self, at_ms: u64) {
        if let Some(begun) = self.0.get() {
            tokio::time::sleep_until((*begun + Duration::from_millis(at_ms)).into()).await;
        }
    }
}
