//! The sidecar as a program: settings, start, graceful end.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use larder_sidecar::store::memory::Memory;
use larder_sidecar::store::redis::{Redis, Seal, Settings, follow};
use larder_sidecar::{Limits, Purged, Purges, Store, Token, Waiting, app};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

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
    /// Entries in Redis count only with a seal made with this secret, at least 16 characters; the same for all sidecars
    #[arg(long, env = "LARDER_STORE_SECRET", hide_env_values = true)]
    store_secret: Option<String>,
    /// Longest time for one Redis command, in milliseconds
    #[arg(long, env = "LARDER_REDIS_TIMEOUT_MS", default_value_t = 200)]
    redis_timeout_ms: u64,
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
    let options = Options::parse();
    let log = tracing_subscriber::fmt().with_env_filter(&options.log).with_writer(std::io::stderr);
    if options.log_format == "json" {
        log.json().init();
    } else {
        log.init();
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
            let settings = Settings {
                url,
                namespace: options.namespace.clone(),
                max_variants: options.max_variants,
                timeout: Duration::from_millis(options.redis_timeout_ms),
                seal: match options.store_secret.as_deref().filter(|secret| !secret.is_empty()) {
                    Some(secret) => Seal::new(secret)?,
                    None => Seal::default(),
                },
            };
            let store = Redis::connect(settings).await.map_err(|fault| fault.0)?;
            waiting.set_followed(false);
            let purges = Purges::shared();
            tokio::spawn(follow(store.link(), options.namespace.clone(), waiting.clone(), purges.clone()));
            serve(Purged::new(store, purges), &options, waiting).await
        }
    }
}

async fn serve<S: Store>(store: Purged<S>, options: &Options, waiting: Waiting) -> Result<(), String> {
    let cannot =
        |error: std::io::Error| format!("cannot listen on {}: {error}; choose another with --listen", options.listen);
    let described = store.describe();
    let limits = Limits { max_entry_bytes: options.max_entry_bytes, max_waiters: options.max_waiters };
    let token = options.purge_token.as_deref().filter(|token| !token.is_empty()).map(Token::new);
    let app = app(store, waiting.clone(), limits, token);
    if let Some(path) = options.listen.strip_prefix("unix:") {
        // A socket that a dead process left behind is in the way; one that answers is not ours to take.
        if UnixStream::connect(path).await.is_err() {
            let _ = std::fs::remove_file(path);
        }
        let listener = UnixListener::bind(path).map_err(cannot)?;
        println!("larder-sidecar listening on unix:{path} (store: {described})");
        let ended = until_told(axum::serve(listener, app), waiting).await;
        let _ = std::fs::remove_file(path);
        return ended;
    }
    let listener = TcpListener::bind(&options.listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    println!("larder-sidecar listening on http://{address} (store: {described})");
    until_told(axum::serve(listener, app), waiting).await
}

/// Serves until a signal comes; then held look-ups are answered and what is under way is finished.
async fn until_told<L>(
    server: axum::serve::Serve<L, axum::Router, axum::Router>,
    waiting: Waiting,
) -> Result<(), String>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let (ended, wait) = tokio::sync::oneshot::channel::<()>();
    let server = server.with_graceful_shutdown(async move {
        told_to_stop().await;
        waiting.close();
        drop(ended);
    });
    tokio::select! {
        result = server.into_future() => result.map_err(|error| error.to_string()),
        // Envoy keeps its connections open; they are not waited for.
        () = async { let _ = wait.await; tokio::time::sleep(Duration::from_millis(500)).await; } => Ok(()),
    }
}

async fn told_to_stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}
