//! What the store's answers mean.

use std::sync::Arc;

use larder_cache_core::codec;
use larder_cache_core::exchange::StoreAnswer;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::entry;
use larder_contract::http_time::Timestamp;
use larder_contract::store_api::{
    AHEAD_FIELD, AnswerParts, FENCE_FIELD, Fence, LookUpAnswer, UNCACHEABLE_FIELD, WriteAnswer,
};

use crate::calls::{CallAnswer, Outside};
use crate::host::Host;
use crate::metrics;
use crate::refused::is_refused;

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

/// What became of a call that tells the store something.
pub(crate) fn told<H: Host>(outside: &mut Outside<H>, answer: &CallAnswer, now: Timestamp) -> Told {
    match answer.upstream_status() {
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

/// What the sidecar's answer to a look-up says; `None` if that is nothing that it may say.
pub(super) fn look_up_answer<H: Host>(
    outside: &mut Outside<H>,
    answer: CallAnswer,
) -> Option<StoreAnswer> {
    let CallAnswer {
        status,
        fields,
        body,
        ..
    } = answer;
    let parts = AnswerParts {
        status,
        fence: fields.get(FENCE_FIELD).and_then(Fence::parse),
        uncacheable: fields.get(UNCACHEABLE_FIELD) == Some(b"1"),
        body: body.unwrap_or_default(),
    };
    let answer = LookUpAnswer::from_parts(parts)?;
    let ahead = fields
        .get(AHEAD_FIELD)
        .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
        .unwrap_or(0);
    let mut read = |bytes: Vec<u8>| read_entry(outside, &bytes, ahead);
    Some(match answer {
        LookUpAnswer::Entry(bytes) => read(bytes).map_or(
            StoreAnswer::Nothing { uncacheable: false },
            StoreAnswer::Entry,
        ),
        LookUpAnswer::Lease { fence, stale } => StoreAnswer::Lease(fence, stale.and_then(read)),
        LookUpAnswer::Held { stale } => StoreAnswer::Held(stale.and_then(read)),
        LookUpAnswer::Nothing { uncacheable } => StoreAnswer::Nothing { uncacheable },
    })
}

/// Whatever comes back is checked; what is damaged was never there. Our clock is `ahead` ms ahead
/// of the store's.
fn read_entry<H: Host>(
    outside: &mut Outside<H>,
    bytes: &[u8],
    ahead: i64,
) -> Option<Arc<StoredResponse>> {
    let entry = entry::decode(bytes).map(|mut entry| {
        entry.meta.move_times(ahead);
        entry
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
