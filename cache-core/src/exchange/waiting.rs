//! A request that waited for another's fetch learns how that ended (RFC 9111 §4, collapsed requests).

use std::sync::Arc;

use larder_contract::http_time::Timestamp;

use super::effect::{Effect, Effects};
use super::event::Outcome;
use super::{Exchange, MAX_ROUNDS, State};
use crate::cache_status::{CacheStatus, Detail, Forward};
use crate::reuse::{self, Failure};
use crate::stored_response::StoredResponse;

/// So many fetches that failed are waited for; then the failure is everybody's.
const MAX_FAILED_ROUNDS: u8 = 2;
/// So many fetches whose answer was for the leader alone are waited for; then a request goes alone.
const MAX_REFUSED_ROUNDS: u8 = 3;

impl Exchange {
    /// `untrue_since`: when what the fetch brought was made untrue, if it was.
    pub(super) fn on_woken(
        &mut self,
        outcome: Outcome,
        untrue_since: Option<Timestamp>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if !matches!(self.state, State::Waiting) {
            return;
        }
        if untrue_since.is_some_and(|time| time <= self.arrived) {
            // Who came after the change must not get what was fetched before it.
            self.arrive_again(now, effects);
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
            Outcome::OriginError(_) | Outcome::Failed(_) => self.share_failure(&outcome, now, effects),
            Outcome::NotForOthers { .. } => {
                self.refused_rounds += 1;
                if self.refused_rounds >= MAX_REFUSED_ROUNDS {
                    self.forward(true, now, effects);
                } else {
                    self.arrive_again(now, effects);
                }
            }
            Outcome::Uncacheable | Outcome::Unfinished => self.forward_uncacheable(now, effects),
            Outcome::NotRefreshed => self.arrive_again(now, effects),
            // Does not count: clients that leave one by one must not send all the others to the origin at once. It ends all
            // the same, for each of these rounds uses up one leader.
            Outcome::Again => self.arrive(true, effects),
        }
    }

    /// A failure may have been the leader's own. So the next one tries, and only what fails twice is everybody's.
    fn share_failure(&mut self, outcome: &Outcome, now: Timestamp, effects: &mut Effects) {
        self.failed_rounds += 1;
        if self.failed_rounds < MAX_FAILED_ROUNDS {
            self.arrive_again(now, effects);
            return;
        }
        match outcome {
            Outcome::OriginError(error) if error.selecting.matches(&self.request) => {
                let status = self.collapsed(error.status).with_detail(Detail::LeaderFailed);
                effects.extend(self.reply_with(error, status, "larder_leader_failed", now));
                self.state = State::Over;
            }
            Outcome::Failed(code) => self.fail(*code, effects),
            _ => self.arrive_again(now, effects),
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
            self.share_failure(&Outcome::Failed(502), now, effects);
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

    /// The first one whose wait ends takes the leader's place; the others find that one there and wait on.
    pub(super) fn on_wait_ended(&mut self, effects: &mut Effects) {
        if let (State::Waiting, Some(key)) = (&self.state, self.collapse_key) {
            self.detail = Some(Detail::WaitTimeout);
            self.state = State::Arriving;
            let (wait_for_refresh, given_up) = (self.behind_refresh, self.awaited);
            effects.push(Effect::Arrive { key, accept_handed_over: true, wait_for_refresh, given_up });
        }
    }
}
