//! Another filter configuration for an Envoy that runs.

use std::path::Path;
use std::time::Duration;

use crate::error::{Result, StackError};
use crate::launch::{CONFIG_FILE, admin_url};
use crate::render::{self, FILTER_FILE};
use crate::{eventually, readiness};

/// Longest time for a question to the admin interface of an Envoy that may be gone.
const ASK: Duration = Duration::from_secs(3);

/// The admin interface of the Envoy that runs from `run_dir`. `None` when nothing does, or
/// something else has its port.
pub async fn running(run_dir: &Path) -> Option<String> {
    let admin = admin_url(run_dir)?;
    let info = readiness::client()
        .get(format!("{admin}/server_info"))
        .timeout(ASK)
        .send()
        .await
        .ok()?;
    let info: serde_json::Value = info.json().await.ok()?;
    let config = info["command_line_options"]["config_path"].as_str()?;
    (Path::new(config) == run_dir.join(CONFIG_FILE)).then_some(admin)
}

/// Swaps the filter's configuration of the Envoy behind `admin` and waits for its verdict.
/// `stop_iteration` as in [`crate::Settings`].
pub async fn swap(
    run_dir: &Path,
    wasm: &Path,
    admin: &str,
    config: &str,
    stop_iteration: bool,
) -> Result<()> {
    let client = readiness::client();
    let counts = |text: &str, name: &str| -> u64 {
        text.lines()
            .filter(|line| line.contains(name))
            .filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok())
            .sum()
    };
    let stats = || async {
        let url = format!("{admin}/stats?filter=extension_config_discovery");
        let text = match client.get(url).send().await {
            Ok(response) => response.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        (
            counts(&text, "config_reload:"),
            counts(&text, "config_fail:") + counts(&text, "update_rejected:"),
        )
    };
    let log_before = std::fs::metadata(run_dir.join("envoy.log"))
        .map(|meta| meta.len())
        .unwrap_or(0);
    let (reloads, failures) = stats().await;
    write_filter_config(run_dir, wasm, config, stop_iteration)?;
    let verdict = eventually(Duration::from_secs(10), || async {
        match stats().await {
            (_, failed) if failed > failures => Some(false),
            (reloaded, _) if reloaded > reloads => Some(true),
            _ => None,
        }
    });
    match verdict.await {
        Some(true) => Ok(()),
        Some(false) => {
            let reason = eventually(ASK, || {
                let log = std::fs::read(run_dir.join("envoy.log")).unwrap_or_default();
                let new = log
                    .get(usize::try_from(log_before).unwrap_or(0)..)
                    .unwrap_or_default();
                let reason = readiness::refusal(&String::from_utf8_lossy(new));
                async move { reason }
            });
            let reason = reason.await.unwrap_or_else(|| "see its log".to_owned());
            Err(StackError(format!(
                "Envoy keeps the old configuration: {reason}"
            )))
        }
        None => Err(StackError(
            "Envoy has not reloaded: is this the configuration it has already?".to_owned(),
        )),
    }
}

pub(crate) fn write_filter_config(
    run_dir: &Path,
    wasm: &Path,
    config: &str,
    stop_iteration: bool,
) -> Result<()> {
    let option = |on: bool| format!("\"allow_on_headers_stop_iteration\": {on}");
    let template = include_str!("../../envoy/filter.ecds.json").to_owned();
    let template =
        render::edited(template, &[(option(true), option(stop_iteration))]).map_err(StackError)?;
    let text = render::filter_config(&template, wasm, config).map_err(StackError)?;
    let (path, part) = (run_dir.join(FILTER_FILE), run_dir.join("filter.ecds.part"));
    std::fs::write(&part, text)?;
    // Envoy watches for the rename, so it never reads half a file.
    Ok(std::fs::rename(part, path)?)
}
