//! `larder-bench`: measures Larder, beside its peers where there are any, and writes what it saw
//! into a document.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod answer;
mod configs;
mod contestant;
mod figures;
mod fleet;
mod herd;
mod lines;
mod load;
mod machine;
mod origin;
mod peers;
mod plot;
mod report;
mod rounds;
mod scenario;
mod server;
mod soak;
mod tables;
mod words;

/// Measures Larder.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Larder beside Envoy's native caches, nginx, Varnish and the floor beneath it: one worker on
    /// one core, the load on the other
    Peers(peers::Options),
    /// What a shared cache costs and brings: herd, purge, level 2, memory
    Fleet(Fleet),
    /// Ten minutes of many keys: does it get slower, does it grow?
    Soak(soak::Options),
}

#[derive(Args)]
struct Fleet {
    /// Entries under one tag
    #[arg(long, default_value_t = 100_000)]
    entries: usize,
    /// Where the table goes
    #[arg(long, default_value = "docs/benchmarks.md")]
    document: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    // An end by Ctrl-C is an end like any other: what was started is ended, too.
    let result = tokio::select! {
        result = run(Cli::parse().command) => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("larder-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Verb) -> Result<(), String> {
    match command {
        Verb::Peers(options) => peers::run(&options).await,
        Verb::Soak(options) => soak::run(&options).await,
        Verb::Fleet(options) => run_fleet(&options).await,
    }
}

async fn run_fleet(options: &Fleet) -> Result<(), String> {
    let rows = fleet::measure(options.entries, |step| println!("· {step}")).await?;
    for (what, figure, remark) in &rows {
        println!("{what}: {figure} ({remark})");
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(what, figure, remark)| vec![what, figure, remark])
        .collect();
    let intro = "`make bench-fleet`: two Envoys with two workers each, a sidecar each, one Redis, two mock origins and the load,\n\
                 all on this one machine, so waiting for a core is part of every figure. Not run: nginx with srcache and Redis;\n\
                 Debian packages srcache, but no module of nginx for Redis.";
    let table = report::table(&["what", "figure", "how"], &rows);
    report::put(
        &options.document,
        "fleet",
        &format!(
            "## The fleet\n\n{}\n\n{intro}\n\n{table}",
            report::when_and_where()
        ),
    )
    .map_err(|error| format!("{}: {error}", options.document.display()))
}
