//! A part that a client asked for: passed on, and kept or followed by the whole (RFC 9111 §3.3).

use super::capturing;
use super::effect::Command;
use super::event::ResponseSource;
use super::known::Known;
use super::leadership::Leadership;
use super::passing::pass_on;
use super::presented::Presented;
use super::reply;
use super::state::{Answer, Capturing, State};
use super::step::Step;
use crate::cache_status::CacheStatus;
use crate::partial::ContentRange;
use crate::policy::RangeOnMiss;
use crate::refresh;
use crate::route::RefreshPath;
use crate::stored_response::StoredResponse;
use crate::storing::{self, CaptureFor};

/// A `206` for a client's own range.
pub(super) fn on_part(
    known: Known,
    answer: &Answer<'_>,
    presented: &Presented,
    step: &mut Step,
) -> State {
    let (head, policy) = (answer.head, &presented.policy);
    let claimed = ContentRange::of(&head.fields).filter(|_| presented.is_get());
    let fetched = presented.fetched(head, answer.request_time, step.now);
    let part = claimed.zip(storing::judge_part(&fetched, || presented.url(), policy).ok());
    let holds_whole = known
        .candidate
        .as_ref()
        .is_some_and(|stored| stored.part.is_none());
    if let Some((claimed, part)) = part {
        let fits = claimed
            .complete
            .is_some_and(|complete| complete <= policy.max_object_bytes);
        match policy.range_on_miss {
            RangeOnMiss::Whole if fits => fetch_whole(part, &known, presented, step),
            RangeOnMiss::Part if !holds_whole => {
                let status = CacheStatus {
                    stored: true,
                    ..known.forwarded(head.status)
                };
                step.commands(reply::pass(presented, &head.fields, None, status));
                let capture =
                    capturing::capture(part, head, CaptureFor::StorePart(claimed), presented);
                let (lead, held) = (Leadership::none(), known.candidate);
                return capturing::go_on(
                    Capturing {
                        capture,
                        lead,
                        held,
                    },
                    answer.end,
                    presented,
                    step,
                );
            }
            _ => {}
        }
    }
    step.commands(pass_on(&known, head, ResponseSource::Origin, presented));
    State::OVER
}

/// Lets the background fetch what this client asked a part of.
fn fetch_whole(part: StoredResponse, known: &Known, presented: &Presented, step: &mut Step) {
    let StoredResponse { url, selecting, .. } = part;
    if refresh::leaves_out(&selecting, &presented.request, &presented.policy) {
        return;
    }
    if presented.refreshes == RefreshPath::Straight {
        return; // nothing is known yet of what the route makes of the request and its answer
    }
    let collapse = presented.collapse_key(known.selecting());
    step.command(Command::Refresh(
        presented.refresh_order(url, selecting, collapse),
    ));
}
