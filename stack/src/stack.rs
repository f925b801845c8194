//! The running system.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Client;

use crate::eventually;
use crate::process::Process;
use crate::redis_server::free_port;
use crate::render::{self, EnvoyConfig, FILTER_FILE};
use crate::settings::{Origins, Settings, StoreKind};

/// Why the system does not run. One line that names what is wrong and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StackError(pub String);

type Result<T> = std::result::Result<T, StackError>;

const START: Duration = Duration::from_secs(30);
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
            check_port(settings.port)?;
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
            if settings.access_log { run_dir.join("access.log").display().to_string() } else { String::new() };
        let config = EnvoyConfig {
            listen: ("0.0.0.0", settings.port),
            admin: ("127.0.0.1", 0),
            run_dir: &run_dir,
            access_log: &access_log,
            origins: &origin_addresses,
            sidecars: &sidecars,
            health_path: &settings.health_path,
            health_interval: &settings.health_interval,
            custom_methods: settings.custom_methods,
        };
        let rendered = config.render(include_str!("../../envoy/envoy.yaml")).map_err(StackError)?;
        let rendered = render::edited(rendered, &settings.envoy_edits).map_err(StackError)?;
        std::fs::write(run_dir.join("envoy.yaml"), rendered).map_err(io)?;
        write_filter_config(&run_dir, &wasm, &settings.filter_config)?;
        let envoy = start_envoy(&envoy_binary, &run_dir, settings.workers)?;
        let mut stack = Self {
            settings,
            envoy,
            sidecar,
            origins,
            url: String::new(),
            admin: String::new(),
            run_dir,
            client: Client::new(),
            _temporary: temporary,
        };
        stack.wait_until_served().await?;
        Ok(stack)
    }

    async fn wait_until_served(&mut self) -> Result<()> {
        let address_file = self.run_dir.join("admin.address");
        let client = self.client.clone();
        let deadline = tokio::time::Instant::now() + START;
        loop {
            if !self.envoy.is_running() {
                return Err(StackError(format!("Envoy ended: {}", self.envoy_problem())));
            }
            if let Some(admin) = std::fs::read_to_string(&address_file).ok().filter(|text| !text.trim().is_empty()) {
                self.admin = format!("http://{}", admin.trim());
                if let Some(url) = ready(&client, &self.admin).await {
                    self.url = url;
                    if self.filter_answers().await {
                        return Ok(());
                    }
                }
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(StackError(format!("Envoy did not get ready: {}", self.envoy_problem())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the filter is in place: Envoy answers 500 for every request until it has its configuration.
    async fn filter_answers(&self) -> bool {
        let stats = self.admin_get("/stats?filter=extension_config_discovery.*config_reload$").await;
        let reloads: u64 = stats.lines().filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok()).sum();
        reloads > 0
    }

    fn envoy_problem(&self) -> String {
        let output = self.envoy.output();
        let telling =
            |line: &&str| line.contains("larder:") || line.contains("][error]") || line.contains("][critical]");
        let lines: Vec<&str> = output.lines().filter(telling).collect();
        if lines.is_empty() { self.envoy.last_lines(5) } else { lines[lines.len().saturating_sub(5)..].join("\n") }
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
        swap(&self.run_dir, &wasm, &self.admin, config).await
    }

    /// Envoy's process number.
    pub fn envoy_id(&self) -> u32 {
        self.envoy.id()
    }

    /// Ends Envoy without warning.
    pub fn kill_envoy(&mut self) {
        self.envoy.kill();
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
        if let Some((process, _)) = &mut self.sidecar {
            process.stop(STOP).await;
        }
        for (process, _) in &mut self.origins {
            process.stop(STOP).await;
        }
    }
}

async fn ready(client: &Client, admin: &str) -> Option<String> {
    let response = client.get(format!("{admin}/ready")).send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let listeners = client.get(format!("{admin}/listeners?format=json")).send().await.ok()?;
    let listeners: serde_json::Value = listeners.json().await.ok()?;
    let port = &listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"];
    Some(format!("http://127.0.0.1:{}", port.as_u64()?))
}

/// Swaps the filter's configuration of the Envoy behind `admin` and waits for its verdict.
pub async fn swap(run_dir: &Path, wasm: &Path, admin: &str, config: &str) -> Result<()> {
    let client = Client::new();
    let counts = |text: String, name: &str| -> u64 {
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
            counts(text.clone(), "config_reload:"),
            counts(text.clone(), "config_fail:") + counts(text, "update_rejected:"),
        )
    };
    let log_before = std::fs::metadata(run_dir.join("envoy.log")).map(|meta| meta.len()).unwrap_or(0);
    let (reloads, failures) = stats().await;
    write_filter_config(run_dir, wasm, config)?;
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
            let log = std::fs::read(run_dir.join("envoy.log")).unwrap_or_default();
            let new = log.get(usize::try_from(log_before).unwrap_or(0)..).unwrap_or_default();
            let new = String::from_utf8_lossy(new).into_owned();
            let reason = new.lines().find(|line| line.contains("larder: configuration refused"));
            let reason =
                reason.or_else(|| new.lines().find(|line| line.contains("rejected") || line.contains("error")));
            Err(StackError(format!("Envoy keeps the old configuration: {}", reason.unwrap_or("see its log"))))
        }
        None => Err(StackError("Envoy has not reloaded: is this the configuration it has already?".to_owned())),
    }
}

