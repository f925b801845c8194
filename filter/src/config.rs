//! The plugin's JSON configuration (`docs/configuration.md`), read into policies.
//!
//! What this decides: names, bounds and defaults of every setting. Unknown members are refused, and
//! every mistake is reported in one message with its path, so that one edit mends them all.

use std::cell::Cell;
use std::sync::Arc;

use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use larder_cache_core::route::RefreshPath;
use larder_cache_core::rules::Rules;
use serde_json::Value;

mod mistake;
mod reading;
mod route_policies;
mod secret;
#[cfg(not(target_arch = "wasm32"))]
mod urls;
#[cfg(not(target_arch = "wasm32"))]
mod warnings;

pub use mistake::{Mistake, Refused};
use reading::Reader;
pub use route_policies::{Picked, RoutePolicies};
pub use secret::Secret;

/// Bound of level 1 where the configuration names none.
pub const DEFAULT_L1_BYTES: u64 = 64 << 20;

/// Cluster of background refreshes where the configuration names none.
pub const REFRESH_CLUSTER: &str = "larder-refresh";

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether there is a store beyond level 1.
    pub store_enabled: bool,
    /// Envoy cluster of the sidecar.
    pub store_cluster: String,
    /// By which way the sidecar is asked.
    pub store_transport: Transport,
    /// What is presented to the sidecar, if anything is.
    pub store_token: Option<Secret>,
    /// How long a look-up may take before the request goes on without the store, in milliseconds.
    pub store_timeout_ms: u64,
    /// How long a leader waits for another Envoy's fetch, in milliseconds.
    pub store_wait_ms: u64,
    /// How long level 1 is believed without hearing what the fleet purges and invalidates, in
    /// milliseconds; 0 is for ever.
    pub distrust_after_ms: u64,
    /// Part of every cache key.
    pub namespace: Arc<[u8]>,
    /// Bound of level 1 in bytes, per worker; 0 is off.
    pub l1_bytes: u64,
    /// How long a request waits for another's fetch, in milliseconds.
    pub collapse_wait_ms: u64,
    /// After how long a leader that has not finished is replaced, in milliseconds.
    pub lease_ms: u64,
    /// Cluster that leads background refreshes through the routes, if the configuration names one.
    pub refresh_cluster: Option<String>,
    /// Whether Envoy has that cluster, or [`REFRESH_CLUSTER`] where none is named; `None` until it
    /// was looked for.
    pub refresh_cluster_found: Cell<Option<bool>>,
    /// What routes may pick instead of a rule.
    pub route_policies: RoutePolicies,
    rules: Arc<Rules>,
}

/// By which way the sidecar is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// One gRPC stream for each worker; calls where it cannot be opened.
    #[default]
    Stream,
    /// An HTTP call for each question.
    Calls,
}

impl Config {
    /// Reads the JSON text. The error lists every mistake.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        Self::read(text).map_err(|refused| refused.to_string())
    }

    /// The same, with each mistake by itself.
    pub fn read(text: &[u8]) -> Result<Self, Refused> {
        let text = if text.iter().all(u8::is_ascii_whitespace) {
            b"{}"
        } else {
            text
        };
        let value: Value = serde_json::from_slice(text).map_err(Refused::NotJson)?;
        let mut reader = Reader::default();
        let config = reader.config(&value);
        let mistakes = reader.mistakes();
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(Refused::Mistakes(mistakes))
        }
    }

    /// With the token of the environment, where the document gives none. The error names the
    /// variable and does not show it.
    pub fn with_token(mut self, token: Option<&str>) -> Result<Self, String> {
        if let Some(token) = token.map(str::trim).filter(|token| !token.is_empty())
            && self.store_token.is_none()
        {
            let secret = Secret::new(token);
            self.store_token = Some(
                secret.ok_or_else(|| format!("{} {}", Secret::VARIABLE, reading::TOKEN_FORM))?,
            );
        }
        Ok(self)
    }

    /// The cluster that leads background refreshes through the routes, if Envoy has it.
    pub fn refresh_cluster(&self) -> &str {
        self.refresh_cluster.as_deref().unwrap_or(REFRESH_CLUSTER)
    }

    /// How background refreshes travel.
    pub fn refresh_path(&self) -> RefreshPath {
        if self.refresh_cluster_found.get() == Some(true) {
            RefreshPath::Routed
        } else {
            RefreshPath::Straight
        }
    }

    /// Whether what is asked for `other` may be asked on a stream that was opened for this.
    pub(crate) fn has_sidecar_of(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.store_cluster == other.store_cluster && self.store_token == other.store_token)
    }

    /// The policy of the first rule that matches; without one the request is left alone.
    pub fn policy_for(&self, request: &Request) -> Option<&Arc<Policy>> {
        self.rules.policy_for(request)
    }

    /// All rules, where any of them leaves something out of its keys.
    pub fn key_rules(&self) -> Option<&Arc<Rules>> {
        self.rules.make_keys().then_some(&self.rules)
    }
}

#[cfg(test)]
mod tests;
