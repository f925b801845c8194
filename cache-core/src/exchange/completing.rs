//! The client gets a stored part first, and then the rest of it as the origin sends it (RFC 9111
//! §3.4).

use std::sync::Arc;

use super::details::Details;
use super::effect::Command;
use super::event::Outcome;
use super::known::Known;
use super::leadership::Leadership;
use super::presented::Presented;
use super::reply;
use super::state::{Answer, Completing, State};
use super::step::Step;
use crate::cache_status::{CacheStatus, Detail};
use crate::partial::{self, ContentRange};
use crate::reuse;
use crate::stored_response::StoredResponse;
use crate::storing::{self, Capture, CaptureFor, Captured};

/// The answer to a request for the rest of what is held: the client gets the whole, what is held
/// first. Anything else is the origin's mistake: the client gets a `502`.
pub(super) fn begin(
    held: Arc<StoredResponse>,
    known: &Known,
    lead: Leadership,
    answer: &Answer<'_>,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let head = answer.head;
    let rest = partial::rest_length(&held, head).filter(|_| !answer.end);
    let (Some(left), Some(claimed)) = (rest, ContentRange::of(&head.fields)) else {
        let status = known
            .forwarded(head.status)
            .with_detail(Detail::OriginBroken);
        let reason = "the origin sent a part that was not asked for";
        step.commands(reply::made(
            presented,
            502,
            reason,
            status,
            Details::UnusablePart,
        ));
        step.cache(presented.invalidation());
        lead.finish(Outcome::Again, presented, step);
        return State::OVER;
    };
    let fetched = presented.fetched(head, answer.request_time, step.now);
    let part = storing::judge_part(&fetched, || presented.url(), &presented.policy);
    let status = match &part {
        Ok(part) => CacheStatus {
            stored: true,
            ttl: Some(reuse::ttl(part, step.now)),
            ..known.forwarded(head.status)
        },
        Err(why) => known.not_stored(head.status, *why),
    };
    let mut change = reply::marked(presented, &head.fields, Some(200), &status);
    change.remove.push(b"content-range".to_vec());
    change.set.append(
        b"content-length",
        (held.body.len() as u64 + left).to_string().as_bytes(),
    );
    change.before = Some(held.body.clone());
    step.commands([Command::PassResponse(change), Command::Report(status)]);
    let limit = presented.policy.max_object_bytes;
    let capture = part
        .ok()
        .map(|part| Capture::new(part, Some(left), limit, CaptureFor::StorePart(claimed)));
    State::Completing(Completing {
        held,
        capture,
        left,
        lead,
    })
}

/// More of the rest. The head that went ahead says how much there is: neither more nor less may
/// follow.
pub(super) fn on_body(
    completing: Completing,
    chunk: &[u8],
    end: bool,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let Completing {
        held,
        capture,
        left,
        lead,
    } = completing;
    let left = left
        .checked_sub(chunk.len() as u64)
        .filter(|left| !end || *left == 0);
    let Some(left) = left else {
        step.command(Command::Abort);
        step.cache(presented.invalidation());
        lead.finish(Outcome::Failed(502), presented, step);
        return State::OVER;
    };
    match capture.map(|capture| capture.push(chunk, end)) {
        Some(Captured::Complete(newer, _)) => {
            let whole = partial::join(&held, *newer);
            if whole.part.is_none() {
                lead.keep(Arc::new(whole), presented, step);
            } else {
                lead.finish(Outcome::Again, presented, step);
            }
            State::OVER
        }
        None if end => {
            // It was the client's alone, and says that what is held is no longer for others.
            step.cache(presented.invalidation());
            lead.finish(Outcome::Uncacheable, presented, step);
            State::OVER
        }
        captured => {
            let capture = if let Some(Captured::More(capture)) = captured {
                Some(capture)
            } else {
                None
            };
            State::Completing(Completing {
                held,
                capture,
                left,
                lead,
            })
        }
    }
}
