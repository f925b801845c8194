//! Whether the process lives, whether it may be asked, and whether the store answers: three
//! questions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::answering::{Refusal, Sidecar};
use crate::store::Store;

/// The process lives.
pub(super) async fn live() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// The sidecar may be asked: also without its store, for then it says so at once and Envoys go on
/// without it. To take it out of service would help nobody.
pub(super) async fn ready<S: Store>(State(sidecar): State<Arc<Sidecar<S>>>) -> Response {
    if sidecar.waiting.is_closing() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "status": "stopping" })),
        )
            .into_response();
    }
    let store = sidecar.store.describe();
    match sidecar.store.ping().await {
        Ok(()) => Json(json!({ "status": "ready", "store": store })).into_response(),
        Err(fault) => {
            Json(json!({ "status": "degraded", "store": store, "error": fault.0 })).into_response()
        }
    }
}

/// The store answers.
pub(super) async fn health<S: Store>(
    State(sidecar): State<Arc<Sidecar<S>>>,
) -> Result<Response, Refusal> {
    sidecar.store.ping().await.map_err(Refusal::Store)?;
    Ok(Json(json!({ "status": "ok", "store": sidecar.store.describe() })).into_response())
}
