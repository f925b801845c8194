//! What a request holds for others: its leader slot, and the store's lease.
//!
//! What this decides: how both end. A leadership is a value that its end consumes, so neither can
//! be forgotten: those who wait are told, and the lease is given back unless an entry is written
//! under it.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;
use larder_contract::store_api::Fence;

use super::effect::CacheCommand;
use super::event::Outcome;
use super::presented::Presented;
use super::step::Step;
use crate::collapse::CollapseKey;
use crate::stored_response::StoredResponse;
use crate::vary::SelectingFields;

/// The leader slot a request goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) key: CollapseKey,
    /// Whether only those with a cookie go there: its cookie alone may keep a request's answer from
    /// the others.
    pub(super) is_for_cookies: bool,
}

impl Slot {
    /// The slot of a request, as far as its selecting fields are known.
    pub(super) fn of(
        presented: &Presented,
        known: Option<&SelectingFields>,
        is_for_cookies: bool,
    ) -> Self {
        let shared = presented.collapse_key(known);
        Self {
            key: if is_for_cookies {
                shared.with_cookie()
            } else {
                shared
            },
            is_for_cookies,
        }
    }

    /// For level 1 only where it can say all that the slot would: what the client chose has a slot
    /// of its own, as has a cookie.
    pub(super) fn mark_uncacheable(
        &self,
        until: Timestamp,
        presented: &Presented,
        step: &mut Step,
    ) {
        if !presented.is_a_choice_of_the_client() && !self.is_for_cookies {
            step.cache(CacheCommand::MarkUncacheable {
                key: presented.key.clone(),
                until,
            });
        }
    }
}

/// What this request holds. Nothing, a slot, a lease, or both.
#[derive(Debug, Default)]
#[must_use = "whoever waits for it has to be told how it ended"]
pub(super) struct Leadership {
    slot: Option<Slot>,
    fence: Option<Fence>,
}

impl Leadership {
    /// Neither a slot nor a lease: nobody waits for this request.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// The leader of a slot.
    pub(super) fn of(slot: Slot) -> Self {
        Self {
            slot: Some(slot),
            fence: None,
        }
    }

    /// With the store's lease.
    pub(super) fn with_lease(self, fence: Fence) -> Self {
        Self {
            fence: Some(fence),
            ..self
        }
    }

    /// Whether others wait for it.
    pub(super) fn is_leader(&self) -> bool {
        self.slot.is_some()
    }

    /// Whether it leads among those with cookies only.
    pub(super) fn is_for_cookies(&self) -> bool {
        self.slot.is_some_and(|slot| slot.is_for_cookies)
    }

    /// The slot's key, if it is everybody's.
    pub(super) fn shared_slot(&self) -> Option<CollapseKey> {
        self.slot
            .filter(|slot| !slot.is_for_cookies)
            .map(|slot| slot.key)
    }

    /// Hands the lease on; whoever has it now ends it.
    pub(super) fn take_lease(&mut self) -> Option<Fence> {
        self.fence.take()
    }

    /// Keeps what was fetched. The fence goes with the entry: the write ends the lease.
    pub(super) fn keep(
        mut self,
        stored: Arc<StoredResponse>,
        presented: &Presented,
        step: &mut Step,
    ) {
        let fence = self.take_lease();
        step.cache(CacheCommand::keep(
            &presented.policy,
            presented.key.clone(),
            stored.clone(),
            fence,
        ));
        self.finish(Outcome::Fetched(stored), presented, step);
    }

    /// Leaves the leader slot, and gives the lease back.
    pub(super) fn finish(self, outcome: Outcome, presented: &Presented, step: &mut Step) {
        let outcome = as_seen_by_others(outcome, presented);
        let uncacheable = matches!(outcome, Outcome::Uncacheable);
        if let Some(fence) = self.fence {
            let speaks_for_all = uncacheable && !presented.is_a_choice_of_the_client();
            let uncacheable_ms = if speaks_for_all {
                presented.policy.uncacheable_for.as_millis()
            } else {
                0
            };
            step.cache(CacheCommand::ReleaseLease {
                key: presented.key.digest(),
                fence,
                uncacheable_ms,
            });
        }
        if let Some(slot) = self.slot {
            let uncacheable_until = step.now.plus(presented.policy.uncacheable_for);
            if uncacheable {
                slot.mark_uncacheable(uncacheable_until, presented, step);
            }
            step.cache(CacheCommand::Publish {
                key: slot.key,
                outcome,
                uncacheable_until,
            });
        }
    }
}

/// A failure that this request's own fields may have caused is nobody else's.
fn as_seen_by_others(outcome: Outcome, presented: &Presented) -> Outcome {
    let own = presented.request.has_own_cookie(&presented.policy) || presented.is_credentialed();
    match outcome {
        Outcome::Failed(_) if own => Outcome::NotForOthers { counts: true },
        outcome => outcome,
    }
}
