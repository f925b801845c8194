//! Looking up: the question, and its answer as a message.

use serde::{Deserialize, Serialize};

use super::lease::{Fence, LeaseTerms};
use crate::http_time::Timestamp;
use crate::key::KeyDigest;
use crate::selectors::Presented;

/// `POST`: look up an entry, and be given the lease or wait for its holder.
pub const LOOK_UP_PATH: &str = "/v1/look-up";
/// `1` in a `204` look-up answer: the key's last response was not storable, so nobody leads and
/// nobody waits.
pub const UNCACHEABLE_FIELD: &str = "x-larder-uncacheable";

/// *Look up, or give me the lease, or let me wait*, in one round trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookUp {
    /// What is asked for.
    pub key: KeyDigest,
    /// The presented request's fields; see [`crate::selectors::matches`]. Of several variants that
    /// match, the one with the latest response time counts.
    pub presented: Presented,
    /// The filter's clock, which the entry's time marks are compared with.
    pub now_ms: Timestamp,
    /// Wanted when no entry matches or the one that does is no longer fresh; `None` asks for a
    /// plain look-up.
    pub lease: Option<LeaseTerms>,
}

/// The answer to a [`LookUp`]. Entries are whole [`crate::entry::Entry`] encodings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUpAnswer {
    /// `200`: an entry that is fresh, or any that matches when no lease was asked for.
    Entry(Vec<u8>),
    /// `201`: go and fetch; what matched but is no longer fresh comes along.
    Lease {
        /// To be shown when the result is stored.
        fence: Fence,
        /// For revalidation, or to be served stale.
        stale: Option<Vec<u8>>,
    },
    /// `202`: another holds the lease. At once when the matching entry may be served stale
    /// meanwhile, else after the wait.
    Held {
        /// For use where staleness is allowed.
        stale: Option<Vec<u8>>,
    },
    /// `204`: nothing matches and no lease was given: either none was asked for, or responses under
    /// this key are known to be not storable.
    Nothing {
        /// Whether the key is marked as not storable.
        uncacheable: bool,
    },
}

/// A [`LookUpAnswer`] as a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerParts {
    /// HTTP status code.
    pub status: u16,
    /// Value of [`FENCE_FIELD`](super::FENCE_FIELD).
    pub fence: Option<Fence>,
    /// Whether [`UNCACHEABLE_FIELD`] is `1`.
    pub uncacheable: bool,
    /// The message's content: an entry or empty.
    pub body: Vec<u8>,
}

impl LookUpAnswer {
    /// The message that says this.
    pub fn into_parts(self) -> AnswerParts {
        let parts = |status, fence, uncacheable, body: Option<Vec<u8>>| AnswerParts {
            status,
            fence,
            uncacheable,
            body: body.unwrap_or_default(),
        };
        match self {
            Self::Entry(entry) => parts(200, None, false, Some(entry)),
            Self::Lease { fence, stale } => parts(201, Some(fence), false, stale),
            Self::Held { stale } => parts(202, None, false, stale),
            Self::Nothing { uncacheable } => parts(204, None, uncacheable, None),
        }
    }

    /// Reads the message. `None` when it is none of the four: a fault of the store.
    pub fn from_parts(parts: AnswerParts) -> Option<Self> {
        let stale = |body: Vec<u8>| (!body.is_empty()).then_some(body);
        match parts.status {
            200 if !parts.body.is_empty() => Some(Self::Entry(parts.body)),
            201 => Some(Self::Lease {
                fence: parts.fence?,
                stale: stale(parts.body),
            }),
            202 => Some(Self::Held {
                stale: stale(parts.body),
            }),
            204 => Some(Self::Nothing {
                uncacheable: parts.uncacheable,
            }),
            _ => None,
        }
    }
}
