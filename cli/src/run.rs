//! `larder run`: everything, until it is told to stop.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_stack::stack::project_root;
use larder_stack::{Origins, Settings, Stack, StackError, StoreKind};
use tokio::signal::unix::{SignalKind, signal};

use crate::options::Run;
use crate::{Result, purge_token, read};

/// How long each log of a run may grow; as much again is kept of what was before.
const LOG_BYTES: u64 = 64 << 20;
/// Time between looks at the children and their logs.
const WATCH: Duration = Duration::from_millis(500);

/// `token_of_shell`: whether the shell gave the purge token, and not `.env`.
pub(crate) async fn run(options: Run, token_of_shell: bool) -> Result<()> {
    let store = match std::env::var("REDIS_URL") {
        Ok(url) if !url.is_empty() => StoreKind::Redis(url),
        _ => StoreKind::Memory,
    };
    let own = !options.origins.is_empty();
    let settings = Settings {
        port: options.port,
        bind: options.bind,
        host: options.host,
        origins: if own {
            Origins::Addresses(options.origins)
        } else {
            Origins::Mock(2)
        },
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
    introduce(&stack, own, token_of_shell);
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
async fn serve(stack: &mut Stack) -> Result<()> {
    let mut told = Vec::new();
    let mut waiting = true;
    loop {
        if waiting {
            let trouble = stack.origins_in_trouble().await;
            for line in trouble.lines.iter().filter(|line| !told.contains(*line)) {
                println!(
                    "· {}: {line}",
                    if trouble.all {
                        "not ready, no origin is well"
                    } else {
                        "an origin gets no requests"
                    }
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

fn introduce(stack: &Stack, own: bool, token_of_shell: bool) {
    let url = stack.url();
    if !own {
        println!("· try:");
        println!("    curl -i '{url}/data?id=1&cache-control=stale-while-revalidate=15,max-age=5'");
        println!("    curl -i '{url}/data?id=1&cache-control=must-revalidate,max-age=10'");
        println!("    curl -i '{url}/data?id=1&cache-control=stale-if-error=10,max-age=5'");
        println!(
            "· origins, past the cache: {} {}",
            stack.origin_url(0),
            stack.origin_url(1)
        );
    }
    if let Some(sidecar) = stack.sidecar_address() {
        println!("· sidecar: http://{sidecar}");
        match purge_token() {
            None => println!("· to purge, set LARDER_PURGE_TOKEN in .env and start again"),
            // The command reads .env, but knows nothing of this shell.
            Some(_) if token_of_shell => {
                println!(
                    "· to purge, with LARDER_PURGE_TOKEN as it is here: {}",
                    purge(sidecar)
                )
            }
            Some(_) => println!("· to purge: {}", purge(sidecar)),
        }
    }
    println!(
        "· Envoy's admin: {}  logs: {}",
        stack.admin_url(),
        stack.run_dir().display()
    );
}

/// The command that purges, as it works from any folder.
fn purge(sidecar: &str) -> String {
    let own = std::env::current_exe();
    let program = own.unwrap_or_else(|_| project_root().join("target/release/larder"));
    format!(
        "{} purge --sidecar http://{sidecar} --everything",
        program.display()
    )
}

/// The token between the filter and the sidecar: what the environment gives, else one for this run
/// alone.
fn token() -> Result<String> {
    let given = |name: &str| {
        std::env::var(name)
            .ok()
            .filter(|value| !value.trim().is_empty())
    };
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

/// The folder of the run on a port.
pub(crate) fn run_dir(port: u16) -> PathBuf {
    project_root().join(".larder/run").join(port.to_string())
}

/// Being told to stop, from the terminal or from outside.
struct Stop([tokio::signal::unix::Signal; 3]);

impl Stop {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| StackError(error.to_string()));
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn told(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
    }
}
