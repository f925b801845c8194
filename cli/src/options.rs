//! What the command line says. A mistake is one line that names the setting as `make` does:
//! `workers=0: …`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use larder_stack::render::{host_and_port, host_name};
use larder_stack::snippet::{self, SIDECAR_CLUSTER};

const ABOUT_SETTINGS: &str = "\
Settings for run and purge may stand in .env, in the checkout or in the current folder (see .env.example).
larder COMMAND --help shows the options of a command, with examples.";

const RUN_EXAMPLES: &str = "\
examples:
  larder run
  larder run --port 3001 --origins 127.0.0.1:8080,127.0.0.1:8081
  larder run --config envoy/filters/default.json --health-path /well

With REDIS_URL, in .env or in the shell, entries are stored in that Redis.";

const FILTER_EXAMPLE: &str = "\
example:
  larder filter --port 3000 --config envoy/filters/default.json";

const RENDER_EXAMPLE: &str = "\
examples:
  larder render --bind 0.0.0.0 --port 10000 --origins shop:8080 --sidecar sidecar:7480 \\
    --run-dir /etc/larder/run --wasm /etc/larder/larder_filter.wasm --out .
  larder render --snippet --name cache --cluster cache-sidecar --sidecar 127.0.0.1:7480 \\
    --wasm /etc/envoy/larder_filter.wasm --config my.json

docs/in-your-envoy.md says where the pieces of --snippet belong.";

const CHECK_EXAMPLES: &str = "\
examples:
  larder check envoy/filters/default.json
  larder check --strict filter.json
  larder check --schema > config.schema.json

A mistake ends it with 1. What is allowed and dangerous is a warning; --strict makes it a mistake.";

const PURGE_EXAMPLES: &str = "\
examples:
  larder purge --url 'http://shop.example/item?id=1'
  larder purge --url 'http://shop.example/item?id=1&utm_source=x' --config filter.json
  larder purge --tag news --tag sport
  larder purge --prefix http://shop.example/images/ --soft
  larder purge --everything";

/// Larder, an HTTP cache inside Envoy: runs it, changes its configuration, and purges what it
/// holds.
#[derive(Parser)]
#[command(name = "larder", version, after_help = ABOUT_SETTINGS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Run Envoy with the cache, the sidecar, and mock origins or your own services, until Ctrl-C
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Give a running cache another filter configuration
    #[command(after_help = FILTER_EXAMPLE)]
    Filter(Filter),
    /// Write Envoy's configuration and the filter's to files, for an Envoy that runs elsewhere; or
    /// print the pieces for an envoy.yaml of your own
    #[command(after_help = RENDER_EXAMPLE)]
    Render(Render),
    /// Say whether a file is a filter configuration, with the line and column of each mistake
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Drop stored responses everywhere: level 1 of every Envoy, and the store
    #[command(after_help = PURGE_EXAMPLES)]
    Purge(Purge),
}

#[derive(Args)]
pub(crate) struct Run {
    /// Port of the cache
    #[arg(long, default_value_t = 3000, value_parser = port)]
    pub(crate) port: u16,
    /// IP address that the cache listens on; 0.0.0.0 for all
    #[arg(long, default_value = "127.0.0.1", value_parser = bind)]
    pub(crate) bind: IpAddr,
    /// Name that all requests count as sent to, so that several runs on one Redis share what they
    /// store
    #[arg(long, value_parser = host_name)]
    pub(crate) host: Option<String>,
    /// Your own services as host:port,host:port; without it two mock origins
    #[arg(long, value_delimiter = ',', value_parser = origin)]
    pub(crate) origins: Vec<String>,
    /// Path of the health checks; empty for none
    #[arg(long, default_value = "/health-check", value_parser = health_path)]
    pub(crate) health_path: String,
    /// Time between health checks
    #[arg(long, default_value = "10s")]
    pub(crate) health_interval: String,
    /// The filter's configuration
    #[arg(long, default_value = "envoy/filters/demo.json", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) config: String,
    /// Envoy's worker threads
    #[arg(long, default_value_t = 2, value_parser = workers)]
    pub(crate) workers: usize,
    /// Let methods pass that Envoy does not know (Envoy calls this work in progress)
    #[arg(long)]
    pub(crate) custom_methods: bool,
}

#[derive(Args)]
pub(crate) struct Filter {
    /// Port of the running stack
    #[arg(long, default_value_t = 3000, value_parser = port)]
    pub(crate) port: u16,
    /// The filter's configuration
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) config: String,
}

