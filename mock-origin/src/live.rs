//! Answers that a cache must never hold: an event stream and a WebSocket.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Events {
    #[serde(default = "three")]
    n: u32,
    #[serde(default)]
    interval_ms: u64,
}

fn three() -> u32 {
    3
}

pub(crate) async fn events(Query(asked): Query<Events>) -> Response {
    let events = stream::unfold(0, move |n| async move {
        if n == asked.n.min(10_000) {
            return None;
        }
        if n > 0 {
            tokio::time::sleep(Duration::from_millis(asked.interval_ms)).await;
        }
        Some((
            Ok::<_, std::io::Error>(Bytes::from(format!("data: event {n}\n\n"))),
            n + 1,
        ))
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(events),
    )
        .into_response()
}

pub(crate) async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            let echoed = matches!(message, Message::Text(_) | Message::Binary(_));
            if echoed && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}
