//! What the sidecar does for who asks, whichever way the question came.
//!
//! The HTTP API ([`crate::routes`]) and the store stream ([`crate::stream`]) only carry questions
//! and answers. What a look-up, a write, a release, an invalidation and following are is said here,
//! once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::body::Bytes;
use larder_contract::entry::Entry;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::purge::{Purge, Scope};
use larder_contract::store_api::{
    ClockReading, Fence, Invalidate, LeaseTerms, LookUp, LookUpAnswer, Release, WriteAnswer,
};

use crate::listening::Peer;
use crate::purging::Purged;
use crate::store::{Fault, Store, is_timely};
use crate::token::{Attempts, Refused, Token, Tokens};
use crate::waiting::Waiting;

mod counters;
mod following;
mod told;

pub(crate) use counters::Counters;
use told::Told;

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What Envoys present; empty where only this machine connects and nothing is asked of it.
    pub tokens: Tokens,
    /// What an operator presents to purge; without it nobody may.
    pub purge: Option<Token>,
}

/// Bounds of what is accepted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one entry, meta included.
    pub max_entry_bytes: usize,
    /// Look-ups held back at once.
    pub max_waiters: usize,
}

/// Why a question was not carried out.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// `400`: it is not what the contract says.
    Malformed(String),
    /// `401`, `403` or `429`: without the token that is asked for.
    NotAllowed(u16, &'static str),
    /// `503`: the store is in trouble.
    Store(Fault),
}

impl Refusal {
    /// The HTTP status code that says this.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::NotAllowed(status, _) => *status,
            Self::Store(_) => 503,
        }
    }

    /// The same in words.
    pub(crate) fn into_words(self) -> String {
        match self {
            Self::Malformed(words) => words,
            Self::NotAllowed(_, words) => words.to_owned(),
            Self::Store(fault) => fault.0,
        }
    }
}

/// The store with everything that stands before it: what every question is asked of.
pub(crate) struct Sidecar<S> {
    pub(crate) store: Purged<S>,
    pub(crate) waiting: Waiting,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    pub(crate) access: Access,
    attempts: Attempts,
    /// Whether it was said that a filter of another version is not understood.
    told_of_versions: AtomicBool,
    told: Told,
}

