//! An answer that may be stored, on its way to the client: judged by its head, captured as its
//! content passes.

use std::sync::Arc;

use super::effect::{CacheCommand, Command};
use super::event::Outcome;
use super::known::Known;
use super::leadership::Leadership;
use super::presented::Presented;
use super::reply;
use super::sharing::{ForOthers, for_others};
use super::state::{Answer, Capturing, State};
use super::step::Step;
use crate::cache_status::CacheStatus;
use crate::message::ResponseHead;
use crate::storability::NotStorable;
use crate::stored_response::StoredResponse;
use crate::storing::{self, Capture, CaptureFor, Captured, Fetched};
use crate::{freshness, invalidation, partial, reuse};

/// Content whose length was not declared and that has no end so long after its head keeps nobody
/// waiting, in milliseconds.
const UNFINISHED_AFTER_MS: u64 = 2_000;

pub(super) fn begin(
    known: Known,
    lead: Leadership,
    answer: &Answer<'_>,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let head = answer.head;
    let fetched = presented.fetched(head, answer.request_time, step.now);
    let (response, purpose) = match storing::judge(&fetched, || presented.url(), &presented.policy)
    {
        Ok(response) => {
            let ttl = Some(reuse::ttl(&response, step.now));
            let status = CacheStatus {
                stored: true,
                ttl,
                ..known.forwarded(head.status)
            };
            step.commands(reply::pass(presented, &head.fields, None, status));
            (response, CaptureFor::Store)
        }
        Err(why) => {
            step.commands(reply::pass(
                presented,
                &head.fields,
                None,
                known.not_stored(head.status, why),
            ));
            match for_others(&fetched, why, lead.is_for_cookies(), presented) {
                ForOthers::Error(error) if lead.is_leader() => (*error, CaptureFor::ShareError),
                for_others => {
                    end_unstored(
                        &known,
                        lead,
                        (head.status, why),
                        &for_others,
                        presented,
                        step,
                    );
                    return State::OVER;
                }
            }
        }
    };
    if !answer.end && lead.is_leader() {
        limit_the_wait_for_an_end(head, step);
    }
    let capture = capture(response, head, purpose, presented);
    go_on(
        Capturing {
            capture,
            lead,
            held: known.candidate,
        },
        answer.end,
        presented,
        step,
    )
}

/// Those who wait for content that may have no end do so for a while only.
fn limit_the_wait_for_an_end(head: &ResponseHead, step: &mut Step) {
    if storing::declared_length(&head.fields).is_none() {
        step.command(Command::RemindAt(step.now.plus_millis(UNFINISHED_AFTER_MS)));
    }
}

fn end_unstored(
    known: &Known,
    lead: Leadership,
    (status, why): (u16, NotStorable),
    for_others: &ForOthers,
    presented: &Presented,
    step: &mut Step,
) {
    let outcome = match for_others {
        ForOthers::Nothing => Outcome::NotForOthers { counts: false },
        ForOthers::Error(_) | ForOthers::NotThis => Outcome::NotForOthers { counts: true },
        ForOthers::NeverItsLike | ForOthers::NeverAny => Outcome::Uncacheable,
    };
    let speaks_of_key = matches!(for_others, ForOthers::NeverAny);
    let ends = invalidation::ends_what_is_stored(status) && presented.is_said_to_all(why);
    if speaks_of_key && ends && known.candidate.is_some() {
        // What is stored is gone, or replaced by something that must not be: it is no longer true.
        step.cache(presented.invalidation());
    }
    lead.finish(outcome, presented, step);
}

