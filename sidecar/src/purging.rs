//! Purges: what is remembered of them, how Envoys learn of them, and the store seen through them.
//!
//! A purge of one URL is carried out in the store at once. One by tag or prefix, or of everything, is a mark: it costs the
//! same whatever it concerns, and an entry it concerns is dropped when it is next asked for. Either way it goes into a log,
//! which every Envoy follows with one long poll.
//!
//! A sidecar that shares its store vouches for what it gives out only while it hears the others' purges: before it has read
//! the marks, and after it has been deaf for [`TRUST`], a look-up finds nothing and a poll is refused.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use larder_contract::entry::{self, Entry};
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::purge::{Marks, Purge, Scope, Verdict};
use larder_contract::store_api::{Events, Fence, LookUp, LookUpAnswer, Release, WriteAnswer};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::sessions::Sessions;
use crate::store::{Fault, Found, Store};

/// Bytes of marks that this process remembers; the oldest become one of everything older.
const BYTES_OF_MARKS: usize = 8 << 20;
/// The same in Redis, by number: the script that makes room looks at all of them. Some 150 bytes each, at most 2 KB.
pub const MAX_MARKS: usize = 32_768;
/// Purges in the log; whoever is further behind starts anew. Each takes as much as the tag or prefix that it names: some
/// 200 bytes, at most 2 KB.
pub const LOG_LENGTH: usize = 4096;

/// For how long a sidecar that hears nothing more still vouches for what it gives out. It asks every second.
pub const TRUST: Duration = Duration::from_secs(3);

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

/// Whether all purges are known here.
#[derive(Clone, Copy, Debug)]
enum Hearing {
    /// The store is this process's own: nobody else purges.
    Alone,
    /// The store is shared, and its marks have not been read yet.
    NotYet,
    /// The store is shared, and everything up to then is known: from a connection, or of all that there may be.
    UpTo(Instant, Option<u64>),
}

/// The last purges, each with the cursor behind it.
#[derive(Debug, Default)]
struct Log {
    /// The cursor before the first.
    base: String,
    /// How many purges came before the first. Never goes back, whatever becomes of the cursors.
    before: u64,
    purges: VecDeque<(String, Purge)>,
}

impl Log {
    fn last(&self) -> &str {
        self.purges.back().map_or(&self.base, |(cursor, _)| cursor)
    }

    /// How many purges lie before a cursor. `None` when it is not known, or not any more.
    fn count(&self, cursor: &str) -> Option<u64> {
        // Most ask for the end.
        match self.purges.iter().rposition(|(known, _)| known == cursor) {
            Some(at) => Some(self.before + at as u64 + 1),
            None => (cursor == self.base).then_some(self.before),
        }
    }

    fn since(&self, after: Option<&str>) -> Events {
        let nothing = |reset| Events { cursor: self.last().to_owned(), reset, events: Vec::new() };
        let Some(after) = after else { return nothing(false) };
        let behind = if after == self.base {
            0
        } else {
            match self.purges.iter().position(|(cursor, _)| cursor == after) {
                Some(at) => at + 1,
                None => return nothing(true),
            }
        };
        let given: Vec<&(String, Purge)> = self.purges.iter().skip(behind).take(Events::MOST).collect();
        let cursor = given.last().map_or_else(|| after.to_owned(), |(cursor, _)| cursor.clone());
        Events { cursor, reset: false, events: given.into_iter().map(|(_, purge)| purge.clone()).collect() }
    }
}

impl Default for Purges {
    /// Those of a store that is this process's own.
    fn default() -> Self {
        Self::hearing(Hearing::Alone)
    }
}

impl Purges {
    /// Those of a store that others share: nothing is vouched for before [`Self::heard_everything`].
    pub fn shared() -> Self {
        Self::hearing(Hearing::NotYet)
    }

