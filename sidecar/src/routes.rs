//! The HTTP API: the messages of `store_api` on one side, a [`Store`] on the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use larder_contract::entry::Entry;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::purge::{Purge, Scope};
use larder_contract::store_api::{
    AHEAD_FIELD, CLOCK_FIELD, ClockReading, ENTRIES_PATH, EVENTS_PATH, FENCE_FIELD, Fence,
    INVALIDATE_PATH, Invalidate, LOOK_UP_PATH, LeaseTerms, LookUp, LookUpAnswer, PURGE_PATH,
    RELEASE_PATH, Release, UNCACHEABLE_FIELD, WriteAnswer,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::listening::Peer;
use crate::purging::Purged;
use crate::store::{Fault, Store, is_timely};
use crate::token::{Attempts, Refused, Token, Tokens};
use crate::waiting::Waiting;

mod guard;
mod health;
mod metrics;
mod purges;

use metrics::Counters;

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What Envoys present; empty where only this machine connects and nothing is asked of it.
    pub tokens: Tokens,
    /// What an operator presents to purge; without it nobody may.
    pub purge: Option<Token>,
}

/// Bytes of a message that is no entry: the keys of an invalidation may be long.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Bounds of what is accepted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one entry, meta included.
    pub max_entry_bytes: usize,
    /// Look-ups held back at once.
    pub max_waiters: usize,
}

struct Sidecar<S> {
    store: Purged<S>,
    waiting: Waiting,
    limits: Limits,
    counters: Counters,
    access: Access,
    attempts: Attempts,
    /// Whether it was said that a filter of another version is not understood.
    told_of_versions: AtomicBool,
}

type Shared<S> = State<Arc<Sidecar<S>>>;

/// The routes over a store. What is under `/v1/` asks for a token, whatever it is; purging asks for
/// the operator's.
pub fn app<S: Store>(store: Purged<S>, waiting: Waiting, limits: Limits, access: Access) -> Router {
    let (counters, attempts, told_of_versions) = (
        Counters::default(),
        Attempts::default(),
        AtomicBool::default(),
    );
    let sidecar = Sidecar {
        store,
        waiting,
        limits,
        counters,
        access,
        attempts,
        told_of_versions,
    };
    let sidecar = Arc::new(sidecar);
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

/// Why a request was not carried out.
enum Refusal {
    /// `400`: the request is not what the contract says.
    Malformed(String),
    /// `401`, `403` or `429`: without the token that is asked for.
    NotAllowed(StatusCode, &'static str),
    /// `503`: the store is in trouble.
    Store(Fault),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Malformed(error) => (StatusCode::BAD_REQUEST, error),
            Self::NotAllowed(status, error) => (status, error.to_owned()),
            Self::Store(fault) => (StatusCode::SERVICE_UNAVAILABLE, fault.0),
        };
        (status, axum::Json(json!({ "error": error }))).into_response()
    }
}

fn parsed<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::Malformed(error.to_string()))
}

fn reading(headers: &HeaderMap) -> Option<ClockReading> {
    headers
        .get(CLOCK_FIELD)
        .and_then(|value| ClockReading::parse(value.as_bytes()))
}

impl<S: Store> Sidecar<S> {
    /// By how many milliseconds the caller's clock is ahead of the store's; negative where it is
    /// behind. A caller that says nothing of its clock is believed to be in step.
    fn lead(&self, headers: &HeaderMap) -> i64 {
        reading(headers).map_or(0, |reading| self.store.purges().clock().lead(&reading))
    }

    /// The same, unless the message may have been held up.
    fn certain_lead(&self, headers: &HeaderMap) -> Option<i64> {
        reading(headers).map_or(Some(0), |reading| {
            self.store.purges().clock().certain_lead(&reading)
        })
    }

    /// The store's time.
    fn now(&self) -> Timestamp {
        self.store.purges().clock().now()
    }

    async fn carry_out(&self, invalidate: Invalidate, at_ms: Timestamp) -> Result<(), Fault> {
        let purge = |scope| Purge {
            scope,
            soft: false,
            at_ms,
        };
        if invalidate.everything {
            self.store.purge(purge(Scope::Everything)).await?;
            self.waiting.wake_all();
        }
        for key in invalidate.digests {
            self.store.purge(purge(Scope::Key(key))).await?;
            self.waiting.wake(&key);
        }
        Ok(())
    }

    fn fault(&self, fault: Fault) -> Refusal {
        self.counters.faults.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(fault = %fault, "store");
        Refusal::Store(fault)
    }

    /// What a filter says. One of another version may say it in another way, which is logged once.
    fn understood<T: DeserializeOwned>(&self, body: &Bytes) -> Result<T, Refusal> {
        parsed(body).inspect_err(|refusal| {
            if let (Refusal::Malformed(error), false) = (refusal, self.told_of_versions.swap(true, Ordering::Relaxed)) {
                tracing::warn!(%error, "a message is not understood; use filters of the sidecar's version");
            }
        })
    }

