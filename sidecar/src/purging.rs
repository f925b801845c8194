//! Purges: what is remembered of them ([`Purges`]), how Envoys learn of them, and the store seen
//! through them ([`Purged`]).
//!
//! A purge of one URL is carried out in the store at once. One by tag or prefix, or of everything,
//! is a mark: it costs the same whatever it concerns, and an entry it concerns is dropped when it
//! is next asked for. Either way it goes into a log, which every Envoy follows with one long poll.
//!
//! A sidecar that shares its store vouches for what it gives out only while it hears the others'
//! purges: before it has read the marks, and after it has been deaf for [`TRUST`], a look-up finds
//! nothing and a poll is refused.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use larder_contract::entry::EntryMeta;
use larder_contract::purge::{Marks, Purge, Scope, Verdict};
use larder_contract::store_api::Events;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::sessions::Sessions;

mod hearing;
mod log;
mod purged;

use hearing::Hearing;
pub use hearing::TRUST;
pub use log::LOG_LENGTH;
use log::Log;
pub use purged::Purged;

/// Bytes of marks that this process remembers; the oldest become one of everything older.
const BYTES_OF_MARKS: usize = 8 << 20;
/// The same in Redis, by number: the script that makes room looks at all of them. Some 150 bytes
/// each, at most 2 KB.
pub const MAX_MARKS: usize = 32_768;

/// What was purged. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Purges(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    marks: RwLock<Marks>,
    log: Mutex<Log>,
    more: Notify,
    /// The shared log is to be read.
    ask: Notify,
    hearing: Mutex<Hearing>,
    /// The purges that this process made.
    own: Mutex<Own>,
    clock: Clock,
    sessions: Sessions,
}

/// Places in the shared log of the purges that this process made.
#[derive(Debug, Default)]
struct Own {
    last: Option<String>,
    /// Those that were not read there yet.
    unread: HashSet<String>,
}

impl Default for Purges {
    /// Those of a store that is this process's own.
    fn default() -> Self {
        Self::that_hear(Hearing::Alone)
    }
}

impl Purges {
    /// Those of a store that others share: nothing is vouched for before
    /// [`Self::heard_everything`].
    pub fn shared() -> Self {
        Self::that_hear(Hearing::NotYet)
    }

    fn that_hear(hearing: Hearing) -> Self {
        let marks = RwLock::new(Marks::new(BYTES_OF_MARKS));
        let hearing = Mutex::new(hearing);
        let (log, own, clock) = (Mutex::default(), Mutex::default(), Clock::default());
        let sessions = Sessions::default();
        Self(Arc::new(Shared {
            marks,
            log,
            more: Notify::new(),
            ask: Notify::new(),
            hearing,
            own,
            clock,
            sessions,
        }))
    }

    /// All that anybody has purged until `asked` is known here: the store was asked then, and has
    /// answered.
    pub fn heard_everything(&self, asked: Instant) {
        self.heard(asked, None);
    }

    /// The same, as far as the store behind one connection goes.
    pub fn heard_by(&self, asked: Instant, connection: u64) {
        self.heard(asked, Some(connection));
    }

    fn heard(&self, asked: Instant, connection: Option<u64>) {
        let mut hearing = self.hearing();
        *hearing = hearing.heard(asked, connection);
    }

    /// Whether nothing can have been purged without being known here, but for the last [`TRUST`].
    pub fn vouches(&self) -> bool {
        self.hearing().vouches_at(Instant::now())
    }

    /// For how long before `then` purges were not heard of, as far as is known now: by this
    /// process, or by anybody from an Envoy that is missing.
    pub fn unheard_at(&self, then: Instant) -> Duration {
        let here = self.hearing().deaf_at(then);
        here.max(self.sessions().missing_at(then))
    }

    /// Has the log read soon, without being told to.
    pub fn ask_now(&self) {
        self.0.ask.notify_one();
    }

    /// Whether that is so for what the store has said by a connection. Behind a new one there may
    /// be a store that has lost purges: it is to be asked for them first.
    fn vouches_for(&self, connection: u64) -> bool {
        let hearing = *self.hearing();
        hearing.vouches_at(Instant::now()) && !hearing.is_by_another_than(connection)
    }

    /// A purge of our own lies in the shared log at this place; should it not be read there, the
    /// log has lost it.
    pub fn expect(&self, cursor: String) {
        let mut own = self.own();
        if own.unread.len() < LOG_LENGTH {
            own.unread.insert(cursor.clone());
        }
        own.last = Some(cursor);
        drop(own);
        self.ask_now();
    }

    /// Waits until the log is to be read though the store tells of nothing: because this process
    /// has put a purge into it, or because somebody asks.
    pub async fn asked(&self) {
        self.0.ask.notified().await;
    }

