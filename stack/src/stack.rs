//! The running system.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Client;

use crate::eventually;
use crate::process::Process;
use crate::readiness::{self, OriginsInTrouble};
use crate::redis_server::free_port;
use crate::render::EnvoyConfig;
use crate::settings::{Origins, Settings, StoreKind};
use crate::swap::write_filter_config;
use crate::{logs, swap};

pub use crate::checkout::{built, envoy_binary, project_root};

/// Why the system does not run. One line that names what is wrong and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StackError(pub String);

type Result<T> = std::result::Result<T, StackError>;

/// Where Envoy says in the run directory how its admin interface is reached.
pub(crate) const ADMIN_FILE: &str = "admin.address";
const ACCESS_LOG: &str = "access.log";
const START: Duration = Duration::from_secs(30);
/// How long a start waits for Envoy to follow the store.
const FOLLOW: Duration = Duration::from_secs(3);
const STOP: Duration = Duration::from_secs(3);

/// All processes and where they are. Dropping it ends them.
#[derive(Debug)]
pub struct Stack {
    settings: Settings,
    envoy: Process,
    sidecar: Option<(Process, String)>,
    origins: Vec<(Process, String)>,
    url: String,
    admin: String,
    run_dir: PathBuf,
    client: Client,
    _temporary: Option<tempfile::TempDir>,
}

impl Stack {
    /// Starts everything and returns when the first request can be served. `progress` is told what is being done.
    pub async fn start(settings: Settings, progress: impl Fn(&str)) -> Result<Self> {
        let root = project_root();
        let wasm = built(&root, "target/wasm32-wasip1/wasm/larder_filter.wasm", "make wasm")?;
        let envoy_binary = envoy_binary(&root)?;
        if settings.port != 0 {
            check_port(&settings)?;
        }
        let temporary = if settings.run_dir.is_none() { Some(tempfile::tempdir().map_err(io)?) } else { None };
        let run_dir =
            settings.run_dir.clone().or_else(|| temporary.as_ref().map(|t| t.path().to_owned())).unwrap_or_default();
        std::fs::create_dir_all(&run_dir).map_err(io)?;
        let origins = start_origins(&settings, &root, &run_dir, &progress).await?;
        let sidecar = start_sidecar(&settings, &root, &run_dir, &progress).await?;
        let origin_addresses = match &settings.origins {
            Origins::Addresses(addresses) => addresses.clone(),
            Origins::Mock(_) => origins.iter().map(|(_, address)| address.clone()).collect(),
        };
        let sidecar_address = settings.sidecar.clone().or_else(|| sidecar.as_ref().map(|(_, address)| address.clone()));
        let sidecars = vec![sidecar_address.unwrap_or_else(|| "127.0.0.1:1".to_owned())];
        progress("starting Envoy");
        let access_log =
            if settings.access_log { run_dir.join(ACCESS_LOG).display().to_string() } else { String::new() };
        let bind = settings.bind.to_string();
        let config = EnvoyConfig {
            listen: (&bind, settings.port),
            admin_port: 0,
            metrics: None,
            host: settings.host.as_deref(),
            run_dir: &run_dir,
            access_log: &access_log,
            origins: &origin_addresses,
            sidecars: &sidecars,
            health_path: &settings.health_path,
            health_interval: &settings.health_interval,
            custom_methods: settings.custom_methods,
        };
        let rendered = config.render(include_str!("../../envoy/envoy.yaml")).map_err(StackError)?;
        let rendered = crate::render::edited(rendered, &settings.envoy_edits).map_err(StackError)?;
        std::fs::write(run_dir.join("envoy.yaml"), rendered).map_err(io)?;
        write_filter_config(&run_dir, &wasm, &settings.filter_config, settings.stop_iteration)?;
        let envoy = start_envoy(&envoy_binary, &run_dir, &settings)?;
        let mut stack = Self {
            settings,
            envoy,
            sidecar,
            origins,
            url: String::new(),
            admin: String::new(),
            run_dir,
            client: readiness::client(),
            _temporary: temporary,
        };
        stack.wait_until_served().await?;
        stack.wait_until_it_follows().await;
        Ok(stack)
    }

