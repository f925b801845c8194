//! A background refresh (RFC 5861 §3): one request without a client, that keeps the good object
//! whatever happens.
//!
//! What this decides: exactly one refresh per key, here by the leader slot and in the fleet by the
//! lease; what is sent, which is what selected the stored response and nothing else of the client
//! that happened to find it; and what the answer changes, judged by what was sent. What it leaves
//! out: how the request is sent.

use std::sync::Arc;

use larder_contract::entry::RouteSeen;
use larder_contract::http_time::Timestamp;
use larder_contract::key::OVERRIDE_FIELD;

use crate::exchange::effect::{CacheCommand, Effects, RefreshOrder, StoreQuestion};
use crate::exchange::event::{Outcome, StoreAnswer};
use crate::fields::{Fields, is_hop_by_hop};
use crate::invalidation;
use crate::message::{Request, ResponseHead};
use crate::policy::key::cookies;
use crate::policy::{Handling, Policy};
use crate::query_override::QueryOverride;
use crate::reuse::{self, Reuse};
use crate::route::{self, RefreshPath};
use crate::stored_response::StoredResponse;
use crate::storing::{self, Capture, CaptureFor, Captured, Fetched};
use crate::validation::{self, Validators};
use crate::vary::{self, SelectingFields, language, unkeyed};

/// One refresh that leads its slot.
#[derive(Debug)]
pub struct Refresh {
    order: RefreshOrder,
    policy: Arc<Policy>,
    /// The request to the origin, with the pseudo-fields that say which variant its answer is.
    sent: Request,
    overriding: Option<QueryOverride>,
    request_time: Timestamp,
}

/// Something that a refresh finds out. The answer comes back as an [`Event`].
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Ask the store: another Envoy may have been faster.
    AskStore(StoreQuestion),
    /// Send these fields to the origin.
    Fetch(Fields),
}

/// What happened to a refresh.
#[derive(Debug)]
pub enum Event<'a> {
    /// Answers [`Question::AskStore`].
    Store(StoreAnswer),
    /// Answers [`Question::Fetch`]: the origin's whole answer.
    Response(&'a ResponseHead, &'a [u8]),
    /// Answers [`Question::Fetch`]: there was none.
    NoResponse,
}

/// What a step of a refresh brings about. Without a question the refresh is over.
pub type Step = Effects<Question, CacheCommand>;

impl Refresh {
    /// A refresh that has won its leader slot.
    pub fn begin(order: RefreshOrder, policy: Arc<Policy>, now: Timestamp) -> (Self, Step) {
        let canonical = order.request.fields.get(OVERRIDE_FIELD);
        let overriding = canonical.and_then(|value| QueryOverride::parse(value).ok());
        let sent = request_to_send(&order, &policy);
        let mut refresh = Self {
            order,
            policy,
            sent,
            overriding,
            request_time: now,
        };
        let question = if refresh.order.fence.is_some() || !refresh.policy.shared_store {
            refresh.fetch(now)
        } else {
            let presented = vary::presented_selectors(&refresh.order.request);
            let key = refresh.order.key.digest();
            Question::AskStore(StoreQuestion {
                key,
                presented,
                lease: true,
                wait: false,
            })
        };
        (
            refresh,
            Step {
                question: Some(question),
                ..Step::default()
            },
        )
    }

    /// Takes an event in and says what to do.
    pub fn handle(&mut self, event: Event<'_>, now: Timestamp) -> Step {
        let mut step = Step::default();
        match event {
            Event::Store(answer) => self.on_store(answer, now, &mut step),
            Event::Response(head, body) => self.on_response(head, body, now, &mut step),
            // The good object stays.
            Event::NoResponse => self.finish(Outcome::NotRefreshed, now, &mut step),
        }
        step
    }

    fn on_store(&mut self, answer: StoreAnswer, now: Timestamp, step: &mut Step) {
        match answer {
            StoreAnswer::Lease(fence, _) => self.order.fence = Some(fence),
            StoreAnswer::Entry(stored) if self.is_news(&stored, now) => {
                let (key, fence) = (self.order.key.clone(), None);
                step.commands.push(CacheCommand::Keep {
                    key,
                    stored: stored.clone(),
                    fence,
                    local_only: true,
                });
                self.finish(Outcome::Found(stored), now, step);
                return;
            }
            // Another Envoy refreshes; what it stores is found once this copy may not be served any
            // more.
            StoreAnswer::Held(_) => {
                self.finish(Outcome::Again, now, step);
                return;
            }
            StoreAnswer::Entry(_) | StoreAnswer::Nothing { .. } | StoreAnswer::Fault(_) => {}
        }
        step.question = Some(self.fetch(now));
    }

