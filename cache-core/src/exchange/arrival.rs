//! The request arrives: does the cache concern it, and what is looked up?

use super::effect::{Effect, Effects, ForwardedRequest};
use super::event::{Local, SlotAnswer};
use super::{Exchange, Mark, State};
use crate::cache_control::RequestDirectives;
use crate::cache_status::{CacheStatus, Detail, Forward};
use crate::http_time::Timestamp;
use crate::key::{OVERRIDE_FIELD, PrimaryKey};
use crate::message::Request;
use crate::query_override::{self, MalformedOverride};
use crate::{invalidation, vary};

/// Fields that make an origin act as if the request had another method (field of attack "fat GET").
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

impl Exchange {
    pub(super) fn on_request(&mut self, request: Request, now: Timestamp, effects: &mut Effects) {
        if !matches!(self.state, State::New) {
            return;
        }
        self.request = request;
        self.arrived = now;
        if !self.policy.cache || is_tunnel(&self.request) {
            self.mark = Mark::Untouched;
            self.pass_by(Forward::Bypass, None, effects);
            return;
        }
        if let Err(fault) = self.take_override() {
            let status = CacheStatus::default().with_detail(Detail::MalformedOverride);
            effects.extend(self.reply_malformed(&fault, status));
            self.state = State::Over;
            return;
        }
        let path = self.path.as_deref().unwrap_or_else(|| self.request.path());
        self.key = Some(PrimaryKey::new(&self.namespace, self.request.scheme(), self.request.authority(), path));
        if self.request.method() == b"PURGE" && self.policy.allow_purge {
            effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
            effects.extend(self.reply_purged(CacheStatus::default().with_detail(Detail::Purged)));
            self.state = State::Over;
        } else if !self.method_is_get() && !self.is_head() {
            self.pass_by(Forward::Method, None, effects);
        } else if self.request.has_content || METHOD_OVERRIDES.iter().any(|name| self.request.fields.contains(name)) {
            self.pass_by(Forward::Bypass, Some(Detail::UnsupportedRequest), effects);
        } else {
            let honoured = &self.policy.request_directives;
            self.asked = (!honoured.is_empty()).then(|| RequestDirectives::of(&self.request.fields, honoured));
            if self.policy.normalise_accept_language {
                vary::language::add_pseudo_fields(&mut self.request.fields);
            }
            self.state = State::Local;
            effects.push(Effect::LookUpLocal);
        }
    }

    fn take_override(&mut self) -> Result<(), MalformedOverride> {
        if !self.policy.query_override {
            return Ok(());
        }
        if let Some(taken) = query_override::take(self.request.path())? {
            // As a pseudo-field it selects a variant like any other field (see `key`).
            self.request.fields.append(OVERRIDE_FIELD.as_bytes(), taken.directives.canonical().as_bytes());
            self.overriding = Some(taken.directives);
            self.path = Some(taken.path);
        }
        Ok(())
    }

    /// Lets the request go where it would go without a cache.
    fn pass_by(&mut self, why: Forward, detail: Option<Detail>, effects: &mut Effects) {
        self.why = why;
        self.detail = detail;
        self.state = State::Passing { invalidates: invalidation::is_unsafe(self.request.method()) };
        effects.push(Effect::Forward(ForwardedRequest { path: self.path.clone(), ..ForwardedRequest::default() }));
    }

    pub(super) fn on_local(&mut self, local: Local<'_>, now: Timestamp, effects: &mut Effects) {
        if !matches!(self.state, State::Local) {
            return;
        }
        self.invalidated = local.invalidated;
        self.distrusted = local.distrusted;
        if !local.variants.is_empty() {
            self.why = Forward::VaryMiss;
        }
        let selected = vary::select(local.variants, &self.request).cloned();
        if let Some(stored) = selected
            && self.try_hit(stored, now, effects)
        {
            return;
        }
        self.look_further(local, now, effects);
    }

