//! `/_control` and `/health-check`: the strings a test pulls.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::Origin;
use crate::behaviour::Queued;
use crate::journal::Journal;

const NO_STORE: [(&str, &str); 1] = [("cache-control", "no-store")];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathQuery {
    path: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusQuery {
    status: u16,
}

pub(crate) async fn help() -> Response {
    (NO_STORE, include_str!("../README.md")).into_response()
}

pub(crate) async fn health(State(origin): State<Origin>) -> Response {
    let status = origin.state().healthy_status;
    let word = if status == 200 { "ok" } else { "unhealthy" };
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (
        code,
        NO_STORE,
        [("x-origin", origin.name().to_owned())],
        Json(json!({ "status": word })),
    )
        .into_response()
}

pub(crate) async fn set_health(
    State(origin): State<Origin>,
    Query(query): Query<StatusQuery>,
) -> Response {
    if !(200..=599).contains(&query.status) {
        return bad_request("status: must be from 200 to 599");
    }
    origin.state().healthy_status = query.status;
    (
        NO_STORE,
        Json(json!({ "health_check_status": query.status })),
    )
        .into_response()
}

pub(crate) async fn queue_behaviour(
    State(origin): State<Origin>,
    Query(query): Query<PathQuery>,
    body: String,
) -> Response {
    let path = query.path.unwrap_or_else(|| "/data".to_owned());
    let queued: Queued = match serde_json::from_str(&body) {
        Ok(queued) => queued,
        Err(error) => return bad_request(&error.to_string()),
    };
    if let Err(problem) = queued.behaviour.check() {
        return bad_request(&problem);
    }
    origin
        .state()
        .queued
        .entry(path.clone())
        .or_default()
        .push(queued.clone());
    (NO_STORE, Json(json!({ "path": path, "queued": queued }))).into_response()
}

pub(crate) async fn clear_behaviour(State(origin): State<Origin>) -> Response {
    origin.state().queued.clear();
    (NO_STORE, StatusCode::NO_CONTENT).into_response()
}

pub(crate) async fn journal(
    State(origin): State<Origin>,
    Query(query): Query<PathQuery>,
) -> Response {
    let state = origin.state();
    (
        NO_STORE,
        Json(json!(state.journal.requests(query.path.as_deref()))),
    )
        .into_response()
}

pub(crate) async fn clear_journal(State(origin): State<Origin>) -> Response {
    origin.state().journal = Journal::default();
    (NO_STORE, StatusCode::NO_CONTENT).into_response()
}

pub(crate) async fn stats(State(origin): State<Origin>) -> Response {
    let state = origin.state();
    let stats = json!({ "origin": origin.name(), "total": state.journal.total(), "by_path": state.journal.counts() });
    (NO_STORE, Json(stats)).into_response()
}

/// Health on, no behaviours, an empty journal. The data stays as it is: a reset must not change
/// entity tags.
pub(crate) async fn reset(State(origin): State<Origin>) -> Response {
    let mut state = origin.state();
    state.healthy_status = 200;
    state.queued.clear();
    state.journal = Journal::default();
    (NO_STORE, StatusCode::NO_CONTENT).into_response()
}

pub(crate) fn bad_request(problem: &str) -> Response {
    (
        StatusCode::BAD_REQUEST,
        NO_STORE,
        Json(json!({ "error": problem })),
    )
        .into_response()
}
