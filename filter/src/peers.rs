//! The worker VMs of this Envoy, and what they tell each other: each has an inbox, a queue that the
//! others write to.
//!
//! What this decides: which inbox is alive, by a registry in shared data into which each VM writes
//! now and then; and when a VM may have missed something. It has an inbox from its first request
//! on, and may find an answer that is older than that: so shared data also tells when the inboxes
//! were last told of something untrue. What it may have missed it distrusts, so level 1 is lent to
//! it.

use std::cell::Cell;

use larder_cache_core::collapse::message::Message;
use larder_contract::http_time::Timestamp;

use crate::host::{Host, Swap};
use crate::l1::Level1;

/// An inbox whose VM has not been heard of for so long is dead: nobody writes to it any more. Long,
/// for a process that was stopped for a while goes on, and must find what it was told meanwhile.
const DEAD_AFTER_MS: u64 = 60_000;
/// A VM that has been alone for so long counts on it.
const SETTLED_AFTER_MS: u64 = 2_000;
/// Attempts at a contended value.
const ATTEMPTS: usize = 16;

const REGISTRY: &str = "larder/inboxes";
/// When a VM last told the others of something that was made untrue.
const TOLD: &str = "larder/told";

/// This VM among its peers.
#[derive(Debug)]
pub(crate) struct Peers {
    /// A random number: who this VM is.
    id: u64,
    inbox: Option<Inbox>,
    /// When this VM showed last that it lives.
    beaten: Option<Timestamp>,
    /// No other VM had an inbox when the registry was read last; and since when that is so.
    alone_since: Option<Timestamp>,
    /// Whether Envoy owes us a call that we asked for.
    called_for: Cell<bool>,
    /// Whether it was said that a worker is of another version.
    told_of_version: bool,
}

/// This VM's queue, and the root context that is told of its messages.
#[derive(Clone, Copy, Debug)]
struct Inbox {
    queue: u32,
    root: u32,
}

impl Peers {
    /// Nothing is known of the others yet. `id` is this VM's.
    pub(crate) fn new(id: u64) -> Self {
        Self {
            id,
            inbox: None,
            beaten: None,
            alone_since: None,
            called_for: Cell::new(false),
            told_of_version: false,
        }
    }

    /// This VM's inbox, once it has one.
    pub(crate) fn inbox(&self) -> Option<u32> {
        self.inbox.map(|inbox| inbox.queue)
    }

    /// Whether `root` is told of messages.
    pub(crate) fn is_told(&self, root: u32) -> bool {
        self.inbox.is_some_and(|inbox| inbox.root == root)
    }

