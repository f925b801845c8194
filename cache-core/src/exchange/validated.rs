//! The origin has confirmed what is stored: a `304` to our own conditions, or the answer to a HEAD.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;

use super::details::Details;
use super::effect::CacheCommand;
use super::event::Outcome;
use super::known::Known;
use super::leadership::Leadership;
use super::presented::Presented;
use super::reply;
use super::state::{Answer, State};
use super::step::Step;
use crate::cache_status::{CacheStatus, Detail};
use crate::storability::NotStorable;
use crate::stored_response::StoredResponse;
use crate::{storing, validation};

/// Freshens what is stored and answers with it (RFC 9111 §4.3.3, §4.3.4).
pub(super) fn on_not_modified(
    stale: &Arc<StoredResponse>,
    known: &Known,
    lead: Leadership,
    answer: &Answer<'_>,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let status = CacheStatus {
        forward_status: Some(304),
        ..CacheStatus::forwarded(known.why)
    };
    let kept = &presented.policy.keep_on_304;
    let fresh = validation::freshen(stale, answer.head, answer.request_time, step.now, kept);
    let Ok(fresh) = fresh else {
        on_unexpected_not_modified(stale, status, lead, presented, step);
        return State::OVER;
    };
    match renewed(&fresh, presented) {
        Ok(kept) => {
            let kept = Arc::new(kept);
            let status = CacheStatus {
                stored: true,
                detail: known.detail,
                ..status
            };
            // A cookie that is not stored goes to the one who asked.
            let sets_cookie = answer.head.fields.contains("set-cookie");
            let shown = if sets_cookie && presented.policy.strip_set_cookie {
                Arc::new(fresh)
            } else {
                kept.clone()
            };
            step.commands(reply::with(
                presented,
                &shown,
                status,
                Details::Validated,
                step.now,
            ));
            if is_worth_keeping(stale, &kept, presented, step.now) {
                lead.keep(kept, presented, step);
            } else {
                lead.finish(Outcome::Fetched(kept), presented, step);
            }
        }
        Err(why) => {
            let status = status.with_detail(Detail::NotStored(why));
            step.commands(reply::with(
                presented,
                &Arc::new(fresh),
                status,
                Details::Validated,
                step.now,
            ));
            lead.finish(end_unstored(why, presented, step), presented, step);
        }
    }
    State::OVER
}

/// What is confirmed, and from now on not to be stored.
fn end_unstored(why: NotStorable, presented: &Presented, step: &mut Step) -> Outcome {
    if why.lies_in_the_request() || presented.request.is_one_clients(&presented.policy) {
        // Confirmed to this client; for the others it stays what it was.
        return Outcome::NotForOthers { counts: false };
    }
    if presented.is_said_to_all(why) {
        step.cache(presented.invalidation());
    }
    Outcome::Uncacheable
}

/// What is validated before every use (RFC 9111 §5.2.2.4) gains nothing by newer times alone: its
/// content is not written again for each request, only before the store would forget it.
fn is_worth_keeping(
    held: &StoredResponse,
    fresh: &StoredResponse,
    presented: &Presented,
    now: Timestamp,
) -> bool {
    let same_but_for_times = held.terms == fresh.terms
        && held.selecting == fresh.selecting
        && held.tags == fresh.tags
        && held.explicitly_public == fresh.explicitly_public
        && held.fields.same_but_for("date", &fresh.fields);
    let is_recent = now.millis_since(held.response_time) < presented.policy.keep.as_millis() / 2;
    !(fresh.terms.no_cache && same_but_for_times && is_recent)
}

fn renewed(fresh: &StoredResponse, presented: &Presented) -> Result<StoredResponse, NotStorable> {
    storing::renewed(
        fresh,
        &presented.request,
        presented.overriding.as_ref(),
        &presented.policy,
    )
}

/// A `304` whose validator is another's: it confirms what was asked about, but must not update
/// anything (RFC 9111 §4.3.4). This request gets the stored response; the next one fetches it
/// again.
fn on_unexpected_not_modified(
    stale: &Arc<StoredResponse>,
    status: CacheStatus,
    lead: Leadership,
    presented: &Presented,
    step: &mut Step,
) {
    let status = status.with_detail(Detail::UnexpectedNotModified);
    step.commands(reply::with(
        presented,
        stale,
        status,
        Details::UnexpectedNotModified,
        step.now,
    ));
    if !presented.request.is_one_clients(&presented.policy) {
        step.cache(presented.invalidation());
    }
    lead.finish(Outcome::Again, presented, step);
}

/// RFC 9111 §4.3.5: the answer to a HEAD says whether what is stored still holds.
pub(super) fn freshen_by_head(
    known: &Known,
    answer: &Answer<'_>,
    presented: &Presented,
    step: &mut Step,
) {
    let Some(stale) = known
        .candidate
        .as_ref()
        .filter(|stored| stored.part.is_none())
    else {
        return;
    };
    if presented.request.is_one_clients(&presented.policy) {
        // What this client would get may be another thing than what is stored for everybody.
        return;
    }
    let kept = &presented.policy.keep_on_304;
    let Ok(fresh) =
        validation::freshen_by_head(stale, answer.head, answer.request_time, step.now, kept)
    else {
        step.cache(presented.invalidation());
        return;
    };
    match renewed(&fresh, presented) {
        Ok(fresh) => {
            step.cache(CacheCommand::keep(
                &presented.policy,
                presented.key.clone(),
                Arc::new(fresh),
                None,
            ));
        }
        Err(why) if presented.is_said_to_all(why) => step.cache(presented.invalidation()),
        Err(_) => {}
    }
}
