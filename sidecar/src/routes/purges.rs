//! What was purged: for those who follow, and by those who may.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use larder_contract::purge_order::{self, Order};
use larder_contract::store_api::{Events, EventsSince, PURGE_PATH, UNHEARD_FIELD};

use super::{Refusal, Shared, parsed};
use crate::listening::Peer;
use crate::store::{Fault, Store};

/// A purge is answered when all Envoys that follow here have heard of it, or after so long.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// What was purged since the caller's cursor; held back until there is something to say.
pub(super) async fn events<S: Store>(
    State(sidecar): Shared<S>,
    Query(asked): Query<EventsSince>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let lead = sidecar.lead(&headers);
    let came = tokio::time::Instant::now();
    if let Some(mistake) = asked.mistake() {
        return Err(Refusal::Malformed(mistake));
    }
    let wait = Duration::from_millis(asked.wait_ms.min(Events::MAX_WAIT_MS));
    let purges = sidecar.store.purges();
    let poll = (!asked.envoy.is_empty()).then(|| purges.sessions().poll(&asked.envoy, wait));
    purges.polled_from(&asked.envoy, asked.after.as_deref().unwrap_or_default());
    // An answer says what had been purged when it was asked for: so by its end that has to be
    // known.
    if purges.unheard_at(came) > wait / 2 || purges.sessions().has_newcomers() {
        purges.ask_now();
    }
    let events = if purges.vouches() {
        Some(purges.since(asked.after.as_deref(), wait).await)
    } else {
        None
    };
    // An answer says that nothing else was purged; who has been deaf meanwhile cannot say so.
    match events.filter(|_| purges.vouches()) {
        Some(mut events) => {
            // For a clock that is behind they come from the future, and it takes them as of now.
            events
                .events
                .iter_mut()
                .for_each(|purge| purge.at_ms = purge.at_ms.moved(lead.max(0)));
            if let Some(poll) = poll {
                poll.answered();
            }
            let unheard = u64::try_from(purges.unheard_at(came).as_millis()).unwrap_or(u64::MAX);
            let mut response = axum::Json(events).into_response();
            if unheard > 0 {
                response
                    .headers_mut()
                    .insert(UNHEARD_FIELD, HeaderValue::from(unheard));
            }
            Ok(response)
        }
        None => {
            if let Some(poll) = poll {
                poll.refused();
            }
            Err(Refusal::Store(Fault(
                "the store's purges cannot be heard at the moment".to_owned(),
            )))
        }
    }
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
        return Err(Refusal::NotAllowed(StatusCode::FORBIDDEN, how));
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
