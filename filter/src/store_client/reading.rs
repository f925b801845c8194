//! What the store's answers mean, by whichever way they came.

use std::fmt;
use std::sync::Arc;

use larder_cache_core::codec;
use larder_cache_core::exchange::{StoreAnswer, StoreFault};
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::entry;
use larder_contract::http_time::Timestamp;
use larder_contract::store_api::{LookUpAnswer, WriteAnswer};
use larder_contract::store_stream::Answer;

use crate::calls::Outside;
use crate::host::Host;
use crate::metrics;
use crate::refused::is_refused;

/// What came back for a question.
pub(crate) type Answered = Result<Answer, NoAnswer>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// It did not come in time.
    Timeout,
    /// There is no connection, or it broke.
    Lost,
    /// The sidecar says something in a way that is not understood; what the reader says to it.
    NotUnderstood(String),
}

impl NoAnswer {
    /// What that is to an exchange.
    pub(super) fn fault(&self) -> StoreFault {
        match self {
            Self::Timeout => StoreFault::Timeout,
            Self::Lost | Self::NotUnderstood(_) => StoreFault::Error,
        }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Lost => f.write_str("no connection or a broken answer"),
            Self::NotUnderstood(error) => write!(f, "an answer that is not understood ({error})"),
        }
    }
}

/// What became of something that the store was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The store has it, or has what replaces it.
    Accepted,
    /// Nobody has answered, or the store is in trouble, or it did not take the token: it may be
    /// told again.
    Not,
    /// The store will not have it, however often it is told: too large, or of a later version.
    NotUnderstood,
}

/// The status of an answer that says nothing else.
pub(crate) fn status_of(answered: &Answered) -> Option<u16> {
    match answered {
        Ok(Answer::Done { status }) => Some(*status),
        _ => None,
    }
}

/// What became of something that the store was told.
pub(crate) fn told<H: Host>(outside: &mut Outside<H>, answered: &Answered, now: Timestamp) -> Told {
    match status_of(answered) {
        Some(status) if is_refused(&outside.host, &mut outside.metrics, status, now) => Told::Not,
        Some(status)
            if [WriteAnswer::Stored, WriteAnswer::Fenced]
                .map(WriteAnswer::status)
                .contains(&status) =>
        {
            Told::Accepted
        }
        Some(400..500) => Told::NotUnderstood,
        _ => Told::Not,
    }
}

/// What was found, on our clock, which is `ahead` ms ahead of the store's.
pub(super) fn found<H: Host>(
    outside: &mut Outside<H>,
    found: LookUpAnswer,
    ahead: i64,
) -> StoreAnswer {
    let mut read = |bytes: Vec<u8>| read_entry(outside, &bytes, ahead);
    match found {
        LookUpAnswer::Entry(bytes) => read(bytes).map_or(
            StoreAnswer::Nothing { uncacheable: false },
            StoreAnswer::Entry,
        ),
        LookUpAnswer::Lease { fence, stale } => StoreAnswer::Lease(fence, stale.and_then(read)),
        LookUpAnswer::Held { stale } => StoreAnswer::Held(stale.and_then(read)),
        LookUpAnswer::Nothing { uncacheable } => StoreAnswer::Nothing { uncacheable },
    }
}

/// Whatever comes back is checked; what is damaged was never there.
fn read_entry<H: Host>(
    outside: &mut Outside<H>,
    bytes: &[u8],
    ahead: i64,
) -> Option<Arc<StoredResponse>> {
    let entry = entry::decode(bytes).map(|(mut meta, body)| {
        meta.move_times(ahead);
        (meta, body)
    });
    match entry.and_then(codec::from_entry) {
        Ok(stored) => Some(Arc::new(stored)),
        Err(fault) => {
            outside.metrics.event(metrics::STORE_DAMAGED);
            outside.host.log(
                log::Level::Warn,
                &format!("larder: entry from the store ignored: {fault}"),
            );
            None
        }
    }
}
