//! The store stream of one worker: one gRPC stream to the sidecar, opened on tick and again
//! whenever it ends.
//!
//! What this decides: when the stream is opened, from when on it carries questions (from its
//! welcome), how much may be on its way unread, and when a deadline has passed, for a stream has
//! none of its own. What it leaves out: what questions and answers mean.

use std::rc::Rc;

use larder_cache_core::fields::Fields;
use larder_contract::http_time::Timestamp;
use larder_contract::store_stream::{Asked, METHOD, Question, SERVICE, Said, VERSION};

use crate::calls::Outside;
use crate::config::{Config, Transport};
use crate::host::{Host, Refused};
use crate::metrics;

/// Bytes on their way that the sidecar has not read, as far as it has said. Beyond it entries are
/// not shared: a sidecar that does not read must not fill this Envoy's memory.
const MOST_UNREAD: u64 = 1 << 20;
/// Beyond this the stream is given up.
const TOO_MUCH_UNREAD: u64 = 4 << 20;
/// Larger entries go by a call of their own: copying costs more than the call there, and a long
/// message would hold look-ups back.
const MOST_IN_A_FRAME: usize = 16 << 10;
/// How long the sidecar may take to welcome us, in milliseconds.
const WELCOME_MS: u64 = 2_000;
/// Pauses before the stream is opened again, in milliseconds: the first, doubled up to the last.
const PAUSES_MS: (u64, u64) = (100, 1_000);
/// The same where the sidecar does not know the stream, or another version of it.
const UNKNOWN_PAUSE_MS: u64 = 30_000;
/// gRPC's status for a method that the server does not have.
const UNIMPLEMENTED: u32 = 12;

/// The stream, or that there is none.
#[derive(Debug, Default)]
pub(crate) struct Line {
    state: State,
    /// The number that a question got last.
    last: u32,
    /// Bytes of all frames sent since the stream began, and those of them that the sidecar has
    /// read.
    sent: u64,
    read: u64,
    not_before: Timestamp,
    pause_ms: u64,
    /// Where frames are written, so that none needs memory of its own.
    frame: Vec<u8>,
    told_of_version: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    /// Not welcomed yet.
    Opening(Open, Timestamp),
    /// It carries questions.
    Welcome(Open),
}

/// A stream that Envoy has opened.
#[derive(Debug)]
struct Open {
    token: u32,
    /// The root context that it belongs to, and ends with.
    root: u32,
    /// Whose sidecar is at its other end.
    config: Rc<Config>,
}

/// What came on the stream, besides answers.
#[derive(Debug)]
pub(crate) enum Came {
    /// An answer, or a message that changes nothing for those who asked.
    Said(Said),
    /// The stream is of no use any more: whoever asked on it gets no answer.
    Lost,
}

