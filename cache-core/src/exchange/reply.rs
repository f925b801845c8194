//! The cache's own answers, from a stored response or generated.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;

use super::details::Details;
use super::effect::{Command, Reply, ResponseChange};
use super::presented::Presented;
use crate::cache_status::{CacheStatus, X_CACHE_STATUS};
use crate::fields::{Fields, respaced};
use crate::preconditions::{self, Answer};
use crate::query_override::MalformedOverride;
use crate::stored_response::StoredResponse;
use crate::{age, reuse};

/// Answers with `stored`: whole, or as the request's own conditions and ranges ask (RFC 9111
/// §4.3.2).
pub(super) fn with(
    presented: &Presented,
    stored: &Arc<StoredResponse>,
    mut status: CacheStatus,
    details: Details,
    now: Timestamp,
) -> [Command; 2] {
    status.ttl = Some(reuse::ttl(stored, now));
    let (code, mut fields, body) =
        match preconditions::evaluate(&presented.request, stored, presented.policy.max_ranges) {
            Answer::Full => {
                return [
                    Command::Reply(whole(stored, &status, presented.told, details, now)),
                    Command::Report(status),
                ];
            }
            Answer::NotModified => (
                304,
                preconditions::not_modified_fields(stored),
                Arc::from([]),
            ),
            Answer::Partial(piece) => (206, piece.fields, piece.body),
            Answer::RangeNotSatisfiable(fields) => (416, fields, Arc::from([])),
        };
    add_age(&mut fields, stored, now);
    mark(&mut fields, &status, presented.told);
    let range = 0..body.len();
    let reply = Reply {
        status: code,
        stored: None,
        fields,
        body,
        range,
        details,
    };
    [Command::Reply(reply), Command::Report(status)]
}

/// Answers with a status and one line of JSON that says why.
pub(super) fn made(
    presented: &Presented,
    code: u16,
    error: &str,
    status: CacheStatus,
    details: Details,
) -> [Command; 2] {
    let mut json = serde_json::json!({ "error": error });
    if let (Some(members), Some(detail)) = (
        json.as_object_mut(),
        status.detail.filter(|_| presented.told),
    ) {
        members.insert("detail".to_owned(), detail.token().into());
    }
    of_json(presented, code, &json, status, details)
}

/// `400`, and which directive of the override is at fault.
pub(super) fn malformed(
    presented: &Presented,
    fault: &MalformedOverride,
    status: CacheStatus,
) -> [Command; 2] {
    let json = serde_json::json!({
        "error": "malformed cache-control parameter",
        "directive": fault.directive,
        "problem": fault.problem,
    });
    of_json(presented, 400, &json, status, Details::MalformedOverride)
}

/// `200` to a `PURGE`.
pub(super) fn purged(presented: &Presented, status: CacheStatus) -> [Command; 2] {
    of_json(
        presented,
        200,
        &serde_json::json!({ "purged": presented.url() }),
        status,
        Details::Purged,
    )
}

fn of_json(
    presented: &Presented,
    code: u16,
    json: &serde_json::Value,
    status: CacheStatus,
    details: Details,
) -> [Command; 2] {
    let body: Arc<[u8]> = Arc::from(format!("{json}\n").into_bytes());
    let mut fields = Fields::from_pairs([
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
    ]);
    mark(&mut fields, &status, presented.told);
    let range = 0..body.len();
    let reply = Reply {
        status: code,
        stored: None,
        fields,
        body,
        range,
        details,
    };
    [Command::Reply(reply), Command::Report(status)]
}

/// Lets the origin's response pass, with this cache's own fields on it.
pub(super) fn pass(
    presented: &Presented,
    upstream: &Fields,
    code: Option<u16>,
    status: CacheStatus,
) -> [Command; 2] {
    [
        Command::PassResponse(marked(presented, upstream, code, &status)),
        Command::Report(status),
    ]
}

/// How the origin's response is changed in passing.
pub(super) fn marked(
    presented: &Presented,
    upstream: &Fields,
    code: Option<u16>,
    status: &CacheStatus,
) -> ResponseChange {
    let mut set = Fields::with_capacity(3, 160);
    if !presented.is_untouched
        && status.stored
        && let Some(spaced) = upstream.get("cache-control").and_then(respaced)
    {
        set.append(b"cache-control", &spaced);
    }
    if !presented.is_untouched && presented.told {
        // RFC 9211 §2: each cache adds its member behind those of the caches before it.
        let mut list = upstream
            .combined("cache-status")
            .unwrap_or_else(|| Vec::with_capacity(80));
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        status.write(&mut list);
        set.append(b"cache-status", &list);
        set.append(X_CACHE_STATUS.as_bytes(), status.hit_or_miss().as_bytes());
    }
    let strip = presented.policy.strip_tag_fields && !presented.is_untouched;
    let stripped = presented
        .policy
        .tag_fields
        .iter()
        .filter(|name| strip && upstream.contains(name));
    let remove = stripped.map(|name| name.as_bytes().to_vec()).collect();
    ResponseChange {
        status: code,
        remove,
        set,
        before: None,
    }
}

/// `stored` as it is, with what this answer adds.
pub(super) fn whole(
    stored: &Arc<StoredResponse>,
    status: &CacheStatus,
    told: bool,
    details: Details,
    now: Timestamp,
) -> Reply {
    // Room for these and for what the shell may add, so that nothing grows.
    let mut fields = Fields::with_capacity(5, 160);
    add_age(&mut fields, stored, now);
    mark(&mut fields, status, told);
    let (body, range) = (stored.body.clone(), 0..stored.body.len());
    Reply {
        status: stored.status,
        stored: Some(stored.clone()),
        fields,
        body,
        range,
        details,
    }
}

/// `Age` (RFC 9111 §5.1), which every answer from a stored response carries.
fn add_age(fields: &mut Fields, stored: &StoredResponse, now: Timestamp) {
    let seconds = age::current_age(stored, now).as_secs();
    fields.append_with("age", |text| {
        text.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes())
    });
}

/// Says in an answer of the cache's own how it came about, to whom it is told.
fn mark(fields: &mut Fields, status: &CacheStatus, told: bool) {
    if !told {
        return;
    }
    fields.append_with("cache-status", |text| status.write(text));
    fields.append_with(X_CACHE_STATUS, |text| {
        text.extend_from_slice(status.hit_or_miss().as_bytes())
    });
}
