//! The request arrives: does the cache concern it, and what is looked up?

use std::sync::Arc;

use larder_contract::http_time::Timestamp;
use larder_contract::key::{OVERRIDE_FIELD, PrimaryKey, UNKEYED_FIELD};

use super::effect::{Effect, Effects, ForwardedRequest};
use super::event::{Local, SlotAnswer};
use super::{Exchange, Mark, State};
use crate::cache_control::RequestDirectives;
use crate::cache_status::{self, CacheStatus, DEBUG_FIELD, Detail, Forward};
use crate::message::Request;
use crate::policy::Handling;
use crate::query_override::{self, MalformedOverride};
use crate::stored_response::StoredResponse;
use crate::{invalidation, vary};

/// Fields that make an origin act as if the request had another method (field of attack "fat GET").
const METHOD_OVERRIDES: [&str; 6] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    // CGI and its heirs hand these to an application under the same names.
    "x_http_method",
    "x_http_method_override",
    "x_method_override",
];

impl Exchange {
    pub(super) fn on_request(&mut self, request: Request, now: Timestamp, effects: &mut Effects) {
        if !matches!(self.state, State::New) {
            return;
        }
        self.request = request;
        self.told = cache_status::is_told(&self.request, &self.policy);
        self.request.fields.remove(DEBUG_FIELD.as_bytes());
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
        self.adjust_request();
        self.key = Some(key_of(&self.namespace, &self.request, self.path.as_deref()));
        if self.request.method() == b"PURGE" && self.policy.allow_purge {
            effects.extend(self.key.clone().map(|key| Effect::Invalidate(vec![key])));
            effects.extend(self.reply_purged(CacheStatus::default().with_detail(Detail::Purged)));
            self.state = State::Over;
        } else if !self.method_is_get() && !self.is_head() {
            self.pass_by(Forward::Method, None, effects);
        } else if self.request.has_content || METHOD_OVERRIDES.iter().any(|name| self.request.fields.contains(name)) {
            self.pass_by(Forward::Bypass, Some(Detail::UnsupportedRequest), effects);
        } else if self.policy.unkeyed_fields.lines(&self.request.fields, Handling::Bypass).next().is_some() {
            self.pass_by(Forward::Bypass, Some(Detail::UnkeyedField), effects);
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

    /// Makes of the request what the origin will get: the host and scheme that the key names, and no field that is
    /// stripped. So it is judged as it is sent.
    fn adjust_request(&mut self) {
        self.adjusted.set = self.request.canonical_changes();
        for (name, value) in self.adjusted.set.iter() {
            self.request.fields.set(name, value);
        }
        let stripped = self.policy.unkeyed_fields.lines(&self.request.fields, Handling::Strip);
        self.adjusted.remove = stripped.map(|(name, _)| name.to_vec()).collect();
        for name in &self.adjusted.remove {
            self.request.fields.remove(name);
        }
        vary::unkeyed::add_pseudo_field(&mut self.request.fields, &self.policy.unkeyed_fields);
    }

    /// What the origin gets instead of what the client sent, before anything else is changed.
    pub(super) fn change(&self) -> ForwardedRequest {
        ForwardedRequest { path: self.path.clone(), ..self.adjusted.clone() }
    }

    /// Whether the client chose this variant by itself, by an override or by fields that no `Vary` names. What is found
    /// out for it says nothing of the others.
    pub(super) fn is_a_choice_of_the_client(&self) -> bool {
        self.overriding.is_some() || self.request.fields.contains(UNKEYED_FIELD)
    }

    /// Lets the request go where it would go without a cache.
    fn pass_by(&mut self, why: Forward, detail: Option<Detail>, effects: &mut Effects) {
        self.why = why;
        self.detail = detail;
        self.state = State::Passing { invalidates: invalidation::is_unsafe(self.request.method()) };
        effects.push(Effect::Forward(self.change()));
    }

    pub(super) fn on_local(&mut self, local: Local<'_>, now: Timestamp, effects: &mut Effects) {
        if !matches!(self.state, State::Local) {
            return;
        }
        self.invalidated = local.invalidated;
        self.softened = local.softened;
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

    /// For level 1 only where it can say all that the slot would: what the client chose has a slot of its own, as has a
    /// cookie.
    pub(super) fn mark_uncacheable(&self, until: Timestamp, effects: &mut Effects) {
        let says_all = !self.is_a_choice_of_the_client() && !self.has_own_slot;
        if let (true, Some(key)) = (says_all, &self.key) {
            effects.push(Effect::MarkUncacheable { key: key.clone(), until });
        }
    }

    /// What the request and the policy allow behind level 1.
    fn look_further(&mut self, local: Local<'_>, now: Timestamp, effects: &mut Effects) {
        let asked_no_cache = self.asked.as_ref().is_some_and(|asked| asked.no_cache);
        let only_if_cached = self.asked.as_ref().is_some_and(|asked| asked.only_if_cached);
        let wants_whole = !(self.is_head() || only_if_cached || self.has_ranges());
        // What must not be stored for its own reasons brings nothing to those who would wait for it.
        let asked_no_store = self.asked.as_ref().is_some_and(|asked| asked.no_store);
        let alone = asked_no_cache || asked_no_store || self.is_credentialed();
        let shares = self.policy.collapse && wants_whole && !alone;
        let is_marked = !self.is_a_choice_of_the_client() && local.uncacheable_until.is_some_and(|until| now < until);
        if shares && is_marked {
            // As the leader slot would say, without the digests that it takes to get there.
            self.forward_uncacheable(now, effects);
            return;
        }
        self.has_own_slot = shares && self.may_be_refused_for_its_cookie(local.variants);
        self.set_collapse_key(local.variants.last().map(|variant| &variant.selecting));
        if shares {
            self.arrive(true, effects);
        } else if asked_no_cache && !only_if_cached {
            // An answer from before this request would not do, so neither the store nor a leader can help.
            self.forward(true, now, effects);
        } else {
            if wants_whole && !alone {
                self.detail = Some(Detail::NotCollapsed);
            }
            self.ask_store(false, wants_whole, now, effects);
        }
    }

    pub(super) fn arrive(&mut self, accept_handed_over: bool, effects: &mut Effects) {
        if let Some(key) = self.collapse_key {
            self.state = State::Arriving;
            let (wait_for_refresh, given_up) = (self.behind_refresh, None);
            effects.push(Effect::Arrive { key, accept_handed_over, wait_for_refresh, given_up });
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
                    self.ask_store(!self.has_own_slot, true, now, effects);
                }
            }
            SlotAnswer::Succeed => {
                // The one before has asked the store, and may still hold its lease.
                self.leads = true;
                self.forward(true, now, effects);
            }
            SlotAnswer::Wait(leader) => {
                self.awaited = Some(leader);
                self.state = State::Waiting;
            }
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
                self.ask_store(!self.has_own_slot, true, now, effects);
            }
        }
    }

