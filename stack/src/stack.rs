//! The running system.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Client;

use crate::error::{Result, StackError};
use crate::launch::{self, ADMIN_FILE, ANYWHERE, CONFIG_FILE, START, free_port};
use crate::process::Process;
use crate::readiness::{self, OriginsInTrouble};
use crate::render::EnvoyConfig;
use crate::settings::{Origins, Settings, StoreKind};
use crate::swap::write_filter_config;
use crate::{eventually, logs, swap};

mod breaking;

pub use crate::checkout::{built, envoy_binary, filter_module, project_root};

const ACCESS_LOG: &str = "access.log";
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

/// Envoy's configuration, with the edits of the settings.
fn envoy_config(
    settings: &Settings,
    run_dir: &Path,
    origins: &[String],
    sidecars: &[String],
) -> Result<String> {
    let access_log = if settings.access_log {
        run_dir.join(ACCESS_LOG).display().to_string()
    } else {
        String::new()
    };
    let config = EnvoyConfig {
        listen: (&settings.bind.to_string(), settings.port),
        admin_port: 0,
        metrics: None,
        host: settings.host.as_deref(),
        run_dir,
        access_log: &access_log,
        origins,
        sidecars,
        health_path: &settings.health_path,
        health_interval: &settings.health_interval,
        custom_methods: settings.custom_methods,
    };
    let rendered = config
        .render(include_str!("../../envoy/envoy.yaml"))
        .map_err(StackError)?;
    crate::render::edited(rendered, &settings.envoy_edits).map_err(StackError)
}

impl Stack {
    /// Starts everything and returns when the first request can be served. `progress` is told what
    /// is being done.
    pub async fn start(settings: Settings, progress: impl Fn(&str)) -> Result<Self> {
        let root = project_root();
        let wasm = filter_module(&root)?;
        envoy_binary(&root)?;
        if settings.port != 0 {
            check_port(&settings)?;
        }
        let temporary = if settings.run_dir.is_none() {
            Some(tempfile::tempdir()?)
        } else {
            None
        };
        let run_dir = settings
            .run_dir
            .clone()
            .or_else(|| temporary.as_ref().map(|t| t.path().to_owned()))
            .unwrap_or_default();
        std::fs::create_dir_all(&run_dir)?;
        let origins = start_origins(&settings, &run_dir, &progress).await?;
        let sidecar = start_sidecar(&settings, &run_dir, &progress).await?;
        let origin_addresses = addresses(&settings, &origins);
        let sidecar_address = sidecar_of(&settings, sidecar.as_ref()).unwrap_or("127.0.0.1:1");
        let sidecars = vec![sidecar_address.to_owned()];
        progress("starting Envoy");
        std::fs::write(
            run_dir.join(CONFIG_FILE),
            envoy_config(&settings, &run_dir, &origin_addresses, &sidecars)?,
        )?;
        write_filter_config(
            &run_dir,
            &wasm,
            &settings.filter_config,
            settings.stop_iteration,
        )?;
        let envoy = launch::envoy(&run_dir, &settings)?;
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
        if stack.asks_a_store() {
            // Not for long: with a store that cannot be reached it serves all the same.
            let _ = stack.wait_until_it_follows(FOLLOW).await;
        }
        Ok(stack)
    }

    /// Polls until the Envoy follows what is purged: with the first answer to that it empties level
    /// 1, so what it kept before is asked for again, and of everything after it hears.
    pub async fn wait_until_it_follows(&self, patience: Duration) -> Result<()> {
        let follows = || async { self.envoy_log().contains(readiness::FOLLOWS).then_some(()) };
        let followed = eventually(patience, follows).await;
        followed.ok_or_else(|| {
            StackError("an Envoy does not hear what is purged; see the sidecar's log".to_owned())
        })
    }

    fn asks_a_store(&self) -> bool {
        let config = serde_json::from_str::<serde_json::Value>(&self.settings.filter_config)
            .unwrap_or_default();
        config["store"]["enabled"] != false
    }

