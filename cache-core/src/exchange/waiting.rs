//! A request that waited for another's fetch learns how that ended (RFC 9111 §4, collapsed requests).

use std::sync::Arc;

use super::effect::Effects;
use super::event::Outcome;
use super::{Exchange, MAX_ROUNDS, State};
use crate::cache_status::{CacheStatus, Detail, Forward};
use crate::http_time::Timestamp;
use crate::reuse::{self, Failure};
use crate::stored_response::StoredResponse;

impl Exchange {
    pub(super) fn on_woken(&mut self, outcome: Outcome, now: Timestamp, effects: &mut Effects) {
        if !matches!(self.state, State::Waiting) {
            return;
        }
        match outcome {
            Outcome::Fetched(stored) => self.share(stored, now, effects),
            Outcome::Found(stored) => {
                if !self.is_usable(&stored) || !self.try_hit(stored.clone(), now, effects) {
                    self.again(&stored, now, effects);
                }
            }
            Outcome::StaleOnError(stored) => self.share_stale(&stored, now, effects),
            Outcome::OriginError(error) => {
                let status = self.collapsed(error.status).with_detail(Detail::LeaderFailed);
                effects.extend(self.reply_with(&error, status, "larder_leader_failed", now));
                self.state = State::Over;
            }
            Outcome::Failed(code) => self.fail(code, effects),
            Outcome::Uncacheable => self.forward_uncacheable(now, effects),
            Outcome::Again => self.arrive_again(now, effects),
        }
    }

    /// The answer was made after this request came, so it answers it whatever its freshness; another variant does not.
    fn share(&mut self, stored: Arc<StoredResponse>, now: Timestamp, effects: &mut Effects) {
        if stored.response_time < self.arrived || !stored.selecting.matches(&self.request) {
            self.again(&stored, now, effects);
            return;
        }
        let status = self.collapsed(stored.status);
        effects.extend(self.reply_with(&stored, status, "larder_collapsed", now));
        self.state = State::Over;
    }

    fn share_stale(&mut self, stored: &Arc<StoredResponse>, now: Timestamp, effects: &mut Effects) {
        let (asked, failure) = (self.asked.as_ref(), Failure::Disconnected);
        if self.is_usable(stored) && reuse::may_serve_on_error(stored, asked, &self.policy, failure, now) {
            let status =
                CacheStatus { collapsed: true, stale_on_error: true, ..CacheStatus::forwarded(Forward::Stale) };
            let status = status.with_detail(Detail::StaleIfError);
            effects.extend(self.reply_with(stored, status, "larder_stale_if_error", now));
            self.state = State::Over;
        } else {
            self.fail(502, effects);
        }
    }

    fn fail(&mut self, code: u16, effects: &mut Effects) {
        let status = CacheStatus { collapsed: true, ..CacheStatus::forwarded(self.why) };
        let status = status.with_detail(Detail::LeaderFailed);
        effects.extend(self.reply_made(code, "the origin gave no complete answer", status, "larder_leader_failed"));
        self.state = State::Over;
    }

    fn collapsed(&self, origin_status: u16) -> CacheStatus {
        let status = CacheStatus::forwarded(self.why);
        CacheStatus { collapsed: true, forward_status: Some(origin_status), ..status }
    }

    /// What was fetched is another variant: now that the selecting fields are known, this one gets its own leader.
    fn again(&mut self, stored: &StoredResponse, now: Timestamp, effects: &mut Effects) {
        self.set_collapse_key(Some(&stored.selecting));
        self.arrive_again(now, effects);
    }

    fn arrive_again(&mut self, now: Timestamp, effects: &mut Effects) {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            self.forward(true, now, effects);
        } else {
            self.arrive(true, effects);
        }
    }

    pub(super) fn on_wait_ended(&mut self, now: Timestamp, effects: &mut Effects) {
        if matches!(self.state, State::Waiting) {
            self.detail = Some(Detail::WaitTimeout);
            self.forward(true, now, effects);
        }
    }
}
