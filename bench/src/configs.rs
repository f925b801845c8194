//! The peers' configurations, from `bench/peers` and `envoy/envoy.yaml`.

use std::path::Path;

use larder_stack::render::{EnvoyConfig, fill};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::contestant::Kind;

/// `envoy/envoy.yaml` in front of `origin` (`host:port`), with another filter in the place of
/// Larder's, or another action in the place of the route's.
pub(crate) fn envoy(
    kind: Kind,
    origin: &str,
    folder: &Path,
    model: Option<&Answer>,
) -> Result<String, String> {
    let (origins, sidecars) = ([origin.to_owned()], ["127.0.0.1:1".to_owned()]);
    let config = EnvoyConfig {
        listen: ("127.0.0.1", 0),
        admin_port: 0,
        metrics: None,
        host: None,
        run_dir: folder,
        access_log: "",
        origins: &origins,
        sidecars: &sidecars,
        health_path: "",
        health_interval: "10s",
        custom_methods: false,
    };
    let ours = config.render(include_str!("../../envoy/envoy.yaml"))?;
    let without = replace(
        &ours,
        "- name: larder",
        "- name: envoy.filters.http.router",
        &filter(kind, model)?,
    )?;
    match (kind, model) {
        (Kind::Direct, Some(model)) => replace(
            &without,
            "route:",
            "clusters:",
            &direct_response(model, folder)?,
        ),
        _ => Ok(without),
    }
}

fn filter(kind: Kind, model: Option<&Answer>) -> Result<String, String> {
    match (kind, model) {
        (Kind::Cache, _) => Ok(include_str!("../peers/cache.yaml").to_owned()),
        (Kind::CacheV2, _) => Ok(include_str!("../peers/cache_v2.yaml").to_owned()),
        (Kind::Floor | Kind::FloorReads, Some(model)) => {
            let module = model.floor_module(kind == Kind::FloorReads)?;
            let values = [
                (
                    "ANSWER",
                    Value::from(model.floor_configuration()?).to_string(),
                ),
                ("WASM", json!(module).to_string()),
            ];
            fill(include_str!("../peers/floor.yaml"), &values)
        }
        _ => Ok(String::new()),
    }
}

fn direct_response(model: &Answer, folder: &Path) -> Result<String, String> {
    let file = folder.join("body");
    std::fs::write(&file, &model.content).map_err(|error| error.to_string())?;
    let field = |(name, value): &(String, String)| {
        // A single % begins one of Envoy's own substitutions.
        let header = json!({ "key": name, "value": value.replace('%', "%%") });
        json!({ "header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" })
    };
    let fields: Vec<Value> = model.own_fields().map(field).collect();
    let values = [
        ("BODY_FILE", json!(file).to_string()),
        ("FIELDS", json!(fields).to_string()),
    ];
    fill(include_str!("../peers/direct_response.yaml"), &values)
}

/// Puts `text` in the place of the lines from `first` to the one before `next`, as far to the right
/// as they begin.
fn replace(config: &str, first: &str, next: &str, text: &str) -> Result<String, String> {
    let lines: Vec<&str> = config.lines().collect();
    let find = |wanted: &str, from: usize| {
        lines
            .iter()
            .skip(from)
            .position(|line| line.trim() == wanted)
    };
    let start = find(first, 0).ok_or_else(|| format!("envoy/envoy.yaml has no line {first}"))?;
    let length = find(next, start)
        .ok_or_else(|| format!("envoy/envoy.yaml has no line {next} behind {first}"))?;
    let margin = lines[start].len() - lines[start].trim_start().len();
    let new = text
        .lines()
        .map(|line| format!("{}{line}", " ".repeat(margin)));
    let kept = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| (*line).to_owned())
            .collect::<Vec<_>>()
    };
    let all: Vec<String> = kept(&lines[..start])
        .into_iter()
        .chain(new)
        .chain(kept(&lines[start + length..]))
        .collect();
    Ok(all.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_replaced_where_they_stood() {
        let config = "a:\n  - one\n    x\n  - two\n";
        assert_eq!(
            replace(config, "- one", "- two", "b:\n  c").as_deref(),
            Ok("a:\n  b:\n    c\n  - two\n")
        );
        assert_eq!(
            replace(config, "- one", "- two", "").as_deref(),
            Ok("a:\n  - two\n")
        );
        assert!(replace(config, "- none", "- two", "").is_err());
    }

    #[test]
    fn peers_differ_from_larders_envoy_only_in_the_filter() {
        for kind in [Kind::Proxy, Kind::Cache, Kind::CacheV2] {
            let config = envoy(kind, "127.0.0.1:1", Path::new("/run"), None).unwrap();
            assert!(!config.contains("name: larder\n"), "{config}");
            for option in [
                "stream_idle_timeout: 300s",
                "normalize_path: true",
                "access_log: []",
                "retry_policy:",
            ] {
                assert!(config.contains(option), "{option}");
            }
        }
    }

    #[test]
    fn a_direct_response_has_no_route() {
        let folder = tempfile::tempdir().unwrap();
        let model = Answer {
            fields: vec![("age".to_owned(), "5%".to_owned())],
            content: b"x".to_vec(),
        };
        let config = envoy(Kind::Direct, "127.0.0.1:1", folder.path(), Some(&model)).unwrap();
        assert!(
            config.contains("direct_response:") && !config.contains("retry_policy:"),
            "{config}"
        );
        assert!(config.contains("5%%"));
    }
}
