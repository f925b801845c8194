//! `larder-stack`: runs the system, swaps the filter's configuration, renders Envoy's.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use larder_stack::render::EnvoyConfig;
use larder_stack::stack::{built, project_root, swap};
use larder_stack::{Origins, Settings, Stack, StackError, StoreKind};
use tokio::signal::unix::{SignalKind, signal};

/// Runs Larder: Envoy with the cache filter, the sidecar, and mock origins or your own.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run everything until Ctrl-C
    Run(Run),
    /// Give a running stack another filter configuration
    Filter(Filter),
    /// Print Envoy's configuration
    Render(Render),
}

#[derive(Args)]
struct Run {
    /// Port of the cache
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Your own services as host:port,host:port; without it two mock origins
    #[arg(long, value_delimiter = ',')]
    origins: Vec<String>,
    /// Path of the health checks; empty for none
    #[arg(long, default_value = "/health-check")]
    health_path: String,
    /// Time between health checks
    #[arg(long, default_value = "10s")]
    health_interval: String,
    /// The filter's configuration
    #[arg(long, default_value = "envoy/filters/demo.json")]
    config: PathBuf,
    /// Envoy's worker threads
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Let methods pass that Envoy does not know (Envoy calls this work in progress)
    #[arg(long)]
    custom_methods: bool,
}

#[derive(Args)]
struct Filter {
    /// Port of the running stack
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// The filter's configuration
    #[arg(long)]
    config: PathBuf,
}

#[derive(Args)]
struct Render {
    /// Port of the listener
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Origins as host:port
    #[arg(long, value_delimiter = ',', required = true)]
    origins: Vec<String>,
    /// Sidecar as host:port
    #[arg(long)]
    sidecar: String,
    /// Folder of the configuration in the place where Envoy runs
    #[arg(long)]
    run_dir: PathBuf,
    /// Path of the health checks; empty for none
    #[arg(long, default_value = "/health-check")]
    health_path: String,
    /// The filter's configuration, to be rendered too
    #[arg(long, default_value = "envoy/filters/demo.json")]
    config: PathBuf,
    /// Where the module lies in the place where Envoy runs
    #[arg(long)]
    wasm: PathBuf,
    /// Folder to write both files to
    #[arg(long)]
    out: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let _ = dotenvy::from_path(project_root().join(".env"));
    let result = match cli.command {
        Verb::Run(options) => run(options).await,
        Verb::Filter(options) => filter(options).await,
        Verb::Render(options) => render(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Run) -> Result<(), StackError> {
    let store = match std::env::var("REDIS_URL") {
        Ok(url) if !url.is_empty() => StoreKind::Redis(url),
        _ => StoreKind::Memory,
    };
    let own = !options.origins.is_empty();
    let settings = Settings {
        port: options.port,
        origins: if own { Origins::Addresses(options.origins) } else { Origins::Mock(2) },
        health_path: options.health_path,
        health_interval: options.health_interval,
        store,
        filter_config: read(&options.config)?,
        workers: options.workers,
        custom_methods: options.custom_methods,
        run_dir: Some(run_dir(options.port)),
        ..Settings::default()
    };
    let mut stop = Stop::new()?;
    let starting = Stack::start(settings, |step| println!("· {step}"));
    let mut stack = tokio::select! {
        started = starting => started?,
        () = stop.told() => return Ok(()),
    };
    introduce(&stack, options.port, own);
    loop {
        tokio::select! {
            () = stop.told() => break,
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                if let Some(ended) = stack.ended_child() {
                    stack.stop().await;
                    return Err(StackError(ended));
                }
            }
        }
    }
    println!("· stopping");
    stack.stop().await;
    Ok(())
}

fn introduce(stack: &Stack, port: u16, own: bool) {
    if !own {
        println!("· try:");
        println!("    curl -i 'http://127.0.0.1:{port}/data?id=1&cache-control=stale-while-revalidate=15,max-age=5'");
        println!("    curl -i 'http://127.0.0.1:{port}/data?id=1&cache-control=must-revalidate,max-age=10'");
        println!("    curl -i 'http://127.0.0.1:{port}/data?id=1&cache-control=stale-if-error=10,max-age=5'");
        println!("· origins, past the cache: {} {}", stack.origin_url(0), stack.origin_url(1));
    }
    if let Some(sidecar) = stack.sidecar_address() {
        let purge = match std::env::var("LARDER_PURGE_TOKEN") {
            Ok(token) if !token.is_empty() => {
                format!("target/release/larder purge --sidecar http://{sidecar} --everything")
            }
            _ => "set LARDER_PURGE_TOKEN in .env".to_owned(),
        };
        println!("· sidecar: http://{sidecar}  to purge: {purge}");
    }
    println!("· Envoy's admin: {}  logs: {}", stack.admin_url(), stack.run_dir().display());
    println!("Larder is ready: http://127.0.0.1:{port}");
}

async fn filter(options: Filter) -> Result<(), StackError> {
    let folder = run_dir(options.port);
    let admin = std::fs::read_to_string(folder.join("admin.address"))
        .map_err(|_| StackError(format!("nothing runs on port {0}; start it: make run port={0}", options.port)))?;
    let wasm = built(&project_root(), "target/wasm32-wasip1/wasm/larder_filter.wasm", "make wasm")?;
    swap(&folder, &wasm, &format!("http://{}", admin.trim()), &read(&options.config)?, true).await?;
    println!("Envoy on port {} now uses {}", options.port, options.config.display());
    Ok(())
}

fn render(options: &Render) -> Result<(), StackError> {
    let config = EnvoyConfig {
        listen: ("0.0.0.0", options.port),
        admin: ("0.0.0.0", 9901),
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
    let filter = larder_stack::render::filter_config(template, &options.wasm, &read(&options.config)?);
    let write = |name: &str, text: String| {
        std::fs::write(options.out.join(name), text).map_err(|error| StackError(format!("{name}: {error}")))
    };
    write("envoy.yaml", envoy)?;
    write(larder_stack::render::FILTER_FILE, filter.map_err(StackError)?)
}

fn read(path: &Path) -> Result<String, StackError> {
    std::fs::read_to_string(path).map_err(|error| StackError(format!("{}: {error}", path.display())))
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
