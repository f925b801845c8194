//! Envoy's configuration from `envoy/envoy.yaml` and `envoy/filter.ecds.json`.
//!
//! What this decides: what stands in each `${…}` place. A place that nobody fills, and a value
//! without a place, is an error: no half-filled configuration reaches Envoy.

use std::path::Path;

/// Values for the places of `envoy.yaml`.
#[derive(Clone, Debug)]
pub struct EnvoyConfig<'a> {
    /// Address and port of the listener.
    pub listen: (&'a str, u16),
    /// Port of the admin interface, which listens on loopback only.
    pub admin_port: u16,
    /// Address and port of the listener for a monitoring system; needs an admin port that is known,
    /// not 0.
    pub metrics: Option<(&'a str, u16)>,
    /// The name that all requests count as sent to, whatever their `Host`; `None` for their own.
    pub host: Option<&'a str>,
    /// Where the filter's configuration is watched.
    pub run_dir: &'a Path,
    /// Access log; `/dev/stdout` for the console, empty for none.
    pub access_log: &'a str,
    /// `host:port` of each origin.
    pub origins: &'a [String],
    /// `host:port` of each sidecar.
    pub sidecars: &'a [String],
    /// Path of the active health checks; empty for none.
    pub health_path: &'a str,
    /// Time between health checks, as Envoy writes it.
    pub health_interval: &'a str,
    /// Whether methods that Envoy does not know pass.
    pub custom_methods: bool,
}

/// Name of the file in the run directory that holds the filter's configuration.
pub const FILTER_FILE: &str = "filter.ecds.json";

impl EnvoyConfig<'_> {
    /// Fills `template`.
    pub fn render(&self, template: &str) -> Result<String, String> {
        let health = if self.health_path.is_empty() {
            String::new()
        } else {
            let (path, interval) = (json(self.health_path), self.health_interval);
            format!(
                "health_checks: [{{ timeout: 2s, interval: {interval}, no_traffic_interval: {interval}, \
                 unhealthy_interval: {interval}, unhealthy_threshold: 1, healthy_threshold: 1, \
                 http_health_check: {{ path: {path} }} }}]"
            )
        };
        let mut values = vec![
            ("LISTEN_ADDRESS", self.listen.0.to_owned()),
            ("PORT", self.listen.1.to_string()),
            ("ADMIN_PORT", self.admin_port.to_string()),
            ("ACCESS_LOG", access_log(self.access_log)),
            (
                "FILTER_ECDS",
                self.run_dir.join(FILTER_FILE).display().to_string(),
            ),
            ("RUN_DIR", self.run_dir.display().to_string()),
            ("HEALTH_CHECKS", health),
            ("CUSTOM_METHODS", self.custom_methods.to_string()),
            ("ORIGINS", endpoints(self.origins)?),
            ("SIDECARS", endpoints(self.sidecars)?),
        ];
        let mut template = template.to_owned();
        match self.metrics {
            Some((address, port)) => {
                values.push(("METRICS_ADDRESS", address.to_owned()));
                values.push(("METRICS_PORT", port.to_string()));
            }
            None => template = without(&template, "metrics"),
        }
        match self.host {
            Some(host) => values.push(("HOST", host_name(host)?)),
            None => template = without(&template, "host"),
        }
        fill(&template, &values)
    }
}

/// `text` with each first text of `edits` replaced by the second. One that does not occur is an
/// error: a test that changes nothing would prove nothing.
pub fn edited(mut text: String, edits: &[(String, String)]) -> Result<String, String> {
    for (from, to) in edits {
        if !text.contains(from.as_str()) {
            return Err(format!("Envoy's configuration has no {from:?} to change"));
        }
        text = text.replace(from.as_str(), to);
    }
    Ok(text)
}

/// The value of `access_log`: one logger, or none.
fn access_log(path: &str) -> String {
    const LINE: &str = "%START_TIME% %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESP(X-CACHE-STATUS)% \
                        \"%RESP(CACHE-STATUS)%\" %RESPONSE_CODE_DETAILS% %DURATION%ms %UPSTREAM_HOST%\n";
    if path.is_empty() {
        return "[]".to_owned();
    }
    let logger = serde_json::json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": { "text_format_source": { "inline_string": LINE } },
        },
    }]);
    logger.to_string()
}

