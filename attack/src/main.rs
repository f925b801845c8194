//! `larder-attack`: tries on a running Larder what is tried on caches, and says what gave way.
//!
//! Every scenario is public: what is done, where that is described, what has to hold. It starts its
//! own stacks (real Envoy, real module, real sidecar, memory and Redis) and needs no network. What
//! it leaves out: accepted risks; they are in `docs/security.md` with their reasons.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::{StreamExt, stream};

mod classes;
mod document;
mod h2;
mod report;
mod rogue;
mod scenario;
mod setting;
mod target;
mod visit;
mod wire;

use report::Outcome;
use scenario::Scenario;
use setting::Setting;
use target::Target;
use visit::Visit;

/// A check that takes longer has hung.
const LONGEST: Duration = Duration::from_secs(60);

/// Attacks a running Larder in the ways that caches are attacked
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Print the scenarios and run none
    #[arg(long)]
    list: bool,
    /// Only a class, or the scenarios (class/name) whose name contains this; may be repeated
    #[arg(long, value_name = "CLASS|NAME")]
    only: Vec<String>,
    /// Only on this store; without it on both
    #[arg(long, value_parser = ["memory", "redis"])]
    store: Option<String>,
    /// A line for each check that passes too
    #[arg(long, short)]
    verbose: bool,
    /// Write the tables of scenarios and results into this document
    #[arg(long, value_name = "FILE", conflicts_with = "only")]
    document: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let chosen: Vec<&'static Scenario> = classes::all()
        .into_iter()
        .filter(|scenario| is_chosen(scenario, &cli.only))
        .collect();
    if chosen.is_empty() {
        eprintln!(
            "larder-attack: no scenario is called {}; --list shows them",
            cli.only.join(" or ")
        );
        return ExitCode::FAILURE;
    }
    if cli.list {
        list(&chosen);
        return ExitCode::SUCCESS;
    }
    let stores: Vec<&'static str> = ["memory", "redis"]
        .into_iter()
        .filter(|store| cli.store.as_deref().is_none_or(|only| only == *store))
        .collect();
    let began = Instant::now();
    let mut outcomes = Vec::new();
    for store in &stores {
        for setting in Setting::ALL {
            outcomes.extend(run(&chosen, setting, store, cli.verbose).await);
        }
    }
    report::print_table(&outcomes, &stores);
    println!("in {} s", began.elapsed().as_secs());
    if let Some(path) = cli.document
        && let Err(problem) = document::write(&path, &outcomes, &stores)
    {
        eprintln!("larder-attack: {}: {problem}", path.display());
        return ExitCode::FAILURE;
    }
    if outcomes.iter().all(|outcome| outcome.failure.is_none()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn is_chosen(scenario: &Scenario, only: &[String]) -> bool {
    let is_class = |only: &String| {
        scenario::Class::ALL
            .iter()
            .any(|class| class.name() == only)
    };
    let is_it = |only: &String| match is_class(only) {
        true => scenario.class.name() == only,
        false => scenario.title().contains(only.as_str()),
    };
    only.is_empty() || only.iter().any(is_it)
}

fn list(scenarios: &[&Scenario]) {
    for scenario in scenarios {
        println!(
            "{}  ({}, {:?})",
            scenario.title(),
            scenario.inputs.len(),
            scenario.setting
        );
        println!("    {}", scenario.expectation);
        println!("    {}", scenario.source);
    }
    let checks: usize = scenarios.iter().map(|scenario| scenario.inputs.len()).sum();
    println!(
        "{} scenarios, {checks} checks on each store",
        scenarios.len()
    );
}

/// All chosen checks of one setting on one store.
async fn run(
    chosen: &[&'static Scenario],
    setting: Setting,
    store: &'static str,
    verbose: bool,
) -> Vec<Outcome> {
    let scenarios: Vec<&'static Scenario> = chosen
        .iter()
        .copied()
        .filter(|scenario| scenario.setting == setting && setting.is_on(store == "redis"))
        .collect();
    if scenarios.is_empty() {
        return Vec::new();
    }
    let checks: usize = scenarios.iter().map(|scenario| scenario.inputs.len()).sum();
    println!("· {setting:?} on {store}: {checks} checks");
    let inputs = scenarios
        .iter()
        .flat_map(|scenario| (0..scenario.inputs.len()).map(|index| (*scenario, index)));
    let target = match setting.start(store == "redis").await {
        Ok(target) => Arc::new(target),
        Err(problem) => {
            println!("  FAILED  {setting:?} on {store} does not start: {problem}");
            let failed = |(scenario, index): (&'static Scenario, usize)| Outcome {
                scenario,
                input: scenario.inputs[index],
                store,
                failure: Some((
                    format!("its setting does not start: {problem}"),
                    String::new(),
                )),
            };
            return inputs.map(failed).collect();
        }
    };
    let running = inputs.map(|(scenario, index)| {
        let visit = Visit::new(Arc::clone(&target), scenario, index);
        async move {
            let outcome = check(scenario, visit, store).await;
            outcome.print(verbose);
            outcome
        }
    });
    let outcomes = stream::iter(running)
        .buffer_unordered(setting.at_once())
        .collect()
        .await;
    if let Some(target) = Arc::into_inner(target) {
        Target::stop(target).await;
    }
    outcomes
}

async fn check(scenario: &'static Scenario, visit: Visit, store: &'static str) -> Outcome {
    let verdict = tokio::time::timeout(LONGEST, (scenario.check)(visit.clone())).await;
    let verdict = verdict.unwrap_or_else(|_| Err(format!("it did not end within {LONGEST:?}")));
    let failure = match verdict {
        Ok(()) => None,
        Err(instead) => Some((instead, visit.told().await)),
    };
    Outcome {
        scenario,
        input: visit.input,
        store,
        failure,
    }
}
