//! Envoy's configuration from `envoy/envoy.yaml` and `envoy/filter.ecds.json`.
//!
//! What this decides: what stands in each `${…}` place. A place that nobody fills, and a value without a place, is an
//! error: no half-filled configuration reaches Envoy.

use std::path::Path;

/// Values for the places of `envoy.yaml`.
#[derive(Clone, Debug)]
pub struct EnvoyConfig<'a> {
    /// Address and port of the listener.
    pub listen: (&'a str, u16),
    /// Address and port of the admin interface.
    pub admin: (&'a str, u16),
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
        fill(
            template,
            &[
                ("LISTEN_ADDRESS", self.listen.0.to_owned()),
                ("PORT", self.listen.1.to_string()),
                ("ADMIN_ADDRESS", self.admin.0.to_owned()),
                ("ADMIN_PORT", self.admin.1.to_string()),
                ("ACCESS_LOG", access_log(self.access_log)),
                ("FILTER_ECDS", self.run_dir.join(FILTER_FILE).display().to_string()),
                ("RUN_DIR", self.run_dir.display().to_string()),
                ("HEALTH_CHECKS", health),
                ("CUSTOM_METHODS", self.custom_methods.to_string()),
                ("ORIGINS", endpoints(self.origins)?),
                ("SIDECARS", endpoints(self.sidecars)?),
            ],
        )
    }
}

/// `text` with each first text of `edits` replaced by the second. One that does not occur is an error: a test that changes
/// nothing would prove nothing.
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
    let config = config.get(1..config.len() - 1).unwrap_or_default().to_owned();
    fill(template, &[("WASM", escaped(&wasm.display().to_string())), ("CONFIG", config)])
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn endpoints(addresses: &[String]) -> Result<String, String> {
    let endpoint = |address: &String| {
        let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("{address:?} is not host:port"))?;
        let port: u16 = port.parse().map_err(|_| format!("{address:?} has no port number"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || port == 0 {
            return Err(format!("{address:?} is not host:port"));
        }
        Ok(format!(
            "{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {port} }} }} }} }}",
            json(host)
        ))
    };
    Ok(format!("[{}]", addresses.iter().map(endpoint).collect::<Result<Vec<_>, String>>()?.join(", ")))
}

/// Puts each value into its place, in one pass, so that no value is taken for a place.
fn fill(template: &str, values: &[(&str, String)]) -> Result<String, String> {
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
        Some(index) => Err(format!("the template has no place ${{{}}}", values[index].0)),
        None => Ok(filled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_into_their_places_and_are_not_read_again() {
        let filled = fill("a ${X} b ${Y}", &[("X", "${Y}".to_owned()), ("Y", "y".to_owned())]);
        assert_eq!(filled.unwrap(), "a ${Y} b y");
    }

    #[test]
    fn an_unknown_place_and_a_value_without_one_are_errors() {
        assert!(fill("${X}", &[]).unwrap_err().contains("${X}"));
        assert!(fill("", &[("X", String::new())]).unwrap_err().contains("${X}"));
        assert!(fill("${X", &[]).is_err());
    }

    #[test]
    fn an_edit_that_finds_nothing_is_an_error() {
        let edit = |from: &str| [(from.to_owned(), "b".to_owned())];
        assert_eq!(edited("aca".to_owned(), &edit("a")).unwrap(), "bcb");
        assert!(edited("c".to_owned(), &edit("a")).unwrap_err().contains("\"a\""));
    }

    #[test]
    fn an_address_needs_host_and_port() {
        assert!(endpoints(&["a:1".to_owned(), "[::1]:2".to_owned()]).is_ok());
        for bad in ["a", "a:", ":1", "a:0", "a:99999", "http://a"] {
            assert!(endpoints(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_filters_json_survives_as_text_within_json() {
        let template = include_str!("../../envoy/filter.ecds.json");
        let config = "{\"rules\": [\n{\"policy\": {\"comment\": \"a \\\"b\\\"\"}}]}";
        let rendered = filter_config(template, Path::new("/w/a.wasm"), config).unwrap();
        let value: serde_json::Value = serde_json::from_str(&rendered).unwrap();
        assert_eq!(value["resources"][0]["typed_config"]["config"]["configuration"]["value"], config);
    }
}
