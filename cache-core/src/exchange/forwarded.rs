//! The origin has answered, or the proxy in its place: store, freshen, fall back to a stale copy,
//! or let it pass.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;

use super::details::Details;
use super::event::{Outcome, ResponseSource};
use super::known::Known;
use super::leadership::Leadership;
use super::passing::pass_on;
use super::presented::Presented;
use super::state::{Answer, AskedFor, Forwarded, State};
use super::step::Step;
use super::{capturing, completing, parts, reply, sharing, validated};
use crate::cache_status::{CacheStatus, Detail};
use crate::message::ResponseHead;
use crate::policy::Policy;
use crate::reuse::{self, Failure};
use crate::stored_response::StoredResponse;
use crate::{partial, preconditions};

pub(super) fn on_response(
    forwarded: Forwarded,
    head: &ResponseHead,
    source: ResponseSource,
    end: bool,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let Forwarded {
        mut known,
        lead,
        asked_for,
        request_time,
    } = forwarded;
    if let Some(failure) = failure_of(head, source, &presented.policy)
        && let Some(stale) = fallback(&mut known, failure, presented, step.now)
    {
        let cooldown = presented.policy.error_cooldown;
        stale
            .treatment
            .note_failure(failure, step.now.plus(cooldown));
        return serve_stale(&stale, &known, lead, head.status, presented, step);
    }
    if source != ResponseSource::Origin {
        step.commands(pass_on(&known, head, source, presented));
        lead.finish(
            sharing::outcome_of_no_answer(head.status, source),
            presented,
            step,
        );
        return State::OVER;
    }
    let answer = Answer {
        head,
        end,
        request_time,
    };
    match (asked_for, head.status) {
        (AskedFor::Validation(stale), 304) => {
            validated::on_not_modified(&stale, &known, lead, &answer, presented, step)
        }
        (AskedFor::Rest(held), 206 | 416) => {
            completing::begin(held, &known, lead, &answer, presented, step)
        }
        (AskedFor::AsClient, status) => {
            // HEAD, ranges, credentials: nobody waits.
            lead.finish(Outcome::Again, presented, step);
            if presented.is_head() && status == 200 {
                validated::freshen_by_head(&known, &answer, presented, step);
            } else if status == 206 && presented.has_ranges() {
                return parts::on_part(known, &answer, presented, step);
            }
            step.commands(pass_on(&known, head, source, presented));
            State::OVER
        }
        _ => capturing::begin(known, lead, &answer, presented, step),
    }
}

/// What the proxy itself says is a failure only if it says so: a refusal or a redirect of its own
/// is an answer.
fn failure_of(head: &ResponseHead, source: ResponseSource, policy: &Policy) -> Option<Failure> {
    match source {
        ResponseSource::Origin => policy.is_error(head.status).then_some(Failure::ErrorStatus),
        ResponseSource::Proxy => is_server_error(head.status).then_some(Failure::Disconnected),
        ResponseSource::NoOrigin | ResponseSource::Lost | ResponseSource::Timeout => {
            Some(Failure::Disconnected)
        }
    }
}

/// The stale copy that may be served in place of a failure (RFC 5861 §4, RFC 9111 §4.2.4).
fn fallback(
    known: &mut Known,
    failure: Failure,
    presented: &Presented,
    now: Timestamp,
) -> Option<Arc<StoredResponse>> {
    let (policy, asked) = (&presented.policy, presented.asked.as_ref());
    let stale = known.candidate.clone()?;
    if !partial::covers(
        &stale,
        preconditions::ranges(&presented.request, &stale),
        policy.max_ranges,
    ) {
        return None;
    }
    if reuse::may_serve_on_error(&stale, asked, policy, failure, now) {
        return Some(stale);
    }
    if reuse::is_stale_on_error_forbidden(&stale, asked, policy, failure, now) {
        known.detail = Some(Detail::StaleForbidden);
    }
    None
}

/// At once, for the content of an error may be slow to come.
fn serve_stale(
    stale: &Arc<StoredResponse>,
    known: &Known,
    lead: Leadership,
    origin_status: u16,
    presented: &Presented,
    step: &mut Step,
) -> State {
    lead.finish(Outcome::StaleOnError(stale.clone()), presented, step);
    let status = CacheStatus::forwarded(known.why).with_detail(Detail::StaleIfError);
    let status = CacheStatus {
        forward_status: Some(origin_status),
        stale_on_error: true,
        ..status
    };
    step.commands(reply::with(
        presented,
        stale,
        status,
        Details::StaleIfError,
        step.now,
    ));
    State::OVER
}

/// RFC 5861 §4: the statuses of the proxy's that count as an error, whatever the origin's are.
fn is_server_error(status: u16) -> bool {
    Policy::ERROR_STATUSES.contains(&status)
}
