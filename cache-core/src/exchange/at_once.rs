//! The short way of the most frequent exchange: a plain GET that a fresh stored response answers whole.
//!
//! It decides nothing anew: it asks the rules that the long way asks, and gives up at whatever is special. What it says is
//! what the long way would say; `tests/at_once.rs` holds it to that. It exists because a hit's cost inside a proxy is the
//! amount of code it runs through, more than what that code does (`docs/benchmarks.md`).

pub use super::presented::key_of;
use larder_contract::http_time::Timestamp;
use larder_contract::purge::requested::reaches;

use super::details::Details;
use super::effect::Reply;
use super::event::Local;
use super::reply::whole;
use crate::cache_status::{self, CacheStatus};
use crate::fields::NameSet;
use crate::message::Request;
use crate::policy::Policy;
use crate::reuse::{self, Reuse};
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

/// Reads what the policy says of a request's fields. To be done before anything else.
pub fn prepare(request: &mut Request, policy: &Policy) {
    vary::unkeyed::add_pseudo_field(&mut request.fields, &policy.unkeyed_fields);
}

/// Whether this way may be tried: then level 1 is to be looked up under the request's own target.
pub fn is_plain(request: &Request, policy: &Policy) -> bool {
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

/// The answer to a plain request, if something fresh gives it, and what to report. `None` leads to the long way.
pub fn answer(request: &Request, policy: &Policy, local: Local<'_>, now: Timestamp) -> Option<(Reply, CacheStatus)> {
    let stored = variants::select(local.variants, request)?;
    if local.distrusted.is_some_and(|time| reaches(time, stored.request_time)) {
        return None;
    }
    if stored.part.is_some() || reuse::decide(stored, None, policy, now) != Reuse::Fresh {
        return None;
    }
    let status = CacheStatus { hit: true, ttl: Some(reuse::ttl(stored, now)), ..CacheStatus::default() };
    let told = cache_status::is_told(request, policy);
    Some((whole(stored, &status, told, Details::Hit, now), status))
}
