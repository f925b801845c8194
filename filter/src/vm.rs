//! One worker's VM: a board that wires its rooms. What outlives a request lies in them; here is the
//! order in which Envoy's callbacks touch them. No room knows the VM; each is lent the host, and
//! the rooms that it needs.
//!
//! | to learn | open |
//! |---|---|
//! | what happens to a request that arrives, or whose client leaves | `vm/requests.rs`; what the core does then: `exchange.rs` there |
//! | what becomes of an exchange's questions and commands | `vm/driving.rs`; of a change that concerns all requests: `vm/changes.rs` |
//! | how a stream's request and response stand with Envoy | `stream.rs`, `stream/response.rs`; before that: `undecided.rs` |
//! | how an answer of the cache's own reaches its client | `answer.rs` |
//! | what an answer gets that is known not to be storable | `marked.rs` |
//! | who leads and who waits, and what a leader's end leaves behind | `collapsing.rs`; where that lies: `collapsing/` |
//! | what a purge does to level 1 | `l1.rs`; who hears of it: `follow.rs` (the fleet's), `peers.rs` (this Envoy's) |
//! | what an unsafe method makes untrue, until all know it | `untold.rs` (the store), `doubt.rs` (again, later), `peers.rs` |
//! | what is asked of the store, told it, and when it is left alone | `store_client.rs`, `breaker.rs` |
//! | what is refreshed in the background | `refresh.rs`, `vm/refreshing.rs`; by which way: `watched.rs` |
//! | who hears the answer to a call of our own | `vm/answers.rs`; how it is read: `calls.rs` |
//! | whether a filter before the cache knows who asks | `identity.rs` |
//!
//! Shared data, which all VMs of an Envoy see, is written in few places, each under names of its
//! own: slots (`collapsing/slots.rs`), answers left for others (`collapsing/handoff.rs`), inboxes
//! and when they were last told of something untrue (`peers.rs`), who follows (`follow/lease.rs`),
//! random numbers that all share (`shared_number.rs`), whether clients are known (`identity.rs`)
//! and a token was refused (`refused.rs`).
//!
//! What this decides: what is done at once and what waits for a fresh stack. Other streams are
//! answered only from the VM's own callbacks ([`Vm::on_queue_ready`], [`Vm::on_tick`]), never from
//! a stream's: Envoy would hold the wrong stream; and at most [`BATCH`] at a time: each answer
//! nests one call deeper.

use std::rc::Rc;

use larder_cache_core::collapse::message::Message;
use larder_cache_core::exchange::Event;
use larder_contract::http_time::Timestamp;

use crate::answer::Answers;
use crate::calls::Outside;
use crate::collapsing::Collapsing;
use crate::config::{Config, DEFAULT_L1_BYTES, Secret};
use crate::doubt::Doubts;
use crate::follow::Following;
use crate::host::Host;
use crate::identity::Identity;
use crate::l1::Level1;
use crate::marked::MarkedStreams;
use crate::peers::Peers;
use crate::quick_ticks::QuickTicks;
use crate::refresh::{Refreshes, look_for_cluster};
use crate::store_client::StoreClient;
use crate::streams::Streams;
use crate::undecided::Undecided;
use crate::unshared::Unshared;
use crate::untold::Untold;
use crate::watched::WatchedRoutes;

mod answers;
mod changes;
mod driving;
mod refreshing;
mod requests;
mod responses;

/// Answers to other streams per callback: above 300 the VM's stack overflows.
pub const BATCH: usize = 64;

/// The state of one VM: rooms that know nothing of each other, or as much as they are lent.
pub struct Vm<H> {
    outside: Outside<H>,
    /// The latest configuration: its store is the one whose purges are followed.
    config: Option<Rc<Config>>,
    l1: Level1,
    undecided: Undecided,
    streams: Streams,
    answers: Answers,
    marked: MarkedStreams,
    watched: WatchedRoutes,
    refreshes: Refreshes,
    peers: Peers,
    collapsing: Collapsing,
    store: StoreClient,
    following: Following,
    unshared: Unshared,
    untold: Untold,
    doubts: Doubts,
    identity: Identity,
    quick_ticks: QuickTicks,
    ticks: u64,
    ticked: Timestamp,
}