    /// Polls until the Envoy follows what is purged: with the first answer to that it empties level 1, so what it kept before
    /// is asked for again. Not for long: without a store, or with one that cannot be reached, it serves all the same.
    async fn wait_until_it_follows(&self) {
        let config = serde_json::from_str::<serde_json::Value>(&self.settings.filter_config).unwrap_or_default();
        let has_store = self.sidecar_address().or(self.settings.sidecar.as_deref()).is_some();
        if has_store && config["store"]["enabled"] != false {
            let follows = || async { self.envoy_log().contains(readiness::FOLLOWS).then_some(()) };
            let _ = crate::eventually(FOLLOW, follows).await;
        }
    }

    /// Polls until a request through the listener is answered, by the cache or by what stands behind it.
    async fn wait_until_served(&mut self) -> Result<()> {
        let address_file = self.run_dir.join(ADMIN_FILE);
        let deadline = tokio::time::Instant::now() + START;
        loop {
            if !self.envoy.is_running() {
                return Err(StackError(format!("Envoy ended: {}", readiness::problem(&self.envoy.output()))));
            }
            if let Some(refusal) = readiness::refusal(&self.envoy.output()) {
                return Err(StackError(refusal));
            }
            if let Some(admin) = std::fs::read_to_string(&address_file).ok().filter(|text| !text.trim().is_empty()) {
                self.admin = format!("http://{}", admin.trim());
                if let Some(port) = readiness::listener_port(&self.client, &self.admin).await {
                    self.url = format!("http://{}", readiness::reachable(self.settings.bind, port));
                    if readiness::answers(&self.client, &self.url, &self.settings.health_path).await {
                        return Ok(());
                    }
                }
            }
            if tokio::time::Instant::now() >= deadline {
                let problem = readiness::problem(&self.envoy.output());
                return Err(StackError(format!("no request through Envoy was answered: {problem}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What keeps origins from being asked, one line for each that gets no requests.
    pub async fn origins_in_trouble(&self) -> OriginsInTrouble {
        let own: Vec<String>;
        let addresses = match &self.settings.origins {
            Origins::Addresses(addresses) => addresses,
            Origins::Mock(_) => {
                own = self.origins.iter().map(|(_, address)| address.clone()).collect();
                &own
            }
        };
        readiness::origins_in_trouble(&self.client, &self.admin, addresses, &self.settings.health_path).await
    }

    /// Keeps each log of this run within about `bytes`, and as much again in a file ending in `.1`.
    pub async fn keep_logs_within(&self, bytes: u64) {
        if logs::move_aside(&self.run_dir.join(ACCESS_LOG), bytes) {
            let _ = self.client.post(format!("{}/reopen_logs", self.admin)).send().await;
        }
        let processes = self.origins.iter().chain(&self.sidecar).map(|(process, _)| process);
        for process in processes.chain(std::iter::once(&self.envoy)) {
            process.keep_log_within(bytes);
        }
    }

    /// Where clients go.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Envoy's admin interface.
    pub fn admin_url(&self) -> &str {
        &self.admin
    }

    /// A mock origin, past the cache.
    pub fn origin_url(&self, index: usize) -> String {
        self.origins.get(index).map(|(_, address)| format!("http://{address}")).unwrap_or_default()
    }

    /// `host:port` of the sidecar, if one was started.
    pub fn sidecar_address(&self) -> Option<&str> {
        self.sidecar.as_ref().map(|(_, address)| address.as_str())
    }

    /// Where configuration and logs of this run are.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// All that Envoy has logged.
    pub fn envoy_log(&self) -> String {
        self.envoy.output()
    }

    /// The text at a path of the admin interface.
    pub async fn admin_get(&self, path: &str) -> String {
        match self.client.get(format!("{}{path}", self.admin)).send().await {
            Ok(response) => response.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Gives the running Envoy another filter configuration. The error is Envoy's reason; the old one then keeps serving.
    pub async fn swap_filter_config(&mut self, config: &str) -> Result<()> {
        let wasm = built(&project_root(), "target/wasm32-wasip1/wasm/larder_filter.wasm", "make wasm")?;
        swap::swap(&self.run_dir, &wasm, &self.admin, config, self.settings.stop_iteration).await
    }

    /// Envoy's process number.
    pub fn envoy_id(&self) -> u32 {
        self.envoy.id()
    }

    /// Ends Envoy without warning.
    pub fn kill_envoy(&mut self) {
        self.envoy.kill();
    }

    /// Sends Envoy a signal: stopped, it takes connections and never answers.
    pub fn signal_envoy(&self, signal: Signal) {
        self.envoy.signal(signal);
    }

    /// Starts Envoy again with what it had, where its port was free, on another one.
    pub async fn restart_envoy(&mut self) -> Result<()> {
        self.envoy.kill();
        self.envoy = start_envoy(&envoy_binary(&project_root())?, &self.run_dir, &self.settings)?;
        self.wait_until_served().await
    }

    /// Ends the sidecar without warning.
    pub fn kill_sidecar(&mut self) {
        if let Some((process, _)) = &mut self.sidecar {
            process.kill();
        }
    }

    /// Stops the sidecar's clock: it takes connections and never answers.
    pub fn pause_sidecar(&self) {
        self.signal_sidecar(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume_sidecar(&self) {
        self.signal_sidecar(Signal::SIGCONT);
    }

    fn signal_sidecar(&self, signal: Signal) {
        if let Some((process, _)) = &self.sidecar {
            process.signal(signal);
        }
    }

    /// Starts the sidecar again where it was.
    pub async fn restart_sidecar(&mut self) -> Result<()> {
        let Some((mut process, address)) = self.sidecar.take() else { return Ok(()) };
        process.kill();
        self.sidecar = Some(launch_sidecar(&self.settings, &project_root(), &self.run_dir, &address).await?);
        Ok(())
    }

    /// Ends a mock origin without warning.
    pub fn kill_origin(&mut self, index: usize) {
        if let Some((process, _)) = self.origins.get_mut(index) {
            process.kill();
        }
    }

    /// Starts a mock origin again where it was.
    pub async fn restart_origin(&mut self, index: usize) -> Result<()> {
        let Some(address) = self.origins.get(index).map(|(_, address)| address.clone()) else { return Ok(()) };
        self.kill_origin(index);
        self.origins[index] = launch_origin(&project_root(), &self.run_dir, index, &address).await?;
        Ok(())
    }

    /// The first child that has ended, with its last words.
    pub fn ended_child(&mut self) -> Option<String> {
        let children = self.origins.iter_mut().map(|(process, _)| process);
        let children = children.chain(self.sidecar.iter_mut().map(|(process, _)| process));
        let mut ended = children.chain(std::iter::once(&mut self.envoy)).filter_map(|process| {
            (!process.is_running()).then(|| format!("{} ended:\n{}", process.name(), process.last_lines(10)))
        });
        ended.next()
    }

    /// Ends everything, Envoy first.
    pub async fn stop(mut self) {
        self.envoy.stop(STOP).await;
        let _ = std::fs::remove_file(self.run_dir.join(ADMIN_FILE));
        if let Some((process, _)) = &mut self.sidecar {
            process.stop(STOP).await;
        }
        for (process, _) in &mut self.origins {
            process.stop(STOP).await;
        }
    }
}

fn start_envoy(binary: &Path, run_dir: &Path, settings: &Settings) -> Result<Process> {
    let mut command = Command::new(binary);
    let address_file = run_dir.join(ADMIN_FILE);
    let _ = std::fs::remove_file(&address_file);
    command.arg("-c").arg(run_dir.join("envoy.yaml")).arg("--admin-address-path").arg(&address_file);
    command.args([
        "--concurrency",
        &settings.workers.to_string(),
        "--use-dynamic-base-id",
        "-l",
        "info",
        "--drain-time-s",
        "1",
    ]);
    // The filter reads it from there, so that no file holds it and a swapped configuration needs none.
    match settings
        .token
        .as_deref()
        .and_then(|token| token.split([',', '\n']).map(str::trim).find(|one| !one.is_empty()))
    {
        Some(token) => command.env("LARDER_TOKEN", token),
        None => command.env_remove("LARDER_TOKEN"),
    };
    command.args(["--component-log-level", "upstream:warning,main:warning"]);
    Process::start("envoy", command, &run_dir.join("envoy.log")).map_err(|error| {
        StackError(format!("cannot start {}: {error}; run make envoy, or set ENVOY", binary.display()))
    })
}

async fn start_origins(
    settings: &Settings,
    root: &Path,
    run_dir: &Path,
    progress: &impl Fn(&str),
) -> Result<Vec<(Process, String)>> {
    let Origins::Mock(count) = settings.origins else { return Ok(Vec::new()) };
    progress(&format!("starting {count} mock origins"));
    let mut origins = Vec::new();
    for index in 0..count {
        origins.push(launch_origin(root, run_dir, index, "127.0.0.1:0").await?);
    }
    Ok(origins)
}

async fn launch_origin(root: &Path, run_dir: &Path, index: usize, listen: &str) -> Result<(Process, String)> {
    let binary = built(root, "target/release/larder-mock-origin", "make build")?;
    let name = format!("origin-{}", index + 1);
    let mut command = Command::new(binary);
    command.args(["--listen", listen, "--name", &name, "--updated-at", "2026-01-01T00:00:00.000Z"]);
    start_listening(&name, command, &run_dir.join(format!("{name}.log"))).await
}

async fn start_sidecar(
    settings: &Settings,
    root: &Path,
    run_dir: &Path,
    progress: &impl Fn(&str),
) -> Result<Option<(Process, String)>> {
    if settings.sidecar.is_some() {
        return Ok(None);
    }
    match &settings.store {
        StoreKind::Memory => progress("starting the sidecar (memory store)"),
        StoreKind::Redis(_) => progress("starting the sidecar (Redis store)"),
    }
    launch_sidecar(settings, root, run_dir, "127.0.0.1:0").await.map(Some)
}

/// Starts a sidecar, and gives where it listens.
pub(crate) async fn launch_sidecar(
    settings: &Settings,
    root: &Path,
    run_dir: &Path,
    listen: &str,
) -> Result<(Process, String)> {
    let mut command = Command::new(built(root, "target/release/larder-sidecar", "make build")?);
    command.args(["--listen", listen]).env_remove("LARDER_TOKEN_FILE");
    match &settings.token {
        Some(token) => command.env("LARDER_TOKEN", token),
        None => command.env_remove("LARDER_TOKEN"),
    };
    command.envs(settings.sidecar_env.iter().cloned());
    match &settings.store {
        StoreKind::Memory => command.env_remove("REDIS_URL"),
        StoreKind::Redis(url) => command.env("REDIS_URL", url),
    };
    start_listening("larder-sidecar", command, &run_dir.join("sidecar.log")).await
}

/// Starts a program that says where it listens, and waits for it to say so.
async fn start_listening(name: &str, command: Command, log: &Path) -> Result<(Process, String)> {
    let mut process =
        Process::start(name, command, log).map_err(|error| StackError(format!("cannot start {name}: {error}")))?;
    let address = eventually(START, || {
        let output = process.output();
        let address = output.lines().find_map(|line| {
            let (_, rest) = line.split_once(" listening on http://")?;
            Some(rest.split_whitespace().next().unwrap_or_default().to_owned())
        });
        let ended = !process.is_running();
        async move { address.map(Some).or_else(|| ended.then_some(None)) }
    });
    match address.await.flatten() {
        Some(address) => Ok((process, address)),
        None => Err(StackError(process.last_lines(3))),
    }
}

fn check_port(settings: &Settings) -> Result<()> {
    let (bind, port) = (settings.bind, settings.port);
    std::net::TcpListener::bind((bind, port)).map(drop).map_err(|error| {
        let other = free_port().unwrap_or(3001);
        StackError(format!("{bind} port {port} cannot be used ({error}); choose another: make run port={other}"))
    })
}

pub(crate) fn io(error: std::io::Error) -> StackError {
    StackError(error.to_string())
}
