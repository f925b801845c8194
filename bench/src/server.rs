//! A contestant's processes, from start to end.

use std::path::{Path, PathBuf};
use std::process::Command;

use larder_stack::process::Process;
use larder_stack::{Origins, Settings, Stack, launch, render};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use reqwest::Client;
use serde_json::json;

use crate::answer::Answer;
use crate::configs;
use crate::contestant::Kind;
use crate::machine::{LOAD_CORE, SERVER_CORE, cpu_micros, free_bytes, has, pin};

/// Room that nginx' cache needs on a tmpfs.
const CACHE_BYTES: u64 = 4 << 30;

/// A running contestant. Dropping it ends it.
pub(crate) struct Server {
    /// Which.
    pub(crate) kind: Kind,
    /// Scheme, host, port.
    pub(crate) url: String,
    pid: u32,
    // Fields are dropped in this order: Envoy ends before its sidecar, and folders last.
    _envoy: Option<Box<Stack>>,
    sidecar: Option<Sidecar>,
    _peer: Option<Group>,
    _folders: Vec<tempfile::TempDir>,
}

struct Sidecar {
    address: String,
    process: Process,
}

/// A process with all its children, which `Process` alone would leave behind.
struct Group(Process);

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

impl Server {
    /// Starts it in front of `origin` (`host:port`), on its core. Imitators need a `model` of what
    /// they answer.
    pub(crate) async fn start(
        kind: Kind,
        origin: &str,
        model: Option<&Answer>,
    ) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut server = match kind {
            kind if kind.is_larder() => larder(kind, origin, folder.path()).await?,
            Kind::Nginx => nginx(origin, folder.path()).await?,
            Kind::Varnish => varnish(origin, folder.path()).await?,
            _ => envoy(kind, origin, folder.path(), model).await?,
        };
        server._folders.push(folder);
        pin(server.pid, SERVER_CORE)?;
        Ok(server)
    }

    fn peer(kind: Kind, url: String, process: Process) -> Self {
        let pid = process.id();
        Self {
            kind,
            url,
            pid,
            sidecar: None,
            _envoy: None,
            _peer: Some(Group(process)),
            _folders: Vec::new(),
        }
    }

    /// User and system time so far in microseconds: the server's and the sidecar's.
    pub(crate) fn cpu(&self) -> (f64, f64) {
        (
            cpu_micros(self.pid),
            self.sidecar
                .as_ref()
                .map_or(0.0, |sidecar| cpu_micros(sidecar.process.id())),
        )
    }

    /// Whether there is a sidecar behind it.
    pub(crate) fn has_sidecar(&self) -> bool {
        self.sidecar.is_some()
    }

    /// Entries that its sidecar has answered with so far.
    pub(crate) async fn level_2_hits(&self, client: &Client) -> Result<f64, String> {
        let sidecar = self.sidecar.as_ref().ok_or("no sidecar")?;
        let metrics = client
            .get(format!("http://{}/metrics", sidecar.address))
            .send()
            .await;
        let text = metrics
            .map_err(|error| error.to_string())?
            .text()
            .await
            .map_err(|error| error.to_string())?;
        let line = text
            .lines()
            .find(|line| line.contains("lookups_total{result=\"entry\"}"));
        let count = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
        count.ok_or_else(|| "the sidecar's metrics do not count look-ups".to_owned())
    }
}

/// The filter's configuration.
fn filter_config(kind: Kind) -> String {
    match kind {
        Kind::LarderAlone => {
            json!({ "store": { "enabled": false }, "rules": [{ "policy": {} }] }).to_string()
        }
        Kind::LarderCalls => {
            json!({ "store": { "transport": "calls" }, "rules": [{ "policy": {} }] }).to_string()
        }
        Kind::LarderLevel2 => {
            json!({ "limits": { "l1_bytes": 0 }, "rules": [{ "policy": {} }] }).to_string()
        }
        Kind::LarderBypass => json!({ "rules": [{ "policy": { "cache": false } }] }).to_string(),
        _ => include_str!("../../envoy/filters/default.json").to_owned(),
    }
}

/// Larder in front of `origin` (`host:port`) as it is measured.
pub(crate) fn one_worker(origin: &str, filter_config: String) -> Settings {
    Settings {
        filter_config,
        origins: Origins::Addresses(vec![origin.to_owned()]),
        workers: 1,
        access_log: false,
        health_path: String::new(),
        ..Settings::default()
    }
}