impl<H: Host> Vm<H> {
    /// A VM in which nothing has happened yet. Makes no call but for a random number.
    pub fn new(host: H) -> Self {
        let (id, seed) = (host.random(), host.random());
        Self {
            outside: Outside::of(host),
            config: None,
            l1: Level1::new(DEFAULT_L1_BYTES, seed),
            undecided: Undecided::default(),
            streams: Streams::default(),
            answers: Answers::default(),
            marked: MarkedStreams::default(),
            watched: WatchedRoutes::default(),
            refreshes: Refreshes::default(),
            peers: Peers::new(id),
            collapsing: Collapsing::new(id),
            store: StoreClient::new(),
            following: Following::new(id),
            unshared: Unshared::default(),
            untold: Untold::default(),
            doubts: Doubts::default(),
            identity: Identity::default(),
            quick_ticks: QuickTicks::default(),
            ticks: 0,
            ticked: Timestamp::default(),
        }
    }

    /// A new configuration. Level 1 keeps what it holds, as far as its new bound allows.
    pub fn on_configure(&mut self, text: &[u8]) -> Option<Rc<Config>> {
        let token = std::env::var(Secret::VARIABLE).ok();
        match Config::parse(text).and_then(|config| config.with_token(token.as_deref())) {
            Ok(config) => {
                let config = Rc::new(config);
                self.l1.set_bound(config.l1_bytes, self.outside.host.now());
                self.config = Some(config.clone());
                self.answers.trust_host();
                self.undecided.trust_host();
                Some(config)
            }
            Err(mistakes) => {
                self.outside.host.log(
                    log::Level::Error,
                    &format!("larder: configuration refused: {mistakes}"),
                );
                None
            }
        }
    }

    /// A stream begins under `root`. Registers the inbox where it has to be: a queue's messages are
    /// told to the root context that registered it last, and only worker VMs, which have streams,
    /// may have one.
    pub fn on_stream(&mut self, root: u32) {
        self.outside.calls.set_context(root, root);
        if self.peers.is_told(root) {
            return;
        }
        if let Some(config) = self
            .config
            .clone()
            .filter(|config| config.refresh_cluster_found.get().is_none())
        {
            look_for_cluster(&self.outside.host, &config);
        }
        self.peers.register(&self.outside.host, &mut self.l1, root);
    }

    /// A root context is called: what is sent from now on is sent on its behalf.
    pub fn on_root(&mut self, root: u32) {
        self.outside.calls.set_context(root, root);
    }

    /// A root context is gone, and the calls it made with it: Envoy answers none of them. Each
    /// counts as failed.
    pub fn on_root_gone(&mut self, root: u32) {
        self.outside.calls.lose(root);
        if self.store.line().on_root_gone(&self.outside, root) {
            self.outside.calls.lose_frames();
        }
        self.quick_ticks.on_root_gone(root);
        // What follows may be sent again, and that only by a root that stays.
        self.go_on_later();
    }

    /// Our queue has a message, or we asked ourselves to go on.
    pub fn on_queue_ready(&mut self) {
        self.peers.on_called();
        self.fail_lost_calls();
        self.read_inbox();
        // Before anybody asks the store anew: a lease given back is free then, an entry written is
        // there.
        self.send_outbox();
        self.answer_woken();
        self.start_refreshes();
        self.send_outbox();
        self.untold.tell(&mut self.outside, &mut self.store);
    }

