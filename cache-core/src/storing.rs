//! From a response head to a stored response: what may be stored, and the content as it comes in.
//!
//! Used by an exchange and by a background refresh alike.

use std::sync::Arc;

use larder_contract::http_time::{DeltaSeconds, Timestamp};
use larder_contract::purge::tags_of;

use crate::age;
use crate::cache_control::{FieldScope, ResponseDirectives};
use crate::fields::Fields;
use crate::freshness::{self, LifetimeSource};
use crate::message::{Request, ResponseHead};
use crate::partial::{ContentRange, Part};
use crate::policy::Policy;
use crate::preconditions;
use crate::query_override::QueryOverride;
use crate::route::RouteNote;
use crate::storability::{self, NotStorable};
use crate::stored_response::{ReuseTerms, SeenTreatment, StoredResponse};
use crate::vary::SelectingFields;

mod content;
mod lifetime;

use content::Content;

/// All that is known of a response before its content.
#[derive(Clone, Copy, Debug)]
pub struct Fetched<'a> {
    /// The request that was answered.
    pub request: &'a Request,
    /// Its override.
    pub overriding: Option<&'a QueryOverride>,
    /// The answer's head.
    pub response: &'a ResponseHead,
    /// When the request was sent.
    pub request_time: Timestamp,
    /// When the answer came.
    pub response_time: Timestamp,
}

/// Says whether the response may be stored (RFC 9111 §3), and if so makes it, without its content.
/// `url` is asked only then.
pub fn judge(
    fetched: &Fetched<'_>,
    url: impl FnOnce() -> String,
    policy: &Policy,
) -> Result<StoredResponse, NotStorable> {
    let Fetched {
        request,
        overriding,
        response,
        request_time,
        response_time,
    } = *fetched;
    let mut directives = ResponseDirectives::of(&response.fields, policy);
    if overriding.is_some() {
        // The override speaks instead of the origin about lifetimes; what the origin forbids stays
        // forbidden.
        directives.no_cache = FieldScope::Absent;
    }
    let (terms, source) = terms_of(fetched, &directives, policy);
    storability::storable(request, response, &directives, source, policy)?;
    if declared_length(&response.fields).is_some_and(|length| length > policy.max_object_bytes) {
        return Err(NotStorable::TooLarge);
    }
    let selecting =
        SelectingFields::of_response(request, &response.fields).ok_or(NotStorable::VaryStar)?;
    // What could not be purged by all its tags is not stored.
    let tags = tags_of(
        policy
            .tag_fields
            .iter()
            .flat_map(|name| response.fields.all(name)),
    );
    let tags = tags.ok_or(NotStorable::Tags)?;
    let url = url();
    Ok(StoredResponse {
        terms: ReuseTerms {
            lifetime: lifetime::shortened(terms.lifetime, &url, overriding, policy),
            ..terms
        },
        url,
        status: response.status,
        fields: stored_fields(response, &directives, response_time, policy),
        body: Arc::from([]),
        part: None,
        request_time,
        response_time,
        initial_age: age::corrected_initial_age(&response.fields, request_time, response_time),
        explicitly_public: directives.is_explicitly_public(),
        stale_from: None,
        selecting,
        tags,
        route: RouteNote::default(),
        treatment: SeenTreatment::default(),
    })
}

/// The fields that are stored of a response that came then.
fn stored_fields(
    response: &ResponseHead,
    directives: &ResponseDirectives,
    response_time: Timestamp,
    policy: &Policy,
) -> Fields {
    let mut fields = storability::storable_fields(response, directives);
    if policy.strip_tag_fields {
        fields.retain(|name, _| {
            !policy
                .tag_fields
                .iter()
                .any(|tag_field| tag_field.as_bytes() == name)
        });
    }
    if policy.strip_set_cookie {
        fields.remove(b"set-cookie");
    }
    if !fields.contains("date") {
        // RFC 9110 §6.6.1: who caches a response without Date says when it came.
        fields.append(b"date", response_time.to_http_date().as_bytes());
    }
    fields
}

/// What a response says about its reuse, the override first.
fn terms_of(
    fetched: &Fetched<'_>,
    directives: &ResponseDirectives,
    policy: &Policy,
) -> (ReuseTerms, LifetimeSource) {
    let Fetched {
        request, response, ..
    } = *fetched;
    if let Some(overriding) = fetched.overriding {
        return (overriding.reuse_terms(), LifetimeSource::Override);
    }
    let (terms, source) =
        freshness::reuse_terms(response, directives, fetched.response_time, policy);
    if source == LifetimeSource::PolicyDefault && !lifetime::is_given(request, response, policy) {
        let terms = ReuseTerms {
            lifetime: DeltaSeconds::ZERO,
            ..terms
        };
        return (terms, LifetimeSource::None);
    }
    (terms, source)
}

/// Whether a `206` may be kept as a part, judged as the whole would be (RFC 9111 §3.3).
pub fn judge_part(
    fetched: &Fetched<'_>,
    url: impl FnOnce() -> String,
    policy: &Policy,
) -> Result<StoredResponse, NotStorable> {
    let mut whole = ResponseHead {
        status: 200,
        fields: fetched.response.fields.clone(),
    };
    // The length and the digests are those of this part; the next may be joined to it.
    whole.fields.retain(|name, _| {
        name != b"content-range" && !preconditions::describes_whole_content(name)
    });
    let mut part = judge(
        &Fetched {
            response: &whole,
            ..*fetched
        },
        url,
        policy,
    )?;
    part.status = 206;
    Ok(part)
}

