//! Which Envoys follow, and which of them are gone with something untold.
//!
//! An Envoy that forwards unsafe requests may have answered one while it could not reach the store, and die before it could.
//! Nobody can know what it would have told. So when such an Envoy is not heard of for [`LAPSE`], whatever was stored until
//! then is distrusted; and again every [`AGAIN`], for [`MISSED_FOR`]: it may be cut off and go on answering. An Envoy whose connection closes
//! while it is being served has told everything, and an end in peace costs nothing; but not one that told something a moment
//! before ([`QUIET`]), for its last words may have been cut off, nor one that was refused lately and would have tried again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// After how long without a poll an Envoy counts as lost.
pub const LAPSE: Duration = Duration::from_secs(5);
/// How often a missing Envoy is told of: what it answers meanwhile reaches nobody.
pub const AGAIN: Duration = Duration::from_secs(4);
/// For how long, from when it was seen last. Who is missing for longer is taken for dead.
pub const MISSED_FOR: Duration = Duration::from_secs(120);
/// More Envoys than this are not kept apart: a newcomer is not watched.
const MOST: usize = 10_000;
/// An Envoy that has told nothing for so long has nothing on its way.
const QUIET: Duration = Duration::from_secs(1);
/// An Envoy that was refused tries again well within this, until it is accepted.
const TRIES_AGAIN: Duration = Duration::from_secs(5);
/// A poll that is broken off within its time and this was served to its end.
const SLACK: Duration = Duration::from_millis(500);

/// The Envoys that follow at this sidecar.
#[derive(Debug, Default)]
pub struct Sessions {
    envoys: Mutex<HashMap<String, Session>>,
    /// Since when an Envoy that forwarded unsafe requests is missing, here or elsewhere.
    missing_since: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    seen: Instant,
    /// Of how many purges it has heard.
    heard: u64,
    writes: bool,
    left: bool,
    /// When it told of an invalidation last, and when one was last refused.
    invalidated: Option<Instant>,
    refused: Option<Instant>,
    /// When it was told last that it is missing.
    told: Option<Instant>,
}

impl Session {
    fn new(heard: u64, writes: bool) -> Self {
        Self { seen: Instant::now(), heard, writes, left: false, invalidated: None, refused: None, told: None }
    }

    /// Whether everything that it answered has been accepted, should it be gone now.
    fn has_told_all(&self) -> bool {
        let within = |time: Option<Instant>, least| time.is_some_and(|time| time.elapsed() < least);
        !within(self.invalidated, QUIET) && !within(self.refused, TRIES_AGAIN)
    }
}

/// What became of an Envoy since it was asked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It follows; whether it lately forwarded unsafe requests, and how long ago it was seen.
    Follows(String, bool, Duration),
    /// It has gone in peace.
    Left(String),
}

