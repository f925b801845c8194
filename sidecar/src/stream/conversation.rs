//! One open stream: reads questions, has them answered, and gathers what is said.
//!
//! What this decides: that a question which the store answers at once costs no task; how much may
//! be under way, and that nothing more is read while the other end does not read; what becomes of
//! what is under way when the stream ends. Whoever sends the response's content drives it
//! ([`HttpBody::poll_frame`]); while that waits for the other end to read, nothing is read here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body::Frame;
use larder_contract::store_stream::{Asked, Question, Said, VERSION};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::end::End;
use super::messages::Messages;
use super::questions::{self, Kind, Sender, UnderWay, done};
use super::said::Gathered;
use crate::answering::Sidecar;
use crate::listening::Peer;
use crate::store::Store;

/// Bytes of a message besides an entry: a request's fields, in a look-up.
const SLACK: usize = 128 << 10;
/// Frames gathered to more bytes than this are sent before more is asked.
const CHUNK: usize = 64 << 10;
/// So many questions are read before others get their turn.
const TURN: usize = 128;
/// With so many under way, or so many bytes, a look-up no longer waits for a lease's holder.
const HELD: (usize, usize) = (4096, 4 << 20);
/// With so many, nothing more is read.
const MOST: (usize, usize) = (2 * HELD.0, 2 * HELD.1);
/// An Envoy follows once; and again when it has given an answer up that is still to come.
const FOLLOWS: usize = 16;
/// After so many bytes it is said how many were read; else at the next tick.
const TAKEN_EVERY: u64 = 128 << 10;
const TICK: Duration = Duration::from_secs(1);
/// So many ticks the first message may take, or the rest of one.
const PATIENCE: u32 = 10;

enum Event {
    Tick,
    /// The sidecar stops.
    Stop,
}

type Events = FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send>>>;

/// A stream, as the content of its response.
pub(super) struct Conversation<S: Store> {
    sidecar: Arc<Sidecar<S>>,
    peer: Peer,
    incoming: Body,
    messages: Messages,
    /// Who speaks, once that is said.
    envoy: Option<u64>,
    asks: FuturesUnordered<UnderWay>,
    tells: FuturesUnordered<UnderWay>,
    follows: FuturesUnordered<UnderWay>,
    events: Events,
    /// Becomes true when this end ends the stream: that says nothing of the Envoy that follows.
    given_up: watch::Sender<bool>,
    /// Bytes of the frames under way.
    weight: usize,
    gathered: Gathered,
    /// Bytes of all frames read, and how many were said to be.
    read: u64,
    taken: u64,
    /// For how many ticks something was missing.
    silence: u32,
    /// The turn is over though there may be more to read.
    yields: bool,
    end: Option<End>,
    /// The other end has gone: only what is told counts.
    is_left: bool,
    is_over: bool,
}

impl<S: Store> Conversation<S> {
    pub(super) fn new(sidecar: Arc<Sidecar<S>>, peer: Peer, incoming: Body) -> Self {
        sidecar.counters.streams.fetch_add(1, Ordering::Relaxed);
        let events = Events::new();
        events.push(Box::pin(tick()));
        let stopping = sidecar.clone();
        events.push(Box::pin(async move {
            stopping.waiting.ended().await;
            Event::Stop
        }));
        Self {
            messages: Messages::up_to(sidecar.limits.max_entry_bytes.saturating_add(SLACK)),
            sidecar,
            peer,
            incoming,
            envoy: None,
            asks: FuturesUnordered::new(),
            tells: FuturesUnordered::new(),
            follows: FuturesUnordered::new(),
            events,
            given_up: watch::Sender::default(),
            weight: 0,
            gathered: Gathered::default(),
            read: 0,
            taken: 0,
            silence: 0,
            yields: false,
            end: None,
            is_left: false,
            is_over: false,
        }
    }