/// A freshened response as it may be kept: judged anew, for its fields are the old ones with those
/// of the `304` or the HEAD's answer (RFC 9111 §3.2). The error says why it may be kept no longer.
pub fn renewed(
    freshened: &StoredResponse,
    request: &Request,
    overriding: Option<&QueryOverride>,
    policy: &Policy,
) -> Result<StoredResponse, NotStorable> {
    let head = ResponseHead {
        status: freshened.status,
        fields: freshened.fields.clone(),
    };
    let mut as_get = request.clone();
    as_get.fields.set(b":method", b"GET");
    let StoredResponse {
        request_time,
        response_time,
        ..
    } = *freshened;
    let fetched = Fetched {
        request: &as_get,
        overriding,
        response: &head,
        request_time,
        response_time,
    };
    let judged = judge(&fetched, || freshened.url.clone(), policy)?;
    let StoredResponse {
        fields,
        terms,
        selecting,
        explicitly_public,
        tags,
        ..
    } = judged;
    // It may have changed what it varies by. Tags that are stripped cannot be read again.
    let tags = if tags.is_empty() {
        freshened.tags.clone()
    } else {
        tags
    };
    Ok(StoredResponse {
        fields,
        terms,
        selecting,
        explicitly_public,
        tags,
        stale_from: None,
        ..freshened.clone()
    })
}

/// The origin's own error, for those who waited for it and for nobody else, if but for its status
/// and lifetime it could be stored. Never goes into a store, and never sets a cookie, whatever the
/// policy stores.
pub fn error_response(fetched: &Fetched<'_>, policy: &Policy) -> Option<StoredResponse> {
    let directives = ResponseDirectives::of(&fetched.response.fields, policy);
    let as_success = ResponseHead {
        status: 200,
        fields: fetched.response.fields.clone(),
    };
    storability::storable(
        fetched.request,
        &as_success,
        &directives,
        LifetimeSource::Override,
        policy,
    )
    .ok()?;
    let request = fetched.request;
    let own = request.has_own_cookie(policy) || request.fields.contains("authorization");
    if own || fetched.response.fields.contains("set-cookie") {
        return None;
    }
    Some(StoredResponse {
        url: String::new(),
        status: fetched.response.status,
        fields: storability::storable_fields(fetched.response, &directives),
        body: Arc::from([]),
        part: None,
        request_time: fetched.request_time,
        response_time: fetched.response_time,
        initial_age: DeltaSeconds::ZERO,
        terms: ReuseTerms::default(),
        explicitly_public: false,
        stale_from: None,
        selecting: SelectingFields::of_response(fetched.request, &fetched.response.fields)?,
        tags: Vec::new(),
        route: RouteNote::default(),
        treatment: SeenTreatment::default(),
    })
}

/// `Content-Length`, when it is one number.
pub fn declared_length(fields: &Fields) -> Option<u64> {
    let value = std::str::from_utf8(fields.get("content-length")?).ok()?;
    value.parse().ok()
}

/// Content on its way to the client, copied.
#[derive(Debug)]
pub struct Capture {
    response: StoredResponse,
    body: Content,
    declared: Option<u64>,
    limit: u64,
    /// What it is captured for.
    pub purpose: CaptureFor,
}

/// What a capture is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureFor {
    /// To be stored.
    Store,
    /// To be stored as the part that its `Content-Range` says.
    StorePart(ContentRange),
    /// To be shared, once, with those who waited.
    ShareError,
}

/// What one more piece means.
#[derive(Debug)]
pub enum Captured {
    /// Go on.
    More(Box<Capture>),
    /// It is larger than what is stored.
    TooLarge(CaptureFor),
    /// It ended short of what was declared.
    Truncated,
    /// It is complete.
    Complete(Box<StoredResponse>, CaptureFor),
}

impl Capture {
    /// Nothing captured yet.
    pub fn new(
        response: StoredResponse,
        declared: Option<u64>,
        limit: u64,
        purpose: CaptureFor,
    ) -> Box<Self> {
        Box::new(Self {
            response,
            body: Content::new(declared),
            declared,
            limit,
            purpose,
        })
    }

    /// Takes one piece in.
    pub fn push(mut self: Box<Self>, chunk: &[u8], end: bool) -> Captured {
        let length = (self.body.len() + chunk.len()) as u64;
        if length > self.limit {
            return Captured::TooLarge(self.purpose);
        }
        self.body.push(chunk);
        if !end {
            return Captured::More(self);
        }
        // RFC 9111 §3.3: an incomplete response is not stored as a complete one.
        if self.declared.is_some_and(|declared| declared != length) {
            return Captured::Truncated;
        }
        let Self {
            mut response,
            body,
            purpose,
            ..
        } = *self;
        response.body = body.into_bytes();
        if let CaptureFor::StorePart(claimed) = purpose {
            response.part = Part::of(claimed, length);
        }
        Captured::Complete(Box::new(response), purpose)
    }
}
