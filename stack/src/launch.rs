//! The programs of the system, each started and waited for until it can be asked.
//!
//! What this decides: with which arguments and environment they run, and when one counts as ready.
//! What it leaves out: which of them a system has ([`crate::stack`]).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::checkout::{built, envoy_binary, project_root};
use crate::error::{Result, StackError};
use crate::process::Process;
use crate::settings::{Settings, StoreKind};
use crate::{eventually, readiness};

/// Longest time for a program to start.
pub(crate) const START: Duration = Duration::from_secs(30);
/// Any free port of loopback.
pub const ANYWHERE: &str = "127.0.0.1:0";
/// Where Envoy says in the run directory how its admin interface is reached.
pub(crate) const ADMIN_FILE: &str = "admin.address";
/// Envoy's configuration in the run directory.
pub(crate) const CONFIG_FILE: &str = "envoy.yaml";

/// Starts a program that says where it listens, waits for it to say so, and gives its `host:port`.
pub async fn listening(name: &str, command: Command, log: &Path) -> Result<(Process, String)> {
    let mut process = start(name, command, log)?;
    let address = eventually(START, || {
        let output = process.output();
        let address = output.lines().find_map(|line| {
            let (_, rest) = line.split_once(" listening on http://")?;
            Some(
                rest.split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            )
        });
        let ended = !process.is_running();
        async move { address.map(Some).or_else(|| ended.then_some(None)) }
    });
    match address.await.flatten() {
        Some(address) => Ok((process, address)),
        None => Err(StackError(process.last_lines(3))),
    }
}

/// Waits until a program that does not say when it is ready takes connections on a port of
/// loopback.
pub async fn takes_connections(process: &mut Process, port: u16) -> Result<()> {
    let taken = eventually(START, || {
        let ended = !process.is_running();
        async move {
            let taken = tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok();
            if ended {
                Some(false)
            } else {
                taken.then_some(true)
            }
        }
    });
    match taken.await {
        Some(true) => Ok(()),
        _ => Err(StackError(format!(
            "{} takes no connection: {}",
            process.name(),
            process.last_lines(5)
        ))),
    }
}

fn start(name: &str, command: Command, log: &Path) -> Result<Process> {
    Process::start(name, command, log)
        .map_err(|error| StackError(format!("cannot start {name}: {error}")))
}

/// Starts a mock origin that listens on `listen` (`host:port`), and gives where it does.
pub async fn origin(name: &str, run_dir: &Path, listen: &str) -> Result<(Process, String)> {
    let mut command = Command::new(built(
        &project_root(),
        "target/release/larder-mock-origin",
        "make build",
    )?);
    command.args([
        "--listen",
        listen,
        "--name",
        name,
        "--updated-at",
        "2026-01-01T00:00:00.000Z",
    ]);
    listening(name, command, &run_dir.join(format!("{name}.log"))).await
}

/// Starts a sidecar that listens on `listen` (`host:port`), and gives where it does.
pub async fn sidecar(
    settings: &Settings,
    run_dir: &Path,
    listen: &str,
) -> Result<(Process, String)> {
    let mut command = Command::new(built(
        &project_root(),
        "target/release/larder-sidecar",
        "make build",
    )?);
    command
        .args(["--listen", listen])
        .env_remove("LARDER_TOKEN_FILE");
    match &settings.token {
        Some(token) => command.env("LARDER_TOKEN", token),
        None => command.env_remove("LARDER_TOKEN"),
    };
    command.envs(settings.sidecar_env.iter().cloned());
    match &settings.store {
        StoreKind::Memory => command.env_remove("REDIS_URL"),
        StoreKind::Redis(url) => command.env("REDIS_URL", url),
    };
    listening("larder-sidecar", command, &run_dir.join("sidecar.log")).await
}

/// Starts Envoy with the configuration that lies in `run_dir`.
pub(crate) fn envoy(run_dir: &Path, settings: &Settings) -> Result<Process> {
    let mut command = envoy_command(run_dir, settings.workers, "info")?;
    command.args([
        "--drain-time-s",
        "1",
        "--component-log-level",
        "upstream:warning,main:warning",
    ]);
    // The filter reads it from there, so that no file holds it and a swapped configuration needs
    // none.
    let tokens = settings
        .token
        .as_deref()
        .unwrap_or_default()
        .split([',', '\n']);
    match tokens.map(str::trim).find(|one| !one.is_empty()) {
        Some(token) => command.env("LARDER_TOKEN", token),
        None => command.env_remove("LARDER_TOKEN"),
    };
    start_envoy(command, run_dir)
}

/// Starts an Envoy with one worker and a configuration from somewhere else, whose listener for
/// clients is called `ingress` and whose filters are any. Gives the listener's URL.
pub async fn plain_envoy(run_dir: &Path, config: &str) -> Result<(Process, String)> {
    std::fs::write(run_dir.join(CONFIG_FILE), config)?;
    let mut command = envoy_command(run_dir, 1, "warning")?;
    command.args(["--component-log-level", "wasm:info"]);
    let mut process = start_envoy(command, run_dir)?;
    let client = readiness::client();
    let port = eventually(START, || {
        let ended = !process.is_running();
        let client = &client;
        async move {
            match admin_url(run_dir) {
                _ if ended => Some(None),
                Some(admin) => readiness::listener_port(client, &admin).await.map(Some),
                None => None,
            }
        }
    });
    match port.await.flatten() {
        Some(port) => Ok((process, format!("http://127.0.0.1:{port}"))),
        None => Err(StackError(format!(
            "Envoy does not serve: {}",
            readiness::problem(&process.output())
        ))),
    }
}

/// The admin interface of the Envoy that was started from `run_dir`, once it has said where that
/// is.
pub(crate) fn admin_url(run_dir: &Path) -> Option<String> {
    let address = std::fs::read_to_string(run_dir.join(ADMIN_FILE)).ok()?;
    let address = address.trim();
    (!address.is_empty()).then(|| format!("http://{address}"))
}

fn envoy_command(run_dir: &Path, workers: usize, level: &str) -> Result<Command> {
    let mut command = Command::new(envoy_binary(&project_root())?);
    let address_file = run_dir.join(ADMIN_FILE);
    let _ = std::fs::remove_file(&address_file);
    command
        .arg("-c")
        .arg(run_dir.join(CONFIG_FILE))
        .arg("--admin-address-path")
        .arg(address_file);
    command.args([
        "--concurrency",
        &workers.to_string(),
        "--use-dynamic-base-id",
        "-l",
        level,
    ]);
    Ok(command)
}

fn start_envoy(command: Command, run_dir: &Path) -> Result<Process> {
    let binary = command.get_program().to_owned();
    Process::start("envoy", command, &run_dir.join("envoy.log")).map_err(|error| {
        StackError(format!(
            "cannot start {}: {error}; run make envoy, or set ENVOY",
            binary.display()
        ))
    })
}

/// A port of loopback that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(ANYWHERE)?.local_addr()?.port())
}
