//! `larder-stack`: runs the system, swaps the filter's configuration, renders Envoy's.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use larder_stack::render::EnvoyConfig;
use larder_stack::stack::{built, project_root};
use larder_stack::{Origins, Settings, Stack, StackError, StoreKind, swap};
use tokio::signal::unix::{SignalKind, signal};

mod options;

use options::{Cli, Filter, Render, Run, Verb};

/// How long each log of a run may grow; as much again is kept of what was before.
const LOG_BYTES: u64 = 64 << 20;
/// Time between looks at the children and their logs.
const WATCH: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match options::mistake(&error) {
            Some(mistake) => return failed(&mistake),
            None => error.exit(),
        },
    };
    let result = match cli.command {
        Verb::Run(options) => run(options).await,
        Verb::Filter(options) => filter(options).await,
        Verb::Render(options) => render(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(problem: &str) -> ExitCode {
    eprintln!("larder: {problem}");
    ExitCode::FAILURE
}

async fn run(options: Run) -> Result<(), StackError> {
    let token_of_shell = purge_token();
    larder_project::env_file::load(&project_root()).map_err(|mistake| StackError(mistake.to_string()))?;
    let store = match std::env::var("REDIS_URL") {
        Ok(url) if !url.is_empty() => StoreKind::Redis(url),
        _ => StoreKind::Memory,
    };
    let own = !options.origins.is_empty();
    let settings = Settings {
        port: options.port,
        bind: options.bind,
        host: options.host,
        origins: if own { Origins::Addresses(options.origins) } else { Origins::Mock(2) },
        health_path: options.health_path,
        health_interval: options.health_interval,
        store,
        filter_config: read(Path::new(&options.config))?,
        workers: options.workers,
        custom_methods: options.custom_methods,
        token: Some(token()?),
        run_dir: Some(run_dir(options.port)),
        ..Settings::default()
    };
    let mut stop = Stop::new()?;
    let starting = Stack::start(settings, |step| println!("· {step}"));
    let mut stack = tokio::select! {
        started = starting => started?,
        () = stop.told() => return Ok(()),
    };
    introduce(&stack, own, token_of_shell.is_some());
    let served = tokio::select! {
        served = serve(&mut stack) => served,
        () = stop.told() => Ok(()),
    };
    if served.is_ok() {
        println!("· stopping");
    }
    stack.stop().await;
    served
}

/// Says that Larder is ready as soon as an origin is asked, and returns when a child has ended.
async fn serve(stack: &mut Stack) -> Result<(), StackError> {
    let mut told = Vec::new();
    let mut waiting = true;
    loop {
        if waiting {
            let trouble = stack.origins_in_trouble().await;
            for line in trouble.lines.iter().filter(|line| !told.contains(*line)) {
                println!(
                    "· {}: {line}",
                    if trouble.all { "not ready, no origin is well" } else { "an origin gets no requests" }
                );
            }
            told = trouble.lines;
            waiting = trouble.all;
            if !waiting {
                println!("Larder is ready: {}", stack.url());
            }
        }
        if let Some(ended) = stack.ended_child() {
            return Err(StackError(ended));
        }
        stack.keep_logs_within(LOG_BYTES).await;
        tokio::time::sleep(WATCH).await;
    }
}

fn purge_token() -> Option<String> {
    std::env::var("LARDER_PURGE_TOKEN").ok().filter(|token| !token.is_empty())
}

fn introduce(stack: &Stack, own: bool, token_of_shell: bool) {
    let url = stack.url();
    if !own {
        println!("· try:");
        println!("    curl -i '{url}/data?id=1&cache-control=stale-while-revalidate=15,max-age=5'");
        println!("    curl -i '{url}/data?id=1&cache-control=must-revalidate,max-age=10'");
        println!("    curl -i '{url}/data?id=1&cache-control=stale-if-error=10,max-age=5'");
        println!("· origins, past the cache: {} {}", stack.origin_url(0), stack.origin_url(1));
    }
    if let Some(sidecar) = stack.sidecar_address() {
        println!("· sidecar: http://{sidecar}");
        match purge_token() {
            None => println!("· to purge, set LARDER_PURGE_TOKEN in .env and start again"),
            // The command reads .env, but knows nothing of this shell.
            Some(_) if token_of_shell => {
                println!("· to purge, with LARDER_PURGE_TOKEN as it is here: {}", purge(sidecar))
            }
            Some(_) => println!("· to purge: {}", purge(sidecar)),
        }
    }
    println!("· Envoy's admin: {}  logs: {}", stack.admin_url(), stack.run_dir().display());
}

/// The command that purges, as it works from any folder.
fn purge(sidecar: &str) -> String {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("larder"));
    let program = beside.unwrap_or_else(|| project_root().join("target/release/larder"));
    format!("{} purge --sidecar http://{sidecar} --everything", program.display())
}

async fn filter(options: Filter) -> Result<(), StackError> {
    let folder = run_dir(options.port);
    let admin = swap::running(&folder).await;
    let admin = admin
        .ok_or_else(|| StackError(format!("nothing runs on port {0}; start it: make run port={0}", options.port)))?;
    let wasm = built(&project_root(), "target/wasm32-wasip1/wasm/larder_filter.wasm", "make wasm")?;
    swap::swap(&folder, &wasm, &admin, &read(Path::new(&options.config))?, true).await?;
    println!("Envoy on port {} now uses {}", options.port, options.config);
    Ok(())
}

fn render(options: &Render) -> Result<(), StackError> {
    let bind = options.bind.to_string();
    let config = EnvoyConfig {
        listen: (&bind, options.port),
        admin_port: options.admin_port,
        metrics: options.metrics_port.map(|port| (bind.as_str(), port)),
        host: options.host.as_deref(),
        run_dir: &options.run_dir,
        access_log: "/dev/stdout",
        origins: &options.origins,
        sidecars: std::slice::from_ref(&options.sidecar),
        health_path: &options.health_path,
        health_interval: "10s",
        custom_methods: false,
    };
    let envoy = config.render(include_str!("../../envoy/envoy.yaml")).map_err(StackError)?;
    let template = include_str!("../../envoy/filter.ecds.json");
    let filter = larder_stack::render::filter_config(template, &options.wasm, &read(Path::new(&options.config))?);
    let write = |name: &str, text: String| {
        std::fs::write(options.out.join(name), text).map_err(|error| StackError(format!("{name}: {error}")))
    };
    write("envoy.yaml", envoy)?;
    write(larder_stack::render::FILTER_FILE, filter.map_err(StackError)?)
}

fn read(path: &Path) -> Result<String, StackError> {
    std::fs::read_to_string(path).map_err(|error| StackError(format!("{}: {error}", path.display())))
}

/// The token between the filter and the sidecar: what the environment gives, else one for this run alone.
fn token() -> Result<String, StackError> {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    if let Some(token) = given("LARDER_TOKEN") {
        return Ok(token);
    }
    if let Some(path) = given("LARDER_TOKEN_FILE") {
        return read(Path::new(&path));
    }
    let mut random = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|error| StackError(format!("no random numbers: {error}; set LARDER_TOKEN")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn run_dir(port: u16) -> PathBuf {
    project_root().join(".larder/run").join(port.to_string())
}

/// Being told to stop, from the terminal or from outside.
struct Stop([tokio::signal::unix::Signal; 3]);

impl Stop {
    fn new() -> Result<Self, StackError> {
        let listen = |kind| signal(kind).map_err(|error| StackError(error.to_string()));
        Ok(Self([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]))
    }

    async fn told(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
    }
}
