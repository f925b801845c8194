//! The sidecar as a program: settings, start, graceful end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use larder_sidecar::listening::{self, Listening, Peer};
use larder_sidecar::serving::{self, Patience};
use larder_sidecar::store::memory::Memory;
use larder_sidecar::store::redis::{Redis, Seal, Settings, Tls, follow, watch_envoys};
use larder_sidecar::{Access, Limits, Purged, Purges, Store, Token, Tokens, Waiting, app};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

mod environment;

/// The store that a fleet of Envoys shares: embedded memory, or Redis when REDIS_URL is set.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// host:port to listen on, port 0 picks a free one; or unix:/path/to/socket
    #[arg(long, env = "LARDER_SIDECAR_LISTEN", default_value = "127.0.0.1:7480")]
    listen: String,
    /// redis://[user:password@]host[:port][/db] or rediss://…; redis+cluster://host:port,host:port;
    /// redis+sentinel://host:port,host:port/master; unset: embedded memory
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// First part of every Redis key
    #[arg(long, env = "LARDER_NAMESPACE", default_value = "larder")]
    namespace: String,
    /// Bytes that the memory store may hold
    #[arg(long, env = "LARDER_MEMORY_BYTES", default_value_t = 256 << 20)]
    memory_bytes: u64,
    /// Bytes of one entry, its meta included
    #[arg(long, env = "LARDER_MAX_ENTRY_BYTES", default_value_t = 2 << 20)]
    max_entry_bytes: usize,
    /// Variants kept per key
    #[arg(long, env = "LARDER_MAX_VARIANTS", default_value_t = 32)]
    max_variants: usize,
    /// Look-ups held back at once
    #[arg(long, env = "LARDER_MAX_WAITERS", default_value_t = 10_000)]
    max_waiters: usize,
    /// Who presents this token may purge (POST /v1/purge); unset: nobody may
    #[arg(long, env = "LARDER_PURGE_TOKEN", hide_env_values = true)]
    purge_token: Option<String>,
    /// Who presents this token may look up, write, invalidate and follow; two with a comma between
    /// them are both valid. Needed unless only this machine can connect
    #[arg(long, env = "LARDER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with the token, or with two on a line each; a change takes effect within seconds
    #[arg(long, env = "LARDER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Entries in Redis count only with a seal made with this secret, at least 16 characters; the
    /// same for all sidecars
    #[arg(long, env = "LARDER_STORE_SECRET", hide_env_values = true)]
    store_secret: Option<String>,
    /// Longest time for one Redis command, in milliseconds
    #[arg(long, env = "LARDER_REDIS_TIMEOUT_MS", default_value_t = 200)]
    redis_timeout_ms: u64,
    /// For rediss://…: PEM file of the certificates that sign Redis's, in place of the system's
    /// roots
    #[arg(long, env = "LARDER_REDIS_CA_FILE")]
    redis_ca_file: Option<PathBuf>,
    /// For rediss://…: PEM file of our own certificate
    #[arg(long, env = "LARDER_REDIS_CERT_FILE")]
    redis_cert_file: Option<PathBuf>,
    /// For rediss://…: PEM file of our own certificate's key
    #[arg(long, env = "LARDER_REDIS_KEY_FILE")]
    redis_key_file: Option<PathBuf>,
    /// For rediss://…: the name in Redis's certificate, where it is not the URL's host
    #[arg(long, env = "LARDER_REDIS_SERVER_NAME")]
    redis_server_name: Option<String>,
    /// What it means that an Envoy's connection has closed: missing (it may be cut off and go on, so
    /// what is stored is distrusted for two minutes unless another begins here or this process ends
    /// with it), or left (for a sidecar that many Envoys share, which come and go)
    #[arg(long, env = "LARDER_CLOSED_ENVOY", default_value = "missing", value_parser = ["missing", "left"])]
    closed_envoy: String,
    /// How it is logged: text, or json for machines
    #[arg(long, env = "LARDER_LOG_FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// What is logged, as in RUST_LOG
    #[arg(long, env = "LARDER_LOG", default_value = "info")]
    log: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mistakes = environment::mistakes(|name| std::env::var(name).ok());
    if !mistakes.is_empty() {
        eprintln!("larder-sidecar: {}", mistakes.join("\nlarder-sidecar: "));
        return ExitCode::from(2);
    }
    let mut options = Options::parse();
    if options.namespace.is_empty() {
        options.namespace = "larder".to_owned();
    }
    let log = tracing_subscriber::fmt()
        .with_env_filter(&options.log)
        .with_writer(std::io::stderr);
    if options.log_format == "json" {
        log.json().init();
    } else {
        log.init();
    }
    let command = Options::command();
    let settings = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str());
    // One of the program `larder`.
    let known: Vec<&str> = settings.chain(["LARDER_SIDECAR"]).collect();
    for name in environment::unknown(
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()),
        &known,
    ) {
        tracing::warn!(
            "{name} is set in the environment and is no setting of the sidecar; is it misspelt?"
        );
    }
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("larder-sidecar: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), String> {
    let waiting = Waiting::default();
    match options.redis_url.clone().filter(|url| !url.is_empty()) {
        None => {
            let store = Memory::new(options.memory_bytes, options.max_variants);
            let purges = Purges::default();
            purges.begin_at(store.first_cursor());
            tokio::spawn(purges.clone().watch_envoys());
            serve(Purged::new(store, purges), &options, waiting).await
        }
        Some(url) => {
            // Only one TLS provider is compiled in; installing it twice cannot happen here.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let store = Redis::open(redis_settings(&options, url)?).map_err(|fault| fault.0)?;
            if let Err(fault) = store.answers().await {
                tracing::warn!(
                    "begins degraded, without its store: {fault}; it will be tried again"
                );
            }
            waiting.set_followed(false);
            let purges = Purges::shared();
            tokio::spawn(follow(
                store.link(),
                options.namespace.clone(),
                waiting.clone(),
                purges.clone(),
            ));
            let link = store.link();
            let ended = serve(Purged::new(store, purges.clone()), &options, waiting).await;
            // An Envoy that stopped together with us has left in peace, and is not to be missed.
            purges.sessions().end();
            let told = watch_envoys(&link, &options.namespace, &purges);
            let _ =
                tokio::time::timeout(Duration::from_millis(options.redis_timeout_ms), told).await;
            ended
        }
    }
}

