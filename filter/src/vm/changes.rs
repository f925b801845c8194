//! Changes of what all requests share: the one place where the core's `CacheCommand`s are carried
//! out, whether a stream or a background refresh brings them about.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::collapse::Handoff;
use larder_cache_core::collapse::message::Message;
use larder_cache_core::exchange::CacheCommand;
use larder_cache_core::policy::Policy;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;
use larder_contract::key::{KeyDigest, PrimaryKey};
use larder_contract::store_api::{Fence, Release};

use super::Vm;
use crate::cause::Cause;
use crate::collapsing::{End, Lent};
use crate::config::Config;
use crate::doubt::Doubt;
use crate::host::Host;
use crate::store_client::StoreCall;

impl<H: Host> Vm<H> {
    /// Carries a change out. Returns where the outcome lies for other workers, if it was handed
    /// over.
    pub(super) fn change(
        &mut self,
        cause: &Cause,
        command: CacheCommand,
        now: Timestamp,
    ) -> Option<Handoff> {
        let Cause { id, config, policy } = cause;
        match command {
            CacheCommand::Keep {
                key,
                stored,
                fence,
                local_only,
            } => {
                self.keep(cause, &key, stored, fence, local_only);
            }
            CacheCommand::Publish {
                key,
                outcome,
                uncacheable_until,
            } => {
                return self.publish(
                    End {
                        key: &key,
                        stream: *id,
                        outcome: &outcome,
                        policy,
                        uncacheable_until,
                    },
                    now,
                );
            }
            CacheCommand::MarkUncacheable { key, until } => self.l1.mark_uncacheable(&key, until),
            CacheCommand::ReleaseLease {
                key,
                fence,
                uncacheable_ms,
            } => {
                self.tell_store(
                    config,
                    StoreCall::Release(Release {
                        key,
                        fence,
                        uncacheable_ms,
                    }),
                );
            }
            CacheCommand::Invalidate(keys) => {
                self.invalidate(config, &keys, now);
                self.tell_store_of_changes(config, cause.stream());
            }
            CacheCommand::InvalidateDoubtful(keys) => {
                self.doubt(config, &keys, now);
                self.tell_store_of_changes(config, cause.stream());
            }
        }
        None
    }

    fn publish(&mut self, end: End<'_>, now: Timestamp) -> Option<Handoff> {
        let (host, peers) = (&self.outside.host, &self.peers);
        let lent = Lent {
            host,
            peers,
            l1: &self.l1,
            store: &mut self.store,
        };
        self.collapsing.publish(lent, end, now)
    }

    /// Into level 1 and, unless it comes from there, into the store; not if it was invalidated
    /// since it was requested.
    fn keep(
        &mut self,
        cause: &Cause,
        key: &PrimaryKey,
        stored: Arc<StoredResponse>,
        fence: Option<Fence>,
        local_only: bool,
    ) {
        let Cause { config, policy, .. } = cause;
        let now = self.outside.host.now();
        let from_store = local_only && policy.shared_store;
        let is_first = || !self.l1.is_off() && !self.l1.holds(key);
        let waits = policy.share_after > 1 && !local_only && is_first();
        let kept = match from_store {
            true => self.l1.put(key, stored.clone(), now),
            false => self.l1.put_fetched(key, stored.clone(), now),
        };
        let key = key.digest();
        match fence {
            fence if kept && !local_only && !waits => {
                self.tell_store(
                    config,
                    StoreCall::Write {
                        key,
                        stored,
                        fence,
                        policy: policy.clone(),
                    },
                );
                return;
            }
            // The lease has to end even where nothing is written.
            Some(fence) if !kept || waits => {
                self.tell_store(config, StoreCall::Release(Release::of(key, fence)));
            }
            _ => {}
        }
        if kept && waits {
            self.unshared.add(key, &stored);
        }
    }

    /// A request has found these in level 1: what has waited for a second request is written to
    /// the store now.
    pub(super) fn share(
        &mut self,
        config: &Rc<Config>,
        policy: &Arc<Policy>,
        found: &[Arc<StoredResponse>],
    ) {
        for stored in found {
            if let Some(key) = self.unshared.take(stored) {
                let write = StoreCall::Write {
                    key,
                    stored: stored.clone(),
                    fence: None,
                    policy: policy.clone(),
                };
                self.tell_store(config, write);
            }
        }
        self.send_outbox();
    }

    /// RFC 9111 §4.4, before the client sees its answer: here at once, in the other VMs before
    /// their next look-up, in the store soon. What is on its way from the store meanwhile is known
    /// to be older.
    fn invalidate(&mut self, config: &Rc<Config>, keys: &[KeyDigest], now: Timestamp) {
        for key in keys {
            self.l1.invalidate(key, now, now);
            self.tell_peers(&Message::Invalidate(*key, now), now);
        }
        if config.store_enabled {
            self.untold.add(config, keys, now);
        }
    }

    /// While the callback of a stream lasts, its client knows of no answer yet. Should Envoy die
    /// right behind that, the store has been told. The root makes the call: one that a stream makes
    /// ends with the stream. Where no client waits, what has changed is told soon.
    fn tell_store_of_changes(&mut self, config: &Config, stream: Option<u32>) {
        if !config.store_enabled {
            return;
        }
        let (host, root) = (&self.outside.host, self.outside.calls.root());
        if let Some(id) = stream
            && host.set_effective_context(root).is_ok()
        {
            self.untold.tell(&mut self.outside, &mut self.store);
            let _ = self.outside.host.set_effective_context(id);
        } else {
            self.go_on_later();
        }
    }

    /// Drops what an unsafe request may have changed: now, and when the origin must have finished.
    fn doubt(&mut self, config: &Rc<Config>, keys: &[KeyDigest], now: Timestamp) {
        self.invalidate(config, keys, now);
        for settled in self.doubts.add(config, keys, now) {
            self.invalidate(&settled.config, &settled.keys, now);
        }
    }

    /// Drops once more what was in doubt until now.
    pub(super) fn settle_due(&mut self, now: Timestamp) {
        for Doubt { config, keys, .. } in self.doubts.take_due(now) {
            self.invalidate(&config, &keys, now);
            self.tell_store_of_changes(&config, None);
        }
    }

    /// Tells every other VM something.
    pub(super) fn tell_peers(&self, message: &Message, now: Timestamp) {
        self.peers.tell(&self.outside.host, message, now);
    }
}