    /// Whether no other VM has an inbox.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone_since.is_some()
    }

    /// Whether that has been so for a while: where several workers begin, one is the first.
    pub(crate) fn is_settled_alone(&self, now: Timestamp) -> bool {
        self.alone_since
            .is_some_and(|since| now.millis_since(since) >= SETTLED_AFTER_MS)
    }

    /// Another VM has an inbox now.
    pub(crate) fn on_joined(&mut self) {
        self.alone_since = None;
    }

    /// Whether any of these inboxes is another VM's.
    pub(crate) fn are_others(&self, inboxes: &[u32]) -> bool {
        inboxes.iter().any(|inbox| Some(*inbox) != self.inbox())
    }

    /// Has `root` told of messages. The first time, the others learn of this VM: whatever they were
    /// told before is distrusted as a whole.
    pub(crate) fn register<H: Host>(&mut self, host: &H, l1: &mut Level1, root: u32) {
        let Ok(queue) = host.register_queue(&format!("larder-{:016x}", self.id)) else {
            return;
        };
        if self.inbox.replace(Inbox { queue, root }).is_some() {
            return;
        }
        self.beat(host, l1, host.now());
        // Who tells writes this first and reads the registry then: it finds our inbox, or we find
        // its time.
        if let Some(told) = read_time(host.shared(TOLD).0.as_deref()) {
            l1.clear(told, told);
        }
    }

    /// Takes the next message. One that is not understood comes from another version of the code,
    /// perhaps of something that was made untrue.
    pub(crate) fn next_message<H: Host>(&mut self, host: &H, l1: &mut Level1) -> Option<Message> {
        let queue = self.inbox()?;
        loop {
            let message = Message::decode(&host.dequeue(queue)?);
            if message.is_some() {
                return message;
            }
            if !std::mem::replace(&mut self.told_of_version, true) {
                let line = "larder: a worker with another version of the filter sent a message that is not understood; level 1 is emptied";
                host.log(log::Level::Warn, line);
            }
            let now = host.now();
            l1.clear(now, now);
        }
    }

    /// Asks Envoy to call this VM soon, on a fresh stack.
    pub(crate) fn call_for_us<H: Host>(&self, host: &H) {
        // Once is enough: one call does all that has gathered. On tick this is forgotten, in case a
        // call was lost.
        if let Some(queue) = self.inbox()
            && !self.called_for.replace(true)
        {
            let _ = host.enqueue(queue, &Message::Continue.encode());
        }
    }

    /// Envoy has called.
    pub(crate) fn on_called(&self) {
        self.called_for.set(false);
    }

    /// Tells every other VM something.
    pub(crate) fn tell<H: Host>(&self, host: &H, message: &Message, now: Timestamp) {
        if message.makes_untrue() {
            note_telling(host, now);
        }
        let (held, _) = host.shared(REGISTRY);
        let living = living(held.as_deref().unwrap_or_default(), now);
        self.send(host, living.into_iter().map(|(queue, _)| queue), message);
    }

    /// Puts a message into these inboxes, as far as they are other VMs'.
    pub(crate) fn send<H: Host>(
        &self,
        host: &H,
        inboxes: impl IntoIterator<Item = u32>,
        message: &Message,
    ) {
        let message = message.encode();
        for inbox in inboxes
            .into_iter()
            .filter(|inbox| Some(*inbox) != self.inbox())
        {
            let _ = host.enqueue(inbox, &message);
        }
    }

    /// Writes this VM's heartbeat into the registry, and drops dead inboxes from it. The others are
    /// told of one that was not there before.
    pub(crate) fn beat<H: Host>(&mut self, host: &H, l1: &mut Level1, now: Timestamp) {
        let Some(own) = self.inbox() else { return };
        let is_late = self.is_late(now);
        if is_late {
            // The others may have given this VM up, and told it nothing since.
            l1.clear(now, now);
        }
        let is_new = self.beaten.replace(now).is_none() || is_late;
        for _ in 0..ATTEMPTS {
            let (held, version) = host.shared(REGISTRY);
            let mut living = living(held.as_deref().unwrap_or_default(), now);
            living.retain(|(queue, _)| *queue != own);
            self.alone_since = living.is_empty().then(|| self.alone_since.unwrap_or(now));
            living.push((own, now));
            let mut bytes = Vec::with_capacity(living.len() * 12);
            for (queue, beat) in living {
                bytes.extend_from_slice(&queue.to_be_bytes());
                bytes.extend_from_slice(&beat.as_millis().to_be_bytes());
            }
            if host.swap_shared(REGISTRY, &bytes, version) == Swap::Done {
                break;
            }
        }
        if is_new && !self.is_alone() {
            self.tell(host, &Message::Joined, now);
        }
    }

    /// Before level 1 is looked into: whether this VM was stopped for so long that it was given up.
    pub(crate) fn beat_if_late<H: Host>(&mut self, host: &H, l1: &mut Level1, now: Timestamp) {
        if self.is_late(now) {
            self.beat(host, l1, now);
        }
    }

    fn is_late(&self, now: Timestamp) -> bool {
        self.beaten
            .is_some_and(|beaten| now.millis_since(beaten) >= DEAD_AFTER_MS)
    }
}

/// Remembers when the others were last told of something that was made untrue.
fn note_telling<H: Host>(host: &H, now: Timestamp) {
    for _ in 0..ATTEMPTS {
        let (held, version) = host.shared(TOLD);
        if read_time(held.as_deref()).is_some_and(|told| told >= now)
            || host.swap_shared(TOLD, &now.as_millis().to_be_bytes(), version) == Swap::Done
        {
            return;
        }
    }
}

fn read_time(bytes: Option<&[u8]>) -> Option<Timestamp> {
    Some(Timestamp::from_millis(u64::from_be_bytes(
        bytes?.try_into().ok()?,
    )))
}

fn living(registry: &[u8], now: Timestamp) -> Vec<(u32, Timestamp)> {
    let record = |bytes: &[u8]| {
        let (queue, beat) = bytes.split_first_chunk::<4>()?;
        let beat = Timestamp::from_millis(u64::from_be_bytes(beat.try_into().ok()?));
        Some((u32::from_be_bytes(*queue), beat))
    };
    registry
        .chunks_exact(12)
        .filter_map(record)
        .filter(|(_, beat)| now.millis_since(*beat) < DEAD_AFTER_MS)
        .collect()
}