    fn hearing(hearing: Hearing) -> Self {
        let marks = RwLock::new(Marks::new(BYTES_OF_MARKS));
        let hearing = Mutex::new(hearing);
        let (log, own, clock) = (Mutex::default(), Mutex::default(), Clock::default());
        let sessions = Sessions::default();
        Self(Arc::new(Shared { marks, log, more: Notify::new(), ask: Notify::new(), hearing, own, clock, sessions }))
    }

    /// All that anybody has purged until `asked` is known here: the store was asked then, and has answered.
    pub fn heard_everything(&self, asked: Instant) {
        self.heard(asked, None);
    }

    /// The same, as far as the store behind one connection goes.
    pub fn heard_by(&self, asked: Instant, connection: u64) {
        self.heard(asked, Some(connection));
    }

    fn heard(&self, asked: Instant, connection: Option<u64>) {
        let mut hearing = self.0.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        *hearing = match *hearing {
            Hearing::Alone => Hearing::Alone,
            Hearing::NotYet => Hearing::UpTo(asked, connection),
            Hearing::UpTo(known, _) => Hearing::UpTo(known.max(asked), connection),
        };
    }

    /// Whether nothing can have been purged without being known here, but for the last [`TRUST`].
    pub fn vouches(&self) -> bool {
        self.vouches_at(Instant::now())
    }

    /// For how long before `then` purges were not heard of, as far as is known now: by this process, or by anybody from an
    /// Envoy that is missing.
    pub fn unheard_at(&self, then: Instant) -> Duration {
        let here = match *self.0.hearing.lock().unwrap_or_else(PoisonError::into_inner) {
            Hearing::Alone => Duration::ZERO,
            Hearing::NotYet => Duration::MAX,
            Hearing::UpTo(known, _) => then.saturating_duration_since(known),
        };
        here.max(self.sessions().missing_at(then))
    }

    /// Has the log read soon, without being told to.
    pub fn ask_now(&self) {
        self.0.ask.notify_one();
    }

    fn vouches_at(&self, now: Instant) -> bool {
        match *self.0.hearing.lock().unwrap_or_else(PoisonError::into_inner) {
            Hearing::Alone => true,
            Hearing::NotYet => false,
            Hearing::UpTo(known, _) => now.saturating_duration_since(known) < TRUST,
        }
    }

    /// Whether that is so for what the store has said by a connection. Behind a new one there may be a store that has lost
    /// purges: it is to be asked for them first.
    fn vouches_for(&self, connection: u64) -> bool {
        let hearing = *self.0.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        self.vouches() && !matches!(hearing, Hearing::UpTo(_, Some(known)) if known != connection)
    }

    /// A purge of our own lies in the shared log at this place; should it not be read there, the log has lost it.
    pub fn expect(&self, cursor: String) {
        let mut own = self.own();
        if own.unread.len() < LOG_LENGTH {
            own.unread.insert(cursor.clone());
        }
        own.last = Some(cursor);
        drop(own);
        self.ask_now();
    }

    /// Waits until the log is to be read though the store tells of nothing: because this process has put a purge into it, or
    /// because somebody asks.
    pub async fn asked(&self) {
        self.0.ask.notified().await;
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

    /// Waits until every Envoy that follows here has heard of all that was purged here, for `wait` at most: one may be frozen
    /// or gone.
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
        self.0.marks.read().unwrap_or_else(PoisonError::into_inner).to_purges()
    }

