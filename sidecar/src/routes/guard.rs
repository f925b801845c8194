//! Asks for the token before anything is read.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use larder_contract::store_api::PURGE_PATH;

use super::Sidecar;
use crate::listening::Peer;
use crate::store::Store;

/// Bytes of a path that are logged.
const MAX_LOGGED: usize = 100;

/// Lets a request pass that presents a token, or needs none.
pub(super) async fn guard<S: Store>(
    State(sidecar): State<Arc<Sidecar<S>>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let tokens = &sidecar.access.tokens;
    let is_asked_for = path.starts_with("/v1/") && path != PURGE_PATH && !tokens.is_empty();
    if !is_asked_for || tokens.are_presented(request.headers()) {
        return next.run(request).await;
    }
    let peer = request
        .extensions()
        .get::<ConnectInfo<Peer>>()
        .map_or(Peer(None), |ConnectInfo(peer)| *peer);
    // What is logged of a stranger's path is bounded.
    let path = &path[..path.floor_char_boundary(MAX_LOGGED)];
    sidecar.refusal(peer, path, "LARDER_TOKEN").into_response()
}
