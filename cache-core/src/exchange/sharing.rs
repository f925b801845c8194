//! What an answer that is not stored means for those who wait for it, and for the next one under
//! the key.
//!
//! What this decides: whose doing it is that an answer is not for others. Only a response's own
//! words speak about the key; what one request brought upon itself says nothing to anybody else.

use super::event::{Outcome, ResponseSource};
use super::presented::Presented;
use crate::storability::NotStorable;
use crate::stored_response::StoredResponse;
use crate::storing::{self, Fetched};

/// What an answer that is not stored means for others.
#[derive(Debug)]
pub(super) enum ForOthers {
    /// An error that would have met them as well: those who have seen another one fail may have it.
    Error(Box<StoredResponse>),
    /// Nothing: the request is at fault.
    Nothing,
    /// It is not for them; the next one's answer may be.
    NotThis,
    /// The request is at fault, and only its like wait for it: their answers will be the same.
    NeverItsLike,
    /// By its own words it is not for them, and the next one's will hardly be.
    NeverAny,
}

/// `is_for_cookies`: only those with a cookie wait for it.
pub(super) fn for_others(
    fetched: &Fetched<'_>,
    why: NotStorable,
    is_for_cookies: bool,
    presented: &Presented,
) -> ForOthers {
    let status = fetched.response.status;
    if speaks_of_its_request(status) {
        ForOthers::Nothing
    } else if why.lies_in_the_request() {
        if is_for_cookies && status < 400 {
            ForOthers::NeverItsLike
        } else {
            ForOthers::Nothing
        }
    } else if (500..600).contains(&status) {
        let error = storing::error_response(fetched, &presented.policy)
            .filter(|_| !presented.is_credentialed());
        error.map_or(ForOthers::NotThis, |error| {
            ForOthers::Error(Box::new(error))
        })
    } else if matches!(status, 401 | 403 | 406 | 407) {
        ForOthers::NotThis
    } else {
        ForOthers::NeverAny
    }
}

/// Statuses that answer the request as it was written, not what it asks for (RFC 9110 §15.5).
fn speaks_of_its_request(status: u16) -> bool {
    matches!(status, 400 | 405 | 408 | 411..=417 | 421..=431)
}

/// What those who wait get where no origin answered.
pub(super) fn outcome_of_no_answer(status: u16, source: ResponseSource) -> Outcome {
    match source {
        ResponseSource::NoOrigin | ResponseSource::Lost => Outcome::Failed(502),
        ResponseSource::Timeout => Outcome::Failed(status),
        // The proxy's own answer to this request: a redirect of a route, a limit.
        ResponseSource::Origin | ResponseSource::Proxy => Outcome::NotForOthers {
            counts: !speaks_of_its_request(status),
        },
    }
}
