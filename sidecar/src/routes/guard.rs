//! Asks for the token before anything is read.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use larder_cache_core::store_api::PURGE_PATH;

use super::Sidecar;
use crate::listening::Peer;
use crate::store::Store;

/// Lets a request pass that presents a token, or needs none.
pub(super) async fn guard<S: Store>(State(sidecar): State<Arc<Sidecar<S>>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let tokens = &sidecar.access.tokens;
    let is_asked_for = path.starts_with("/v1/") && path != PURGE_PATH && !tokens.is_empty();
    if !is_asked_for || tokens.are_presented(request.headers()) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map_or(Peer(None), |ConnectInfo(peer)| *peer);
    sidecar.refusal(peer, path, "LARDER_TOKEN").into_response()
}