async fn larder(kind: Kind, origin: &str, folder: &Path) -> Result<Server, String> {
    let (process, address) =
        launch::sidecar(&Settings::default(), folder, launch::ANYWHERE).await?;
    pin(process.id(), LOAD_CORE)?;
    let settings = Settings {
        sidecar: Some(address.clone()),
        ..one_worker(origin, filter_config(kind))
    };
    let stack = Stack::start(settings, |_| {}).await?;
    let sidecar = (kind != Kind::LarderAlone).then_some(Sidecar { address, process });
    let (url, pid) = (stack.url().to_owned(), stack.envoy_id());
    Ok(Server {
        kind,
        url,
        pid,
        sidecar,
        _envoy: Some(Box::new(stack)),
        _peer: None,
        _folders: Vec::new(),
    })
}

async fn envoy(
    kind: Kind,
    origin: &str,
    folder: &Path,
    model: Option<&Answer>,
) -> Result<Server, String> {
    let config = configs::envoy(kind, origin, folder, model)?;
    let (process, url) = launch::plain_envoy(folder, &config).await?;
    Ok(Server::peer(kind, url, process))
}

async fn nginx(origin: &str, folder: &Path) -> Result<Server, String> {
    let cache = cache_folder()?;
    let port = launch::free_port()?;
    let values = [
        ("FOLDER", folder.display().to_string()),
        ("CACHE", cache.path().join("cache").display().to_string()),
        ("ORIGIN", origin.to_owned()),
        ("PORT", port.to_string()),
    ];
    let file = folder.join("nginx.conf");
    let config = render::fill(include_str!("../peers/nginx.conf"), &values)?;
    std::fs::write(&file, config).map_err(|error| error.to_string())?;
    let mut command = Command::new(installed("nginx")?);
    command.arg("-c").arg(&file).arg("-p").arg(folder);
    let mut server = listening_at(Kind::Nginx, command, &folder.join("log"), port).await?;
    server._folders.push(cache);
    Ok(server)
}

async fn varnish(origin: &str, folder: &Path) -> Result<Server, String> {
    let work = cache_folder()?;
    let port = launch::free_port()?;
    let (host, origin_port) = origin.rsplit_once(':').ok_or("the origin has no port")?;
    let file = folder.join("varnish.vcl");
    let values = [("HOST", host.to_owned()), ("PORT", origin_port.to_owned())];
    let config = render::fill(include_str!("../peers/varnish.vcl"), &values)?;
    std::fs::write(&file, config).map_err(|error| error.to_string())?;
    let mut command = Command::new(installed("varnishd")?);
    command
        .args([
            "-j",
            "none",
            "-F",
            "-a",
            &format!("127.0.0.1:{port}"),
            "-s",
            "malloc,1g",
            "-f",
        ])
        .arg(&file);
    command.arg("-n").arg(work.path());
    let mut server = listening_at(Kind::Varnish, command, &folder.join("log"), port).await?;
    server._folders.push(work);
    Ok(server)
}

fn installed(program: &'static str) -> Result<&'static str, String> {
    if has(program) {
        Ok(program)
    } else {
        Err(format!(
            "{program} is not installed; make setup-bench installs it"
        ))
    }
}

/// On a tmpfs where that has room, else where temporary files are.
fn cache_folder() -> Result<tempfile::TempDir, String> {
    let shared = PathBuf::from("/dev/shm");
    let folder = if free_bytes(&shared) >= CACHE_BYTES {
        shared
    } else {
        std::env::temp_dir()
    };
    tempfile::Builder::new()
        .prefix("larder-bench-")
        .tempdir_in(folder)
        .map_err(|error| error.to_string())
}

/// Starts a program that does not say when it is ready.
async fn listening_at(
    kind: Kind,
    command: Command,
    log: &Path,
    port: u16,
) -> Result<Server, String> {
    let mut process =
        Process::start(&kind.plain_name(), command, log).map_err(|error| error.to_string())?;
    launch::takes_connections(&mut process, port).await?;
    Ok(Server::peer(
        kind,
        format!("http://127.0.0.1:{port}"),
        process,
    ))
}
