//! `larder-bench`: measures Larder, beside its peers where there are any, and writes what it saw into a document.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod figures;
mod fleet;
mod hits;
mod peers;
mod report;

/// Measures Larder.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Hits beside Envoy's native caches and the floor beneath them: one worker on one core, the load on the other
    Hits(Hits),
    /// What a shared cache costs and brings: herd, purge, level 2, memory
    Fleet(Fleet),
}

#[derive(Args)]
struct Hits {
    /// Seconds per measurement
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds; each contestant is measured once in each, in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes of content
    #[arg(long, value_delimiter = ',', default_value = "1024,10240,102400")]
    sizes: Vec<usize>,
    /// Where the table goes; without it nowhere
    #[arg(long)]
    document: Option<PathBuf>,
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
    let result = match Cli::parse().command {
        Verb::Hits(options) => run_hits(&options).await,
        Verb::Fleet(options) => run_fleet(&options).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("larder-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Found by leaving parts out, one at a time; not measured anew by each run.
const WHERE_IT_GOES: &str = "\
Where a 1 KB hit's time goes, found by leaving parts out (2026-11-23, the same machine, µs of CPU per request): a filter
that answers at once with the same seven fields and does nothing else takes 22.7, which is 0.95 of `cache_v2`: that is the
floor of WebAssembly in Envoy. Reading the request's fields, draining the inbox, the clock and the choice of the rule add
2.4; the exchange, level 1 and writing the answer add 2.0. A sampling profile shows 7 % of the time in compiled
WebAssembly; the rest is Envoy, its border with V8, and the kernel. Leaving unused exports out of the module saved 0.3, the
HTTP connection manager's options of `envoy/envoy.yaml` cost 0.5, and its access log, which is off here as it is for the
others, 3.4. At 100 KB the difference is the content's way out of the module's memory, which Envoy copies twice.";

async fn run_hits(options: &Hits) -> Result<(), String> {
    let measured = hits::measure(options.seconds, options.rounds, &options.sizes, |step| println!("· {step}")).await?;
    let table = report::table(&hits::HEAD, &measured.rows);
    println!("{table}");
    for absent in &measured.absent {
        println!("not run: {absent}");
    }
    let Some(document) = &options.document else { return Ok(()) };
    let absent = if measured.absent.is_empty() {
        String::new()
    } else {
        format!("\n\nNot run: {}.", measured.absent.join("; "))
    };
    let intro = format!(
        "`make bench`: hits on one URL, one worker pinned to core 0, `wrk` with one thread and 32 connections on core 1; \
         medians of {} interleaved rounds of {} s. CPU is user and system time of the server. Larder and the native caches warm up with a few requests first.{absent}",
        options.rounds, options.seconds
    );
    let section = format!("## Hits\n\n{}\n\n{intro}\n\n{table}\n{WHERE_IT_GOES}", report::when_and_where());
    report::put(document, "hits", &section).map_err(|error| format!("{}: {error}", document.display()))
}

async fn run_fleet(options: &Fleet) -> Result<(), String> {
    let rows = fleet::measure(options.entries, |step| println!("· {step}")).await?;
    for (what, figure, remark) in &rows {
        println!("{what}: {figure} ({remark})");
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, figure, remark)| vec![what, figure, remark]).collect();
    let intro = "`make bench-fleet`: two Envoys with two workers each, a sidecar each, one Redis, two mock origins and the load,\n\
                 all on this one machine, so waiting for a core is part of every figure. Not run: nginx with srcache and Redis;\n\
                 Debian packages srcache, but no module of nginx for Redis.";
    let table = report::table(&["what", "figure", "how"], &rows);
    report::put(
        Path::new(&options.document),
        "fleet",
        &format!("## The fleet\n\n{}\n\n{intro}\n\n{table}", report::when_and_where()),
    )
    .map_err(|error| format!("{}: {error}", options.document.display()))
}
