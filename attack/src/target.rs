//! A running stack under attack, and the hands on its origin, its sidecar and its store.

use std::time::Duration;

use larder_stack::{RedisServer, Stack};
use serde_json::Value;

use crate::rogue::Rogue;
use crate::setting::TOKEN;
use crate::wire::{Answer, Connection, Request};

/// How long a request may take, unless the scenario says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that runs for one setting.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) redis: Option<RedisServer>,
    pub(crate) rogue: Option<Rogue>,
    stack: Stack,
    cache: String,
    origin: String,
}

impl Target {
    pub(crate) fn new(stack: Stack, redis: Option<RedisServer>, rogue: Option<Rogue>) -> Self {
        let bare = |url: &str| url.trim_start_matches("http://").to_owned();
        let (cache, origin) = (bare(stack.url()), bare(&stack.origin_url(0)));
        Self {
            redis,
            rogue,
            stack,
            cache,
            origin,
        }
    }

    /// `host:port` of the cache.
    pub(crate) fn cache(&self) -> &str {
        &self.cache
    }

    /// A request to the origin's control, past the cache.
    pub(crate) async fn origin(&self, request: Request) -> Result<Answer, String> {
        ask(&self.origin, request).await
    }

    /// A request to the sidecar.
    pub(crate) async fn sidecar(&self, request: Request) -> Result<Answer, String> {
        ask(self.stack.sidecar_address().unwrap_or_default(), request).await
    }

    /// An operator's purge.
    pub(crate) async fn purge(&self, order: &Value) -> Result<(), String> {
        let token = format!("Bearer {TOKEN}");
        let request = Request::new("POST", "/v1/purge")
            .field("authorization", &token)
            .field("content-type", "application/json");
        let answer = self
            .sidecar(request.content(order.to_string().as_bytes()))
            .await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(format!("the purge {order} was answered {}", answer.shown()))
        }
    }

    /// What reached the origin under a path, in order.
    pub(crate) async fn journal(&self, path: &str) -> Vec<Value> {
        let request = Request::get(&format!("/_control/journal?path={path}"));
        let Ok(answer) = self.origin(request).await else {
            return Vec::new();
        };
        serde_json::from_slice(&answer.content).unwrap_or_default()
    }

    /// Megabytes of memory that Envoy holds; `None` where the system does not tell.
    pub(crate) fn envoy_megabytes(&self) -> Option<u64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.stack.envoy_id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()
            .map(|kilobytes| kilobytes / 1024)
    }

    /// Ends everything.
    pub(crate) async fn stop(self) {
        self.stack.stop().await;
    }
}

async fn ask(address: &str, request: Request) -> Result<Answer, String> {
    let mut connection = Connection::open(address, PATIENCE).await?;
    connection.write(&request.bytes()).await;
    Ok(connection.answer(request.method()).await)
}