    /// Reads the inbox. Invalidations take effect at once; whoever is to be woken is noted down.
    fn read_inbox(&mut self) {
        let host = &self.outside.host;
        while let Some(message) = self.peers.next_message(host, &mut self.l1) {
            match message {
                Message::Wake(key, wake) => self.collapsing.on_wake(host, &self.l1, &key, wake),
                Message::Invalidate(key, time) => self.l1.invalidate(&key, time, host.now()),
                Message::Purges(purges) => {
                    let now = host.now();
                    purges.iter().for_each(|purge| self.l1.purge(purge, now));
                }
                Message::Forget(time) => self.l1.clear(time, host.now()),
                Message::Refreshed(key, handoff) => {
                    Collapsing::take_refreshed(host, &mut self.l1, &key, handoff)
                }
                Message::Joined => self.peers.on_joined(),
                Message::Continue => {}
            }
        }
    }

    /// Asks for a call of `on_queue_ready` on a fresh stack.
    fn go_on_later(&self) {
        self.peers.call_for_us(&self.outside.host);
    }

    fn answer_woken(&mut self) {
        for _ in 0..BATCH {
            let Some((stream, outcome)) = self.collapsing.next_woken() else {
                return;
            };
            // Judged as late as can be: it may have waited behind a purge.
            let waiting = self.streams.get(stream).zip(outcome.stored());
            let untrue_since = waiting
                .and_then(|(stream, stored)| self.l1.untrue_since(|| stream.digest(), stored));
            self.drive_other(
                stream,
                Event::Woken {
                    outcome,
                    untrue_since,
                },
            );
        }
        if self.collapsing.has_woken() {
            self.go_on_later();
        }
    }

    /// Time passes: deadlines, heartbeat, clean-up, counters; and the inbox, in case a notification
    /// was lost.
    pub fn on_tick(&mut self) {
        let now = self.outside.host.now();
        self.end_overdue_questions(now);
        let calls = &self.outside.calls;
        if self
            .quick_ticks
            .is_between(calls, &self.outside.host, self.ticked, now)
        {
            return;
        }
        self.ticks += 1;
        if now < std::mem::replace(&mut self.ticked, now) {
            self.outside.host.log(
                log::Level::Warn,
                "larder: the clock was put back; level 1 is emptied",
            );
            self.l1.clear(now, now);
        }
        for write in self.watched.take_overdue(now) {
            self.write(Some(write));
        }
        self.on_queue_ready();
        self.end_overdue_waits(now);
        self.identity.learn(&self.outside.host);
        self.remind(now);
        self.end_overdue_holds(now);
        self.keep_line(now);
        if let Some(config) = &self.config {
            self.following
                .follow(&mut self.outside, &mut self.store, config, now);
        }
        if self.ticks.is_multiple_of(300)
            && let Some(config) = self.config.clone()
            && config.refresh_cluster_found.get() == Some(false)
        {
            // It may have come since.
            look_for_cluster(&self.outside.host, &config);
        }
        self.remind_of_untold(now);
        self.store.give_back_leases(now);
        self.send_outbox();
        if self.ticks.is_multiple_of(10) {
            self.peers.beat(&self.outside.host, &mut self.l1, now);
            self.collapsing.clear_old_handoffs(&self.outside.host, now);
            self.settle_due(now);
            self.l1.forget_old_invalidations(now);
            self.outside.metrics.flush(&self.outside.host, &self.l1);
        }
    }

    fn keep_line(&mut self, now: Timestamp) {
        let Some(config) = self.config.clone() else {
            return;
        };
        if self.store.keep_line(&mut self.outside, &config, now) {
            self.lose_line();
        }
    }

    /// This Envoy's workers do not forget what the store has not accepted.
    fn remind_of_untold(&mut self, now: Timestamp) {
        for message in self.untold.reminder(now) {
            match &message {
                Message::Invalidate(key, time) => self.l1.invalidate(key, *time, now),
                Message::Forget(time) => self.l1.clear(*time, now),
                _ => {}
            }
            self.tell_peers(&message, now);
        }
    }

    fn remind(&mut self, now: Timestamp) {
        while let Some(stream) = self.streams.next_reminded(now) {
            self.drive_other(stream, Event::TimePassed);
        }
    }

    fn end_overdue_waits(&mut self, now: Timestamp) {
        for stream in self.collapsing.take_overdue(now, BATCH) {
            self.drive_other(stream, Event::WaitEnded);
        }
    }
}
