//! A request that went on without the cache is answered; an unsafe one invalidates (RFC 9111 §4.4).

use super::capturing;
use super::effect::{CacheCommand, Command};
use super::event::ResponseSource;
use super::known::Known;
use super::presented::Presented;
use super::reply;
use super::state::{Passing, State};
use super::step::Step;
use crate::cache_status::{CacheStatus, Detail};
use crate::invalidation;
use crate::message::ResponseHead;

pub(super) fn on_response(
    passing: Passing,
    head: &ResponseHead,
    source: ResponseSource,
    end: bool,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let Passing { known, invalidates } = passing;
    if invalidates {
        invalidate(head, source, presented, step);
    }
    if presented.is_untouched {
        return State::OVER;
    }
    if invalidates
        && source == ResponseSource::Origin
        && let Some(captured) = capturing::begin_post(&known, head, end, presented, step)
    {
        return captured;
    }
    step.commands(pass_on(&known, head, source, presented));
    State::OVER
}

/// Forwards a response that is not stored, and says so; a missing origin is a `502`
/// (`docs/design.md`).
pub(super) fn pass_on(
    known: &Known,
    head: &ResponseHead,
    source: ResponseSource,
    presented: &Presented,
) -> [Command; 2] {
    let (status, code) = passed_on(known, head.status, source);
    reply::pass(presented, &head.fields, code, status)
}

/// How a response with this status that is not stored is reported, and the status code that it gets
/// instead.
pub(super) fn passed_on(
    known: &Known,
    status: u16,
    source: ResponseSource,
) -> (CacheStatus, Option<u16>) {
    let mut report = known.forwarded(status);
    let code = match source {
        ResponseSource::NoOrigin | ResponseSource::Lost => {
            report.detail = Some(Detail::NoOrigin);
            Some(502)
        }
        ResponseSource::Timeout => {
            report.detail = Some(Detail::OriginTimeout);
            None
        }
        ResponseSource::Origin | ResponseSource::Proxy => None,
    };
    if source != ResponseSource::Origin {
        report.forward_status = None;
    }
    (report, code)
}

/// RFC 9111 §4.4: what an unsafe method changed is not served from before. An answer that was lost
/// says nothing, so what it may have said counts.
fn invalidate(head: &ResponseHead, source: ResponseSource, presented: &Presented, step: &mut Step) {
    match source {
        ResponseSource::Origin => {
            let keys = presented.keys_of(&invalidation::targets(&presented.request, head));
            if !keys.is_empty() {
                step.cache(CacheCommand::Invalidate(keys));
            }
        }
        ResponseSource::Lost | ResponseSource::Timeout => doubt(presented, step),
        // It has not reached the origin.
        ResponseSource::NoOrigin | ResponseSource::Proxy => {}
    }
}

/// What was asked for may have happened, or may yet.
pub(super) fn doubt(presented: &Presented, step: &mut Step) {
    let keys = presented.keys_of(invalidation::doubtful_target(&presented.request).as_slice());
    if !keys.is_empty() {
        step.cache(CacheCommand::InvalidateDoubtful(keys));
    }
}