fn write_filter_config(run_dir: &Path, wasm: &Path, config: &str) -> Result<()> {
    let text = render::filter_config(include_str!("../../envoy/filter.ecds.json"), wasm, config).map_err(StackError)?;
    let (path, part) = (run_dir.join(FILTER_FILE), run_dir.join("filter.ecds.part"));
    std::fs::write(&part, text).map_err(io)?;
    // Envoy watches for the rename, so it never reads half a file.
    std::fs::rename(part, path).map_err(io)
}

fn start_envoy(binary: &Path, run_dir: &Path, workers: usize) -> Result<Process> {
    let mut command = Command::new(binary);
    let address_file = run_dir.join("admin.address");
    let _ = std::fs::remove_file(&address_file);
    command.arg("-c").arg(run_dir.join("envoy.yaml")).arg("--admin-address-path").arg(&address_file);
    command.args(["--concurrency", &workers.to_string(), "--use-dynamic-base-id", "-l", "info", "--drain-time-s", "1"]);
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

async fn launch_sidecar(settings: &Settings, root: &Path, run_dir: &Path, listen: &str) -> Result<(Process, String)> {
    let mut command = Command::new(built(root, "target/release/larder-sidecar", "make build")?);
    command.args(["--listen", listen]).envs(settings.sidecar_env.iter().cloned());
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

/// The project's folder: where the sources were when this was built.
pub fn project_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// A build product; the error names the command that makes it.
pub fn built(root: &Path, relative: &str, command: &str) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let path = match (target, relative.strip_prefix("target/")) {
        (Some(target), Some(rest)) => target.join(rest),
        _ => root.join(relative),
    };
    if path.exists() { Ok(path) } else { Err(StackError(format!("{relative} is missing; run {command}"))) }
}

/// Envoy's binary: `ENVOY`, or the one that was fetched.
pub fn envoy_binary(root: &Path) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let path = root.join(".larder/envoy-1.40.0/envoy");
    if path.exists() { Ok(path) } else { Err(StackError("Envoy is missing; run make envoy, or set ENVOY".to_owned())) }
}

fn check_port(port: u16) -> Result<()> {
    std::net::TcpListener::bind(("0.0.0.0", port)).map(drop).map_err(|error| {
        let other = free_port().unwrap_or(3001);
        StackError(format!("port {port} cannot be used ({error}); choose another: make run port={other}"))
    })
}

fn io(error: std::io::Error) -> StackError {
    StackError(error.to_string())
}
