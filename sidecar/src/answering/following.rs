//! Following what is purged.

use std::time::Duration;

use larder_contract::store_api::{ClockReading, Events, EventsSince};

use super::{Refusal, Sidecar};
use crate::store::{Fault, Store};

/// The answer to one who follows.
#[derive(Debug)]
pub(crate) struct Followed {
    /// What was purged, on the asker's clock.
    pub(crate) events: Events,
    /// For how many milliseconds before the question came purges may have gone unheard here.
    pub(crate) unheard_ms: u64,
}

impl<S: Store> Sidecar<S> {
    /// What was purged since the caller's cursor; held back until there is something to say, or
    /// until `given_up`. Dropped before, it means that the Envoy has closed the connection.
    pub(crate) async fn follow(
        &self,
        clock: Option<ClockReading>,
        asked: &EventsSince,
        given_up: impl Future<Output = ()>,
    ) -> Result<Followed, Refusal> {
        let lead = self.lead(clock);
        let came = tokio::time::Instant::now();
        if let Some(mistake) = asked.mistake() {
            return Err(Refusal::Malformed(mistake));
        }
        let wait = Duration::from_millis(asked.wait_ms.min(Events::MAX_WAIT_MS));
        let purges = self.store.purges();
        let poll = (!asked.envoy.is_empty()).then(|| purges.sessions().poll(&asked.envoy, wait));
        purges.polled_from(&asked.envoy, asked.after.as_deref().unwrap_or_default());
        // An answer says what had been purged when it was asked for: so by its end that has to be
        // known.
        if purges.unheard_at(came) > wait / 2 || purges.sessions().has_newcomers() {
            purges.ask_now();
        }
        let events = if purges.vouches() {
            tokio::select! {
                biased;
                events = purges.since(asked.after.as_deref(), wait) => Some(events),
                () = given_up => None,
            }
        } else {
            None
        };
        // An answer says that nothing else was purged; who has been deaf meanwhile cannot say so.
        let Some(mut events) = events.filter(|_| purges.vouches()) else {
            if let Some(poll) = poll {
                poll.refused();
            }
            return Err(Refusal::Store(Fault(
                "the store's purges cannot be heard at the moment".to_owned(),
            )));
        };
        // For a clock that is behind they come from the future, and it takes them as of now.
        events
            .events
            .iter_mut()
            .for_each(|purge| purge.at_ms = purge.at_ms.moved(lead.max(0)));
        if let Some(poll) = poll {
            poll.answered();
        }
        let unheard_ms = u64::try_from(purges.unheard_at(came).as_millis()).unwrap_or(u64::MAX);
        Ok(Followed { events, unheard_ms })
    }
}