    /// How often the oldest marks had to become one of everything.
    pub fn crowded(&self) -> u64 {
        self.0.marks.read().unwrap_or_else(PoisonError::into_inner).folded()
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
            tracing::warn!("more purges came than are remembered: what is older than the oldest of them is not used");
        }
    }

    fn verdict(&self, entry: &Entry) -> Verdict {
        let marks = self.0.marks.read().unwrap_or_else(PoisonError::into_inner);
        let verdict = marks.verdict(&entry.meta.url, &entry.meta.tags, entry.meta.request_time_ms);
        verdict.beyond(entry.meta.stale_from_ms)
    }

    fn is_empty(&self) -> bool {
        self.0.marks.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Empties the log and lets it begin behind a cursor; whoever follows from another one is told to start anew.
    pub fn begin_at(&self, cursor: String) {
        self.own().unread.clear();
        let mut log = self.log();
        // Who has heard of everything so far has not heard of what this begins with.
        let before = log.before + log.purges.len() as u64 + 1;
        *log = Log { base: cursor, before, purges: VecDeque::new() };
        drop(log);
        self.0.more.notify_waiters();
    }

    /// The cursor behind the last purge.
    pub fn cursor(&self) -> String {
        self.log().last().to_owned()
    }

    /// For a store of this process alone: distrusts what was stored, again and again, while an Envoy is missing that may have
    /// something to tell. Whoever follows starts anew.
    pub async fn watch_envoys(self) {
        for number in 0_u64.. {
            while !self.sessions().has_lost_a_writer() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            tracing::warn!(
                "an Envoy that forwarded unsafe requests is missing; what was stored before now is not used"
            );
            self.mark(&Purge { scope: Scope::Everything, soft: false, at_ms: self.clock().now() });
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
        let mut log = self.log();
        log.purges.push_back((cursor, purge));
        if log.purges.len() > LOG_LENGTH
            && let Some((cursor, _)) = log.purges.pop_front()
        {
            log.base = cursor;
            log.before += 1;
        }
        drop(log);
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
    Purge { at_ms: purge.at_ms.no_later_than(clock.now()), ..purge }
}

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
            self.store.invalidate(&[*key], purge.at_ms, purge.soft).await?;
        }
        self.purges.mark(&purge);
        self.store.announce(&purge, &self.purges).await
    }

    /// What the answer carries, if it lies under a purge: when that was, and whether softly.
    fn purged(&self, answer: &LookUpAnswer) -> Option<(Timestamp, bool)> {
        let bytes = match answer {
            LookUpAnswer::Entry(bytes)
            | LookUpAnswer::Lease { stale: Some(bytes), .. }
            | LookUpAnswer::Held { stale: Some(bytes) } => bytes,
            _ => return None,
        };
        match self.purges.verdict(&entry::decode(bytes).ok()?) {
            Verdict::Kept => None,
            Verdict::StaleSince(time) => Some((time, true)),
            Verdict::Gone(time) => Some((time, false)),
        }
    }
}

impl<S: Store> Store for Purged<S> {
    async fn look_up(&self, asked: &LookUp) -> Result<Found, Fault> {
        if !self.purges.vouches() {
            // What is there may have been purged. Without a lease, so that nobody waits for what cannot be vouched for.
            return Ok(Found::now(LookUpAnswer::Nothing { uncacheable: false }));
        }
        let mut found = self.store.look_up(asked).await?;
        if !self.purges.vouches_for(self.store.connection()) {
            if let LookUpAnswer::Lease { fence, .. } = found.answer {
                self.store.release(&Release { key: asked.key, fence, uncacheable_ms: 0 }).await?;
            }
            return Ok(Found::now(LookUpAnswer::Nothing { uncacheable: false }));
        }
        // A hard purge may uncover nothing more, a soft one is applied once: two rounds at most.
        for _ in 0..2 {
            let purged = if self.purges.is_empty() { None } else { self.purged(&found.answer) };
            let Some((time, soft)) = purged else { break };
            if let LookUpAnswer::Lease { fence, .. } = &found.answer {
                let release = Release { key: asked.key, fence: fence.clone(), uncacheable_ms: 0 };
                self.store.release(&release).await?;
            }
            self.store.invalidate(&[asked.key], time, soft).await?;
            found = self.store.look_up(asked).await?;
        }
        Ok(found)
    }