fn redis_settings(options: &Options, url: String) -> Result<Settings, String> {
    let path = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    let tls = Tls {
        ca_file: path(&options.redis_ca_file),
        cert_file: path(&options.redis_cert_file),
        key_file: path(&options.redis_key_file),
        server_name: options
            .redis_server_name
            .clone()
            .filter(|name| !name.is_empty()),
    };
    let mistakes = tls.mistakes();
    if !mistakes.is_empty() {
        return Err(mistakes.join("\nlarder-sidecar: "));
    }
    Ok(Settings {
        url,
        namespace: options.namespace.clone(),
        max_variants: options.max_variants,
        timeout: Duration::from_millis(options.redis_timeout_ms),
        seal: match options
            .store_secret
            .as_deref()
            .filter(|secret| !secret.is_empty())
        {
            Some(secret) => Seal::new(secret)?,
            None => Seal::default(),
        },
        tls,
    })
}

/// The tokens of the setting or of its file, which is followed.
fn tokens(options: &Options) -> Result<Tokens, String> {
    const FILE: &str = "LARDER_TOKEN_FILE";
    let token = options.token.as_deref().filter(|token| !token.is_empty());
    match options
        .token_file
        .clone()
        .filter(|path| !path.as_os_str().is_empty())
    {
        Some(_) if token.is_some() => {
            Err(format!("LARDER_TOKEN and {FILE} are both set; keep one"))
        }
        Some(path) => {
            let tokens = Tokens::from_file(FILE, &path)?;
            tokio::spawn(tokens.clone().follow_file(FILE, path));
            Ok(tokens)
        }
        None => Tokens::parse("LARDER_TOKEN", token.unwrap_or_default()),
    }
}

async fn serve<S: Store>(
    store: Purged<S>,
    options: &Options,
    waiting: Waiting,
) -> Result<(), String> {
    let described = store.describe();
    if options.closed_envoy == "left" {
        store.purges().sessions().believe_closing();
    }
    let limits = Limits {
        max_entry_bytes: options.max_entry_bytes,
        max_waiters: options.max_waiters,
    };
    let purge = options
        .purge_token
        .as_deref()
        .filter(|token| !token.is_empty())
        .map(Token::new);
    let access = Access {
        tokens: tokens(options)?,
        purge,
    };
    let place = listening::bind(&options.listen, !access.tokens.is_empty()).await?;
    let app = app(store, waiting.clone(), limits, access);
    let (stop, patience) = (told_to_stop(waiting), Patience::default());
    match place {
        Listening::Unix(listener, path) => {
            println!("larder-sidecar listening on unix:{path} (store: {described})");
            let peer = |_: &_| Peer(None);
            let server = serving::serve(listener, peer, app, patience, stopped(stop.clone()));
            until_told(server, stop).await;
            let _ = std::fs::remove_file(path);
        }
        Listening::Tcp(listener, address) => {
            println!("larder-sidecar listening on http://{address} (store: {described})");
            let server = serving::serve(listener, Peer::at, app, patience, stopped(stop.clone()));
            until_told(server, stop).await;
        }
    }
    Ok(())
}

/// Serves until it is told to stop; then what is under way is finished.
async fn until_told(server: impl Future<Output = ()>, stop: watch::Receiver<bool>) {
    tokio::select! {
        () = server => {},
        // Envoy keeps its connections open; they are not waited for.
        () = async { stopped(stop).await; tokio::time::sleep(Duration::from_millis(500)).await; } => {},
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Becomes true when a signal comes; then held look-ups are answered.
fn told_to_stop(waiting: Waiting) -> watch::Receiver<bool> {
    let (tell, told) = watch::channel(false);
    tokio::spawn(async move {
        if let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            waiting.close();
            let _ = tell.send(true);
        }
        std::future::pending::<()>().await;
    });
    told
}
