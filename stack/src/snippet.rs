//! What somebody's own `envoy.yaml` needs for the cache, under that somebody's names.
//!
//! What this decides: which pieces those are, and where their names and addresses stand. Their text
//! is `envoy/in-your-envoy.yaml`, which a test starts whole; so a piece that is printed is one that
//! works.

use serde_json::Value;

use crate::render::{host_and_port, host_name};

const WHOLE: &str = include_str!("../../envoy/in-your-envoy.yaml");
/// The cluster of the sidecar that the filter asks by itself.
pub const SIDECAR_CLUSTER: &str = "larder-sidecar";
/// The cluster that a module from elsewhere is fetched through.
const WASM_CLUSTER: &str = "larder-wasm";

/// Where the module comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// A file where Envoy runs.
    File(String),
    /// A URL, and the SHA-256 of what is there, in hexadecimal.
    Remote(String, String),
}

impl Module {
    /// A path, or a URL with its sum. The error names what is missing.
    pub fn new(place: &str, sha256: Option<&str>) -> Result<Self, String> {
        let is_url = place.starts_with("http://") || place.starts_with("https://");
        match sha256 {
            None if is_url => Err(format!(
                "wasm={place}: a module from a URL needs its --sha256, which Envoy compares"
            )),
            Some(_) if !is_url => Err(format!(
                "sha256: belongs to a URL, and {place} is a file, which Envoy does not compare"
            )),
            Some(sum) if !is_sha256(sum) => Err(format!(
                "sha256={sum}: must be 64 hexadecimal digits, as sha256sum prints them"
            )),
            Some(sum) => {
                host_of(place)?;
                Ok(Self::Remote(place.to_owned(), sum.to_ascii_lowercase()))
            }
            None if is_plain(place, "/._-+@:") => Ok(Self::File(place.to_owned())),
            None => Err(format!(
                "wasm={place}: must be a path without spaces and quotes"
            )),
        }
    }
}

/// The pieces, by what differs from Envoy to Envoy.
#[derive(Clone, Debug)]
pub struct Snippet<'a> {
    /// What the filter is called in `http_filters`, and so in `typed_per_filter_config`.
    pub filter: &'a str,
    /// What the sidecar's cluster is called.
    pub cluster: &'a str,
    /// `host:port` of the sidecar.
    pub sidecar: &'a str,
    /// The module.
    pub module: Module,
    /// The filter's JSON.
    pub config: &'a str,
}

/// A name that YAML takes for a plain text.
pub fn name(text: &str) -> Result<String, String> {
    let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if begins && is_plain(text, "._-|/") {
        return Ok(text.to_owned());
    }
    Err(
        "must begin with a letter or a digit, and go on with those, or with any of . _ - | /"
            .to_owned(),
    )
}

