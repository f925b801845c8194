//! A `206` on its way: the part a client asked for, kept or followed by the whole; or the rest of a part that is held
//! (RFC 9111 §3.3, §3.4).

use std::sync::Arc;

use super::effect::{Effect, Effects, RefreshOrder};
use super::event::Outcome;
use super::storing::{self, Capture, Captured, Fetched, Purpose};
use super::{Exchange, Fetch, State};
use crate::cache_status::{CacheStatus, Detail};
use crate::http_time::Timestamp;
use crate::message::ResponseHead;
use crate::partial::{self, ContentRange};
use crate::policy::RangeOnMiss;
use crate::refresh;
use crate::route::RefreshPath;
use crate::stored_response::StoredResponse;

impl Exchange {
    /// What the policy makes of a part that a client asked for. Says whether the response has been passed on.
    pub(super) fn store_part(
        &mut self,
        fetch: Fetch,
        head: &ResponseHead,
        end: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) -> bool {
        let claimed = ContentRange::of(&head.fields).filter(|_| self.method_is_get());
        let (Some(claimed), Ok(part)) =
            (claimed, storing::judge_part(&self.fetched(fetch, head, now), || self.url(), &self.policy))
        else {
            return false;
        };
        let fits = claimed.complete.is_some_and(|complete| complete <= self.policy.max_object_bytes);
        let holds_whole = self.candidate.as_ref().is_some_and(|stored| stored.part.is_none());
        match self.policy.range_on_miss {
            RangeOnMiss::Whole if fits => {
                self.fetch_whole(part, effects);
                false
            }
            RangeOnMiss::Part if !holds_whole => {
                let status = CacheStatus { stored: true, ..self.forwarded(head.status) };
                effects.extend(self.pass(&head.fields, None, status));
                let declared = storing::declared_length(&head.fields);
                let limit = self.policy.max_object_bytes;
                self.state = State::Capturing(Capture::new(part, declared, limit, Purpose::StorePart(claimed)));
                if end {
                    self.on_body(&[], true, now, effects);
                }
                true
            }
            _ => false,
        }
    }

    /// Lets the background fetch what this client asked a part of.
    fn fetch_whole(&self, part: StoredResponse, effects: &mut Effects) {
        let StoredResponse { url, selecting, .. } = part;
        if refresh::leaves_out(&selecting, &self.request, &self.policy) {
            return;
        }
        let (Some(key), Some(collapse)) = (self.key.clone(), self.collapse_key) else { return };
        if self.refreshes == RefreshPath::Straight {
            return; // nothing is known yet of what the route makes of the request and its answer
        }
        let path = self.path.clone().unwrap_or_else(|| self.request.path().to_vec());
        let order = RefreshOrder {
            key,
            collapse,
            url,
            stored: None,
            selecting,
            request: self.request.clone(),
            path,
            fence: None,
            way: self.refreshes,
        };
        effects.push(Effect::Refresh(Box::new(order)));
    }

    /// A part has come whole: with what is held of the same representation it may be more.
    pub(super) fn keep_part(&mut self, part: StoredResponse, effects: &mut Effects) {
        let (Some(key), true) = (self.key.clone(), part.part.is_some()) else { return };
        let stored = match &self.candidate {
            Some(held) if held.part.is_some() => partial::join(held, part),
            _ => part,
        };
        effects.push(Effect::keep(&self.policy, key, Arc::new(stored), None));
    }

    /// The answer to a request for the rest of what is held.
    pub(super) fn begin_rest(
        &mut self,
        fetch: Fetch,
        head: &ResponseHead,
        end: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let is_rest = self.candidate.as_ref().is_some_and(|held| partial::is_rest(held, head));
        let part = storing::judge_part(&self.fetched(fetch, head, now), || self.url(), &self.policy).ok();
        let capture = ContentRange::of(&head.fields).zip(part).filter(|_| is_rest).map(|(claimed, part)| {
            let declared = storing::declared_length(&head.fields);
            Capture::new(part, declared, self.policy.max_object_bytes, Purpose::StorePart(claimed))
        });
        self.state = State::Completing(capture);
        if end {
            self.on_body(&[], true, now, effects);
        } else {
            effects.push(Effect::HoldResponse);
        }
    }

    /// More of the rest. At its end the client gets the whole, or learns that the origin broke its word.
    pub(super) fn on_rest(
        &mut self,
        capture: Option<Box<Capture>>,
        chunk: &[u8],
        end: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let captured = capture.map(|capture| capture.push(chunk, end));
        let whole = match (captured, &self.candidate) {
            (Some(Captured::More(capture)), _) => {
                self.state = State::Completing(Some(capture));
                return;
            }
            (Some(Captured::Complete(rest, _)), Some(held)) => {
                Some(partial::join(held, *rest)).filter(|joined| joined.part.is_none() && joined.status == 200)
            }
            _ if !end => {
                self.state = State::Completing(None);
                return;
            }
            _ => None,
        };
        let status = self.forwarded(206);
        if let Some(whole) = whole {
            let whole = Arc::new(whole);
            let status = CacheStatus { stored: true, ..status };
            effects.extend(self.reply_with(&whole, status, "larder_completed", now));
            self.keep(whole, now, effects);
        } else {
            let status = status.with_detail(Detail::OriginBroken);
            let reason = "the origin sent a part that was not asked for";
            effects.extend(self.reply_made(502, reason, status, "larder_bad_206"));
            effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
            self.finish(Outcome::Again, now, effects);
        }
    }

    pub(super) fn fetched<'a>(&'a self, fetch: Fetch, head: &'a ResponseHead, now: Timestamp) -> Fetched<'a> {
        Fetched {
            request: &self.request,
            overriding: self.overriding.as_ref(),
            response: head,
            request_time: fetch.request_time,
            response_time: now,
        }
    }
}
