//! Look-ups that are held back while another Envoy fetches.
//!
//! What this decides: when a held look-up looks again: when the key is woken here or by another
//! sidecar, when the lease lapses, or, while other sidecars cannot be heard, every `UNHEARD`. What
//! it leaves out: what it then finds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_contract::key::KeyDigest;
use larder_contract::store_api::{LookUp, LookUpAnswer};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::store::{Fault, Store};

/// How often a held look-up looks again while the wake channel is broken.
const UNHEARD: Duration = Duration::from_millis(50);
/// A lapsed lease is looked for a little after its end.
const SLACK: Duration = Duration::from_millis(2);
/// For so long after [`Waiting::close`] streams stay open: an Envoy that stops together with this
/// process closes its own, which tells that it has left in peace.
const LAST_WORDS: Duration = Duration::from_millis(400);

/// Who waits for which key. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    keys: Mutex<HashMap<KeyDigest, (Arc<Notify>, usize)>>,
    /// Whether wakes from elsewhere are heard; a store of this process alone needs none.
    unheard: AtomicBool,
    closing: watch::Sender<bool>,
}

/// Leaves the list when it is dropped, however the look-up ends.
struct WaiterPlace<'a>(&'a Waiting, KeyDigest);

impl Waiting {
    fn keys(&self) -> MutexGuard<'_, HashMap<KeyDigest, (Arc<Notify>, usize)>> {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has everyone who waits for `key` look again.
    pub fn wake(&self, key: &KeyDigest) {
        if let Some((notify, _)) = self.keys().get(key) {
            notify.notify_waiters();
        }
    }

    /// Has everyone look again.
    pub fn wake_all(&self) {
        for (notify, _) in self.keys().values() {
            notify.notify_waiters();
        }
    }

    /// Whether wakes from other sidecars are heard.
    pub fn set_followed(&self, followed: bool) {
        self.0.unheard.store(!followed, Ordering::Relaxed);
    }

    /// No more waiting: held look-ups are answered now.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
        self.wake_all();
    }

    /// Whether [`Waiting::close`] was called.
    pub fn is_closing(&self) -> bool {
        *self.0.closing.borrow()
    }

    /// Waits until streams are to end: a moment after [`Waiting::close`] was called.
    pub async fn ended(&self) {
        let mut closing = self.0.closing.subscribe();
        // The sender is ours, so it is there.
        let _ = closing.wait_for(|closing| *closing).await;
        tokio::time::sleep(LAST_WORDS).await;
    }

    /// How many look-ups are held back.
    pub fn len(&self) -> usize {
        self.keys().values().map(|(_, count)| count).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn join(&self, key: KeyDigest) -> (Arc<Notify>, WaiterPlace<'_>) {
        let mut keys = self.keys();
        let (notify, count) = keys.entry(key).or_default();
        *count += 1;
        (notify.clone(), WaiterPlace(self, key))
    }

    /// Looks up, and waits where that was asked for. At most `max_waiters` wait at once; one more
    /// is answered at once.
    pub async fn look_up<S: Store>(
        &self,
        store: &S,
        asked: &LookUp,
        max_waiters: usize,
    ) -> Result<LookUpAnswer, Fault> {
        let budget = Duration::from_millis(asked.lease.map_or(0, |terms| terms.wait_ms));
        let deadline = Instant::now() + budget;
        if budget.is_zero() || self.len() >= max_waiters {
            return Ok(store.look_up(asked).await?.answer);
        }
        let (notify, _place) = self.join(asked.key);
        let mut asked = asked.clone();
        let begun = Instant::now();
        let first_now = asked.now_ms;
        loop {
            // Listening begins before looking, so that no wake is lost in between.
            let woken = notify.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            asked.now_ms =
                first_now.plus_millis(u64::try_from(begun.elapsed().as_millis()).unwrap_or(0));
            let found = store.look_up(&asked).await?;
            let held = matches!(found.answer, LookUpAnswer::Held { .. }) && !found.may_serve_stale;
            let now = Instant::now();
            if !held || now >= deadline || self.is_closing() {
                return Ok(found.answer);
            }
            let mut look_again = now + Duration::from_millis(found.lease_left_ms) + SLACK;
            if self.0.unheard.load(Ordering::Relaxed) {
                look_again = look_again.min(now + UNHEARD);
            }
            let _ = tokio::time::timeout_at(look_again.min(deadline), woken).await;
        }
    }
}

impl Drop for WaiterPlace<'_> {
    fn drop(&mut self) {
        let mut keys = self.0.keys();
        if let Some((_, count)) = keys.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                keys.remove(&self.1);
            }
        }
    }
}
