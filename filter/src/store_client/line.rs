//! The store stream of one worker: one gRPC stream to the sidecar, opened on tick and again
//! whenever it ends.
//!
//! What this decides: when the stream is opened, from when on it carries questions (from its
//! welcome), how much may be on its way unread, and when a deadline has passed, for a stream has
//! none of its own. What it leaves out: what questions and answers mean.

use std::rc::Rc;

use larder_cache_core::fields::Fields;
use larder_contract::http_time::Timestamp;
use larder_contract::store_stream::{Answer, Asked, METHOD, Question, SERVICE, Said, VERSION};

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
    open: Option<Open>,
    /// The number that a question got last.
    last: u32,
    not_before: Timestamp,
    pause_ms: u64,
    /// Where frames are written, so that none needs memory of its own.
    frame: Vec<u8>,
    told_of_version: bool,
}

/// A stream that Envoy has opened.
#[derive(Debug)]
struct Open {
    token: u32,
    /// The root context that it belongs to, and ends with.
    root: u32,
    /// Whose sidecar is at its other end.
    config: Rc<Config>,
    since: Timestamp,
    /// Whether it carries questions.
    is_welcome: bool,
    /// Bytes of all frames sent, and those of them that the sidecar has read.
    sent: u64,
    read: u64,
}

/// What came on the stream that somebody waits for.
#[derive(Debug)]
pub(crate) enum Came {
    /// The answer to the question with this number.
    Answer(u32, Answer),
    /// The stream is of no use any more: whoever asked on it gets no answer.
    Lost,
}

impl Open {
    /// Envoy finds a stream by the root of the context that is called about. While an old
    /// configuration drains that may be another root than the stream's.
    fn send<H: Host>(&mut self, outside: &Outside<H>, frame: &[u8]) -> Result<(), Refused> {
        self.sent += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        let host = &outside.host;
        host.send(self.token, frame).or_else(|refused| {
            self.at_its_root(outside, || host.send(self.token, frame))
                .unwrap_or(Err(refused))
        })
    }

    fn close<H: Host>(&self, outside: &Outside<H>) {
        self.at_its_root(outside, || outside.host.close_stream(self.token));
    }

    /// Does something while the stream's own root is the effective context; `None` where that is
    /// gone.
    fn at_its_root<H: Host, R>(&self, outside: &Outside<H>, act: impl FnOnce() -> R) -> Option<R> {
        outside.host.set_effective_context(self.root).ok()?;
        let done = act();
        let _ = outside.host.set_effective_context(outside.calls.context());
        Some(done)
    }
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
        let is_useless = |open: &Open| {
            let is_late = !open.is_welcome && now.millis_since(open.since) > WELCOME_MS;
            !wanted || is_late || !open.config.has_sidecar_of(config)
        };
        match &self.open {
            Some(open) if is_useless(open) => {
                self.give_up(outside, now);
                return true;
            }
            None if wanted && now >= self.not_before => self.open(outside, envoy, config, now),
            _ => {}
        }
        false
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
        let opened = outside
            .host
            .open_stream(&config.store_cluster, (SERVICE, METHOD), &metadata);
        let Ok(token) = opened else {
            self.pause(now);
            return;
        };
        self.open = Some(Open {
            token,
            root: outside.calls.root(),
            config: config.clone(),
            since: now,
            is_welcome: false,
            sent: 0,
            read: 0,
        });
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
        let fits = match question {
            Question::Write { entry, .. } => entry.len() <= MOST_IN_A_FRAME,
            _ => true,
        };
        let leads_there = |open: &Open| open.is_welcome && open.config.has_sidecar_of(config);
        fits && self.open.as_ref().is_some_and(leads_there)
    }

    /// Puts a question on the stream. Gives its number, and the root context that the stream
    /// belongs to.
    pub(crate) fn ask<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        question: Question<'_>,
        now: Timestamp,
    ) -> Result<(u32, u32), Refused> {
        let open = self.open.as_ref().ok_or(Refused::BUSY)?;
        let (root, unread) = (open.root, open.sent.saturating_sub(open.read));
        let is_write = matches!(question, Question::Write { .. });
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
        self.write(outside, &asked).map(|()| (number, root))
    }

    fn write<H: Host>(&mut self, outside: &Outside<H>, asked: &Asked<'_>) -> Result<(), Refused> {
        self.frame.clear();
        asked.write(&mut self.frame);
        let open = self.open.as_mut().ok_or(Refused::BUSY)?;
        open.send(outside, &self.frame)
    }

    /// A message has come on a stream of ours. `None` where nobody waits for what it says.
    pub(crate) fn on_message<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        token: u32,
        size: usize,
        now: Timestamp,
    ) -> Option<Came> {
        // Else it is one that was given up.
        let open = self.open.as_mut().filter(|open| open.token == token)?;
        let frame = outside.host.stream_message(size).unwrap_or_default();
        let what = match Said::read(&frame) {
            Ok(Said::Answer { number, answer }) => return Some(Came::Answer(number, answer)),
            Ok(Said::Taken(bytes)) => {
                open.read = open.read.max(bytes.min(open.sent));
                return None;
            }
            Ok(Said::Welcome { version }) if version == VERSION => {
                if !std::mem::replace(&mut open.is_welcome, true) {
                    self.pause_ms = 0;
                    outside.host.move_gauge(metrics::STORE_STREAMS, 1);
                }
                return None;
            }
            Ok(Said::Welcome { version } | Said::OtherVersion { version }) => {
                format!("version {version}, and this filter version {VERSION}")
            }
            Err(fault) => fault.to_string(),
        };
        self.is_of_another_version(outside, &what, now);
        Some(Came::Lost)
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
        if self.open.as_ref().is_none_or(|open| open.token != token) {
            return false;
        }
        let was_welcome = self.forget(outside).is_some_and(|open| open.is_welcome);
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
        let is_ours = self.open.as_ref().is_some_and(|open| open.root == root);
        is_ours && self.forget(outside).is_some()
    }

    fn give_up<H: Host>(&mut self, outside: &Outside<H>, now: Timestamp) {
        if let Some(open) = self.forget(outside) {
            open.close(outside);
        }
        self.pause(now);
    }

    fn forget<H: Host>(&mut self, outside: &Outside<H>) -> Option<Open> {
        let open = self.open.take()?;
        if open.is_welcome {
            outside.host.move_gauge(metrics::STORE_STREAMS, -1);
        }
        Some(open)
    }

    fn pause(&mut self, now: Timestamp) {
        self.not_before = now.plus_millis(self.pause_ms);
        self.pause_ms = (self.pause_ms * 2).clamp(PAUSES_MS.0, PAUSES_MS.1);
    }
}
