//! May a stored response answer this request now? (RFC 9111 §4, §4.2.4; RFC 5861)
//!
//! What this decides: fresh, stale but allowed, or to be validated, with the reason. What it leaves
//! out: which variant is asked about (`variants`), and what happens next (`exchange`).

use larder_contract::http_time::{DeltaSeconds, Timestamp};

use crate::age;
use crate::cache_control::RequestDirectives;
use crate::policy::Policy;
pub use crate::stored_response::Failure;
use crate::stored_response::StoredResponse;

/// The decision about one stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Answers as it is.
    Fresh,
    /// Answers although stale, while it is refreshed in the background (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Answers although stale, because the request asked for it (RFC 9111 §5.2.1.2).
    MaxStale,
    /// Must be validated first.
    Validate(MustValidate),
}

/// Why a stored response has to be validated before it may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MustValidate {
    /// It is stale and nothing allows that.
    Stale,
    /// It says `no-cache` (RFC 9111 §5.2.2.4).
    NoCache,
    /// The request says so: `no-cache`, `max-age`, `min-fresh` (RFC 9111 §5.2.1).
    Request,
}

/// What `Cache-Status` says of it: whole seconds of freshness left, less than 0 once it is stale
/// (RFC 9211 §2.4). A second that has begun counts, so that `Age` and this make up the lifetime.
pub fn ttl(stored: &StoredResponse, now: Timestamp) -> i64 {
    let remaining = remaining_millis(stored, now);
    if remaining > 0 {
        remaining.saturating_add(999) / 1000
    } else {
        remaining.div_euclid(1000)
    }
}

/// Milliseconds of freshness left; negative when stale by so much. What comes from the future is
/// not young: it is stale by as much as a clock was ahead.
pub fn remaining_millis(stored: &StoredResponse, now: Timestamp) -> i64 {
    let age = age::current_age_millis(stored, now);
    let lifetime = stored.terms.lifetime.as_millis();
    let signed = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
    let remaining = signed(lifetime).saturating_sub(signed(age));
    let ahead = age::millis_ahead(stored.response_time, now);
    let remaining = if ahead > 0 {
        remaining.min(-signed(ahead))
    } else {
        remaining
    };
    match stored.stale_from {
        Some(time) => {
            remaining.min(signed(time.as_millis()).saturating_sub(signed(now.as_millis())))
        }
        None => remaining,
    }
}

/// When freshness ends (RFC 9111 §4.2).
pub fn fresh_until(stored: &StoredResponse) -> Timestamp {
    let lifetime = stored
        .terms
        .lifetime
        .as_millis()
        .saturating_sub(age::initial_age_millis(stored));
    let natural = stored.response_time.plus_millis(lifetime);
    stored.stale_from.map_or(natural, |time| natural.min(time))
}

/// Decides about `stored`. `asked` are the request's directives, `None` where the policy does not
/// honour them.
pub fn decide(
    stored: &StoredResponse,
    asked: Option<&RequestDirectives>,
    policy: &Policy,
    now: Timestamp,
) -> Reuse {
    if asked.is_some_and(|asked| asked.no_cache) {
        return Reuse::Validate(MustValidate::Request);
    }
    if stored.terms.no_cache {
        return Reuse::Validate(MustValidate::NoCache);
    }
    let remaining = remaining_millis(stored, now);
    if let Some(asked) = asked
        && !satisfies_request(stored, asked, remaining, now)
    {
        return Reuse::Validate(MustValidate::Request);
    }
    if remaining > 0 {
        return Reuse::Fresh;
    }
    // RFC 9111 §4.2.4: must-revalidate and its kin forbid every stale use.
    if stored.terms.must_revalidate {
        return Reuse::Validate(MustValidate::Stale);
    }
    let staleness = remaining.unsigned_abs();
    if staleness < capped(stored.terms.stale_while_revalidate, policy) {
        return Reuse::StaleWhileRevalidate;
    }
    match asked.and_then(|asked| asked.max_stale) {
        Some(limit) if staleness <= capped(limit.unwrap_or(DeltaSeconds::MAX), policy) => {
            Reuse::MaxStale
        }
        _ => Reuse::Validate(MustValidate::Stale),
    }
}

