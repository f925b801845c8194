//! What was purged: for those who follow, and by those who may.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use larder_contract::purge_order::{self, Order};
use larder_contract::store_api::{EventsSince, PURGE_PATH, UNHEARD_FIELD};

use super::{Shared, parsed, reading};
use crate::answering::Refusal;
use crate::listening::Peer;
use crate::store::Store;

/// A purge is answered when all Envoys that follow here have heard of it, or after so long.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// What was purged since the caller's cursor; held back until there is something to say.
pub(super) async fn events<S: Store>(
    State(sidecar): Shared<S>,
    Query(asked): Query<EventsSince>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // Only the end of the connection ends it early.
    let given_up = std::future::pending();
    let followed = sidecar.follow(reading(&headers), &asked, given_up).await?;
    let mut response = axum::Json(followed.events).into_response();
    if followed.unheard_ms > 0 {
        response
            .headers_mut()
            .insert(UNHEARD_FIELD, HeaderValue::from(followed.unheard_ms));
    }
    Ok(response)
}

/// Purges, for an operator.
pub(super) async fn purge<S: Store>(
    State(sidecar): Shared<S>,
    peer: Option<Extension<ConnectInfo<Peer>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<axum::Json<serde_json::Value>, Refusal> {
    let Some(token) = &sidecar.access.purge else {
        let how = "purging is off; start the sidecar with LARDER_PURGE_TOKEN";
        return Err(Refusal::NotAllowed(403, how));
    };
    if !token.is_presented(&headers) {
        let peer = peer.map_or(Peer(None), |Extension(ConnectInfo(peer))| peer);
        return Err(sidecar.refusal(peer, PURGE_PATH, "LARDER_PURGE_TOKEN"));
    }
    let order: Order = parsed(&body)?;
    let soft = order.soft;
    let purges = order.purges(sidecar.now()).map_err(Refusal::Malformed)?;
    for purge in &purges {
        sidecar
            .store
            .purge(purge.clone())
            .await
            .map_err(|fault| sidecar.fault(fault))?;
    }
    sidecar
        .counters
        .purges
        .fetch_add(purges.len() as u64, Ordering::Relaxed);
    sidecar.waiting.wake_all();
    sidecar.store.purges().are_heard(HEARD_WITHIN).await;
    tracing::info!(soft, scopes = ?purges.iter().map(|purge| &purge.scope).collect::<Vec<_>>(), "purged");
    Ok(axum::Json(purge_order::answer(&purges)))
}