/// A poll under way. Dropped before its end it means that the Envoy has closed the connection.
#[derive(Debug)]
pub struct Poll<'a> {
    sessions: &'a Sessions,
    envoy: &'a str,
    until: Instant,
    answered: bool,
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.envoys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An Envoy polls, for `wait` at most.
    pub fn poll<'a>(&'a self, envoy: &'a str, writes: bool, wait: Duration) -> Poll<'a> {
        if let Some(session) = session(&mut self.all(), envoy, 0) {
            *session = Session {
                invalidated: session.invalidated,
                refused: session.refused,
                ..Session::new(session.heard, writes)
            };
        }
        Poll { sessions: self, envoy, until: Instant::now() + wait + SLACK, answered: false }
    }

    /// An Envoy tells that something is untrue. It may poll elsewhere; who does not poll here is not waited for.
    pub fn invalidates(&self, envoy: &str) {
        if let Some(session) = session(&mut self.all(), envoy, u64::MAX) {
            (session.invalidated, session.writes, session.left) = (Some(Instant::now()), true, false);
        }
    }

    /// What it told was refused: it has to try again.
    pub fn is_refused(&self, envoy: &str) {
        if let Some(session) = session(&mut self.all(), envoy, u64::MAX) {
            (session.refused, session.writes, session.left) = (Some(Instant::now()), true, false);
        }
    }

    /// An Envoy that polls has heard of so many purges, and told all its workers.
    pub fn has_heard(&self, envoy: &str, count: u64) {
        if let Some(session) = self.all().get_mut(envoy) {
            session.heard = count;
        }
    }

    /// Whether every Envoy that follows has heard of so many.
    pub fn have_all_heard(&self, count: u64) -> bool {
        let follows = |session: &&Session| !session.left && session.seen.elapsed() < LAPSE;
        self.all().values().filter(follows).all(|session| session.heard >= count)
    }

    /// What is to be told to a store that several sidecars share. Who has left, or was not seen for [`LAPSE`], is told of
    /// once or not at all: the store notices who is missing.
    pub fn news(&self) -> Vec<News> {
        let mut all = self.all();
        let news = all.iter().map(|(envoy, session)| match session.left {
            true => News::Left(envoy.clone()),
            false => News::Follows(envoy.clone(), session.writes, session.seen.elapsed()),
        });
        let news = news.collect();
        all.retain(|_, session| !session.left && session.seen.elapsed() < LAPSE / 2);
        news
    }

    /// An Envoy that forwarded unsafe requests has been missing for so long; zero where none is.
    pub fn one_is_missing_for(&self, time: Duration) {
        let since = Instant::now().checked_sub(time).filter(|_| !time.is_zero());
        *self.missing_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// For how long before `then` one had been missing: what it answered since has reached nobody.
    pub fn missing_at(&self, then: Instant) -> Duration {
        let since = *self.missing_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| then.saturating_duration_since(since))
    }

    /// For a store of this process alone: whether an Envoy that forwards unsafe requests is missing. True once every
    /// [`AGAIN`] for each.
    pub fn has_lost_a_writer(&self) -> bool {
        let mut all = self.all();
        let missing = |session: &Session| session.seen.elapsed() >= LAPSE;
        all.retain(|_, session| {
            !session.left && (!missing(session) || session.writes && session.seen.elapsed() < MISSED_FOR)
        });
        let is_due =
            |session: &&mut Session| missing(session) && session.told.is_none_or(|told| told.elapsed() >= AGAIN);
        let longest = all.values().filter(|session| missing(session)).map(|session| session.seen.elapsed()).max();
        self.one_is_missing_for(longest.unwrap_or_default());
        let due = all.values_mut().filter(is_due).map(|session| session.told = Some(Instant::now()));
        due.count() > 0
    }
}

/// The Envoy's session, begun if it has none and there is room.
fn session<'a>(all: &'a mut HashMap<String, Session>, envoy: &str, heard: u64) -> Option<&'a mut Session> {
    if !all.contains_key(envoy) && all.len() < MOST {
        all.insert(envoy.to_owned(), Session::new(heard, false));
    }
    all.get_mut(envoy)
}

