//! What a stack is made of.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// The services behind the cache.
#[derive(Clone, Debug)]
pub enum Origins {
    /// So many mock origins of our own.
    Mock(usize),
    /// Somebody's services, as `host:port`.
    Addresses(Vec<String>),
}

/// Where entries live.
#[derive(Clone, Debug)]
pub enum StoreKind {
    /// In the sidecar's memory.
    Memory,
    /// In this Redis.
    Redis(String),
}

/// All choices. The default is the demo with everything on free ports.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Port of the cache; 0 for a free one.
    pub port: u16,
    /// Where the cache listens; loopback unless others are to reach it.
    pub bind: IpAddr,
    /// The name that all requests count as sent to, so that several Envoys on one machine share
    /// what they store.
    pub host: Option<String>,
    /// The services behind the cache.
    pub origins: Origins,
    /// Path of the health checks; empty for none.
    pub health_path: String,
    /// Time between health checks.
    pub health_interval: String,
    /// Where entries live.
    pub store: StoreKind,
    /// The filter's JSON.
    pub filter_config: String,
    /// Envoy's `--concurrency`.
    pub workers: usize,
    /// Where configuration and logs of this run go; `None` for a temporary folder.
    pub run_dir: Option<PathBuf>,
    /// Use a running sidecar at this `host:port` instead of starting one.
    pub sidecar: Option<String>,
    /// Whether methods that Envoy does not know pass.
    pub custom_methods: bool,
    /// Whether Envoy writes a line for each request.
    pub access_log: bool,
    /// The token between the filter and the sidecar; of two, with a comma between them, the filter
    /// presents the first.
    pub token: Option<String>,
    /// Settings for the sidecar.
    pub sidecar_env: Vec<(String, String)>,
    /// Whether Envoy lets a filter hold a response's head back and still see its content. Istio and
    /// Envoy Gateway do not.
    pub stop_iteration: bool,
    /// Changes to the text of Envoy's configuration: each first text, which has to occur, is
    /// replaced by the second.
    pub envoy_edits: Vec<(String, String)>,
}

impl Settings {
    /// Where the list of HTTP filters begins in Envoy's configuration; the cache is its first.
    const FILTERS: &str = "http_filters:\n";
    /// Where the router stands, the last filter.
    const ROUTER: &str = "                  - name: envoy.filters.http.router\n";
    /// Where the list of routes begins.
    const ROUTES: &str = "routes:\n";

    /// Puts HTTP filters, each as JSON, before the cache.
    #[must_use]
    pub fn with_filters_before(self, filters: &[serde_json::Value]) -> Self {
        self.with_items(Self::FILTERS, 18, filters)
    }

    /// Puts HTTP filters, each as JSON, between the cache and the router.
    #[must_use]
    pub fn with_filters_behind(mut self, filters: &[serde_json::Value]) -> Self {
        let lines: String = filters
            .iter()
            .map(|filter| format!("{:18}- {filter}\n", ""))
            .collect();
        self.envoy_edits
            .push((Self::ROUTER.to_owned(), lines + Self::ROUTER));
        self
    }

    /// Puts routes, each as JSON, before the one that takes everything.
    #[must_use]
    pub fn with_routes_before(self, routes: &[serde_json::Value]) -> Self {
        self.with_items(Self::ROUTES, 24, routes)
    }

    fn with_items(mut self, list: &str, indent: usize, items: &[serde_json::Value]) -> Self {
        let lines: String = items
            .iter()
            .map(|item| format!("{:indent$}- {item}\n", ""))
            .collect();
        self.envoy_edits
            .push((list.to_owned(), format!("{list}{lines}")));
        self
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 0,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            host: None,
            origins: Origins::Mock(2),
            health_path: "/health-check".to_owned(),
            health_interval: "10s".to_owned(),
            store: StoreKind::Memory,
            filter_config: include_str!("../../envoy/filters/demo.json").to_owned(),
            workers: 2,
            run_dir: None,
            sidecar: None,
            custom_methods: false,
            access_log: true,
            token: None,
            sidecar_env: Vec::new(),
            stop_iteration: true,
            envoy_edits: Vec::new(),
        }
    }
}
