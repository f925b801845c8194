//! An origin server that does what a test or a reader tells it.
//!
//! `/data` is the resource the demo caches; `/anything/…` answers every method; `/_control/…` sets
//! behaviour ahead of time and shows what really reached the origin. What it leaves out: caching.
//! See the crate's README for `curl` lines.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::Router;
use axum::routing::{any, get, post, put};
use tokio::net::TcpListener;

pub mod behaviour;
mod control;
mod data;
pub mod journal;
mod live;
mod range;

use behaviour::Queued;
use journal::Journal;

/// One instance's state. Instances share nothing.
#[derive(Clone, Debug)]
pub struct Origin(Arc<Mutex<State>>, Arc<str>);

#[derive(Debug)]
struct State {
    updated_at: String,
    healthy_status: u16,
    queued: HashMap<String, Vec<Queued>>,
    journal: Journal,
}

impl Origin {
    /// An instance that calls itself `name`. `updated_at` (RFC 3339) is where its data starts, by
    /// default now; two instances behind one balancer need the same, or their entity tags differ.
    pub fn new(name: &str, updated_at: Option<String>) -> Self {
        let updated_at = updated_at.unwrap_or_else(|| rfc3339(SystemTime::now()));
        let state = State {
            updated_at,
            healthy_status: 200,
            queued: HashMap::new(),
            journal: Journal::default(),
        };
        Self(Arc::new(Mutex::new(state)), name.into())
    }

    fn name(&self) -> &str {
        &self.1
    }

    /// No await is made while it is held, so a std mutex serves.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes.
pub fn app(origin: Origin) -> Router {
    Router::new()
        .route("/", get(control::help))
        .route("/data", any(data::data))
        .route("/anything", any(data::anything))
        .route("/anything/{*rest}", any(data::anything))
        .route("/sse", get(live::events))
        .route("/ws", any(live::echo))
        .route(
            "/health-check",
            get(control::health).put(control::set_health),
        )
        .route(
            "/_control/behaviour",
            put(control::queue_behaviour).delete(control::clear_behaviour),
        )
        .route(
            "/_control/journal",
            get(control::journal).delete(control::clear_journal),
        )
        .route("/_control/stats", get(control::stats))
        .route("/_control/reset", post(control::reset))
        .with_state(origin)
}

/// Serves until `shutdown` ends; answers under way get a second.
pub async fn serve(
    listener: TcpListener,
    origin: Origin,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (ended, wait) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, app(origin)).with_graceful_shutdown(async move {
        shutdown.await;
        drop(ended);
    });
    tokio::select! {
        result = server.into_future() => result,
        () = async {
            let _ = wait.await;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        } => Ok(()),
    }
}

/// RFC 3339 with milliseconds, in UTC.
fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
