//! A `206` on its way: the part a client asked for, kept or followed by the whole; or the rest of a part that is held
//! (RFC 9111 §3.3, §3.4).

use std::sync::Arc;

use larder_contract::http_time::Timestamp;

use super::effect::{Effect, Effects, RefreshOrder};
use super::event::Outcome;
use super::storing::{self, Capture, Captured, Fetched, Purpose};
use super::{Exchange, Fetch, State};
use crate::cache_status::{CacheStatus, Detail};
use crate::message::ResponseHead;
use crate::partial::{self, ContentRange};
use crate::policy::RangeOnMiss;
use crate::refresh;
use crate::reuse;
use crate::route::RefreshPath;
use crate::stored_response::StoredResponse;

/// The rest of a part that is held, on its way to the client behind it.
#[derive(Debug)]
pub(super) struct Rest {
    /// What has come of it; `None` where it may not be stored.
    capture: Option<Box<Capture>>,
    /// Bytes that are still to come.
    left: u64,
}

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

    /// The answer to a request for the rest of what is held: the client gets the whole, what is held first. Anything else
    /// is the origin's mistake, and told at once.
    pub(super) fn begin_rest(
        &mut self,
        fetch: Fetch,
        head: &ResponseHead,
        end: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let rest = self.candidate.clone().and_then(|held| Some((partial::rest_length(&held, head)?, held)));
        let (Some((left, held)), Some(claimed), false) = (rest, ContentRange::of(&head.fields), end) else {
            let status = self.forwarded(head.status).with_detail(Detail::OriginBroken);
            let reason = "the origin sent a part that was not asked for";
            effects.extend(self.reply_made(502, reason, status, "larder_bad_206"));
            self.forget_part(effects);
            self.finish(Outcome::Again, now, effects);
            return;
        };
        let part = storing::judge_part(&self.fetched(fetch, head, now), || self.url(), &self.policy);
        let status = match &part {
            Ok(part) => CacheStatus { stored: true, ttl: Some(reuse::ttl(part, now)), ..self.forwarded(head.status) },
            Err(why) => self.not_stored(head.status, *why),
        };
        let mut change = self.marked(&head.fields, Some(200), &status);
        change.remove.push(b"content-range".to_vec());
        change.set.append(b"content-length", (held.body.len() as u64 + left).to_string().as_bytes());
        change.before = Some(held.body.clone());
        effects.extend([Effect::PassResponse(change), Effect::Report(status)]);
        let limit = self.policy.max_object_bytes;
        let capture = part.ok().map(|part| Capture::new(part, Some(left), limit, Purpose::StorePart(claimed)));
        self.state = State::Completing(Box::new(Rest { capture, left }));
    }

    /// More of the rest. The head that went ahead says how much there is: neither more nor less may follow.
    pub(super) fn on_rest(
        &mut self,
        mut rest: Box<Rest>,
        chunk: &[u8],
        end: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let left = rest.left.checked_sub(chunk.len() as u64).filter(|left| !end || *left == 0);
        let Some(left) = left else {
            effects.push(Effect::Abort);
            self.forget_part(effects);
            self.finish(Outcome::Failed(502), now, effects);
            return;
        };
        rest.left = left;
        match (rest.capture.take().map(|capture| capture.push(chunk, end)), &self.candidate) {
            (Some(Captured::Complete(newer, _)), Some(held)) => {
                let whole = partial::join(held, *newer);
                if whole.part.is_none() {
                    self.keep(Arc::new(whole), now, effects);
                } else {
                    self.finish(Outcome::Again, now, effects);
                }
            }
            (None, _) if end => {
                // It was the client's alone, and says that what is held is no longer for others.
                self.forget_part(effects);
                self.finish(Outcome::Uncacheable, now, effects);
            }
            (captured, _) => {
                if let Some(Captured::More(capture)) = captured {
                    rest.capture = Some(capture);
                }
                self.state = State::Completing(rest);
            }
        }
    }

    fn forget_part(&self, effects: &mut Effects) {
        effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
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
