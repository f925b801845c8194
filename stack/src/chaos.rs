//! Torments a fleet and checks that it keeps its promise: `make chaos`.
//!
//! Clients write versions and read them through two Envoys, operators purge, faults come by seed;
//! every event is recorded, and at the end the whole history is checked against the promise of
//! `docs/design.md`. The parts that decide (`schedule`, `checker`, `keys`) know nothing of
//! processes. What it leaves out: clocks that differ, for all processes of one machine have the
//! same.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::StackError;

mod checker;
mod clients;
mod clock;
mod figures;
mod fleet;
mod history;
mod inject;
mod keys;
mod origin;
mod random;
mod recorder;
mod report;
mod schedule;
mod story;

use checker::{Rule, Terms};
use clients::Clients;
use fleet::{DISTRUST_MS, Fleet};
use recorder::Recorder;
use schedule::{Fault, Kind, Planned};

pub use schedule::Form;

/// The promise, with what a busy machine of two cores needs.
const TERMS: Terms = Terms {
    calm: 1_000_000,
    distrust: DISTRUST_MS * 1_000,
    slack: 2_000_000,
    recovery: 5_000_000,
};
/// Time between lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// How long the fleet that is broken on purpose is watched.
const SABOTAGE_MS: u64 = 20_000;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the fleet is built.
    pub form: Form,
    /// Decides which faults come when.
    pub seed: u64,
    /// How long it takes, in milliseconds.
    pub length_ms: u64,
    /// Time between faults, in milliseconds, about.
    pub every_ms: u64,
    /// Only faults whose title contains this.
    pub only: String,
}

impl Plan {
    /// The faults, one line each.
    pub fn describe(&self) -> Vec<String> {
        self.faults().iter().map(describe).collect()
    }

    fn faults(&self) -> Vec<Planned> {
        schedule::plan(
            self.seed,
            self.form,
            self.length_ms,
            self.every_ms,
            &self.only,
        )
    }
}

fn describe(planned: &Planned) -> String {
    let tenths = |millis: u64| format!("{}.{}", millis / 1_000, millis / 100 % 10);
    format!(
        "{:>6} s  for {} s: {}",
        tenths(planned.at_ms),
        tenths(planned.lasts_ms),
        planned.fault
    )
}

/// Runs a plan. Says whether the promise was kept; `again` is the command that does the same once
/// more.
pub async fn run(plan: Plan, again: &str) -> Result<bool, StackError> {
    let (history, problems) = torment(&plan, &plan.faults(), DISTRUST_MS).await?;
    for problem in &problems {
        println!("could not be done: {problem}");
    }
    let violations = checker::judge(&history, TERMS);
    println!("\n{}", report::of(&history, TERMS, &violations, again));
    Ok(violations.is_empty() && problems.is_empty())
}

/// Runs a fleet that cannot keep its promise: an Envoy is cut off from what the fleet invalidates,
/// and believes what it has for ever. Says whether the checker sees that.
pub async fn run_sabotage(seed: u64) -> Result<bool, StackError> {
    let plan = Plan {
        form: Form::Redis,
        seed,
        length_ms: SABOTAGE_MS,
        every_ms: SABOTAGE_MS,
        only: String::new(),
    };
    let deaf = Planned {
        at_ms: 4_000,
        lasts_ms: 15_000,
        fault: Fault {
            kind: Kind::SilentStoreLink,
            side: 1,
        },
    };
    let (history, _) = torment(&plan, &[deaf], 0).await?;
    let violations = checker::judge(&history, TERMS);
    let seen = violations
        .iter()
        .filter(|one| one.rule == Rule::DistrustedPut)
        .count();
    println!(
        "{} reads of a fleet that is broken on purpose: {seen} violations are seen",
        history.reads.len()
    );
    if let Some(one) = violations
        .iter()
        .find(|one| one.rule == Rule::DistrustedPut)
    {
        println!("  {}", story::of(&history, *one).join("\n  "));
    }
    Ok(seen > 0)
}

/// Runs everything, and gives what happened and which faults could not be brought about.
async fn torment(
    plan: &Plan,
    faults: &[Planned],
    distrust_ms: u64,
) -> Result<(history::History, Vec<String>), StackError> {
    let fleet = Fleet::start(plan.form, plan.seed, distrust_ms).await?;
    let recorder = Arc::new(Recorder::default());
    let clients = Clients::new(fleet.clone(), recorder.clone());
    fleet.clock.begin();
    let mut injecting: JoinSet<Result<(), String>> = JoinSet::new();
    for planned in faults {
        injecting.spawn(inject::carry_out(fleet.clone(), recorder.clone(), *planned));
    }
    let mut all = clients.begin(plan.seed);
    let progress = tokio::spawn(tell_progress(fleet.clone(), recorder.clone()));
    fleet.clock.until(plan.length_ms).await;
    let mut problems = Vec::new();
    while let Some(ended) = injecting.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => problems.push(problem),
            Err(error) => problems.push(error.to_string()),
        }
    }
    clients.stop();
    while all.join_next().await.is_some() {}
    progress.abort();
    let mut history = recorder.take();
    history.applied = fleet.origin.applied();
    Ok((history, problems))
}

async fn tell_progress(fleet: Arc<Fleet>, recorder: Arc<Recorder>) {
    loop {
        tokio::time::sleep(PROGRESS).await;
        let ([reads, hits, puts, purges, faults], under_way) = recorder.so_far();
        let under_way: Vec<String> = under_way.iter().map(ToString::to_string).collect();
        let now = if under_way.is_empty() {
            "peace".to_owned()
        } else {
            under_way.join("; ")
        };
        println!(
            "· {:>4} s: {reads} reads, {} % hits, {puts} PUTs, {purges} purges, {faults} faults; now: {now}",
            fleet.clock.now() / 1_000_000,
            hits * 100 / reads.max(1)
        );
    }
}