/// Captures the answer to a POST that says that it is what a GET of the same URL would get (RFC
/// 9110 §9.3.3). `None` when it does not.
pub(super) fn begin_post(
    known: &Known,
    head: &ResponseHead,
    end: bool,
    presented: &Presented,
    step: &mut Step,
) -> Option<State> {
    let request = &presented.request;
    let own_url =
        || invalidation::content_location(request, head).as_deref() == Some(request.path());
    if !presented.policy.store_post
        || presented.is_renamed()
        || request.method() != b"POST"
        || head.status != 200
        || !own_url()
    {
        return None;
    }
    let mut as_get = request.clone();
    as_get.fields.set(b":method", b"GET");
    let fetched = Fetched {
        request: &as_get,
        ..presented.fetched(head, presented.arrived, step.now)
    };
    let mut response = storing::judge(&fetched, || presented.url(), &presented.policy).ok()?;
    if !freshness::is_explicit(head, &presented.policy) {
        return None;
    }
    // It was made by the change that has just invalidated everything older.
    response.request_time = step.now.plus_millis(1);
    let status = CacheStatus {
        stored: true,
        ..known.forwarded(head.status)
    };
    step.commands(reply::pass(presented, &head.fields, None, status));
    let capture = capture(response, head, CaptureFor::Store, presented);
    Some(go_on(
        Capturing {
            capture,
            lead: Leadership::none(),
            held: None,
        },
        end,
        presented,
        step,
    ))
}

/// Room for the content of `response`, as its head declares it.
pub(super) fn capture(
    response: StoredResponse,
    head: &ResponseHead,
    purpose: CaptureFor,
    presented: &Presented,
) -> Box<Capture> {
    Capture::new(
        response,
        storing::declared_length(&head.fields),
        presented.policy.max_object_bytes,
        purpose,
    )
}

/// Captures content from now on; all of it is there if no content follows.
pub(super) fn go_on(
    capturing: Capturing,
    end: bool,
    presented: &Presented,
    step: &mut Step,
) -> State {
    if end {
        on_body(capturing, &[], true, presented, step)
    } else {
        State::Capturing(capturing)
    }
}

/// A piece of the content.
pub(super) fn on_body(
    capturing: Capturing,
    chunk: &[u8],
    end: bool,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let Capturing {
        capture,
        lead,
        held,
    } = capturing;
    let outcome = match capture.push(chunk, end) {
        Captured::More(capture) => {
            return State::Capturing(Capturing {
                capture,
                lead,
                held,
            });
        }
        Captured::TooLarge(CaptureFor::ShareError) => Outcome::NotForOthers { counts: true },
        Captured::TooLarge(_) => Outcome::Uncacheable,
        Captured::Truncated => Outcome::Failed(502),
        Captured::Complete(error, CaptureFor::ShareError) => Outcome::OriginError(Arc::new(*error)),
        Captured::Complete(response, CaptureFor::Store) => {
            lead.keep(Arc::new(*response), presented, step);
            return State::OVER;
        }
        Captured::Complete(part, CaptureFor::StorePart(_)) => {
            keep_part(*part, held.as_deref(), presented, step);
            Outcome::Again
        }
    };
    lead.finish(outcome, presented, step);
    State::OVER
}

/// A part has come whole: with what is held of the same representation it may be more.
fn keep_part(
    part: StoredResponse,
    held: Option<&StoredResponse>,
    presented: &Presented,
    step: &mut Step,
) {
    if part.part.is_none() {
        return;
    }
    let stored = match held {
        Some(held) if held.part.is_some() => partial::join(held, part),
        _ => part,
    };
    step.cache(CacheCommand::keep(
        &presented.policy,
        presented.key.clone(),
        Arc::new(stored),
        None,
    ));
}

/// So long after the head.
pub(super) fn on_time_passed(
    capturing: Capturing,
    presented: &Presented,
    step: &mut Step,
) -> State {
    if !capturing.lead.is_leader() {
        return State::Capturing(capturing);
    }
    // The capture goes on: should there be an end, what came is stored all the same.
    capturing.lead.finish(Outcome::Unfinished, presented, step);
    State::Capturing(Capturing {
        lead: Leadership::none(),
        ..capturing
    })
}
