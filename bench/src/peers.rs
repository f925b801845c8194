//! `larder-bench peers`: the scenarios one after the other, printed and written into the document.

use std::path::PathBuf;

use clap::Args;
use reqwest::Client;

use crate::contestant::Kind;
use crate::machine::{self, LOAD_CORE, has};
use crate::origin::Origin;
use crate::rounds::{Arena, Measured, Plan, WARM_UP};
use crate::scenario::Scenario;
use crate::tables::size_name;
use crate::{herd, plot, report, tables};

/// The options.
#[derive(Args)]
pub(crate) struct Options {
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Scenario::ALL)]
    scenarios: Vec<Scenario>,
    /// Bytes of content
    #[arg(long, value_delimiter = ',', default_value = "1024,10240,102400")]
    sizes: Vec<usize>,
    /// Seconds of each turn
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Rounds, in each of which every contestant has a turn [default: 5 of hits, 3 of the others]
    #[arg(long)]
    rounds: Option<usize>,
    /// URLs asked for in turn
    #[arg(long, default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    keys: usize,
    /// Header fields of the responses, beside those that the origin sends anyhow
    #[arg(long, default_value_t = 0)]
    fields: usize,
    /// Only these contestants take part
    #[arg(long, value_enum, value_delimiter = ',')]
    servers: Vec<Kind>,
    /// Where tables and plots go; without it nowhere
    #[arg(long)]
    document: Option<PathBuf>,
}

/// What a turn takes beside its load, and a start with warming up, in seconds.
const TURN: f64 = 0.15;
const START: f64 = 0.5;
/// What the herd takes in all.
const HERD: f64 = 25.0;

impl Options {
    fn plan(&self, scenario: Scenario) -> Plan {
        // Hits are compared most closely.
        let rounds = self
            .rounds
            .unwrap_or(if scenario == Scenario::Hit { 5 } else { 3 });
        let (seconds, keys, fields) = (self.seconds, self.keys, self.fields);
        Plan {
            seconds,
            rounds: rounds.max(1),
            keys,
            fields,
            servers: self.servers.clone(),
        }
    }

    /// Seconds that everything will take, about.
    fn estimate(&self) -> f64 {
        let of = |scenario: &Scenario| {
            let plan = self.plan(*scenario);
            let taking_part = |size: &usize| {
                let all = scenario.contestants(*size);
                all.iter()
                    .filter(|kind| plan.servers.is_empty() || plan.servers.contains(kind))
                    .count()
            };
            if *scenario == Scenario::Herd {
                return HERD;
            }
            let contestants: usize = self.sizes.iter().map(taking_part).sum();
            #[allow(clippy::cast_precision_loss, reason = "small counts")]
            let (contestants, rounds, seconds) =
                (contestants as f64, plan.rounds as f64, plan.seconds as f64);
            let warm_up = if *scenario == Scenario::Hit {
                WARM_UP
            } else {
                0
            };
            #[allow(clippy::cast_precision_loss, reason = "a second or none")]
            let warm_up = warm_up as f64;
            contestants * (START + warm_up + rounds * (seconds + TURN))
        };
        self.scenarios.iter().map(of).sum()
    }
}

/// Measures all that was asked for.
pub(crate) async fn run(options: &Options) -> Result<(), String> {
    for program in ["wrk", "taskset"] {
        if !has(program) {
            return Err(format!(
                "{program} is missing; make setup-bench installs it"
            ));
        }
    }
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        return Err("two cores are needed: one for the server, one for the load".to_owned());
    }
    machine::pin(std::process::id(), LOAD_CORE)?;
    println!(
        "· this takes about {:.0} minutes",
        (options.estimate() / 60.0).ceil()
    );
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let origin = Origin::start(folder.path()).await?;
    for &scenario in &options.scenarios {
        measure(options, scenario, &origin).await?;
    }
    Ok(())
}

async fn measure(options: &Options, scenario: Scenario, origin: &Origin) -> Result<(), String> {
    let plan = options.plan(scenario);
    let (mut measured, client) = (Measured::default(), Client::new());
    let table = if scenario == Scenario::Herd {
        println!("· {}", scenario.title());
        tables::of_herds(&herd::measure(&plan, origin, &mut measured).await?)
    } else {
        for &size in &options.sizes {
            let arena = Arena {
                scenario,
                size,
                plan: &plan,
                origin,
                client: &client,
            };
            let progress =
                |step: &str| println!("· {}, {}: {step}", scenario.title(), size_name(size));
            arena.measure(&mut measured, progress).await?;
        }
        tables::of_rounds(scenario, &measured.rows)
    };
    println!("\n{table}");
    for absent in &measured.absent {
        println!("not run: {absent}");
    }
    write(options, scenario, &plan, &measured, &table)
}

/// The scenario's section, and its plot beside the document.
fn write(
    options: &Options,
    scenario: Scenario,
    plan: &Plan,
    measured: &Measured,
    table: &str,
) -> Result<(), String> {
    let Some(document) = &options.document else {
        return Ok(());
    };
    let mut parts = vec![
        format!("## {}", scenario.title()),
        format!(
            "{} Beside it: {}.",
            report::when_and_where(),
            machine::versions()
        ),
        scenario.words(plan),
    ];
    if !measured.absent.is_empty() {
        parts.push(format!("Not run: {}.", measured.absent.join("; ")));
    }
    if let Some(title) = scenario.plot_title() {
        let name = format!("benchmarks-{}.svg", scenario.section());
        plot::draw(&document.with_file_name(&name), title, &measured.rows)?;
        parts.push(format!("![{title}]({name})"));
    }
    parts.push(table.trim_end().to_owned());
    if scenario == Scenario::Hit {
        parts.push(include_str!("../explanation.md").to_owned());
    }
    report::put(document, scenario.section(), &parts.join("\n\n"))
        .map_err(|error| format!("{}: {error}", document.display()))
}