impl<S: Store> Sidecar<S> {
    pub(crate) fn new(
        store: Purged<S>,
        waiting: Waiting,
        limits: Limits,
        access: Access,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            waiting,
            limits,
            counters: Counters::default(),
            access,
            attempts: Attempts::default(),
            told_of_versions: AtomicBool::default(),
            told: Told::default(),
        })
    }

    /// Looks up. Also says by how many milliseconds the asker's clock is ahead of the store's,
    /// whose times the entry has; negative where it is behind.
    pub(crate) async fn look_up(
        &self,
        clock: Option<ClockReading>,
        mut asked: LookUp,
    ) -> Result<(LookUpAnswer, i64), Refusal> {
        let lead = self.lead(clock);
        asked.now_ms = asked.now_ms.moved(lead.saturating_neg());
        if let Some(mistake) = asked.lease.and_then(LeaseTerms::mistake) {
            return Err(Refusal::Malformed(mistake));
        }
        let answer = self
            .waiting
            .look_up(&self.store, &asked, self.limits.max_waiters)
            .await
            .map_err(|fault| self.fault(fault))?;
        self.counters.found(&answer);
        Ok((answer, lead))
    }

    /// Stores an encoded entry, unless it comes too late.
    pub(crate) async fn write(
        &self,
        clock: Option<ClockReading>,
        key: KeyDigest,
        fence: Option<Fence>,
        encoded: Bytes,
    ) -> Result<WriteAnswer, Refusal> {
        if encoded.len() > self.limits.max_entry_bytes {
            return Ok(WriteAnswer::TooLarge);
        }
        let mut entry =
            Entry::read(encoded).map_err(|fault| Refusal::Malformed(fault.to_string()))?;
        // What was held up on its way cannot be dated, and would come back as newer than what has
        // replaced it.
        let lead = self.certain_lead(clock);
        if let Some(lead) = lead.filter(|lead| *lead != 0) {
            entry.change(|meta| meta.move_times(lead.saturating_neg()));
        }
        let answer = if lead.is_some() && is_timely(entry.meta().request_time_ms, self.now()) {
            self.store.write(key, fence.as_ref(), entry).await
        } else if let Some(fence) = fence {
            let release = Release::of(key, fence);
            self.store
                .release(&release)
                .await
                .map(|()| WriteAnswer::Fenced)
        } else {
            Ok(WriteAnswer::Fenced)
        };
        let answer = answer.map_err(|fault| self.fault(fault))?;
        self.counters.wrote(answer);
        self.waiting.wake(&key);
        Ok(answer)
    }

    /// Gives a lease back.
    pub(crate) async fn release(&self, mut release: Release) -> Result<(), Refusal> {
        release.uncacheable_ms = release.uncacheable_ms.min(Release::MAX_UNCACHEABLE_MS);
        self.store
            .release(&release)
            .await
            .map_err(|fault| self.fault(fault))?;
        self.waiting.wake(&release.key);
        Ok(())
    }

    /// Drops what was requested under some keys until now, and tells every Envoy.
    pub(crate) async fn invalidate(
        &self,
        clock: Option<ClockReading>,
        invalidate: Invalidate,
    ) -> Result<(), Refusal> {
        if invalidate.digests.len() > Invalidate::MAX_KEYS {
            let problem = format!("at most {} keys at once", Invalidate::MAX_KEYS);
            return Err(Refusal::Malformed(problem));
        }
        self.counters
            .invalidations
            .fetch_add(invalidate.digests.len() as u64, Ordering::Relaxed);
        let at_ms = invalidate
            .now_ms
            .moved(self.lead(clock).saturating_neg())
            .no_later_than(self.now());
        let (sessions, envoy) = (
            self.store.purges().sessions(),
            clock.map(|reading| reading.name()),
        );
        envoy.iter().for_each(|envoy| sessions.invalidates(envoy));
        self.carry_out(invalidate, at_ms).await.map_err(|fault| {
            envoy.iter().for_each(|envoy| sessions.is_refused(envoy));
            self.fault(fault)
        })
    }

    async fn carry_out(&self, invalidate: Invalidate, at_ms: Timestamp) -> Result<(), Fault> {
        let purge = |scope| Purge {
            scope,
            soft: false,
            at_ms,
        };
        if invalidate.everything {
            self.store.purge(purge(Scope::Everything)).await?;
            self.waiting.wake_all();
        }
        for key in invalidate.digests {
            self.store.purge(purge(Scope::Key(key))).await?;
            self.waiting.wake(&key);
        }
        Ok(())
    }

    /// By how many milliseconds the caller's clock is ahead of the store's; negative where it is
    /// behind. A caller that says nothing of its clock is believed to be in step.
    fn lead(&self, clock: Option<ClockReading>) -> i64 {
        clock.map_or(0, |reading| self.store.purges().clock().lead(&reading))
    }

    /// The same, unless the message may have been held up.
    fn certain_lead(&self, clock: Option<ClockReading>) -> Option<i64> {
        clock.map_or(Some(0), |reading| {
            self.store.purges().clock().certain_lead(&reading)
        })
    }

    /// The store's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.store.purges().clock().now()
    }

    pub(crate) fn fault(&self, fault: Fault) -> Refusal {
        self.counters.faults.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(fault = %fault, "store");
        Refusal::Store(fault)
    }

    /// What a filter said is not understood. One of another version may say it in another way, which
    /// is logged once.
    pub(crate) fn is_not_understood(&self, error: &str) {
        if !self.told_of_versions.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "a message is not understood; use filters of the sidecar's version");
        }
    }

    /// Logs a line, once.
    pub(crate) fn warn_once(&self, line: &str) {
        if self.told.is_new(line) {
            tracing::warn!("{line}");
        }
    }

    /// Someone came without the token that is asked for.
    pub(crate) fn refusal(&self, peer: Peer, path: &str, setting: &str) -> Refusal {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let (refused, line) = self.attempts.refuse(peer, path, setting, Instant::now());
        if let Some(line) = line {
            tracing::warn!("{line}");
        }
        match refused {
            Refused::Unauthorised => {
                Refusal::NotAllowed(401, "present the token: Authorization: Bearer …")
            }
            Refused::TooOften => {
                Refusal::NotAllowed(429, "too many attempts without the token; wait a minute")
            }
        }
    }
}