    /// Polls until a request through the listener is answered, by the cache or by what stands
    /// behind it.
    async fn wait_until_served(&mut self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + START;
        loop {
            if !self.envoy.is_running() {
                return Err(StackError(format!(
                    "Envoy ended: {}",
                    readiness::problem(&self.envoy.output())
                )));
            }
            if let Some(refusal) = readiness::refusal(&self.envoy.output()) {
                return Err(StackError(refusal));
            }
            if let Some(admin) = launch::admin_url(&self.run_dir) {
                self.admin = admin;
                if let Some(port) = readiness::listener_port(&self.client, &self.admin).await {
                    self.url = format!("http://{}", readiness::reachable(self.settings.bind, port));
                    if readiness::answers(&self.client, &self.url, &self.settings.health_path).await
                    {
                        return Ok(());
                    }
                }
            }
            if tokio::time::Instant::now() >= deadline {
                let problem = readiness::problem(&self.envoy.output());
                return Err(StackError(format!(
                    "no request through Envoy was answered: {problem}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What keeps origins from being asked, one line for each that gets no requests.
    pub async fn origins_in_trouble(&self) -> OriginsInTrouble {
        let addresses = self.origin_addresses();
        readiness::origins_in_trouble(
            &self.client,
            &self.admin,
            &addresses,
            &self.settings.health_path,
        )
        .await
    }

    /// Keeps each log of this run within about `bytes`, and as much again in a file ending in `.1`.
    pub async fn keep_logs_within(&self, bytes: u64) {
        if logs::move_aside(&self.run_dir.join(ACCESS_LOG), bytes) {
            let _ = self
                .client
                .post(format!("{}/reopen_logs", self.admin))
                .send()
                .await;
        }
        let processes = self
            .origins
            .iter()
            .chain(&self.sidecar)
            .map(|(process, _)| process);
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
        self.origins
            .get(index)
            .map(|(_, address)| format!("http://{address}"))
            .unwrap_or_default()
    }

    /// `host:port` of each origin, past the cache.
    pub fn origin_addresses(&self) -> Vec<String> {
        addresses(&self.settings, &self.origins)
    }

    /// `host:port` of the sidecar that the Envoy asks: its own, or the one that was given.
    pub fn sidecar_address(&self) -> Option<&str> {
        sidecar_of(&self.settings, self.sidecar.as_ref())
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
        match self
            .client
            .get(format!("{}{path}", self.admin))
            .send()
            .await
        {
            Ok(response) => response.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Gives the running Envoy another filter configuration. The error is Envoy's reason; the old
    /// one then keeps serving.
    pub async fn swap_filter_config(&mut self, config: &str) -> Result<()> {
        let wasm = filter_module(&project_root())?;
        swap::swap(
            &self.run_dir,
            &wasm,
            &self.admin,
            config,
            self.settings.stop_iteration,
        )
        .await
    }

    /// The first child that has ended, with its last words.
    pub fn ended_child(&mut self) -> Option<String> {
        let children = self.origins.iter_mut().map(|(process, _)| process);
        let children = children.chain(self.sidecar.iter_mut().map(|(process, _)| process));
        let mut ended = children
            .chain(std::iter::once(&mut self.envoy))
            .filter_map(|process| {
                (!process.is_running())
                    .then(|| format!("{} ended:\n{}", process.name(), process.last_lines(10)))
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

/// `host:port` of each origin: of those that were given, or of our own.
fn addresses(settings: &Settings, own: &[(Process, String)]) -> Vec<String> {
    match &settings.origins {
        Origins::Addresses(addresses) => addresses.clone(),
        Origins::Mock(_) => own.iter().map(|(_, address)| address.clone()).collect(),
    }
}

/// `host:port` of the sidecar: of the one that was given, or of our own.
fn sidecar_of<'a>(settings: &'a Settings, own: Option<&'a (Process, String)>) -> Option<&'a str> {
    let own = own.map(|(_, address)| address.as_str());
    settings.sidecar.as_deref().or(own)
}

async fn start_origins(
    settings: &Settings,
    run_dir: &Path,
    progress: &impl Fn(&str),
) -> Result<Vec<(Process, String)>> {
    let Origins::Mock(count) = settings.origins else {
        return Ok(Vec::new());
    };
    progress(&format!("starting {count} mock origins"));
    let mut origins = Vec::new();
    for index in 0..count {
        origins.push(launch::origin(&origin_name(index), run_dir, ANYWHERE).await?);
    }
    Ok(origins)
}

fn origin_name(index: usize) -> String {
    format!("origin-{}", index + 1)
}

async fn start_sidecar(
    settings: &Settings,
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
    launch::sidecar(settings, run_dir, ANYWHERE).await.map(Some)
}

fn check_port(settings: &Settings) -> Result<()> {
    let (bind, port) = (settings.bind, settings.port);
    std::net::TcpListener::bind((bind, port))
        .map(drop)
        .map_err(|error| {
            let other = free_port().unwrap_or(3001);
            StackError(format!(
                "{bind} port {port} cannot be used ({error}); choose another: make run port={other}"
            ))
        })
}