#[derive(Args)]
pub(crate) struct Render {
    /// Print the pieces that an envoy.yaml of your own needs, instead of writing a whole one
    #[arg(long, conflicts_with_all = ["port", "bind", "host", "admin_port", "metrics_port", "origins", "run_dir", "health_path", "out"])]
    pub(crate) snippet: bool,
    /// With --snippet: what the filter is called in http_filters
    #[arg(long, default_value = "larder", requires = "snippet", value_parser = snippet::name)]
    pub(crate) name: String,
    /// With --snippet: what the sidecar's cluster is called
    #[arg(long, default_value = SIDECAR_CLUSTER, requires = "snippet", value_parser = snippet::name)]
    pub(crate) cluster: String,
    /// With --snippet, where --wasm is a URL: its SHA-256, which Envoy compares
    #[arg(long, requires = "snippet")]
    pub(crate) sha256: Option<String>,
    /// Port of the listener
    #[arg(long, default_value_t = 3000, value_parser = port)]
    pub(crate) port: u16,
    /// IP address that the cache listens on; 0.0.0.0 for all
    #[arg(long, default_value = "127.0.0.1", value_parser = bind)]
    pub(crate) bind: IpAddr,
    /// Name that all requests count as sent to, so that several Envoys share what they store
    #[arg(long, value_parser = host_name)]
    pub(crate) host: Option<String>,
    /// Port of the admin interface, which is on loopback only
    #[arg(long, default_value_t = 9901, value_parser = port)]
    pub(crate) admin_port: u16,
    /// Port for a monitoring system, at the same address: GET /stats/prometheus and nothing else;
    /// without it there is none
    #[arg(long, value_parser = port)]
    pub(crate) metrics_port: Option<u16>,
    /// Origins as host:port
    #[arg(long, value_delimiter = ',', required_unless_present = "snippet", value_parser = origin)]
    pub(crate) origins: Vec<String>,
    /// Sidecar as host:port
    #[arg(long, value_parser = origin)]
    pub(crate) sidecar: String,
    /// Folder of the configuration in the place where Envoy runs
    #[arg(long, required_unless_present = "snippet")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Path of the health checks; empty for none
    #[arg(long, default_value = "/health-check", value_parser = health_path)]
    pub(crate) health_path: String,
    /// The filter's configuration, to be rendered too; with --snippet envoy/filters/default.json
    #[arg(long, default_value = "envoy/filters/demo.json", default_value_if("snippet", "true", "envoy/filters/default.json"), value_parser = NonEmptyStringValueParser::new())]
    pub(crate) config: String,
    /// Where the module lies in the place where Envoy runs; with --snippet a URL, too
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) wasm: String,
    /// Folder to write both files to
    #[arg(long, required_unless_present = "snippet")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Check {
    /// The filter's configuration
    #[arg(required_unless_present = "schema", conflicts_with = "schema", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) file: Option<String>,
    /// Take warnings for mistakes
    #[arg(long, conflicts_with = "schema")]
    pub(crate) strict: bool,
    /// Print the JSON Schema of configurations instead
    #[arg(long)]
    pub(crate) schema: bool,
}

#[derive(Args)]
#[group(id = "scope", required = true, multiple = false)]
pub(crate) struct What {
    /// All variants of one URL, as clients ask for it
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// All responses with this tag; may be repeated
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// All responses whose URL begins so
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// All responses
    #[arg(long)]
    pub(crate) everything: bool,
}

#[derive(Args)]
pub(crate) struct Purge {
    /// The sidecar; `larder run` prints its address
    #[arg(long, env = "LARDER_SIDECAR", default_value = "http://127.0.0.1:7480")]
    pub(crate) sidecar: String,
    #[command(flatten)]
    pub(crate) what: What,
    /// Stale from now on, instead of gone
    #[arg(long)]
    pub(crate) soft: bool,
    /// The filter's configuration, for --url and --prefix: purges what its rules make of the URL,
    /// too
    #[arg(long, env = "LARDER_FILTER_CONFIG", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) config: Option<String>,
    /// The filter configuration's namespace, for --url; without it that of --config, or "default"
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// The sidecar's LARDER_PURGE_TOKEN, from the environment or .env
    #[arg(long, env = "LARDER_PURGE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// More threads than any machine has cores for are a slip of the finger.
const MAX_WORKERS: usize = 512;

fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| "a port is a number from 1 to 65535".to_owned())
}

fn workers(text: &str) -> Result<usize, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=MAX_WORKERS).contains(number));
    number.ok_or_else(|| format!("must be a number from 1 to {MAX_WORKERS}"))
}

fn bind(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        "must be an IP address, such as 127.0.0.1 (this machine only) or 0.0.0.0 (everybody)"
            .to_owned()
    })
}

fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    host_and_port(text).map(|_| text.to_owned())
}

fn health_path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || is_path {
        Ok(text.to_owned())
    } else {
        Err("a path begins with /, as in /health".to_owned())
    }
}

/// What is wrong with the command line, in one line that ends with the way out. `None` for what
/// clap prints itself, such as `--help`. `arguments`: the command line after the program's name.
pub(crate) fn mistake(
    error: &clap::Error,
    arguments: impl Iterator<Item = String>,
) -> Option<String> {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    if matches!(
        error.kind(),
        DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion
    ) {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let name = text(ContextKind::InvalidArg)
        .and_then(|arg| arg.trim_start_matches("--").split_whitespace().next());
    Some(
        match (
            name,
            text(ContextKind::InvalidValue),
            std::error::Error::source(error),
        ) {
            (Some(name), Some(value), Some(reason)) => {
                format!(
                    "{}={value}: {reason}",
                    name.trim_end_matches('=').replace('-', "_")
                )
            }
            _ => told_by_clap(&error.to_string(), arguments),
        },
    )
}

/// clap's own words, up to the first empty line, and its tip; without a tip, the help to look into.
fn told_by_clap(whole: &str, mut arguments: impl Iterator<Item = String>) -> String {
    let first: Vec<&str> = whole
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .map(str::trim)
        .collect();
    let problem = first.join(" ").trim_start_matches("error: ").to_owned();
    match whole
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: "))
    {
        Some(tip) => format!("{problem}; {tip}"),
        None => {
            let command =
                arguments.find(|argument| Cli::command().find_subcommand(argument).is_some());
            let command = command.map(|command| command + " ").unwrap_or_default();
            format!("{problem}; see larder {command}--help")
        }
    }
}

#[cfg(test)]
mod tests;