    fn is_news(&self, stored: &StoredResponse, now: Timestamp) -> bool {
        let newer = |held: &Arc<StoredResponse>| stored.response_time > held.response_time;
        self.order.stored.as_ref().is_none_or(newer)
            && stored.part.is_none()
            && stored.selecting.matches(&self.order.request)
            && reuse::decide(stored, None, &self.policy, now) == Reuse::Fresh
    }

    /// The request's fields for the origin, with the stored validators.
    fn fetch(&mut self, now: Timestamp) -> Question {
        self.request_time = now;
        let mut fields = self.sent.fields.clone();
        fields.retain(|name, _| {
            !name.starts_with(b":")
                || HTTP_PSEUDO_FIELDS
                    .iter()
                    .any(|known| known.as_bytes() == name)
        });
        if let Some(stored) = &self.order.stored {
            validation::add_conditionals(&Validators::of(&stored.fields), &mut fields);
        }
        Question::Fetch(fields)
    }

    fn on_response(&mut self, head: &ResponseHead, body: &[u8], now: Timestamp, step: &mut Step) {
        match self.as_routed(self.fresh_response(head, body, now), now) {
            Refreshed::Keep(stored) => {
                let stored = Arc::new(*stored);
                let fence = self.order.fence.take();
                let key = self.order.key.clone();
                step.commands
                    .push(CacheCommand::keep(&self.policy, key, stored.clone(), fence));
                self.finish(Outcome::Fetched(stored), now, step);
            }
            Refreshed::Replaced => {
                step.commands
                    .push(CacheCommand::Invalidate(vec![self.order.key.digest()]));
                self.finish(Outcome::Uncacheable, now, step);
            }
            Refreshed::Failed => self.finish(Outcome::NotRefreshed, now, step),
        }
    }

    /// What is stored so far; `None` where this fetches the whole behind a part.
    pub fn stored(&self) -> Option<&StoredResponse> {
        self.order.stored.as_deref()
    }

    fn fresh_response(&self, head: &ResponseHead, body: &[u8], now: Timestamp) -> Refreshed {
        if let (304, Some(stored)) = (head.status, &self.order.stored) {
            let kept = &self.policy.keep_on_304;
            return match validation::freshen(stored, head, self.request_time, now, kept) {
                Ok(fresh) => match storing::renewed(
                    &fresh,
                    &self.sent,
                    self.overriding.as_ref(),
                    &self.policy,
                ) {
                    Ok(fresh) => Refreshed::Keep(Box::new(fresh)),
                    Err(why) if why.is_said_by_the_response() => Refreshed::Replaced,
                    Err(_) => Refreshed::Failed,
                },
                // It must not update anything (RFC 9111 §4.3.4); what it confirmed so is fetched
                // anew.
                Err(_) => Refreshed::Replaced,
            };
        }
        if head.status >= 500 || self.policy.is_error(head.status) {
            return Refreshed::Failed;
        }
        let fetched = Fetched {
            request: &self.sent,
            overriding: self.overriding.as_ref(),
            response: head,
            request_time: self.request_time,
            response_time: now,
        };
        let response = match storing::judge(&fetched, || self.order.url.clone(), &self.policy) {
            Ok(response) => response,
            Err(why)
                if invalidation::ends_what_is_stored(head.status)
                    && why.is_said_by_the_response() =>
            {
                return Refreshed::Replaced;
            }
            Err(_) => return Refreshed::Failed,
        };
        let declared = storing::declared_length(&head.fields);
        match Capture::new(
            response,
            declared,
            self.policy.max_object_bytes,
            CaptureFor::Store,
        )
        .push(body, true)
        {
            Captured::Complete(response, _) => Refreshed::Keep(response),
            Captured::TooLarge(_) => Refreshed::Replaced,
            Captured::Truncated | Captured::More(_) => Refreshed::Failed,
        }
    }