    /// Whether the answer may turn out not to be for others because of this request's cookie, and of nothing else. What is
    /// stored under the key tells that it will not.
    fn may_be_refused_for_its_cookie(&self, known: &[Arc<StoredResponse>]) -> bool {
        !self.policy.store_with_cookie
            && self.request.fields.contains("cookie")
            && !known.iter().any(|stored| stored.explicitly_public)
    }

    /// A request with credentials shares nobody's fetch: whether its answer is for others is known only afterwards.
    pub(super) fn is_credentialed(&self) -> bool {
        self.request.is_credentialed(&self.policy)
    }

    pub(super) fn has_ranges(&self) -> bool {
        self.request.fields.contains("range")
    }
}

/// The key of what a request asks for; `path` is its path and query for the origin, where that differs. The only place
/// that makes a key of a request: what the short way looks up is what the long way keeps.
pub fn key_of(namespace: &[u8], request: &Request, path: Option<&[u8]>) -> PrimaryKey {
    PrimaryKey::new(namespace, request.scheme(), request.authority(), path.unwrap_or_else(|| request.path()))
}

/// Requests whose answer is a tunnel or a stream of its own protocol: never touched.
fn is_tunnel(request: &Request) -> bool {
    let grpc = || request.fields.get("content-type").is_some_and(|value| value.starts_with(b"application/grpc"));
    request.method() == b"CONNECT" || request.fields.contains("upgrade") || grpc()
}
