//! Which Envoys follow, and which of them are gone with something untold.
//!
//! An Envoy may have answered an unsafe request while it could not reach the store, and die before
//! it could. Nobody can know what it would have told, nor whether it had ever told anything before:
//! the first unsafe request may come when it is cut off. So when an Envoy is not heard of for
//! [`LAPSE`], whatever was stored until then is distrusted; and again every [`AGAIN`], for
//! [`MISSED_FOR`]: it may be cut off and go on answering.
//!
//! An end in peace costs nothing. An Envoy whose connection closes while it is being served has
//! told everything until then, unless it told something a moment before (`QUIET`), for its last
//! words may have been cut off, or was refused lately and would have tried again. But it may live
//! on and find no way back; so it has left only when another begins in its place, or when this
//! process ends with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// After how long without a poll an Envoy counts as lost, where it asks for polls that are shorter.
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
    /// Since when an Envoy is missing, here or elsewhere.
    missing_since: Mutex<Option<Instant>>,
    /// Whether one that has gone has left, whoever comes after it.
    believes_closing: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    seen: Instant,
    /// How long it may be silent on top: it asked for its poll to be held back so long.
    patience: Duration,
    /// Of how many purges it has heard.
    heard: u64,
    /// Its connection has closed, and it had told everything.
    gone: bool,
    left: bool,
    /// Whether others were told that it is there.
    is_known: bool,
    /// When it told of an invalidation last, and when one was last refused.
    invalidated: Option<Instant>,
    refused: Option<Instant>,
    /// When it was told last that it is missing.
    told: Option<Instant>,
}

impl Session {
    fn new(heard: u64) -> Self {
        Self {
            seen: Instant::now(),
            patience: Duration::ZERO,
            heard,
            gone: false,
            left: false,
            is_known: false,
            invalidated: None,
            refused: None,
            told: None,
        }
    }

    /// For how long it was not heard of though it should have been.
    fn silence(&self) -> Duration {
        self.seen.elapsed().saturating_sub(self.patience)
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
    /// It follows; how long ago it was seen.
    Follows(String, Duration),
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
    /// From now on an Envoy whose connection has closed has left, though it might only be cut off: for
    /// a sidecar behind which Envoys come and go.
    pub fn believe_closing(&self) {
        self.believes_closing.store(true, Ordering::Relaxed);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.envoys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An Envoy polls, for `wait` at most.
    pub fn poll<'a>(&'a self, envoy: &'a str, wait: Duration) -> Poll<'a> {
        let mut all = self.all();
        if !all.contains_key(envoy) {
            let gone = all
                .values_mut()
                .filter(|session| session.gone && !session.left);
            gone.min_by_key(|session| session.silence())
                .into_iter()
                .for_each(|session| session.left = true);
        }
        if let Some(session) = session(&mut all, envoy, 0) {
            *session = Session {
                invalidated: session.invalidated,
                refused: session.refused,
                is_known: session.is_known,
                patience: wait.saturating_sub(LAPSE / 4),
                ..Session::new(session.heard)
            };
        }
        Poll {
            sessions: self,
            envoy,
            until: Instant::now() + wait + SLACK,
            answered: false,
        }
    }

    /// An Envoy tells that something is untrue. It may poll elsewhere; who does not poll here is
    /// not waited for.
    pub fn invalidates(&self, envoy: &str) {
        self.speaks(envoy, |session| &mut session.invalidated);
    }

    /// What it told was refused: it has to try again.
    pub fn is_refused(&self, envoy: &str) {
        self.speaks(envoy, |session| &mut session.refused);
    }

    /// An Envoy that speaks is there; and when it did is noted.
    fn speaks(&self, envoy: &str, noted: impl FnOnce(&mut Session) -> &mut Option<Instant>) {
        if let Some(session) = session(&mut self.all(), envoy, u64::MAX) {
            *noted(session) = Some(Instant::now());
            (session.gone, session.left) = (false, false);
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
        let follows = |session: &&Session| !session.gone && session.silence() < LAPSE;
        self.all()
            .values()
            .filter(follows)
            .all(|session| session.heard >= count)
    }

    /// What is to be told to a store that several sidecars share. Who is silent is not told of: the
    /// store notices who is missing.
    pub fn news(&self) -> Vec<News> {
        let mut all = self.all();
        let is_heard = |session: &Session| session.silence() < LAPSE / 2;
        let news = all
            .iter()
            .filter_map(|(envoy, session)| match session.left {
                true => Some(News::Left(envoy.clone())),
                false if is_heard(session) => Some(News::Follows(envoy.clone(), session.silence())),
                false => None,
            });
        let news = news.collect();
        all.retain(|_, session| {
            !session.left && (is_heard(session) || session.gone && session.silence() < MISSED_FOR)
        });
        all.values_mut().for_each(|session| session.is_known = true);
        news
    }

    /// This process ends. Whoever has gone belonged to it and has ended, too.
    pub fn end(&self) {
        self.all()
            .values_mut()
            .filter(|session| session.gone)
            .for_each(|session| session.left = true);
    }

    /// Whether an Envoy came since the last news: should it be lost now, nobody else would miss it.
    pub fn has_newcomers(&self) -> bool {
        self.all().values().any(|session| !session.is_known)
    }

    /// An Envoy has been missing for so long; zero where none is.
    pub fn one_is_missing_for(&self, time: Duration) {
        let since = Instant::now().checked_sub(time).filter(|_| !time.is_zero());
        *self
            .missing_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// For how long before `then` one had been missing: what it answered since has reached nobody.
    pub fn missing_at(&self, then: Instant) -> Duration {
        let since = *self
            .missing_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| {
            then.saturating_duration_since(since)
        })
    }

    /// For a store of this process alone: whether an Envoy is missing. True once every [`AGAIN`]
    /// for each.
    pub fn has_lost_one(&self) -> bool {
        let mut all = self.all();
        let missing = |session: &Session| session.silence() >= LAPSE;
        all.retain(|_, session| !session.left && session.silence() < MISSED_FOR);
        let is_due = |session: &&mut Session| {
            missing(session) && session.told.is_none_or(|told| told.elapsed() >= AGAIN)
        };
        let longest = all
            .values()
            .filter(|session| missing(session))
            .map(|session| session.silence())
            .max();
        self.one_is_missing_for(longest.unwrap_or_default());
        let due = all
            .values_mut()
            .filter(is_due)
            .map(|session| session.told = Some(Instant::now()));
        due.count() > 0
    }
}

/// The Envoy's session, begun if it has none and there is room.
fn session<'a>(
    all: &'a mut HashMap<String, Session>,
    envoy: &str,
    heard: u64,
) -> Option<&'a mut Session> {
    if !all.contains_key(envoy) && all.len() < MOST {
        all.insert(envoy.to_owned(), Session::new(heard));
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
            session.gone = session.has_told_all();
            session.left |= session.gone && self.sessions.believes_closing.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