    /// What went past the route may renew what is stored, but not end or reshape it: that may be
    /// the route's doing, and is left to the next request, which takes the route.
    fn as_routed(&self, refreshed: Refreshed, now: Timestamp) -> Refreshed {
        let Some(held) = self
            .order
            .stored
            .as_ref()
            .filter(|_| self.order.way == RefreshPath::Straight)
        else {
            return refreshed;
        };
        match refreshed {
            Refreshed::Keep(stored) if route::is_as_routed(held, &stored) => {
                Refreshed::Keep(Box::new(StoredResponse {
                    route: held.route.clone(),
                    ..*stored
                }))
            }
            Refreshed::Keep(_) | Refreshed::Replaced => {
                held.route.note(RouteSeen {
                    at_ms: now,
                    changes: true,
                });
                Refreshed::Failed
            }
            Refreshed::Failed => Refreshed::Failed,
        }
    }

    fn finish(&mut self, outcome: Outcome, now: Timestamp, step: &mut Step) {
        if let Some(fence) = self.order.fence.take() {
            let key = self.order.key.digest();
            step.commands.push(CacheCommand::ReleaseLease {
                key,
                fence,
                uncacheable_ms: 0,
            });
        }
        let uncacheable_until = now.plus(self.policy.uncacheable_for);
        step.commands.push(CacheCommand::Publish {
            key: self.order.collapse,
            outcome,
            uncacheable_until,
        });
    }
}

enum Refreshed {
    Keep(Box<StoredResponse>),
    /// The origin says that what is stored has no successor that may be stored.
    Replaced,
    Failed,
}

/// The pseudo-fields that a request to the origin has (RFC 9113 §8.3.1).
const HTTP_PSEUDO_FIELDS: [&str; 4] = [":method", ":scheme", ":authority", ":path"];

/// Whether a refresh of what these fields selected would have to leave out one that the request
/// has. Its answer would be another variant: for nobody, where `Vary: cookie` gave this client its
/// own.
pub fn leaves_out(selecting: &SelectingFields, request: &Request, policy: &Policy) -> bool {
    let is_there = |name: &[u8]| request.fields.all_bytes(name).next().is_some();
    let keyed = policy.key_cookies();
    let is_keyed = |(name, _): (&[u8], _)| cookies::is_among(keyed, name);
    if !keyed.is_empty() && cookies::pairs(&request.fields).any(is_keyed) {
        return true;
    }
    selecting
        .names()
        .any(|name| is_the_clients_own(name, policy) && is_there(name))
}

/// Credentials, conditions and ranges belong to the client that happened to find the stale
/// response.
fn is_the_clients_own(name: &[u8], policy: &Policy) -> bool {
    const OWN: [&str; 6] = [
        "authorization",
        "cookie",
        "range",
        "content-length",
        "x-request-id",
        "expect",
    ];
    OWN.iter()
        .chain(&validation::PRECONDITIONS)
        .any(|own| own.as_bytes() == name)
        || is_hop_by_hop(name)
        || policy.identity_fields.contains(name)
}

/// The request that brings a successor of what is stored: for the same resource, with the fields
/// that select it.
fn request_to_send(order: &RefreshOrder, policy: &Policy) -> Request {
    let asked = &order.request;
    let mut fields = Fields::default();
    // HEAD may be answered stale as well, but only a GET brings the content.
    fields.append(b":method", b"GET");
    fields.append(b":scheme", asked.scheme());
    fields.append(b":authority", asked.authority());
    fields.append(b":path", &order.path);
    fields.append(b"x-forwarded-proto", asked.scheme());
    for (name, value) in asked
        .fields
        .iter()
        .filter(|(name, _)| *name != b"x-forwarded-proto")
    {
        let selects = is_among(&order.selecting, name) && !name.starts_with(b":");
        let selects = selects || policy.unkeyed_fields.handling(name) == Handling::Select;
        if selects && !is_the_clients_own(name, policy) {
            fields.append(name, value);
        }
    }
    if let Some(canonical) = asked.fields.get(OVERRIDE_FIELD) {
        fields.append(OVERRIDE_FIELD.as_bytes(), canonical);
    }
    // What else selects is worked out from what is sent.
    if policy.normalise_accept_language {
        language::add_pseudo_fields(&mut fields);
    }
    unkeyed::add_pseudo_field(&mut fields, policy);
    Request {
        fields,
        ..Request::default()
    }
}

/// Whether the field `name` selected. A language's pseudo-fields stand for the field that they are
/// read from.
fn is_among(selecting: &SelectingFields, name: &[u8]) -> bool {
    let is_language = |known: &[u8]| {
        [language::LANGUAGES_FIELD, language::LANGUAGE_FIELD]
            .map(str::as_bytes)
            .contains(&known)
    };
    selecting
        .names()
        .any(|known| known == name || (name == b"accept-language" && is_language(known)))
}
