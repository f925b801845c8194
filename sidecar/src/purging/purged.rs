//! The store, seen through what was purged.

use larder_contract::entry::{self, Entry};
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::purge::{Purge, Scope, Verdict};
use larder_contract::store_api::{Fence, LookUp, LookUpAnswer, Release, WriteAnswer};

use super::{Purges, dated};
use crate::store::{Announced, Fault, Found, Store};

/// A store whose purged entries cannot be seen.
pub struct Purged<S> {
    store: S,
    purges: Purges,
}

impl<S: Store> Purged<S> {
    /// The store behind its purges.
    pub fn new(store: S, purges: Purges) -> Self {
        Self { store, purges }
    }

    /// What was purged.
    pub fn purges(&self) -> &Purges {
        &self.purges
    }

    /// Purges, here and for all who share the store.
    pub async fn purge(&self, purge: Purge) -> Result<(), Fault> {
        let purge = dated(purge, self.purges.clock());
        if let Scope::Key(key) = &purge.scope {
            self.store
                .invalidate(&[*key], purge.at_ms, purge.soft)
                .await?;
        }
        self.purges.mark(&purge);
        match self.store.announce(&purge).await? {
            Announced::Here(cursor) => self.purges.push(cursor, purge),
            Announced::InSharedLog(place) => self.purges.expect(place),
        }
        Ok(())
    }

    /// What the answer carries, if it lies under a purge: when that was, and whether softly.
    fn purged(&self, answer: &LookUpAnswer) -> Option<(Timestamp, bool)> {
        let bytes = match answer {
            LookUpAnswer::Entry(bytes)
            | LookUpAnswer::Lease {
                stale: Some(bytes), ..
            }
            | LookUpAnswer::Held { stale: Some(bytes) } => bytes,
            _ => return None,
        };
        let (meta, _) = entry::decode_meta(bytes).ok()?;
        match self.purges.verdict(&meta) {
            Verdict::Kept => None,
            Verdict::StaleSince(time) => Some((time, true)),
            Verdict::Gone(time) => Some((time, false)),
        }
    }
}

impl<S: Store> Store for Purged<S> {
    async fn look_up(&self, asked: &LookUp) -> Result<Found, Fault> {
        if !self.purges.vouches() {
            // What is there may have been purged. Without a lease, so that nobody waits for what
            // cannot be vouched for.
            return Ok(Found::now(LookUpAnswer::Nothing { uncacheable: false }));
        }
        let mut found = self.store.look_up(asked).await?;
        if !self.purges.vouches_for(self.store.connection()) {
            if let LookUpAnswer::Lease { fence, .. } = found.answer {
                self.store.release(&Release::of(asked.key, fence)).await?;
            }
            return Ok(Found::now(LookUpAnswer::Nothing { uncacheable: false }));
        }
        // A hard purge may uncover nothing more, a soft one is applied once: two rounds at most.
        for _ in 0..2 {
            let purged = if self.purges.is_empty() {
                None
            } else {
                self.purged(&found.answer)
            };
            let Some((time, soft)) = purged else { break };
            if let LookUpAnswer::Lease { fence, .. } = &found.answer {
                let release = Release::of(asked.key, fence.clone());
                self.store.release(&release).await?;
            }
            self.store.invalidate(&[asked.key], time, soft).await?;
            found = self.store.look_up(asked).await?;
        }
        Ok(found)
    }

    async fn write(
        &self,
        key: KeyDigest,
        fence: Option<&Fence>,
        entry: Entry,
    ) -> Result<WriteAnswer, Fault> {
        if self.purges.verdict(entry.meta()) == Verdict::Kept {
            return self.store.write(key, fence, entry).await;
        }
        // It was requested before the purge and comes after it.
        if let Some(fence) = fence {
            self.store.release(&Release::of(key, fence.clone())).await?;
        }
        Ok(WriteAnswer::Fenced)
    }

    async fn release(&self, release: &Release) -> Result<(), Fault> {
        self.store.release(release).await
    }

    async fn invalidate(
        &self,
        keys: &[KeyDigest],
        time: Timestamp,
        soft: bool,
    ) -> Result<(), Fault> {
        self.store.invalidate(keys, time, soft).await
    }

    async fn announce(&self, purge: &Purge) -> Result<Announced, Fault> {
        self.store.announce(purge).await
    }

    async fn ping(&self) -> Result<(), Fault> {
        self.store.ping().await
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    fn crowded(&self) -> Vec<(&'static str, u64)> {
        let mut tables = self.store.crowded();
        tables.push(("purges", self.purges.crowded()));
        tables
    }
}