/// The filter's configuration as Envoy discovers it.
pub fn filter_config(template: &str, wasm: &Path, config: &str) -> Result<String, String> {
    let escaped = |text: &str| json(text).trim_matches('"').to_owned();
    let config = json(config);
    let config = config
        .get(1..config.len() - 1)
        .unwrap_or_default()
        .to_owned();
    fill(
        template,
        &[
            ("WASM", escaped(&wasm.display().to_string())),
            ("CONFIG", config),
        ],
    )
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn endpoints(addresses: &[String]) -> Result<String, String> {
    let endpoint = |address: &String| {
        let (host, port) = host_and_port(address)?;
        // Health checks name the service that they ask, as clients would; Envoy would name the
        // cluster.
        Ok(format!(
            "{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {port} }} }}, \
             health_check_config: {{ hostname: {} }} }} }}",
            json(&host),
            json(address)
        ))
    };
    Ok(format!(
        "[{}]",
        addresses
            .iter()
            .map(endpoint)
            .collect::<Result<Vec<_>, String>>()?
            .join(", ")
    ))
}

/// Takes `host:port` apart; an IPv6 address stands in brackets.
pub fn host_and_port(address: &str) -> Result<(String, u16), String> {
    if let Some((scheme, rest)) = address.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err(format!(
            "give host:port without {scheme}://, as in {rest} (origins are asked over plain HTTP)"
        ));
    }
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| format!("{address:?} has no port: host:port"))?;
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{port:?} is no port number"))?;
    let host = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) => inner
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| format!("{inner:?} is no IPv6 address"))?
            .to_string(),
        None => host_name(host)?,
    };
    Ok((host, port))
}

/// A host's name or IPv4 address (RFC 3986 §3.2.2, of which only what DNS knows).
pub fn host_name(host: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() || !host.bytes().all(is_allowed) {
        return Err(format!("{host:?} is no host name"));
    }
    Ok(host.to_ascii_lowercase())
}

