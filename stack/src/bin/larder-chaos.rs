//! `larder-chaos`: faults by seed, and a checker of the whole history. See `docs/chaos.md`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use larder_stack::chaos::{Form, Plan, run, run_sabotage};

/// Seconds between faults.
const EVERY: f64 = 12.0;

/// Torments a fleet by seed and checks that it keeps its promise on invalidations
///
/// Two Envoys with two workers each serve readers, writers and operators while processes are killed
/// and frozen, links are cut, Redis is emptied and filled. The whole history is then checked: what
/// was answered as written or purged is served again by nobody, at the times that docs/design.md
/// promises. The exit code is 0 only if it is so.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// How long, in minutes; with both forms three quarters of it on Redis
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Decides which faults come when; without it a new one
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds between faults, about
    #[arg(long, default_value_t = EVERY, value_parser = every)]
    every: f64,
    /// redis: a sidecar for each Envoy, one Redis; memory: one sidecar
    #[arg(long, value_parser = ["redis", "memory", "both"], default_value = "both")]
    store: String,
    /// Only faults whose title contains this, such as half-open
    #[arg(
        long,
        default_value = "",
        value_name = "WORDS",
        hide_default_value = true
    )]
    only: String,
    /// Print the faults of this seed and run nothing
    #[arg(long)]
    list: bool,
    /// Run a fleet that is broken on purpose; exit with 0 only if the checker sees it
    #[arg(long)]
    sabotage: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    number(text, 0.5, 1440.0)
}

fn every(text: &str) -> Result<f64, String> {
    number(text, 1.0, 600.0)
}

fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("must be a number from {least} to {most}"))
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let fresh = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |time| time.as_secs())
    };
    let seed = cli.seed.unwrap_or_else(fresh);
    if cli.sabotage {
        return verdict(run_sabotage(seed).await, "the checker is blind");
    }
    let shares: &[(Form, f64)] = match cli.store.as_str() {
        "redis" => &[(Form::Redis, 1.0)],
        "memory" => &[(Form::Memory, 1.0)],
        _ => &[(Form::Redis, 0.75), (Form::Memory, 0.25)],
    };
    let again = again(&cli, seed);
    let mut kept = true;
    for (form, share) in shares {
        // Minutes are few and positive.
        let length_ms = (cli.minutes * share * 60_000.0) as u64;
        let plan = Plan {
            form: *form,
            seed,
            length_ms,
            every_ms: (cli.every * 1_000.0) as u64,
            only: cli.only.clone(),
        };
        println!(
            "seed {seed}, {form:?}, {} s, {} faults",
            length_ms / 1_000,
            plan.describe().len()
        );
        if cli.list {
            plan.describe().iter().for_each(|line| println!("{line}"));
            continue;
        }
        match run(plan, &again).await {
            Ok(well) => kept &= well,
            Err(error) => return verdict(Err(error), ""),
        }
    }
    verdict(Ok(kept), "the promise was broken")
}

/// The command that does the same once more.
fn again(cli: &Cli, seed: u64) -> String {
    let minutes = cli.minutes;
    if cli.store == "both" && cli.every == EVERY && cli.only.is_empty() {
        return format!("make chaos minutes={minutes} seed={seed}");
    }
    let (every, store, only) = (cli.every, &cli.store, &cli.only);
    format!(
        "larder-chaos --minutes {minutes} --seed {seed} --every {every} --store {store} --only '{only}'"
    )
}

fn verdict(result: Result<bool, larder_stack::StackError>, otherwise: &str) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("larder-chaos: {otherwise}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("larder-chaos: {error}");
            ExitCode::FAILURE
        }
    }
}
