//! Whether all purges are known to this process.

use std::time::Duration;

use tokio::time::Instant;

/// For how long a sidecar that hears nothing more still vouches for what it gives out. It asks
/// every second.
pub const TRUST: Duration = Duration::from_secs(3);

/// Up to when all purges are known here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hearing {
    /// The store is this process's own: nobody else purges.
    Alone,
    /// The store is shared, and its marks have not been read yet.
    NotYet,
    /// The store is shared, and everything up to then is known: from a connection, or of all that
    /// there may be.
    UpTo(Instant, Option<u64>),
}

impl Hearing {
    /// All that anybody has purged until `asked` is known, as far as the store behind one
    /// connection goes, if one is named.
    pub(super) fn heard(self, asked: Instant, connection: Option<u64>) -> Self {
        match self {
            Self::Alone => Self::Alone,
            Self::NotYet => Self::UpTo(asked, connection),
            Self::UpTo(known, _) => Self::UpTo(known.max(asked), connection),
        }
    }

    /// For how long before `then` nothing was heard, as far as is known now.
    pub(super) fn deaf_at(self, then: Instant) -> Duration {
        match self {
            Self::Alone => Duration::ZERO,
            Self::NotYet => Duration::MAX,
            Self::UpTo(known, _) => then.saturating_duration_since(known),
        }
    }

    /// Whether nothing can have been purged without being known here, but for the last [`TRUST`].
    pub(super) fn vouches_at(self, now: Instant) -> bool {
        self.deaf_at(now) < TRUST
    }

    /// Whether it was another connection by which this was heard. Behind a new one there may be a
    /// store that has lost purges.
    pub(super) fn is_by_another_than(self, connection: u64) -> bool {
        matches!(self, Self::UpTo(_, Some(known)) if known != connection)
    }
}