impl Snippet<'_> {
    /// All pieces, each under a line that says where it belongs.
    pub fn render(&self) -> Result<String, String> {
        let config = self.config()?;
        let has_store = config.parsed["store"]["enabled"] != false;
        let mut pieces = vec![
            ("stats", "at the top level", section("stats")?),
            ("bootstrap", "at the top level", section("bootstrap")?),
            (
                "filter",
                "in http_filters, directly before the router",
                self.filter(&config.text)?,
            ),
            (
                "refresh-listener",
                "in listeners",
                section("refresh-listener")?,
            ),
            (
                "refresh-cluster",
                "in clusters",
                section("refresh-cluster")?,
            ),
        ];
        if has_store {
            pieces.push(("sidecar", "in clusters", self.sidecar()?));
        }
        if let Module::Remote(url, _) = &self.module {
            pieces.push(("wasm", "in clusters", wasm_cluster(url)?));
        }
        let headed = pieces
            .iter()
            .map(|(name, place, text)| format!("# == {name}: {place}\n{text}"));
        Ok(headed.collect::<Vec<_>>().join("\n"))
    }

    /// The filter's JSON, which has to ask the cluster that is printed.
    fn config(&self) -> Result<Config, String> {
        let problem = |problem: String| format!("config: {problem}");
        let mut parsed: Value =
            serde_json::from_str(self.config).map_err(|error| problem(error.to_string()))?;
        if !parsed.is_object() {
            return Err(problem("must be a JSON object".to_owned()));
        }
        match parsed["store"]["cluster"].as_str() {
            Some(named) if named != self.cluster => Err(problem(format!(
                "store.cluster is {named}, and --cluster says {}",
                self.cluster
            ))),
            None if self.cluster != SIDECAR_CLUSTER => {
                parsed["store"]["cluster"] = Value::from(self.cluster);
                let text = format!("{parsed:#}");
                Ok(Config { parsed, text })
            }
            _ => {
                let text = self.config.trim_end().to_owned();
                Ok(Config { parsed, text })
            }
        }
    }

    fn filter(&self, config: &str) -> Result<String, String> {
        let whole = section("filter")?;
        let (head, _) = whole
            .split_once("value: |\n")
            .ok_or("the filter has no configuration")?;
        let head = put(
            head,
            "- name: larder\n",
            &format!("- name: {}\n", self.filter),
        )?;
        let code = "code: { local: { filename: /etc/envoy/larder_filter.wasm } }";
        let module = match &self.module {
            Module::File(path) => format!("code: {{ local: {{ filename: {path} }} }}"),
            Module::Remote(url, sum) => format!(
                "code: {{ remote: {{ sha256: {sum}, http_uri: {{ uri: \"{url}\", cluster: {WASM_CLUSTER}, timeout: 30s }} }} }}"
            ),
        };
        let mut text = put(&head, code, &module)? + "value: |\n";
        for line in config.lines() {
            text.push_str(format!("{:28}{line}", "").trim_end());
            text.push('\n');
        }
        Ok(text)
    }

    fn sidecar(&self) -> Result<String, String> {
        let (host, port) = host_and_port(self.sidecar)?;
        let text = section("sidecar")?;
        put(
            &text.replace(SIDECAR_CLUSTER, self.cluster),
            "address: 127.0.0.1, port_value: 7480",
            &format!("address: \"{host}\", port_value: {port}"),
        )
    }
}

struct Config {
    parsed: Value,
    text: String,
}

/// The lines between a section's marks.
fn section(name: &str) -> Result<String, String> {
    let lines = WHOLE.lines();
    let text: String = lines
        .skip_while(|line| line.trim() != format!("# begin {name}"))
        .skip(1)
        .take_while(|line| line.trim() != format!("# end {name}"))
        .map(|line| format!("{line}\n"))
        .collect();
    if text.is_empty() {
        return Err(format!("envoy/in-your-envoy.yaml has no section {name}"));
    }
    Ok(text)
}

/// `text` with `from`, which has to be there once, replaced.
fn put(text: &str, from: &str, to: &str) -> Result<String, String> {
    if text.matches(from).count() != 1 {
        return Err(format!("{from:?} has to stand there once"));
    }
    Ok(text.replace(from, to))
}

/// The cluster that the module comes through: over TLS its name is verified.
fn wasm_cluster(url: &str) -> Result<String, String> {
    let (host, port, is_tls) = host_of(url)?;
    let tls = if is_tls {
        format!(
            "      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: {host}
          common_tls_context:
            validation_context:
              trusted_ca: {{ filename: /etc/ssl/certs/ca-certificates.crt }}
              match_typed_subject_alt_names: [{{ san_type: DNS, matcher: {{ exact: {host} }} }}]
"
        )
    } else {
        String::new()
    };
    Ok(format!(
        "    - name: {WASM_CLUSTER}
      type: LOGICAL_DNS
      connect_timeout: 5s
{tls}      load_assignment:
        cluster_name: {WASM_CLUSTER}
        endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }} }}] }}]
"
    ))
}

