//! The store stream: the frames of `store_stream` on one side, the sidecar's answers on the other.
//!
//! A stream is one HTTP/2 request, in gRPC's framing: its content are the questions, its response's
//! content the answers. Its head is answered at once; then one [`Conversation`] reads, asks and
//! answers until one of the two ends it. What a question does is said in [`crate::answering`].

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::answering::Sidecar;
use crate::listening::Peer;
use crate::store::Store;

mod conversation;
mod end;
mod messages;
mod questions;
mod said;

use conversation::Conversation;

const GRPC: &str = "application/grpc";

/// Opens a stream.
pub(crate) async fn exchange<S: Store>(
    State(sidecar): State<Arc<Sidecar<S>>>,
    peer: Option<Extension<ConnectInfo<Peer>>>,
    request: Request,
) -> Response {
    let content = request.headers().get(CONTENT_TYPE);
    if !content.is_some_and(|content| content.as_bytes().starts_with(GRPC.as_bytes())) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let peer = peer.map_or(Peer(None), |Extension(ConnectInfo(peer))| peer);
    let conversation = Conversation::new(sidecar, peer, request.into_body());
    let mut response = Response::new(Body::new(conversation));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}
