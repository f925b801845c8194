//! What the shell does for an exchange, or for a background refresh. The shell decides nothing in
//! doing so.
//!
//! A [`Question`] comes back as an event; a [`Command`] does not. Both are matched exhaustively by
//! whoever carries them out.

use std::ops::Range;
use std::sync::Arc;

use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::key::PrimaryKey;
use larder_contract::selectors::Presented;
use larder_contract::store_api::Fence;
use smallvec::SmallVec;

use super::details::Details;
use super::event::Outcome;
use crate::cache_status::CacheStatus;
use crate::collapse::{CollapseKey, Identity};
use crate::fields::Fields;
use crate::message::Request;
use crate::policy::Policy;
use crate::route::note::RefreshPath;
use crate::stored_response::StoredResponse;
use crate::vary::SelectingFields;

/// What a step of an exchange, or of a background refresh, brings about: commands in the order in
/// which they are to be carried out, and behind them at most one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Effects<Q = Question, C = Command> {
    /// Two are as many as a hit has.
    pub commands: SmallVec<[C; 2]>,
    /// What the next event answers; nothing else happens before, unless it comes from outside.
    pub question: Option<Q>,
}

impl<Q, C> Default for Effects<Q, C> {
    fn default() -> Self {
        Self {
            commands: SmallVec::new(),
            question: None,
        }
    }
}

/// Something to find out. The answer comes back as an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Go to the key's leader slot; comes back as `Event::Slot`.
    Arrive(Arrive),
    /// Ask the store; comes back as `Event::Store`.
    AskStore(StoreQuestion),
    /// Let the request go to the origin, changed so; comes back as `Event::Response`.
    Forward(ForwardedRequest),
}

/// Something to carry out. Nothing comes back.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Answer the client, in place of the origin's response if its head is passing. The last word
    /// to this client.
    Reply(Reply),
    /// Let the response pass, changed so.
    PassResponse(ResponseChange),
    /// Break off the response that is passing, this piece of it included: the head that went ahead
    /// promised something else (RFC 9112 §8).
    Abort,
    /// Remind the exchange at this time, as `Event::TimePassed`, if it is not over by then.
    RemindAt(Timestamp),
    /// Refresh in the background.
    Refresh(Box<RefreshOrder>),
    /// How it ended, for metrics and log. Once per exchange.
    Report(CacheStatus),
    /// Change what all requests share.
    Cache(CacheCommand),
}

/// A change of what all requests share: stored responses, leader slots, leases.
#[derive(Clone, Debug, PartialEq)]
pub enum CacheCommand {
    /// Keep a response, in level 1 and, unless `local_only`, in the store.
    Keep {
        /// Under which key.
        key: PrimaryKey,
        /// What.
        stored: Arc<StoredResponse>,
        /// The lease it was fetched under.
        fence: Option<Fence>,
        /// Whether it is not for the store: it comes from there, or is not shared.
        local_only: bool,
    },
    /// Leave the leader slot and tell those who wait.
    Publish {
        /// Which slot.
        key: CollapseKey,
        /// What they get.
        outcome: Outcome,
        /// Up to when nobody waits under this key, for an outcome that is not storable.
        uncacheable_until: Timestamp,
    },
    /// Remember in level 1 that answers under this key are not storable, unless something stored is
    /// there.
    MarkUncacheable {
        /// Which key.
        key: PrimaryKey,
        /// Up to when nobody waits under it.
        until: Timestamp,
    },
    /// Give the store's lease back without an entry.
    ReleaseLease {
        /// Of which key.
        key: KeyDigest,
        /// The lease.
        fence: Fence,
        /// For how many milliseconds the key is marked as not storable.
        uncacheable_ms: u64,
    },
    /// Drop all that is stored under these keys, everywhere (RFC 9111 §4.4).
    Invalidate(Vec<KeyDigest>),
    /// The same for what an unsafe request may have changed that nobody saw the answer to: the
    /// origin may still be at it, so once more after [`super::SETTLED_AFTER_MS`].
    InvalidateDoubtful(Vec<KeyDigest>),
}