    /// Reads and answers as far as that goes now.
    fn turn(&mut self, cx: &mut Context<'_>) {
        loop {
            self.read(cx);
            // What has just been begun is looked at here, so that it can wake us.
            if !self.gather(cx) || self.gathered.len() >= CHUNK {
                break;
            }
        }
        if self.read - self.taken >= TAKEN_EVERY {
            self.say_taken();
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) {
        for _ in 0..TURN {
            let may_read = self.end.is_none() && self.gathered.len() < CHUNK;
            if !may_read || !self.is_below(MOST) || !self.read_one(cx) {
                return;
            }
        }
        self.yields = true;
    }

    /// Whether there was something to read.
    fn read_one(&mut self, cx: &mut Context<'_>) -> bool {
        match self.messages.next() {
            Ok(Some(frame)) => self.hear(&frame, cx),
            Ok(None) => match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                    self.silence = 0;
                    self.messages.push(frame.into_data().unwrap_or_default());
                }
                // It says no more, or the connection has broken.
                Poll::Ready(_) => {
                    self.asks.clear();
                    self.follows.clear();
                    self.end = Some(End::Peace);
                }
            },
            Err(fault) => self.give_up(End::NotFramed(fault)),
        }
        true
    }

    fn is_below(&self, (questions, bytes): (usize, usize)) -> bool {
        let under_way = self.asks.len() + self.tells.len() + self.follows.len();
        under_way < questions && self.weight < bytes
    }

    fn hear(&mut self, frame: &Bytes, cx: &mut Context<'_>) {
        self.read += frame.len() as u64;
        match (Asked::read(frame), self.envoy) {
            (Ok(Asked::Hello { version, envoy }), None) if version == VERSION => {
                self.envoy = Some(envoy);
                self.gathered.say(&Said::Welcome { version });
            }
            (Ok(Asked::Hello { version, .. }), None) => {
                self.gathered.say(&Said::OtherVersion { version: VERSION });
                self.give_up(End::OtherVersion(version));
            }
            (
                Ok(Asked::Question {
                    number,
                    sent,
                    question,
                }),
                Some(envoy),
            ) => {
                let sender = Sender {
                    envoy,
                    number,
                    sent,
                };
                self.put(sender, question, frame, cx);
            }
            (Err(fault), Some(_)) if let Some(number) = Asked::number_of(frame) => {
                self.sidecar.is_not_understood(&fault.to_string());
                self.gathered.answer(number, done(400));
            }
            _ => self.give_up(End::NotUnderstood),
        }
    }

    /// Has a question answered: at once if the store does.
    fn put(
        &mut self,
        sender: Sender,
        mut question: Question<'_>,
        frame: &Bytes,
        cx: &mut Context<'_>,
    ) {
        let kind = Kind::of(&question);
        if self.is_left && kind != Kind::Tells {
            return;
        }
        self.sidecar
            .counters
            .by_stream
            .fetch_add(1, Ordering::Relaxed);
        if kind == Kind::Follows && self.follows.len() >= FOLLOWS {
            return self.gathered.answer(sender.number, done(503));
        }
        if let Question::LookUp(asked) = &mut question
            && let Some(lease) = &mut asked.lease
            && !self.is_below(HELD)
        {
            lease.wait_ms = 0;
        }
        let mut under_way =
            questions::begin(&self.sidecar, sender, question, frame, &self.given_up);
        if let Poll::Ready((number, _, answer)) = Pin::new(&mut under_way).poll(cx) {
            return self.gathered.answer(number, answer);
        }
        self.weight += under_way.weight;
        match kind {
            Kind::Asks => self.asks.push(under_way),
            Kind::Tells => self.tells.push(under_way),
            Kind::Follows => self.follows.push(under_way),
        }
    }

    /// Gathers what has been answered meanwhile. Says whether there was anything.
    fn gather(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(event)) = self.events.poll_next_unpin(cx) {
            any = true;
            self.happens(event);
        }
        for set in [&mut self.tells, &mut self.asks, &mut self.follows] {
            while self.gathered.len() < CHUNK
                && let Poll::Ready(Some((number, weight, answer))) = set.poll_next_unpin(cx)
            {
                any = true;
                self.weight = self.weight.saturating_sub(weight);
                self.gathered.answer(number, answer);
            }
        }
        any
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.events.push(Box::pin(tick()));
                if self.read > self.taken {
                    self.say_taken();
                }
                let is_owed = self.envoy.is_none() || self.messages.has_begun();
                self.silence = if is_owed { self.silence + 1 } else { 0 };
                if self.silence > PATIENCE && self.end.is_none() && self.is_below(MOST) {
                    self.give_up(End::Silent);
                }
            }
            Event::Stop if self.end.is_none() => {
                self.end = Some(End::Peace);
                self.given_up.send_replace(true);
            }
            Event::Stop => {}
        }
    }

    fn say_taken(&mut self) {
        self.taken = self.read;
        self.gathered.say(&Said::Taken(self.read));
    }

    /// Ends the stream for a fault of the other end.
    fn give_up(&mut self, end: End) {
        if let Some(line) = end.words(self.peer) {
            self.sidecar.warn_once(&line);
        }
        self.asks.clear();
        self.given_up.send_replace(true);
        self.end = Some(end);
    }

    fn has_nothing_under_way(&self) -> bool {
        self.tells.is_empty() && self.asks.is_empty() && self.follows.is_empty()
    }
}

async fn tick() -> Event {
    tokio::time::sleep(TICK).await;
    Event::Tick
}

impl<S: Store> HttpBody for Conversation<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut this.yields) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.turn(cx);
        if let Some(chunk) = this.gathered.take() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if let Some(end) = this.end
            && this.has_nothing_under_way()
        {
            this.is_over = true;
            return Poll::Ready(Some(Ok(Frame::trailers(end.trailers()))));
        }
        if std::mem::take(&mut this.yields) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<S: Store> Drop for Conversation<S> {
    /// The other end may have died right behind its last words. What it told and has arrived is
    /// carried out; and is heard before it counts as gone.
    fn drop(&mut self) {
        self.sidecar
            .counters
            .streams
            .fetch_sub(1, Ordering::Relaxed);
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if self.is_over || std::thread::panicking() {
            return;
        }
        self.is_left = true;
        self.asks.clear();
        let mut nobody = Context::from_waker(Waker::noop());
        while self.end.is_none() && self.read_one(&mut nobody) {}
        if !self.tells.is_empty() {
            runtime.spawn(std::mem::take(&mut self.tells).for_each(async |_| ()));
        }
    }
}

#[cfg(test)]
mod tests;