impl Poll<'_> {
    /// It is refused: that says nothing of the Envoy.
    pub fn refused(mut self) {
        self.answered = true;
    }

    /// It is answered.
    pub fn answered(mut self) {
        self.answered = true;
        if let Some(session) = self.sessions.all().get_mut(self.envoy) {
            session.seen = Instant::now();
        }
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        // Broken off late it proves nothing: this process may have been stopped meanwhile.
        if !self.answered
            && Instant::now() < self.until
            && let Some(session) = self.sessions.all().get_mut(self.envoy)
        {
            session.left = session.has_told_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(1);

    fn age(sessions: &Sessions, by: Duration) {
        sessions.all().values_mut().for_each(|session| session.seen -= by);
    }

    #[test]
    fn a_writer_that_is_not_heard_of_is_told_of_now_and_then() {
        let sessions = Sessions::default();
        sessions.poll("reader", false, WAIT).answered();
        sessions.poll("writer", true, WAIT).answered();
        assert!(!sessions.has_lost_a_writer());
        age(&sessions, LAPSE);
        assert!(sessions.has_lost_a_writer());
        assert!(!sessions.has_lost_a_writer());
        let told_long_ago = |session: &mut Session| session.told = session.told.map(|told| told - AGAIN);
        sessions.all().values_mut().for_each(told_long_ago);
        assert!(sessions.has_lost_a_writer(), "it may go on answering");
        assert!(sessions.missing_at(Instant::now()) >= LAPSE);
        sessions.poll("writer", true, WAIT).answered();
        sessions.all().values_mut().for_each(told_long_ago);
        assert!(!sessions.has_lost_a_writer(), "it is back");
        assert_eq!(sessions.missing_at(Instant::now()), Duration::ZERO);
        age(&sessions, MISSED_FOR);
        assert!(!sessions.has_lost_a_writer(), "it is dead");
    }

    #[test]
    fn who_only_reads_or_leaves_in_peace_costs_nothing() {
        let sessions = Sessions::default();
        sessions.poll("reader", false, WAIT).answered();
        drop(sessions.poll("writer", true, WAIT));
        age(&sessions, LAPSE);
        assert!(!sessions.has_lost_a_writer());
    }

    #[test]
    fn a_poll_broken_off_late_is_no_peaceful_end() {
        let sessions = Sessions::default();
        let mut poll = sessions.poll("writer", true, WAIT);
        poll.until = Instant::now();
        drop(poll);
        age(&sessions, LAPSE);
        assert!(sessions.has_lost_a_writer());
    }

    #[test]
    fn who_is_refused_has_not_left() {
        let sessions = Sessions::default();
        sessions.poll("writer", true, WAIT).refused();
        assert!(matches!(sessions.news()[..], [News::Follows(..)]));
        age(&sessions, LAPSE);
        assert!(sessions.has_lost_a_writer());
    }

    #[test]
    fn who_told_something_a_moment_before_or_was_refused_may_have_more_to_tell() {
        let ends_after = |told: fn(&Sessions)| {
            let sessions = Sessions::default();
            let poll = sessions.poll("writer", true, WAIT);
            told(&sessions);
            drop(poll);
            age(&sessions, LAPSE);
            sessions.has_lost_a_writer()
        };
        assert!(!ends_after(|_| ()));
        assert!(ends_after(|sessions| sessions.invalidates("writer")), "its last words may have been cut off");
        let long_before = |sessions: &Sessions| {
            sessions.invalidates("writer");
            sessions.is_refused("writer");
            let ages = |session: &mut Session| {
                session.invalidated = session.invalidated.map(|time| time - QUIET);
                session.refused = session.refused.map(|time| time - TRIES_AGAIN);
            };
            sessions.all().values_mut().for_each(ages);
        };
        assert!(!ends_after(long_before), "all was told");
        assert!(ends_after(|sessions| sessions.is_refused("writer")), "it would have tried again");
    }

    #[test]
    fn what_is_told_after_the_end_of_the_poll_ends_the_peace() {
        for tell in [Sessions::invalidates, Sessions::is_refused] {
            let sessions = Sessions::default();
            drop(sessions.poll("writer", true, WAIT));
            assert_eq!(sessions.news(), [News::Left("writer".to_owned())]);
            tell(&sessions, "writer");
            assert!(matches!(&sessions.news()[..], [News::Follows(envoy, true, _)] if envoy == "writer"));
            assert!(sessions.have_all_heard(1), "nobody waits for it");
            age(&sessions, LAPSE);
            assert!(sessions.has_lost_a_writer());
        }
    }

    #[test]
    fn news_is_who_follows_and_who_has_left() {
        let sessions = Sessions::default();
        sessions.poll("a", true, WAIT).answered();
        drop(sessions.poll("b", true, WAIT));
        let mut news = sessions.news();
        news.sort_by_key(|news| format!("{news:?}"));
        let follows = |news: &News, least| matches!(news, News::Follows(a, true, ago) if a == "a" && *ago >= least);
        assert!(news.len() == 2 && follows(&news[0], Duration::ZERO), "{news:?}");
        assert_eq!(news[1], News::Left("b".to_owned()));
        age(&sessions, LAPSE / 2);
        let news = sessions.news();
        assert!(news.len() == 1 && follows(&news[0], LAPSE / 2), "once more at most: {news:?}");
        assert_eq!(sessions.news(), []);
    }
}