/// The template without its lines from `begin section` to `end section`, wherever such stand.
fn without(template: &str, section: &str) -> String {
    let (begin, end) = (format!("# begin {section}"), format!("# end {section}"));
    let mut dropping = false;
    let keeps = |line: &&str| {
        let (begins, ends) = (line.trim() == begin, line.trim() == end);
        let dropped = dropping || begins;
        dropping = dropped && !ends;
        !dropped
    };
    template
        .lines()
        .filter(keeps)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Puts each value into its `${…}` place, in one pass, so that no value is taken for a place. A
/// place without a value, and a value without a place, is an error.
pub fn fill(template: &str, values: &[(&str, String)]) -> Result<String, String> {
    let mut filled = String::with_capacity(template.len() + 1024);
    let mut used = vec![false; values.len()];
    let mut rest = template;
    while let Some(start) = rest.find("${") {
        let (before, place) = rest.split_at(start);
        filled.push_str(before);
        let end = place.find('}').ok_or("a place without its closing brace")?;
        let name = &place[2..end];
        rest = &place[end + 1..];
        if name == "…" {
            filled.push_str("${…}");
            continue;
        }
        let index = values.iter().position(|(known, _)| *known == name);
        let index = index.ok_or_else(|| format!("the place ${{{name}}} is not known"))?;
        used[index] = true;
        filled.push_str(&values[index].1);
    }
    filled.push_str(rest);
    match used.iter().position(|used| !used) {
        Some(index) => Err(format!(
            "the template has no place ${{{}}}",
            values[index].0
        )),
        None => Ok(filled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_into_their_places_and_are_not_read_again() {
        let filled = fill(
            "a ${X} b ${Y}",
            &[("X", "${Y}".to_owned()), ("Y", "y".to_owned())],
        );
        assert_eq!(filled.unwrap(), "a ${Y} b y");
    }

    #[test]
    fn an_unknown_place_and_a_value_without_one_are_errors() {
        assert!(fill("${X}", &[]).unwrap_err().contains("${X}"));
        assert!(
            fill("", &[("X", String::new())])
                .unwrap_err()
                .contains("${X}")
        );
        assert!(fill("${X", &[]).is_err());
    }

    #[test]
    fn an_edit_that_finds_nothing_is_an_error() {
        let edit = |from: &str| [(from.to_owned(), "b".to_owned())];
        assert_eq!(edited("aca".to_owned(), &edit("a")).unwrap(), "bcb");
        assert!(
            edited("c".to_owned(), &edit("a"))
                .unwrap_err()
                .contains("\"a\"")
        );
    }

    #[test]
    fn an_address_needs_host_and_port() {
        assert!(endpoints(&["a:1".to_owned(), "[::1]:2".to_owned()]).is_ok());
        for bad in [
            "a",
            "a:",
            ":1",
            "a:0",
            "a:99999",
            "http://a",
            "http://a:1",
            "a/b:1",
            "a b:1",
            "[a]:1",
            "::1:2",
            "u@a:1",
        ] {
            assert!(endpoints(&[bad.to_owned()]).is_err(), "{bad}");
        }
        let told = host_and_port("http://127.0.0.1:9001/").unwrap_err();
        assert!(
            told.contains("without http://, as in 127.0.0.1:9001"),
            "{told}"
        );
    }

    fn rendered(metrics: Option<(&str, u16)>, host: Option<&str>) -> Result<String, String> {
        let (origins, sidecars) = (["a:1".to_owned()], ["b:2".to_owned()]);
        let config = EnvoyConfig {
            listen: ("0.0.0.0", 3000),
            admin_port: 9901,
            metrics,
            host,
            run_dir: Path::new("/run"),
            access_log: "",
            origins: &origins,
            sidecars: &sidecars,
            health_path: "",
            health_interval: "1s",
            custom_methods: false,
        };
        config.render(include_str!("../../envoy/envoy.yaml"))
    }

    #[test]
    fn the_admin_interface_is_on_loopback_in_every_rendering() {
        for metrics in [None, Some(("0.0.0.0", 9902))] {
            let config = rendered(metrics, None).unwrap();
            let admin: Vec<&str> = config
                .lines()
                .filter(|line| line.contains("port_value: 9901"))
                .collect();
            assert!(
                !admin.is_empty() && admin.iter().all(|line| line.contains("address: 127.0.0.1")),
                "{admin:?}"
            );
            assert_eq!(config.contains("/stats/prometheus"), metrics.is_some());
            assert_eq!(config.contains("cluster: admin"), metrics.is_some());
        }
    }

    #[test]
    fn a_host_is_set_where_one_is_given_and_has_to_be_a_name() {
        assert!(!rendered(None, None).unwrap().contains("lua"));
        assert!(
            rendered(None, Some("Shop.example"))
                .unwrap()
                .contains("':authority', 'shop.example')")
        );
        for bad in ["", "a'b", "a:1", "a b", "a\"b"] {
            assert!(rendered(None, Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_section_goes_with_its_marks_and_the_rest_stays() {
        let template =
            "a\n# begin x\nb\n# end x\nc\n  # begin y\nd\n  # end y\n# begin x\ne\n# end x\n";
        assert_eq!(without(template, "x"), "a\nc\n  # begin y\nd\n  # end y\n");
    }

    #[test]
    fn the_filters_json_survives_as_text_within_json() {
        let template = include_str!("../../envoy/filter.ecds.json");
        let config = "{\"rules\": [\n{\"policy\": {\"comment\": \"a \\\"b\\\"\"}}]}";
        let rendered = filter_config(template, Path::new("/w/a.wasm"), config).unwrap();
        let value: serde_json::Value = serde_json::from_str(&rendered).unwrap();
        assert_eq!(
            value["resources"][0]["typed_config"]["config"]["configuration"]["value"],
            config
        );
    }
}