    pub(super) fn forward_uncacheable(&mut self, now: Timestamp, effects: &mut Effects) {
        self.detail = Some(Detail::Uncacheable);
        self.forward(true, now, effects);
    }

    /// For level 1 only where it can say all that the slot would: an override has a slot of its own.
    pub(super) fn mark_uncacheable(&self, until: Timestamp, effects: &mut Effects) {
        if let (None, Some(key)) = (&self.overriding, &self.key) {
            effects.push(Effect::MarkUncacheable { key: key.clone(), until });
        }
    }

    /// What the request and the policy allow behind level 1.
    fn look_further(&mut self, local: Local<'_>, now: Timestamp, effects: &mut Effects) {
        let asked_no_cache = self.asked.as_ref().is_some_and(|asked| asked.no_cache);
        let only_if_cached = self.asked.as_ref().is_some_and(|asked| asked.only_if_cached);
        let wants_whole = !(self.is_head() || only_if_cached || self.has_ranges());
        let shares = self.policy.collapse && !asked_no_cache && wants_whole && !self.is_credentialed();
        let is_marked = self.overriding.is_none() && local.uncacheable_until.is_some_and(|until| now < until);
        if shares && is_marked {
            // As the leader slot would say, without the digests that it takes to get there.
            self.forward_uncacheable(now, effects);
            return;
        }
        self.set_collapse_key(local.variants.last().map(|variant| &variant.selecting));
        if shares {
            self.arrive(true, effects);
        } else if asked_no_cache && !only_if_cached {
            // An answer from before this request would not do, so neither the store nor a leader can help.
            self.forward(true, now, effects);
        } else {
            if wants_whole && !self.is_credentialed() {
                self.detail = Some(Detail::NotCollapsed);
            }
            self.ask_store(false, wants_whole, now, effects);
        }
    }

    pub(super) fn arrive(&mut self, accept_handed_over: bool, effects: &mut Effects) {
        if let Some(key) = self.collapse_key {
            self.state = State::Arriving;
            effects.push(Effect::Arrive { key, accept_handed_over, wait_for_refresh: self.behind_refresh });
        }
    }

    pub(super) fn on_slot(&mut self, answer: SlotAnswer, now: Timestamp, effects: &mut Effects) {
        if !matches!(self.state, State::Arriving) {
            return;
        }
        match answer {
            SlotAnswer::Lead => {
                self.leads = true;
                if self.candidate.as_ref().is_some_and(|stored| stored.terms.no_cache && stored.part.is_none()) {
                    // The store could only bring what is to be validated all the same (RFC 9111 §5.2.2.4).
                    self.forward(true, now, effects);
                } else {
                    self.ask_store(true, true, now, effects);
                }
            }
            SlotAnswer::Wait => self.state = State::Waiting,
            SlotAnswer::HandedOver(outcome) => self.on_handed_over(outcome, now, effects),
            SlotAnswer::Refreshing => {
                self.behind_refresh = true;
                self.ask_store(false, true, now, effects);
            }
            SlotAnswer::Uncacheable(until) => {
                self.mark_uncacheable(until, effects);
                self.forward_uncacheable(now, effects);
            }
            SlotAnswer::Occupied => {
                // Not collapsed in this Envoy; the store's lease still is one for the fleet.
                self.detail = Some(Detail::NotCollapsed);
                self.ask_store(true, true, now, effects);
            }
        }
    }

    /// A request with credentials shares nobody's fetch: whether its answer is for others is known only afterwards.
    pub(super) fn is_credentialed(&self) -> bool {
        self.request.fields.contains("authorization")
    }

    pub(super) fn has_ranges(&self) -> bool {
        self.request.fields.contains("range")
    }
}

/// Requests whose answer is a tunnel or a stream of its own protocol: never touched.
fn is_tunnel(request: &Request) -> bool {
    let grpc = || request.fields.get("content-type").is_some_and(|value| value.starts_with(b"application/grpc"));
    request.method() == b"CONNECT" || request.fields.contains("upgrade") || grpc()
}
