//! Whether what was started serves, and if not, why.
//!
//! What this decides: what counts as an answer (`listener_port` and Envoy's own `/ready` say
//! nothing of the filter, without which Envoy answers every request with an empty 500), and which
//! origins Envoy asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;

use crate::eventually;

/// What the filter logs when it begins to follow what is purged.
pub(crate) const FOLLOWS: &str = "purges may have been missed; level 1 is emptied";

/// Longest time for one request that only finds out how things stand.
const PROBE: Duration = Duration::from_secs(5);

/// A client that sees what is there: no proxy in between, and a redirect is an answer like any
/// other.
pub(crate) fn client() -> Client {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap_or_default()
}

/// The port of Envoy's listener for clients, once Envoy says that it is ready.
pub(crate) async fn listener_port(client: &Client, admin: &str) -> Option<u16> {
    let response = client.get(format!("{admin}/ready")).send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let listeners = client
        .get(format!("{admin}/listeners?format=json"))
        .send()
        .await
        .ok()?;
    let listeners: Value = listeners.json().await.ok()?;
    let ingress = listeners["listener_statuses"]
        .as_array()?
        .iter()
        .find(|listener| listener["name"] == "ingress")?;
    u16::try_from(ingress["local_address"]["socket_address"]["port_value"].as_u64()?).ok()
}

/// Where a client on this machine reaches a listener that is bound so.
pub(crate) fn reachable(bind: IpAddr, port: u16) -> SocketAddr {
    let address = match bind {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, port)
}

/// Whether a request through the listener is answered by the filter, or by what stands behind the
/// filter.
pub(crate) async fn answers(client: &Client, url: &str, health_path: &str) -> bool {
    let path = if health_path.is_empty() {
        "/"
    } else {
        health_path
    };
    let Ok(response) = client
        .get(format!("{url}{path}"))
        .timeout(PROBE)
        .send()
        .await
    else {
        return false;
    };
    let fields = response.headers();
    let from_cache = fields
        .get("cache-status")
        .is_some_and(|value| value.as_bytes().starts_with(b"larder"));
    // A rule may let requests pass; then an origin, or Envoy's word that there is none, stands for
    // the filter.
    from_cache
        || fields.contains_key("x-envoy-upstream-service-time")
        || (response.status().is_server_error()
            && response.text().await.is_ok_and(|text| !text.is_empty()))
}

/// Why Envoy refused the filter's configuration, in one line, from its log. `None` if it did not.
pub(crate) fn refusal(log: &str) -> Option<String> {
    let refused = log
        .lines()
        .find(|line| line.contains("Filesystem config update rejected"))?;
    if log.contains("compiled without support") {
        return Some(
            "this Envoy was built without V8, which the filter needs; run make envoy, or set ENVOY"
                .to_owned(),
        );
    }
    let own = log
        .lines()
        .find_map(|line| line.split_once("larder: configuration refused"));
    Some(match own {
        Some((_, why)) => format!("configuration refused{why}"),
        None => refused
            .split_once("rejected: ")
            .map_or(refused, |(_, why)| why)
            .to_owned(),
    })
}

/// The lines of Envoy's log that tell why it ended or does not serve.
pub(crate) fn problem(log: &str) -> String {
    let telling = |line: &&str| {
        ["larder:", "][error]", "][critical]"]
            .iter()
            .any(|mark| line.contains(mark))
    };
    let lines: Vec<&str> = log.lines().filter(telling).collect();
    let lines = if lines.is_empty() {
        log.lines().collect()
    } else {
        lines
    };
    lines
        .get(lines.len().saturating_sub(5)..)
        .unwrap_or_default()
        .join("\n")
}

/// The origins that get no requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginsInTrouble {
    /// Why, one line for each.
    pub lines: Vec<String>,
    /// Whether there is no other, so that every request fails.
    pub all: bool,
}

/// Compares what Envoy says of its origins with what each answers to the health check, or to `GET
/// /` without one.
pub(crate) async fn origins_in_trouble(
    client: &Client,
    admin: &str,
    addresses: &[String],
    health_path: &str,
) -> OriginsInTrouble {
    let mut lines = Vec::new();
    for address in addresses {
        if let Some(line) = trouble(client, address, health_path).await {
            lines.push(line);
        }
    }
    let (healthy, unhealthy) = counted_by_envoy(client, admin).await;
    if lines.is_empty() && healthy == 0 {
        // It is well now; Envoy asks again when its interval is over.
        lines.push(format!(
            "Envoy's last health check ({health_path}) failed for {unhealthy} of them"
        ));
    }
    let all = healthy == 0 || lines.len() == addresses.len();
    OriginsInTrouble { lines, all }
}

async fn trouble(client: &Client, address: &str, health_path: &str) -> Option<String> {
    let path = if health_path.is_empty() {
        "/"
    } else {
        health_path
    };
    match client
        .get(format!("http://{address}{path}"))
        .timeout(PROBE)
        .send()
        .await
    {
        Ok(_) if health_path.is_empty() => None,
        Ok(response) if response.status() == 200 => None,
        Ok(response) => Some(format!(
            "{address} answers the health check GET {path} with {}, not 200; name a path that it answers with \
             health_path=/…, or switch the checks off with health_path=",
            response.status().as_u16()
        )),
        Err(error) if error.is_timeout() => Some(format!(
            "{address} does not answer GET {path} within {PROBE:?}"
        )),
        Err(_) => Some(match tokio::net::TcpStream::connect(address).await {
            Ok(_) => format!("{address} answers GET {path} with no HTTP"),
            Err(error) => format!("{address} cannot be reached: {error}"),
        }),
    }
}

/// How many origins Envoy asks, and how many it does not. Health counts from Envoy's last check.
async fn counted_by_envoy(client: &Client, admin: &str) -> (usize, usize) {
    let clusters = eventually(PROBE, || async {
        let response = client
            .get(format!("{admin}/clusters?format=json"))
            .send()
            .await
            .ok()?;
        response.json::<Value>().await.ok()
    });
    let clusters = clusters.await.unwrap_or_default();
    let origin = clusters["cluster_statuses"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["name"] == "origin"));
    let hosts = origin
        .and_then(|origin| origin["host_statuses"].as_array())
        .cloned()
        .unwrap_or_default();
    let unhealthy = hosts
        .iter()
        .filter(|host| host["health_status"]["failed_active_health_check"] == true)
        .count();
    (hosts.len() - unhealthy, unhealthy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_one_line_with_its_reason() {
        let rejected =
            "[config] Filesystem config update rejected: Unable to create Wasm plugin larder";
        let own = "[error][wasm] wasm log larder: larder: configuration refused: stor is not known; rules: missing";
        assert_eq!(
            refusal(own),
            None,
            "Envoy tries a new configuration before it judges"
        );
        assert_eq!(
            refusal(&format!("{own}\n{rejected}\n")).as_deref(),
            Some("configuration refused: stor is not known; rules: missing")
        );
        assert_eq!(
            refusal(rejected).as_deref(),
            Some("Unable to create Wasm plugin larder")
        );
        let no_v8 = "Failed to create Wasm VM using envoy.wasm.runtime.v8 runtime. Envoy was compiled without support for it";
        assert!(
            refusal(&format!("{no_v8}\n{rejected}"))
                .unwrap()
                .contains("without V8")
        );
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_loopback() {
        for (bind, url) in [
            ("0.0.0.0", "127.0.0.1:1"),
            ("::", "[::1]:1"),
            ("10.0.0.1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(bind.parse().unwrap(), 1).to_string(), url);
        }
    }
}