    async fn write(&self, key: KeyDigest, fence: Option<&Fence>, entry: Entry) -> Result<WriteAnswer, Fault> {
        if self.purges.verdict(&entry) == Verdict::Kept {
            return self.store.write(key, fence, entry).await;
        }
        // It was requested before the purge and comes after it.
        if let Some(fence) = fence {
            self.store.release(&Release { key, fence: fence.clone(), uncacheable_ms: 0 }).await?;
        }
        Ok(WriteAnswer::Fenced)
    }

    async fn release(&self, release: &Release) -> Result<(), Fault> {
        self.store.release(release).await
    }

    async fn invalidate(&self, keys: &[KeyDigest], time: Timestamp, soft: bool) -> Result<(), Fault> {
        self.store.invalidate(keys, time, soft).await
    }

    async fn announce(&self, purge: &Purge, purges: &Purges) -> Result<(), Fault> {
        self.store.announce(purge, purges).await
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

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(n: u64) -> Purge {
        Purge { scope: Scope::Everything, soft: false, at_ms: Timestamp::from_millis(n) }
    }

    #[tokio::test]
    async fn who_follows_misses_nothing_and_who_is_too_far_behind_is_told() {
        let purges = Purges::default();
        purges.begin_at("0".to_owned());
        let begin = purges.since(None, Duration::ZERO).await;
        assert_eq!((begin.cursor.as_str(), begin.reset), ("0", false));
        for n in 1..=300 {
            purges.push(n.to_string(), purge(n));
        }
        let first = purges.since(Some("0"), Duration::ZERO).await;
        assert_eq!((first.events.len(), first.cursor.as_str()), (Events::MOST, "256"));
        let rest = purges.since(Some("256"), Duration::ZERO).await;
        assert_eq!((rest.events.len(), rest.cursor.as_str()), (44, "300"));
        assert!(purges.since(Some("elsewhere"), Duration::ZERO).await.reset);
        for n in 301..=5000 {
            purges.push(n.to_string(), purge(n));
        }
        assert!(purges.since(Some("300"), Duration::ZERO).await.reset);
    }

    #[tokio::test]
    async fn a_purge_is_heard_when_all_who_follow_ask_on_from_behind_it() {
        let purges = Purges::default();
        let wait = Duration::from_millis(500);
        let waited = async || {
            let since = Instant::now();
            purges.are_heard(wait).await;
            since.elapsed()
        };
        purges.push("1".to_owned(), purge(1));
        assert!(waited().await < wait, "nobody follows");
        for envoy in ["a", "b"] {
            let _poll = std::mem::ManuallyDrop::new(purges.sessions().poll(envoy, false, wait));
            purges.polled_from(envoy, "1");
        }
        assert!(waited().await < wait);
        purges.push("2".to_owned(), purge(2));
        purges.polled_from("a", "2");
        assert!(waited().await >= wait, "one is frozen");
        let later = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            purges.polled_from("b", "2");
        };
        let (took, ()) = tokio::join!(waited(), later);
        assert!(took < wait, "{took:?}");
    }

    #[test]
    fn what_was_not_heard_for_a_while_is_not_vouched_for() {
        let now = Instant::now();
        assert!(Purges::default().vouches_at(now), "alone there is nothing to hear");
        let purges = Purges::shared();
        assert!(!purges.vouches_at(now), "before the marks are read");
        purges.heard_everything(now);
        assert!(purges.vouches_at(now + TRUST - Duration::from_millis(1)));
        assert!(!purges.vouches_at(now + TRUST));
        purges.heard_everything(now - Duration::from_secs(1));
        assert!(purges.vouches_at(now + TRUST - Duration::from_millis(1)), "an older answer takes nothing back");
    }

    #[tokio::test]
    async fn a_long_poll_ends_with_the_purge_it_waited_for() {
        let purges = Purges::default();
        let waiting = tokio::spawn({
            let purges = purges.clone();
            async move { purges.since(Some(""), Duration::from_secs(20)).await }
        });
        tokio::task::yield_now().await;
        purges.push("1".to_owned(), purge(1));
        let events = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        assert_eq!(events.events.len(), 1);
    }
}