/// Host, port, and whether TLS is spoken there.
fn host_of(url: &str) -> Result<(String, u16, bool), String> {
    let is_tls = url.starts_with("https://");
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let problem = |problem: String| format!("wasm={url}: {problem}");
    if !is_plain(path, "/._-+@:%?=&~") {
        return Err(problem("has a character that no URL may have".to_owned()));
    }
    let (host, port) = match authority.contains(':') {
        true => host_and_port(authority).map_err(problem)?,
        false => (
            host_name(authority).map_err(problem)?,
            if is_tls { 443 } else { 80 },
        ),
    };
    Ok((host, port, is_tls))
}

fn is_plain(text: &str, more: &str) -> bool {
    let is_allowed = |one: char| one.is_ascii_alphanumeric() || more.contains(one);
    !text.is_empty() && text.chars().all(is_allowed)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF";

    fn snippet(config: &str) -> Snippet<'_> {
        Snippet {
            filter: "larder",
            cluster: SIDECAR_CLUSTER,
            sidecar: "127.0.0.1:7480",
            module: Module::File("/etc/envoy/larder_filter.wasm".to_owned()),
            config,
        }
    }

    #[test]
    fn under_the_usual_names_a_piece_is_the_text_of_the_whole_file() {
        let text = snippet("{}").render().unwrap();
        let pieces = text.split("# == ").skip(1).map(|piece| {
            let (heading, body) = piece.split_once('\n').unwrap();
            (heading.split(':').next().unwrap(), body.trim_end())
        });
        let mut count = 0;
        for (name, body) in pieces {
            count += 1;
            let body = body
                .split("value: |")
                .next()
                .unwrap()
                .replace("\"127.0.0.1\"", "127.0.0.1");
            assert!(WHOLE.contains(&body), "{name}: {body}");
        }
        assert_eq!(count, 6);
    }

    #[test]
    fn other_names_stand_wherever_the_usual_ones_did() {
        let text = Snippet {
            filter: "cache",
            cluster: "outbound|7480||sidecar.cache",
            sidecar: "sidecar.cache:7481",
            module: Module::new("https://modules.example/larder.wasm", Some(SUM)).unwrap(),
            ..snippet("{\n  \"rules\": []\n}\n")
        }
        .render()
        .unwrap();
        assert!(
            !text.contains("larder-sidecar") && !text.contains("7480 "),
            "{text}"
        );
        for part in [
            "- name: cache\n",
            "- name: outbound|7480||sidecar.cache\n",
            "cluster_name: outbound|7480||sidecar.cache\n",
            "address: \"sidecar.cache\", port_value: 7481",
            "\"cluster\": \"outbound|7480||sidecar.cache\"",
            &format!("sha256: {}", SUM.to_ascii_lowercase()),
            "sni: modules.example",
            "address: modules.example, port_value: 443",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn without_a_store_there_is_no_cluster_of_a_sidecar() {
        let text = snippet("{\"store\": {\"enabled\": false}}")
            .render()
            .unwrap();
        assert!(!text.contains("larder-sidecar"), "{text}");
    }

    #[test]
    fn each_mistake_is_one_line() {
        for (told, part) in [
            (Module::new("https://a/b.wasm", None), "needs its --sha256"),
            (Module::new("/a.wasm", Some(SUM)), "belongs to a URL"),
            (
                Module::new("https://a/b.wasm", Some("12")),
                "64 hexadecimal digits",
            ),
            (Module::new("https:///b.wasm", Some(SUM)), "no host name"),
            (Module::new("https://a/b\" }", Some(SUM)), "no URL may have"),
            (Module::new("/a b.wasm", None), "without spaces"),
        ] {
            let told = told.unwrap_err();
            assert!(told.contains(part) && told.lines().count() == 1, "{told}");
        }
        for (config, part) in [
            ("{", "config: EOF"),
            ("[]", "must be a JSON object"),
            (
                "{\"store\": {\"cluster\": \"a\"}}",
                "store.cluster is a, and --cluster says larder-sidecar",
            ),
        ] {
            let told = snippet(config).render().unwrap_err();
            assert!(told.contains(part) && told.lines().count() == 1, "{told}");
        }
        for bad in ["", "a b", "|a", "a: b", "a\n", "{a}", "#a", "a'"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
