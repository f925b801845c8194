//! The HTTP API: the messages of `store_api` on one side, a [`Store`] on the other.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use larder_contract::key::KeyDigest;
use larder_contract::store_api::{
    AHEAD_FIELD, CLOCK_FIELD, ClockReading, ENTRIES_PATH, EVENTS_PATH, FENCE_FIELD, Fence,
    INVALIDATE_PATH, LOOK_UP_PATH, PURGE_PATH, RELEASE_PATH, UNCACHEABLE_FIELD,
};
use larder_contract::store_stream;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::answering::{Access, Limits, Refusal, Sidecar};
use crate::purging::Purged;
use crate::store::Store;
use crate::stream;
use crate::waiting::Waiting;

mod guard;
mod health;
mod metrics;
mod purges;

/// Bytes of a message that is no entry: the keys of an invalidation may be long.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

type Shared<S> = State<Arc<Sidecar<S>>>;

/// The routes over a store. What is under `/v1/` and the store stream ask for a token, whatever it
/// is; purging asks for the operator's.
pub fn app<S: Store>(store: Purged<S>, waiting: Waiting, limits: Limits, access: Access) -> Router {
    let sidecar = Sidecar::new(store, waiting, limits, access);
    Router::new()
        .route(LOOK_UP_PATH, post(look_up::<S>))
        .route(
            &format!("{ENTRIES_PATH}{{key}}"),
            put(write::<S>).layer(DefaultBodyLimit::max(limits.max_entry_bytes)),
        )
        .route(RELEASE_PATH, post(release::<S>))
        .route(INVALIDATE_PATH, post(invalidate::<S>))
        .route(EVENTS_PATH, get(purges::events::<S>))
        .route(PURGE_PATH, post(purges::purge::<S>))
        .route(store_stream::PATH, post(stream::exchange::<S>))
        .route("/healthz", get(health::health::<S>))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready::<S>))
        .route("/metrics", get(metrics::metrics::<S>))
        .layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES))
        .layer(axum::middleware::from_fn_with_state(
            sidecar.clone(),
            guard::guard::<S>,
        ))
        .with_state(sidecar)
}

/// The code that says so; all of ours are some.
fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = code(self.status());
        (status, axum::Json(json!({ "error": self.into_words() }))).into_response()
    }
}

fn parsed<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::Malformed(error.to_string()))
}

/// What a filter says.
fn understood<T: DeserializeOwned, S: Store>(
    sidecar: &Sidecar<S>,
    body: &Bytes,
) -> Result<T, Refusal> {
    parsed(body).inspect_err(|refusal| {
        if let Refusal::Malformed(error) = refusal {
            sidecar.is_not_understood(error);
        }
    })
}

fn reading(headers: &HeaderMap) -> Option<ClockReading> {
    headers
        .get(CLOCK_FIELD)
        .and_then(|value| ClockReading::parse(value.as_bytes()))
}

async fn look_up<S: Store>(
    State(sidecar): Shared<S>,
    asker: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let asked = understood(&sidecar, &body)?;
    let (answer, ahead) = sidecar.look_up(reading(&asker), asked).await?;
    let parts = answer.into_parts();
    let mut headers = HeaderMap::new();
    if let Some(value) = parts
        .fence
        .and_then(|fence| HeaderValue::try_from(fence.0).ok())
    {
        headers.insert(FENCE_FIELD, value);
    }
    if ahead != 0 {
        headers.insert(AHEAD_FIELD, HeaderValue::from(ahead));
    }
    if parts.uncacheable {
        headers.insert(UNCACHEABLE_FIELD, HeaderValue::from_static("1"));
    }
    Ok((code(parts.status), headers, parts.body).into_response())
}

async fn write<S: Store>(
    State(sidecar): Shared<S>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let key = KeyDigest::parse(&key)
        .ok_or_else(|| Refusal::Malformed("a key is 64 hex digits".to_owned()))?;
    let fence = match headers.get(FENCE_FIELD) {
        None => None,
        Some(value) => Some(
            Fence::parse(value.as_bytes())
                .ok_or_else(|| Refusal::Malformed("a fence is hex digits".to_owned()))?,
        ),
    };
    let answer = sidecar.write(reading(&headers), key, fence, body).await?;
    Ok(code(answer.status()))
}

async fn release<S: Store>(State(sidecar): Shared<S>, body: Bytes) -> Result<StatusCode, Refusal> {
    let release = understood(&sidecar, &body)?;
    sidecar.release(release).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn invalidate<S: Store>(
    State(sidecar): Shared<S>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let invalidate = understood(&sidecar, &body)?;
    sidecar.invalidate(reading(&headers), invalidate).await?;
    Ok(StatusCode::NO_CONTENT)
}
