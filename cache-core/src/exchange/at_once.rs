//! The short way of the most frequent exchanges: a plain GET that a fresh stored response answers
//! whole, or whose answer is known not to be storable.
//!
//! It decides nothing anew: it asks the rules that the long way asks, and gives up at whatever is
//! special. What it says is what the long way would say; `tests/at_once.rs` holds it to that. It
//! exists because a hit's cost inside a proxy is the amount of code it runs through, more than what
//! that code does (`docs/benchmarks.md`).

use std::borrow::Cow;
use std::sync::Arc;

use larder_contract::http_time::Timestamp;
use larder_contract::key::{PrimaryKey, UNKEYED_FIELD};
use larder_contract::path::canonical_path;
use larder_contract::purge::requested::reaches;

use super::at_hand::{AtHand, Held};
use super::details::Details;
use super::effect::Reply;
use super::marked::Marked;
use super::presented::{Setup, key_of};
use super::reduction;
use super::reply::whole;
use crate::cache_status::{self, CacheStatus};
use crate::fields::NameSet;
use crate::message::Request;
use crate::policy::Policy;
use crate::reuse::{self, Reuse};
use crate::stored_response::StoredResponse;
use crate::{variants, vary};

/// Fields that let a request mean more than its target (`arrival`, `preconditions`).
const SPECIAL: NameSet<13> = NameSet::new([
    "authorization",
    "content-type",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "range",
    "upgrade",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x_http_method",
    "x_http_method_override",
    "x_method_override",
]);
/// Fields that count where the policy honours request directives (RFC 9111 §5.2.1, §5.4).
const DIRECTIVES: NameSet<2> = NameSet::new(["cache-control", "pragma"]);

/// Reads what the policy says of a request's fields. To be done before anything else; twice is as
/// once.
pub(super) fn prepare(request: &mut Request, policy: &Policy) {
    reduction::reduce(request, policy);
    vary::unkeyed::add_pseudo_field(&mut request.fields, policy);
}

/// Whether this way may be tried: then the key is that of the request's own target.
fn is_plain(request: &Request, policy: &Policy) -> bool {
    policy.cache
        && !policy.normalise_accept_language
        && !request.has_content
        && !request.is_identified
        && request.method() == b"GET"
        && !request.fields.contains_any(&SPECIAL)
        && !policy.identity_fields.any_in(&request.fields)
        && !policy.unkeyed_fields.change(&request.fields)
        && (policy.request_directives.is_empty() || !request.fields.contains_any(&DIRECTIVES))
        && !(policy.query_override && request.path().contains(&b'?'))
}

/// Where the short way leads.
pub(super) enum AtOnce {
    /// To an answer.
    Answer(Reply, CacheStatus),
    /// To the origin, and past the cache.
    Marked(Marked),
    /// To the long way, with the key that was looked up last if there is one: it is the request's.
    Nowhere(Option<PrimaryKey>),
}

/// Tries the short way.
pub(super) fn answer(
    request: &Request,
    setup: &Setup,
    at_hand: &mut impl AtHand,
    now: Timestamp,
) -> AtOnce {
    let policy = &setup.policy;
    if !is_plain(request, policy) {
        return AtOnce::Nowhere(None);
    }
    let key = key_of(setup, request);
    let held = at_hand.look_up(&key);
    if held.uncacheable_until.is_some_and(|until| now < until) && is_marked(request, policy) {
        let told = cache_status::is_told(request, policy);
        return AtOnce::Marked(Marked { told });
    }
    let is_chosen = held.variants.len() > 1;
    let Some(stored) = fresh(request, policy, held, now) else {
        return AtOnce::Nowhere(Some(key));
    };
    let told = cache_status::is_told(request, policy);
    let status = CacheStatus {
        hit: true,
        ttl: Some(reuse::ttl(stored, now)),
        ..CacheStatus::default()
    };
    let reply = whole(stored, &status, told, Details::Hit, now);
    let Some(stored) = &reply.stored else {
        return AtOnce::Nowhere(Some(key));
    };
    let is_anybodys = stored.explicitly_public || policy.reuse_with_authorization;
    if !is_anybodys && at_hand.may_know_client() && at_hand.knows_client() {
        return AtOnce::Nowhere(Some(key));
    }
    if is_chosen {
        at_hand.count_use(&key, stored);
    }
    AtOnce::Answer(reply, status)
}

/// Whether a mark of its key speaks of this plain request, and neither it nor its answer is changed
/// on its way. Who asks does not matter, for nothing is served from the cache.
fn is_marked(request: &Request, policy: &Policy) -> bool {
    policy.collapse
        && !policy.strip_tag_fields
        && (policy.key.is_none() || policy.origin_sees_all())
        && (request.reduced.is_empty() || policy.origin_sees_all())
        && !request.fields.contains(UNKEYED_FIELD)
        && matches!(canonical_path(request.path()), Cow::Borrowed(_))
        && request.canonical_changes().is_empty()
}

/// The variant that answers, if it does so as it is.
fn fresh<'a>(
    request: &Request,
    policy: &Policy,
    held: Held<'a>,
    now: Timestamp,
) -> Option<&'a Arc<StoredResponse>> {
    let stored = variants::select(held.variants, request)?;
    let is_distrusted = held
        .distrusted
        .is_some_and(|time| reaches(time, stored.request_time));
    let answers = !is_distrusted
        && stored.part.is_none()
        && reuse::decide(stored, None, policy, now) == Reuse::Fresh;
    answers.then_some(stored)
}