    fn hearing(&self) -> MutexGuard<'_, Hearing> {
        self.0
            .hearing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn marks(&self) -> RwLockReadGuard<'_, Marks> {
        self.0.marks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where purges of our own have to be that lie ahead of what was read; those behind were read.
    pub fn expected_ahead(&self, is_ahead: impl Fn(&str) -> bool) -> HashSet<String> {
        let mut own = self.own();
        own.unread.retain(|cursor| is_ahead(cursor));
        own.unread.clone()
    }

    /// An Envoy polls on from this cursor: it has told its workers of everything before.
    pub fn polled_from(&self, envoy: &str, cursor: &str) {
        if let Some(count) = self.log().count(cursor) {
            self.sessions().has_heard(envoy, count);
        }
        self.0.more.notify_waiters();
    }

    /// Waits until every Envoy that follows here has heard of all that was purged here, for `wait`
    /// at most: one may be frozen or gone.
    pub async fn are_heard(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        let last = self.own().last.clone();
        let last = last.unwrap_or_else(|| self.cursor());
        let mut wanted = None;
        loop {
            let more = self.0.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            wanted = wanted.or_else(|| self.log().count(&last));
            let heard = wanted.is_some_and(|count| self.sessions().have_all_heard(count));
            if heard || tokio::time::timeout_at(deadline, more).await.is_err() {
                return;
            }
        }
    }

    /// The Envoys that follow here.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// The clock by which purges are dated.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// All that is remembered, as purges: to be kept elsewhere.
    pub fn all_marks(&self) -> Vec<Purge> {
        self.marks().to_purges()
    }

    /// How often the oldest marks had to become one of everything.
    pub fn crowded(&self) -> u64 {
        self.marks().folded()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a mark, dated now where it comes from the future.
    pub fn mark(&self, purge: &Purge) {
        let purge = &dated(purge.clone(), self.clock());
        let mut marks = self.0.marks.write().unwrap_or_else(PoisonError::into_inner);
        let before = marks.folded();
        marks.add(purge);
        if before == 0 && marks.folded() > 0 {
            tracing::warn!(
                "more purges came than are remembered: what is older than the oldest of them is not used"
            );
        }
    }

    fn verdict(&self, meta: &EntryMeta) -> Verdict {
        let verdict = self
            .marks()
            .verdict(&meta.url, &meta.tags, meta.request_time_ms);
        verdict.beyond(meta.stale_from_ms)
    }

    fn is_empty(&self) -> bool {
        self.marks().is_empty()
    }

    /// Empties the log and lets it begin behind a cursor; whoever follows from another one is told
    /// to start anew.
    pub fn begin_at(&self, cursor: String) {
        self.own().unread.clear();
        self.log().begin_at(cursor);
        self.0.more.notify_waiters();
    }

    /// The cursor behind the last purge.
    pub fn cursor(&self) -> String {
        self.log().last().to_owned()
    }

    /// For a store of this process alone: distrusts what was stored, again and again, while an
    /// Envoy is missing: it may have something to tell. Whoever follows starts anew.
    pub async fn watch_envoys(self) {
        for number in 0_u64.. {
            while !self.sessions().has_lost_one() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            tracing::warn!("an Envoy is missing; what was stored before now is not used");
            self.mark(&Purge {
                scope: Scope::Everything,
                soft: false,
                at_ms: self.clock().now(),
            });
            let cursor = self.cursor();
            let first = cursor.split("-lost-").next().unwrap_or_default();
            self.begin_at(format!("{first}-lost-{number}"));
        }
    }

    /// One more in the log.
    pub fn push(&self, cursor: String, purge: Purge) {
        self.own().unread.remove(&cursor);
        let purge = dated(purge, self.clock());
        self.mark(&purge);
        self.log().push(cursor, purge);
        self.0.more.notify_waiters();
    }

    /// What came since a cursor; waits for something to come for so long.
    pub async fn since(&self, after: Option<&str>, wait: Duration) -> Events {
        let deadline = Instant::now() + wait;
        loop {
            let more = self.0.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            let events = self.log().since(after);
            if after.is_none() || events.reset || !events.events.is_empty() {
                return events;
            }
            if tokio::time::timeout_at(deadline, more).await.is_err() {
                return events;
            }
        }
    }
}

/// The purge as this process takes it: whoever made it may have a clock that is far ahead.
fn dated(purge: Purge, clock: &Clock) -> Purge {
    Purge {
        at_ms: purge.at_ms.no_later_than(clock.now()),
        ..purge
    }
}

#[cfg(test)]
mod tests;