    /// Someone came without the token that is asked for.
    fn refusal(&self, peer: Peer, path: &str, setting: &str) -> Refusal {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        let (refused, line) = self.attempts.refuse(peer, path, setting, Instant::now());
        if let Some(line) = line {
            tracing::warn!("{line}");
        }
        match refused {
            Refused::Unauthorised => Refusal::NotAllowed(
                StatusCode::UNAUTHORIZED,
                "present the token: Authorization: Bearer …",
            ),
            Refused::TooOften => Refusal::NotAllowed(
                StatusCode::TOO_MANY_REQUESTS,
                "too many attempts without the token; wait a minute",
            ),
        }
    }
}

async fn look_up<S: Store>(
    State(sidecar): Shared<S>,
    asker: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let mut asked: LookUp = sidecar.understood(&body)?;
    let lead = sidecar.lead(&asker);
    asked.now_ms = asked.now_ms.moved(lead.saturating_neg());
    if let Some(mistake) = asked.lease.and_then(LeaseTerms::mistake) {
        return Err(Refusal::Malformed(mistake));
    }
    let answer = sidecar
        .waiting
        .look_up(&sidecar.store, &asked, sidecar.limits.max_waiters)
        .await;
    let answer = answer.map_err(|fault| sidecar.fault(fault))?;
    let counter = match &answer {
        LookUpAnswer::Entry(_) => &sidecar.counters.entries,
        LookUpAnswer::Lease { .. } => &sidecar.counters.leases,
        LookUpAnswer::Held { .. } => &sidecar.counters.held,
        LookUpAnswer::Nothing { .. } => &sidecar.counters.nothing,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    let parts = answer.into_parts();
    let mut headers = HeaderMap::new();
    if let Some(value) = parts
        .fence
        .and_then(|fence| HeaderValue::try_from(fence.0).ok())
    {
        headers.insert(FENCE_FIELD, value);
    }
    if lead != 0 {
        headers.insert(AHEAD_FIELD, HeaderValue::from(lead));
    }
    if parts.uncacheable {
        headers.insert(UNCACHEABLE_FIELD, HeaderValue::from_static("1"));
    }
    let status = StatusCode::from_u16(parts.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Ok((status, headers, parts.body).into_response())
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
    let mut entry = Entry::read(body).map_err(|fault| Refusal::Malformed(fault.to_string()))?;
    // What was held up on its way cannot be dated, and would come back as newer than what has
    // replaced it.
    let lead = sidecar.certain_lead(&headers);
    if let Some(lead) = lead.filter(|lead| *lead != 0) {
        entry.change(|meta| meta.move_times(lead.saturating_neg()));
    }
    let answer = if lead.is_some() && is_timely(entry.meta().request_time_ms, sidecar.now()) {
        sidecar.store.write(key, fence.as_ref(), entry).await
    } else if let Some(fence) = fence {
        let release = Release::of(key, fence);
        sidecar
            .store
            .release(&release)
            .await
            .map(|()| WriteAnswer::Fenced)
    } else {
        Ok(WriteAnswer::Fenced)
    };
    let answer = answer.map_err(|fault| sidecar.fault(fault))?;
    let counter = if answer == WriteAnswer::Stored {
        &sidecar.counters.stored
    } else {
        &sidecar.counters.fenced
    };
    counter.fetch_add(1, Ordering::Relaxed);
    sidecar.waiting.wake(&key);
    Ok(StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}

async fn release<S: Store>(State(sidecar): Shared<S>, body: Bytes) -> Result<StatusCode, Refusal> {
    let mut release: Release = sidecar.understood(&body)?;
    release.uncacheable_ms = release.uncacheable_ms.min(Release::MAX_UNCACHEABLE_MS);
    sidecar
        .store
        .release(&release)
        .await
        .map_err(|fault| sidecar.fault(fault))?;
    sidecar.waiting.wake(&release.key);
    Ok(StatusCode::NO_CONTENT)
}

async fn invalidate<S: Store>(
    State(sidecar): Shared<S>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let invalidate: Invalidate = sidecar.understood(&body)?;
    if invalidate.digests.len() > Invalidate::MAX_KEYS {
        return Err(Refusal::Malformed(format!(
            "at most {} keys at once",
            Invalidate::MAX_KEYS
        )));
    }
    sidecar
        .counters
        .invalidations
        .fetch_add(invalidate.digests.len() as u64, Ordering::Relaxed);
    let at_ms = invalidate
        .now_ms
        .moved(sidecar.lead(&headers).saturating_neg())
        .no_later_than(sidecar.now());
    let (sessions, envoy) = (
        sidecar.store.purges().sessions(),
        reading(&headers).map(|reading| reading.name()),
    );
    envoy.iter().for_each(|envoy| sessions.invalidates(envoy));
    sidecar
        .carry_out(invalidate, at_ms)
        .await
        .map_err(|fault| {
            envoy.iter().for_each(|envoy| sessions.is_refused(envoy));
            sidecar.fault(fault)
        })?;
    Ok(StatusCode::NO_CONTENT)
}