impl Line {
    /// On tick: opens the stream where it should be open and is not, and gives one up that leads
    /// to another sidecar than the configuration's, or was not welcomed in time. Says whether one
    /// was given up: whoever asked on it gets no answer.
    pub(crate) fn keep_open<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        envoy: u64,
        config: &Rc<Config>,
        now: Timestamp,
    ) -> bool {
        let wanted = config.store_enabled && config.store_transport == Transport::Stream;
        let useless = match &self.state {
            State::Closed => false,
            State::Opening(open, since) => {
                !wanted
                    || !open.config.has_sidecar_of(config)
                    || now.millis_since(*since) > WELCOME_MS
            }
            State::Welcome(open) => !wanted || !open.config.has_sidecar_of(config),
        };
        if useless {
            self.give_up(outside, now);
        } else if wanted && matches!(self.state, State::Closed) && now >= self.not_before {
            self.open(outside, envoy, config, now);
        }
        useless
    }

    fn open<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        envoy: u64,
        config: &Rc<Config>,
        now: Timestamp,
    ) {
        let mut metadata = Fields::default();
        if let Some(token) = &config.store_token {
            metadata.append(b"authorization", token.authorization().as_bytes());
        }
        (self.sent, self.read) = (0, 0);
        let method = (SERVICE, METHOD);
        let opened = outside
            .host
            .open_stream(&config.store_cluster, method, &metadata);
        let Ok(token) = opened else {
            self.pause(now);
            return;
        };
        let open = Open {
            token,
            root: outside.calls.root(),
            config: config.clone(),
        };
        self.state = State::Opening(open, now);
        let hello = Asked::Hello {
            version: VERSION,
            envoy,
        };
        if self.write(outside, &hello).is_err() {
            self.give_up(outside, now);
        }
    }

    /// Whether a question may be put on the stream, rather than into a call.
    pub(crate) fn carries(&self, config: &Config, question: &Question<'_>) -> bool {
        let State::Welcome(open) = &self.state else {
            return false;
        };
        let fits = match question {
            Question::Write { entry, .. } => entry.len() <= MOST_IN_A_FRAME,
            _ => true,
        };
        fits && open.config.has_sidecar_of(config)
    }

    /// Puts a question on the stream. Gives its number, and the root context that the stream
    /// belongs to.
    pub(crate) fn ask<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        question: Question<'_>,
        now: Timestamp,
    ) -> Result<(u32, u32), Refused> {
        let is_write = matches!(question, Question::Write { .. });
        let unread = self.sent.saturating_sub(self.read);
        if unread > TOO_MUCH_UNREAD || (is_write && unread > MOST_UNREAD) {
            outside.metrics.event(metrics::STORE_UNREAD);
            return Err(Refused::BUSY);
        }
        self.last = self.last.wrapping_add(1);
        let number = self.last;
        let asked = Asked::Question {
            number,
            sent: now,
            question,
        };
        let root = self.root().ok_or(Refused::BUSY)?;
        self.write(outside, &asked).map(|()| (number, root))
    }

    fn root(&self) -> Option<u32> {
        match &self.state {
            State::Closed => None,
            State::Opening(open, _) | State::Welcome(open) => Some(open.root),
        }
    }

    fn token(&self) -> Option<u32> {
        match &self.state {
            State::Closed => None,
            State::Opening(open, _) | State::Welcome(open) => Some(open.token),
        }
    }

    /// Envoy finds a stream by the root of the context that is called about. While an old
    /// configuration drains that may be another root than the stream's.
    fn write<H: Host>(&mut self, outside: &Outside<H>, asked: &Asked<'_>) -> Result<(), Refused> {
        let (Some(token), Some(root)) = (self.token(), self.root()) else {
            return Err(Refused::BUSY);
        };
        self.frame.clear();
        asked.write(&mut self.frame);
        let (host, here) = (&outside.host, outside.calls.context());
        let mut written = host.send(token, &self.frame);
        if written.is_err() && host.set_effective_context(root).is_ok() {
            written = host.send(token, &self.frame);
            let _ = host.set_effective_context(here);
        }
        self.sent += u64::try_from(self.frame.len()).unwrap_or(u64::MAX);
        written
    }

    /// A message has come on a stream of ours.
    pub(crate) fn on_message<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        token: u32,
        size: usize,
        now: Timestamp,
    ) -> Option<Came> {
        // Else it is one that was given up.
        self.token().filter(|ours| *ours == token)?;
        let frame = outside.host.stream_message(size).unwrap_or_default();
        let said = match Said::read(&frame) {
            Ok(said) => said,
            Err(fault) => {
                self.is_of_another_version(outside, &fault.to_string(), now);
                return Some(Came::Lost);
            }
        };
        match said {
            Said::Welcome { version } if version == VERSION => self.welcome(outside),
            Said::Welcome { version } | Said::OtherVersion { version } => {
                let what = format!("version {version}, and this filter version {VERSION}");
                self.is_of_another_version(outside, &what, now);
                return Some(Came::Lost);
            }
            Said::Taken(bytes) => self.read = self.read.max(bytes.min(self.sent)),
            Said::Answer { .. } => {}
        }
        Some(Came::Said(said))
    }

    fn welcome<H: Host>(&mut self, outside: &Outside<H>) {
        if let State::Opening(open, _) = std::mem::take(&mut self.state) {
            self.state = State::Welcome(open);
            self.pause_ms = 0;
            outside.host.move_gauge(metrics::STORE_STREAMS, 1);
        }
    }

    fn is_of_another_version<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        what: &str,
        now: Timestamp,
    ) {
        self.give_up(outside, now);
        self.not_before = now.plus_millis(UNKNOWN_PAUSE_MS);
        if !std::mem::replace(&mut self.told_of_version, true) {
            let line = format!(
                "larder: the sidecar's store stream is another ({what}), so calls take its place; \
                 use sidecars of the filter's version"
            );
            outside.host.log(log::Level::Error, &line);
        }
    }

    /// A stream has ended. Says whether it was the one in use.
    pub(crate) fn on_closed<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        token: u32,
        status: u32,
        now: Timestamp,
    ) -> bool {
        if self.token() != Some(token) {
            return false;
        }
        let was_welcome = matches!(self.state, State::Welcome(_));
        self.forget(outside);
        self.pause(now);
        if status == UNIMPLEMENTED {
            self.not_before = now.plus_millis(UNKNOWN_PAUSE_MS);
        }
        if was_welcome {
            outside.metrics.event(metrics::STORE_STREAMS_LOST);
            let line = format!(
                "larder: the store stream has ended (gRPC status {status}); calls take its place until it is open again"
            );
            outside.host.log(log::Level::Info, &line);
        }
        true
    }

    /// A root context is gone, and a stream of its with it. Says whether that was the one in use.
    pub(crate) fn on_root_gone<H: Host>(&mut self, outside: &Outside<H>, root: u32) -> bool {
        let ours = self.root() == Some(root);
        if ours {
            self.forget(outside);
        }
        ours
    }

    fn give_up<H: Host>(&mut self, outside: &Outside<H>, now: Timestamp) {
        if let (Some(token), Some(root)) = (self.token(), self.root()) {
            let (host, here) = (&outside.host, outside.calls.context());
            if host.set_effective_context(root).is_ok() {
                host.close_stream(token);
                let _ = host.set_effective_context(here);
            }
        }
        self.forget(outside);
        self.pause(now);
    }

    fn forget<H: Host>(&mut self, outside: &Outside<H>) {
        if let State::Welcome(_) = std::mem::take(&mut self.state) {
            outside.host.move_gauge(metrics::STORE_STREAMS, -1);
        }
    }

    fn pause(&mut self, now: Timestamp) {
        self.not_before = now.plus_millis(self.pause_ms);
        self.pause_ms = (self.pause_ms * 2).clamp(PAUSES_MS.0, PAUSES_MS.1);
    }
}
