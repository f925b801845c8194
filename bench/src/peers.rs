//! What Larder is measured beside: Envoys of the same version with another filter, or none.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use larder_stack::eventually;
use larder_stack::process::Process;
use larder_stack::stack::{envoy_binary, project_root};
use reqwest::Client;

/// A server under test.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    pub(crate) pid: u32,
    _process: Process,
}

/// Which Envoy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its route table answers; no filter.
    Direct,
    /// The older native cache filter.
    Cache,
    /// The newer one.
    CacheV2,
    /// No cache: every request goes to the origin.
    Proxy,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::CacheV2, Self::Cache, Self::Proxy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "Envoy, direct response",
            Self::Cache => "Envoy `cache`",
            Self::CacheV2 => "Envoy `cache_v2`",
            Self::Proxy => "Envoy, no cache",
        }
    }

    fn filter(self) -> &'static str {
        match self {
            Self::Direct | Self::Proxy => "",
            Self::Cache => {
                r#"
          - name: envoy.filters.http.cache
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.cache.v3.CacheConfig
              typed_config: { "@type": type.googleapis.com/envoy.extensions.http.cache.simple_http_cache.v3.SimpleHttpCacheConfig }"#
            }
            Self::CacheV2 => {
                r#"
          - name: envoy.filters.http.cache_v2
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.cache_v2.v3.CacheV2Config
              typed_config: { "@type": type.googleapis.com/envoy.extensions.http.cache_v2.simple_http_cache.v3.SimpleHttpCacheV2Config }"#
            }
        }
    }

    fn action(self, body: &Path) -> String {
        match self {
            Self::Direct => format!(
                "direct_response: {{ status: 200, body: {{ filename: \"{}\" }} }}\n              response_headers_to_add:\n{}",
                body.display(),
                // As many fields as a cached answer has.
                (0..5)
                    .map(|n| format!("              - header: {{ key: x-field-{n}, value: \"{}\" }}\n", "v".repeat(24)))
                    .collect::<String>()
            ),
            _ => "route: { cluster: origin, timeout: 0s }".to_owned(),
        }
    }

    fn config(self, origin: &str, body: &Path) -> Result<String, String> {
        let (host, port) = origin.rsplit_once(':').ok_or("no port")?;
        let (filter, action) = (self.filter(), self.action(body));
        Ok(format!(
            r#"
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
static_resources:
  listeners:
  - name: ingress
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          http_filters:{filter}
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                {action}
  clusters:
  - name: origin
    type: STATIC
    load_assignment:
      cluster_name: origin
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }} }}] }}]
"#
        ))
    }

    /// Starts it in front of `origin` (`host:port`). The error is its last words.
    pub(crate) async fn start(self, origin: &str, folder: &Path, body: &Path) -> Result<Peer, String> {
        let config = self.config(origin, body)?;
        // The admin listens on a port that the file below names.
        let name = format!("{}", self as u8);
        let (file, admin, log) = (
            folder.join(format!("{name}.yaml")),
            folder.join(format!("{name}.admin")),
            folder.join(format!("{name}.log")),
        );
        std::fs::write(&file, config).map_err(|error| error.to_string())?;
        let mut command = Command::new(envoy_binary(&project_root()).map_err(|error| error.to_string())?);
        command.arg("-c").arg(&file).arg("--admin-address-path").arg(&admin);
        command.args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]);
        let mut process = Process::start(self.name(), command, &log).map_err(|error| error.to_string())?;
        let client = Client::new();
        let url = eventually(Duration::from_secs(15), || {
            let ended = !process.is_running();
            let (client, admin) = (client.clone(), std::fs::read_to_string(&admin).unwrap_or_default());
            async move {
                if ended {
                    return Some(None);
                }
                let text = client.get(format!("http://{}/listeners?format=json", admin.trim())).send().await.ok()?;
                let listeners: serde_json::Value = text.json().await.ok()?;
                let port =
                    listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"].as_u64()?;
                Some(Some(format!("http://127.0.0.1:{port}")))
            }
        });
        match url.await.flatten() {
            Some(url) => Ok(Peer { name: self.name(), url, pid: process.id(), _process: process }),
            None => Err(format!("{}: {}", self.name(), process.last_lines(2))),
        }
    }
}
