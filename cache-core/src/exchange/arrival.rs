//! The request arrives: does the cache concern it?

use super::forward::pass_by;
use super::presented::Presented;
use super::reply;
use super::state::State;
use super::step::Step;
use crate::cache_status::{CacheStatus, Detail, Forward};
use crate::policy::Handling;
use crate::query_override::MalformedOverride;

/// Fields that make an origin act as if the request had another method ("fat GET",
/// `docs/security.md`).
const METHOD_OVERRIDES: [&str; 6] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    // CGI and its heirs hand these to an application under the same names.
    "x_http_method",
    "x_http_method_override",
    "x_method_override",
];

pub(super) fn on_request(
    presented: &mut Presented,
    malformed: Option<&MalformedOverride>,
    step: &mut Step,
) -> State {
    if presented.is_untouched {
        return pass_by(Forward::Bypass, None, presented, step);
    }
    if let Some(fault) = malformed {
        let status = CacheStatus::default().with_detail(Detail::MalformedOverride);
        step.commands(reply::malformed(presented, fault, status));
        return State::OVER;
    }
    let fields = &presented.request.fields;
    if presented.request.method() == b"PURGE" && presented.policy.allow_purge {
        purge(presented, step)
    } else if !presented.is_get() && !presented.is_head() {
        pass_by(Forward::Method, None, presented, step)
    } else if presented.request.has_content
        || METHOD_OVERRIDES.iter().any(|name| fields.contains(name))
    {
        pass_by(
            Forward::Bypass,
            Some(Detail::UnsupportedRequest),
            presented,
            step,
        )
    } else if presented
        .policy
        .unkeyed_fields
        .lines(fields, Handling::Bypass)
        .next()
        .is_some()
    {
        pass_by(Forward::Bypass, Some(Detail::UnkeyedField), presented, step)
    } else {
        presented.read_for_look_up();
        State::Local
    }
}

fn purge(presented: &Presented, step: &mut Step) -> State {
    step.cache(presented.invalidation_by_url());
    step.commands(reply::purged(
        presented,
        CacheStatus::default().with_detail(Detail::Purged),
    ));
    State::OVER
}