/// Whether only `must-revalidate`, `proxy-revalidate` or `s-maxage` keeps a response within its own
/// `stale-while-revalidate` from being served: for a shared cache the two contradict each other,
/// and the prohibition counts (RFC 9111 §4.2.4, §5.2.2.10; RFC 5861 §3).
pub fn is_stale_use_forbidden(stored: &StoredResponse, policy: &Policy, now: Timestamp) -> bool {
    let remaining = remaining_millis(stored, now);
    stored.terms.must_revalidate
        && !stored.terms.no_cache
        && remaining <= 0
        && remaining.unsigned_abs() < capped(stored.terms.stale_while_revalidate, policy)
}

/// RFC 9111 §5.2.1.1 and §5.2.1.3: the request's own bounds on age and remaining freshness.
/// `max-stale` loosens the former only as far as it says.
fn satisfies_request(
    stored: &StoredResponse,
    asked: &RequestDirectives,
    remaining: i64,
    now: Timestamp,
) -> bool {
    let min_fresh = asked.min_fresh.map_or(0, |span| {
        i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
    });
    if asked.min_fresh.is_some() && remaining < min_fresh {
        return false;
    }
    asked.max_age.is_none_or(|limit| {
        let age = age::current_age(stored, now);
        age <= limit
            || (remaining <= 0 && asked.max_stale.is_some() && !stored.terms.must_revalidate)
    })
}

/// May `stored` answer because the origin failed? (RFC 5861 §4, RFC 9111 §4.2.4)
pub fn may_serve_on_error(
    stored: &StoredResponse,
    asked: Option<&RequestDirectives>,
    policy: &Policy,
    failure: Failure,
    now: Timestamp,
) -> bool {
    if decide(stored, asked, policy, now) == Reuse::StaleWhileRevalidate {
        return true; // it might have answered without asking (RFC 5861 §3)
    }
    !stored.terms.must_revalidate && is_within_error_window(stored, asked, policy, failure, now)
}

/// Whether `stored` answers without the origin being asked, because it failed a moment ago and the
/// operator lets it recover.
pub fn is_left_alone(
    stored: &StoredResponse,
    asked: Option<&RequestDirectives>,
    policy: &Policy,
    now: Timestamp,
) -> bool {
    let failure = stored.treatment.recent_failure(now);
    policy.error_cooldown > DeltaSeconds::ZERO
        && failure.is_some_and(|failure| may_serve_on_error(stored, asked, policy, failure, now))
}

/// Whether only `must-revalidate` or its kin keeps a response from standing in for the origin's
/// failure.
pub fn is_stale_on_error_forbidden(
    stored: &StoredResponse,
    asked: Option<&RequestDirectives>,
    policy: &Policy,
    failure: Failure,
    now: Timestamp,
) -> bool {
    // The operator's grace is no word of the origin's that another one contradicts.
    let names_window = stored.terms.stale_if_error > DeltaSeconds::ZERO;
    stored.terms.must_revalidate
        && names_window
        && is_within_error_window(stored, asked, policy, failure, now)
}

fn is_within_error_window(
    stored: &StoredResponse,
    asked: Option<&RequestDirectives>,
    policy: &Policy,
    failure: Failure,
    now: Timestamp,
) -> bool {
    if stored.terms.no_cache || asked.is_some_and(|asked| asked.no_cache) {
        return false;
    }
    let window = asked
        .and_then(|asked| asked.stale_if_error)
        .unwrap_or_default()
        .max(stored.terms.stale_if_error);
    let window = if failure == Failure::Disconnected {
        window.max(policy.grace)
    } else {
        window
    };
    let remaining = remaining_millis(stored, now);
    remaining > 0 || remaining.unsigned_abs() < capped(window, policy)
}

fn capped(window: DeltaSeconds, policy: &Policy) -> u64 {
    window.min(policy.max_stale).as_millis()
}

#[cfg(test)]
mod tests;
