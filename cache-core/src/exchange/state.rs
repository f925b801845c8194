//! The states of an exchange. Each owns what is known and held in it, and nothing else.
//!
//! What happens in a state is in the module of its name; a transition is the state that such a
//! function returns.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;

use super::known::Known;
use super::leadership::{Leadership, Slot};
use crate::collapse::Identity;
use crate::message::ResponseHead;
use crate::stored_response::StoredResponse;
use crate::storing::Capture;

/// Where an exchange stands.
#[derive(Debug)]
pub(super) enum State {
    /// Level 1 is asked.
    Local,
    /// The leader slot is asked.
    Arriving(Search),
    /// Another fetches.
    Waiting(Waiting),
    /// The store is asked.
    Asking(Asking),
    /// The origin is asked.
    Forwarded(Forwarded),
    /// The origin's answer is copied on its way to the client.
    Capturing(Capturing),
    /// The rest of a stored part is on its way to the client, behind the part.
    Completing(Completing),
    /// The request has gone on without the cache.
    Passing(Passing),
    /// Answered, or gone.
    Over {
        /// The stored response that has answered, where level 1 or the store had one that may.
        answered_by: Option<Arc<StoredResponse>>,
    },
}

/// A search for an answer beyond level 1.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) known: Known,
    pub(super) slot: Slot,
    pub(super) rounds: Rounds,
    /// The store was asked for something to serve while another refreshes.
    pub(super) behind_refresh: bool,
    /// The store may hold its answer back: it has said that another Envoy fetches.
    pub(super) store_waits: bool,
}

/// How often a search has waited for another's fetch in vain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounds {
    pub(super) all: u8,
    /// Fetches that failed.
    pub(super) failed: u8,
    /// Fetches whose answer was for the leader alone.
    pub(super) refused: u8,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) search: Search,
    /// Whose fetch it waits for.
    pub(super) leader: Identity,
}

#[derive(Debug)]
pub(super) struct Asking {
    pub(super) search: Search,
    pub(super) lead: Leadership,
    /// Whether the whole answer is wanted for the cache, should the origin be asked.
    pub(super) storable: bool,
}

#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) known: Known,
    pub(super) lead: Leadership,
    pub(super) asked_for: AskedFor,
    /// When the request was sent.
    pub(super) request_time: Timestamp,
}

/// What the origin was asked for.
#[derive(Clone, Debug)]
pub(super) enum AskedFor {
    /// All of it, to be stored.
    Whole,
    /// Whether this still holds, or else all of it.
    Validation(Arc<StoredResponse>),
    /// The rest of this part.
    Rest(Arc<StoredResponse>),
    /// What the client asked for, as it did: HEAD, ranges, a condition of its own.
    AsClient,
}

/// The head of the origin's answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) head: &'a ResponseHead,
    /// Whether no content follows.
    pub(super) end: bool,
    /// When it was asked for.
    pub(super) request_time: Timestamp,
}

#[derive(Debug)]
pub(super) struct Capturing {
    pub(super) capture: Box<Capture>,
    /// Nothing, once those who waited have been let go.
    pub(super) lead: Leadership,
    /// What is held of the same resource already.
    pub(super) held: Option<Arc<StoredResponse>>,
}

#[derive(Debug)]
pub(super) struct Completing {
    /// The part that is held.
    pub(super) held: Arc<StoredResponse>,
    /// What has come of the rest; `None` where it may not be stored.
    pub(super) capture: Option<Box<Capture>>,
    /// Bytes that are still to come.
    pub(super) left: u64,
    pub(super) lead: Leadership,
}

#[derive(Debug)]
pub(super) struct Passing {
    pub(super) known: Known,
    /// Whether its success makes stored responses untrue (RFC 9111 §4.4).
    pub(super) invalidates: bool,
}

impl State {
    /// Over, not answered from anything stored.
    pub(super) const OVER: Self = Self::Over { answered_by: None };

    /// The state's name, as in the table of `exchange`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::Arriving(_) => "Arriving",
            Self::Waiting(_) => "Waiting",
            Self::Asking(_) => "Asking",
            Self::Forwarded(_) => "Forwarded",
            Self::Capturing(_) => "Capturing",
            Self::Completing(_) => "Completing",
            Self::Passing(_) => "Passing",
            Self::Over { .. } => "Over",
        }
    }

    /// What is held for others in this state.
    pub(super) fn into_leadership(self) -> Leadership {
        match self {
            Self::Asking(Asking { lead, .. })
            | Self::Forwarded(Forwarded { lead, .. })
            | Self::Capturing(Capturing { lead, .. })
            | Self::Completing(Completing { lead, .. }) => lead,
            Self::Local
            | Self::Arriving(_)
            | Self::Waiting(_)
            | Self::Passing(_)
            | Self::Over { .. } => Leadership::none(),
        }
    }
}