impl CacheCommand {
    /// Keep what is new wherever `policy` wants it.
    pub(crate) fn keep(
        policy: &Policy,
        key: PrimaryKey,
        stored: Arc<StoredResponse>,
        fence: Option<Fence>,
    ) -> Self {
        Self::Keep {
            key,
            stored,
            fence,
            local_only: !policy.shared_store,
        }
    }
}

impl From<CacheCommand> for Command {
    fn from(command: CacheCommand) -> Self {
        Self::Cache(command)
    }
}

/// How a request arrives at a leader slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrive {
    /// What is to be fetched.
    pub key: CollapseKey,
    /// Whether an answer that another has just handed over will do.
    pub accept_handed_over: bool,
    /// Whether to wait for a background refresh: nothing may be served stale meanwhile.
    pub wait_for_refresh: bool,
    /// The leader that was waited for as long as one may.
    pub given_up: Option<Identity>,
}

/// A look-up in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreQuestion {
    /// What is asked for.
    pub key: KeyDigest,
    /// The request's fields as the store compares them.
    pub presented: Presented,
    /// Whether the lease is wanted if the request has to go to the origin.
    pub lease: bool,
    /// Whether the answer may be held back while another Envoy fetches.
    pub wait: bool,
}

/// How a request is changed on its way to the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedRequest {
    /// Path and query instead of the client's.
    pub path: Option<Vec<u8>>,
    /// Fields to remove.
    pub remove: Vec<Vec<u8>>,
    /// Fields to set.
    pub set: Fields,
    /// What conditions among them ask about: if it still holds, the client gets its content. A host
    /// that cannot put content in place of a `304` leaves the conditions out.
    pub validates: Option<Arc<StoredResponse>>,
}

/// How a response is changed on its way to the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseChange {
    /// Another status code.
    pub status: Option<u16>,
    /// Fields to remove.
    pub remove: Vec<Vec<u8>>,
    /// Fields to set, in place of any of the same name.
    pub set: Fields,
    /// Content to send before the response's own.
    pub before: Option<Arc<[u8]>>,
}

/// An answer of the cache's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status code.
    pub status: u16,
    /// The stored response whose fields are sent first, as they are.
    pub stored: Option<Arc<StoredResponse>>,
    /// The other fields, without `content-length`.
    pub fields: Fields,
    /// Content, of which `range` is sent. Empty with status 304.
    pub body: Arc<[u8]>,
    /// The bytes of `body` that are sent.
    pub range: Range<usize>,
    /// For the access log.
    pub details: Details,
}

impl Reply {
    /// The fields that are sent, in two parts: those that lie ready, and those made for this
    /// answer.
    pub fn parts(&self) -> [&Fields; 2] {
        let ready = self
            .stored
            .as_ref()
            .map_or(const { &Fields::NONE }, |stored| &stored.fields);
        [ready, &self.fields]
    }

    /// The content that is sent.
    pub fn content(&self) -> &[u8] {
        self.body.get(self.range.clone()).unwrap_or_default()
    }
}

/// What a background refresh has to do.
#[derive(Clone, Debug, PartialEq)]
pub struct RefreshOrder {
    /// What is refreshed.
    pub key: PrimaryKey,
    /// The slot under which exactly one refreshes.
    pub collapse: CollapseKey,
    /// The URL, for people.
    pub url: String,
    /// The stale response; `None` where only a part of it was asked for so far.
    pub stored: Option<Arc<StoredResponse>>,
    /// The fields that selected the stale response, or the part: the refresh carries these of the
    /// request.
    pub selecting: SelectingFields,
    /// The request that found it, its override among the fields.
    pub request: Request,
    /// Path and query for the origin.
    pub path: Vec<u8>,
    /// A lease that the look-up brought along.
    pub fence: Option<Fence>,
    /// How the request travels.
    pub way: RefreshPath,
}
