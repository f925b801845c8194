//! What can happen to one request on its way through the cache.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;
use larder_contract::store_api::Fence;

use crate::cache_status::Detail;
use crate::collapse::Identity;
use crate::message::ResponseHead;
use crate::stored_response::StoredResponse;

/// Something happened: an answer to a question, or something from outside.
#[derive(Debug)]
pub enum Event<'a> {
    /// The first, where [`super::Exchange::open`] leads to the state `Local`: what level 1 holds
    /// under [`super::Exchange::key`].
    Local(Local<'a>),
    /// Answers [`super::Question::Arrive`].
    Slot(SlotAnswer),
    /// Answers [`super::Question::AskStore`].
    Store(StoreAnswer),
    /// While waiting: the leader has finished.
    Woken {
        /// How.
        outcome: Outcome,
        /// When what it brought was made untrue, as far as is known here: by an invalidation or a
        /// purge.
        untrue_since: Option<Timestamp>,
    },
    /// While waiting: the time is up.
    WaitEnded,
    /// Answers [`super::Command::RemindAt`].
    TimePassed,
    /// Answers [`super::Question::Forward`]: the head of the response.
    Response {
        /// Status and fields.
        head: ResponseHead,
        /// Who made it.
        source: ResponseSource,
        /// Whether no content follows.
        end: bool,
    },
    /// A piece of the answer's content.
    Body {
        /// The bytes, possibly none.
        chunk: &'a [u8],
        /// Whether it is the last.
        end: bool,
    },
    /// The stream is gone before its answer was complete.
    Gone {
        /// Whether the origin broke off; else the client left.
        origin_broke: bool,
    },
    /// The origin has redirected, and the proxy follows: the client's answer is that to another
    /// request. Of this one's nothing more is seen.
    Redirected,
}

/// What level 1 holds under a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local<'a> {
    /// All variants.
    pub variants: &'a [Arc<StoredResponse>],
    /// When the key was last invalidated, if that is remembered: what was requested until then
    /// counts no more.
    pub invalidated: Option<Timestamp>,
    /// When the key was last purged softly, if that is remembered: what was requested until then is
    /// stale since.
    pub softened: Option<Timestamp>,
    /// Nothing is known of what the fleet has purged lately: what was requested until then is
    /// validated before it answers.
    pub distrusted: Option<Timestamp>,
    /// Up to when answers under the key are known not to be storable. Never together with variants.
    pub uncacheable_until: Option<Timestamp>,
}

/// What the leader slot said.
#[derive(Debug)]
pub enum SlotAnswer {
    /// This request fetches for all.
    Lead,
    /// This request fetches for all in place of a leader who may still come back.
    Succeed,
    /// This one fetches; its end comes as [`Event::Woken`].
    Wait(Identity),
    /// Another has just fetched.
    HandedOver(Outcome),
    /// A background refresh is under way: what it refreshes may be served stale, if the store has
    /// it.
    Refreshing,
    /// Answers under this key are not storable until then.
    Uncacheable(Timestamp),
    /// Other keys use the slots.
    Occupied,
}

/// What the store said.
#[derive(Debug)]
pub enum StoreAnswer {
    /// A response that may still be fresh.
    Entry(Arc<StoredResponse>),
    /// The lease, and what matched but is no longer fresh.
    Lease(Fence, Option<Arc<StoredResponse>>),
    /// Another Envoy holds the lease.
    Held(Option<Arc<StoredResponse>>),
    /// Nothing, or a mark that the key is not storable.
    Nothing {
        /// Whether the key is so marked.
        uncacheable: bool,
    },
    /// No usable answer, and why.
    Fault(StoreFault),
}

/// Why the store gave no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Not within the budget.
    Timeout,
    /// Refused, broken off, or nonsense.
    Error,
    /// Not asked: the breaker is open.
    Breaker,
}

impl StoreFault {
    /// The reason told to the client.
    pub fn detail(self) -> Detail {
        match self {
            Self::Timeout => Detail::StoreTimeout,
            Self::Error => Detail::StoreError,
            Self::Breaker => Detail::StoreBreaker,
        }
    }
}

/// Who made a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseSource {
    /// The origin.
    Origin,
    /// The proxy, because it reached no origin: the request has not gone out.
    NoOrigin,
    /// The proxy, because the origin's answer was lost: the request had gone out.
    Lost,
    /// The proxy, because the origin did not answer in time.
    Timeout,
    /// The proxy, for a reason that is none of the cache's business (a redirect of a route, a
    /// limit).
    Proxy,
}

/// How a fetch ended for those who waited for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The origin answered, storably.
    Fetched(Arc<StoredResponse>),
    /// The store had it.
    Found(Arc<StoredResponse>),
    /// The origin failed and this stale response stood in.
    StaleOnError(Arc<StoredResponse>),
    /// The origin's error, to be shared by those who waited and by nobody else.
    OriginError(Arc<StoredResponse>),
    /// No answer at all; this status stands for it.
    Failed(u16),
    /// The answer is not for others, and by its own words no next one will be.
    Uncacheable,
    /// The answer has no end yet and may have none: the others go alone.
    Unfinished,
    /// The answer is for the leader alone; the next one's may be for all.
    NotForOthers {
        /// Whether it says anything about the next one's. It does not where the request itself was
        /// at fault.
        counts: bool,
    },
    /// A background refresh got nothing.
    NotRefreshed,
    /// The leader is gone.
    Again,
}

impl Outcome {
    /// What it brought.
    pub fn stored(&self) -> Option<&Arc<StoredResponse>> {
        match self {
            Self::Fetched(stored)
            | Self::Found(stored)
            | Self::StaleOnError(stored)
            | Self::OriginError(stored) => Some(stored),
            _ => None,
        }
    }
}
