//! Asks for the token before anything is read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use larder_contract::store_api::PURGE_PATH;
use larder_contract::store_stream;

use crate::answering::Sidecar;
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
    let is_question = path.starts_with("/v1/") && path != PURGE_PATH;
    let is_asked_for = (is_question || path == store_stream::PATH) && !tokens.is_empty();
    if !is_asked_for || tokens.are_presented(request.headers()) {
        let by_http = &sidecar.counters.by_http;
        by_http.fetch_add(u64::from(is_question), Ordering::Relaxed);
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
