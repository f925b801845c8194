//! What a rule leaves out of a request's key: neither the judgement nor the origin sees it, for an
//! origin that did could put it into what everybody gets.
//!
//! What this decides: which requests are read so. Only those that a stored response may answer; a
//! POST goes on as it came. What it leaves out: what a rule leaves out (`policy::key`).

use super::effect::ForwardedRequest;
use crate::fields::Fields;
use crate::message::Request;
use crate::policy::Policy;
use crate::policy::key::{Named, cookies};

/// What the key names, and how the origin is asked for that.
#[derive(Debug)]
pub(super) struct Reduction {
    /// The URL of the key.
    pub(super) named: Named<'static>,
    /// Path and query for the origin, where they are not those that it would get without a rule.
    pub(super) path: Option<Vec<u8>>,
    /// Scheme and authority, where they are others.
    pub(super) set: Fields,
}

/// Takes out of a request's fields what the rule leaves out of them; done twice it changes nothing
/// more.
pub(super) fn reduce(request: &mut Request, policy: &Policy) {
    let buckets = policy.key.as_ref().map_or(&[][..], |rules| &rules.buckets);
    if (buckets.is_empty() && policy.ignore_cookies.is_empty())
        || !policy.cache
        || !concerns(request)
    {
        return;
    }
    if let Some(left) = cookies::without(&request.fields, &policy.ignore_cookies) {
        put(request, cookies::FIELD, &left);
    }
    for bucket in buckets {
        if request.reduced.contains(&bucket.field()) {
            continue;
        }
        let value = bucket.choose(&request.fields).unwrap_or_default().to_vec();
        let mut lines = request.fields.all(bucket.field());
        let is_as_sent = lines.next().unwrap_or_default() == value && lines.next().is_none();
        drop(lines);
        if !is_as_sent {
            put(request, bucket.field(), &value);
        }
    }
}

fn put(request: &mut Request, field: &'static str, value: &[u8]) {
    if value.is_empty() {
        request.fields.remove(field.as_bytes());
    } else {
        request.fields.set(field.as_bytes(), value);
    }
    if !request.reduced.contains(&field) {
        request.reduced.push(field);
    }
}

/// Whether a stored response may answer the request, as far as its method tells.
pub(super) fn concerns(request: &Request) -> bool {
    matches!(request.method(), b"GET" | b"HEAD") && !is_tunnel(request)
}

/// Requests whose answer is a tunnel or a stream of its own protocol: never touched.
pub(super) fn is_tunnel(request: &Request) -> bool {
    let grpc = || {
        request
            .fields
            .get("content-type")
            .is_some_and(|value| value.starts_with(b"application/grpc"))
    };
    request.method() == b"CONNECT" || request.fields.contains("upgrade") || grpc()
}

/// Adds to `change` what makes the origin see of the request what its key and its judgement do.
pub(super) fn apply(
    reduction: Option<&Reduction>,
    request: &Request,
    policy: &Policy,
    change: &mut ForwardedRequest,
) {
    if policy.origin_sees_all() {
        return;
    }
    if let Some(Reduction { path, set, .. }) = reduction {
        if path.is_some() {
            change.path.clone_from(path);
        }
        for (name, value) in set.iter() {
            change.set.set(name, value);
        }
    }
    for name in &request.reduced {
        match request.fields.get(name) {
            Some(value) => change.set.set(name.as_bytes(), value),
            None => change.remove.push(name.as_bytes().to_vec()),
        }
    }
}
