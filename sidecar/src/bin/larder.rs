//! `larder`: what an operator tells a running cache. It reads the `.env` that `make run` reads, so the token is there.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use larder_contract::purge_order::{DEFAULT_NAMESPACE, Order};
use larder_contract::store_api::PURGE_PATH;
use serde_json::Value;

/// Tells a running Larder what to do. Settings may stand in `.env` of the checkout or of the current folder.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The sidecar
    #[arg(long, env = "LARDER_SIDECAR", default_value = "http://127.0.0.1:7480", global = true)]
    sidecar: String,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Drop stored responses everywhere: level 1 of every Envoy, and the store
    #[command(
        after_help = "examples:\n  larder purge --url 'http://shop.example/item?id=1'\n  larder purge --tag news --tag sport\n  \
                            larder purge --prefix http://shop.example/images/ --soft\n  larder purge --everything"
    )]
    Purge(Purge),
}

#[derive(Args)]
#[group(id = "scope", required = true, multiple = false)]
struct What {
    /// All variants of one URL, as clients ask for it
    #[arg(long)]
    url: Option<String>,
    /// All responses with this tag; may be repeated
    #[arg(long)]
    tag: Vec<String>,
    /// All responses whose URL begins so
    #[arg(long)]
    prefix: Option<String>,
    /// All responses
    #[arg(long)]
    everything: bool,
}

#[derive(Args)]
struct Purge {
    #[command(flatten)]
    what: What,
    /// Stale from now on, instead of gone
    #[arg(long)]
    soft: bool,
    /// The filter configuration's namespace, for --url
    #[arg(long, default_value = DEFAULT_NAMESPACE)]
    namespace: String,
    /// The sidecar's LARDER_PURGE_TOKEN, from the environment or .env
    #[arg(long, env = "LARDER_PURGE_TOKEN", hide_env_values = true)]
    token: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if let Some(folder) = larder_project::root().or_else(|| std::env::current_dir().ok())
        && let Err(mistake) = larder_project::env_file::load(&folder)
    {
        eprintln!("larder: {mistake}");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    let Verb::Purge(purge) = cli.command;
    match send(&cli.sidecar, &purge).await {
        Ok(told) => {
            println!("{told:#}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("larder: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn order(purge: &Purge) -> Order {
    let Purge { what, soft, namespace, .. } = purge;
    Order {
        url: what.url.clone(),
        namespace: what.url.is_some().then(|| namespace.clone()),
        tag: None,
        tags: what.tag.clone(),
        prefix: what.prefix.clone(),
        everything: what.everything,
        soft: *soft,
    }
}

async fn send(sidecar: &str, purge: &Purge) -> Result<Value, String> {
    let url = format!("{}{}", sidecar.trim_end_matches('/'), PURGE_PATH);
    let client =
        reqwest::Client::builder().timeout(Duration::from_secs(10)).build().map_err(|error| error.to_string())?;
    let response = client.post(&url).bearer_auth(&purge.token).json(&order(purge)).send().await;
    let response = response.map_err(|_| format!("no sidecar answers at {sidecar}; give its address with --sidecar"))?;
    let status = response.status();
    let told: Value = response.json().await.map_err(|_| format!("{sidecar} is no sidecar: it answered {status}"))?;
    match told.get("error").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned()),
        None => Ok(told),
    }
}
