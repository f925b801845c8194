//! Ten minutes of many keys, some far more popular than others: does it get slower, does it grow?

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use larder_stack::{RedisServer, Settings, Stack, StoreKind};
use rand_distr::{Distribution, Zipf};
use reqwest::Client;

use crate::figures::percentile;
use crate::machine::{LOAD_CORE, SERVER_CORE, cpu_micros, pin, resident_bytes};
use crate::origin::Origin;
use crate::report;
use crate::server::one_worker;

/// How unequal the keys' popularity is: the n-th is asked for n^-0.9 times as often as the first.
const EXPONENT: f64 = 0.9;
/// Clients, each with a connection of its own and a pause between its requests.
const CLIENTS: u64 = 32;

/// The options.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Distinct URLs
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Minutes in all
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Requests per second, of all clients together
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Seconds for each sample
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    sample: u64,
    /// Where the table and the plot go; without it nowhere
    #[arg(long)]
    document: Option<PathBuf>,
}

/// Runs it, prints what is seen as it is seen, and writes the section.
pub(crate) async fn run(options: &Options) -> Result<(), String> {
    let samples = measure(options, |sample| println!("· {sample}")).await?;
    let table = report::table(
        &["figure", "first half", "second half", "least to most"],
        &summary(&samples),
    );
    println!("{table}");
    let Some(document) = &options.document else {
        return Ok(());
    };
    let plot = document.with_file_name("benchmarks-soak.svg");
    draw(
        &plot,
        &format!("{} minutes, {} keys", options.minutes, options.keys),
        &samples,
    )?;
    let intro = format!(
        "`make bench-soak`: {} URLs with contents of 256 bytes to 4 KB, the n-th asked for n^-{EXPONENT} times as often as the\n\
         first, {} requests a second from {CLIENTS} clients. Level 1 has its 64 MiB and cannot hold them all, level 2 is Redis;\n\
         responses are fresh for five minutes and may be served stale for one more. Envoy's one worker is on core 0, all else\n\
         on core 1; times are what a client there sees, of hits in level 1 and in Redis alike. The table leaves the first quarter out, in which level 1 fills.",
        options.keys, options.rate
    );
    let image = "![Memory, processor time and latency over time](benchmarks-soak.svg)";
    let section = format!(
        "## Many keys\n\n{}\n\n{intro}\n\n{image}\n\n{table}",
        report::when_and_where()
    );
    report::put(document, "soak", &section)
        .map_err(|error| format!("{}: {error}", document.display()))
}

/// What was seen in one stretch of time.
#[derive(Clone, Debug)]
struct Sample {
    /// Its end, in minutes since the beginning.
    minute: f64,
    /// Requests answered per second.
    rate: f64,
    /// Of them answered from the cache, 0 to 1.
    hits: f64,
    /// Half of the hits took at most this long.
    p50: Duration,
    /// All but one in a thousand hits did.
    p999: Duration,
    /// Envoy's processor time per request in microseconds.
    cpu: f64,
    /// Envoy's resident memory in bytes.
    resident: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "minute {:.1}: {:.0}/s, {:.1} % hits in {:.2} ms (p50), {:.2} ms (p99.9), {:.1} µs of CPU, {:.1} MB",
            self.minute,
            self.rate,
            self.hits * 100.0,
            millis(self.p50),
            millis(self.p999),
            self.cpu,
            self.resident / 1e6
        )
    }
}

/// Answers since the last sample: how long, and whether from the cache.
type Answers = Arc<Mutex<Vec<(Duration, bool)>>>;

/// Runs it and tells each sample as it comes.
async fn measure(soak: &Options, progress: impl Fn(&Sample)) -> Result<Vec<Sample>, String> {
    // What is started from here on inherits the core.
    pin(std::process::id(), LOAD_CORE)?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let redis = RedisServer::start().await?;
    let origin = Origin::start(folder.path()).await?;
    let config = include_str!("../../envoy/filters/default.json").to_owned();
    let settings = Settings {
        store: StoreKind::Redis(redis.url()),
        ..one_worker(&origin.address, config)
    };
    let stack = Stack::start(settings, |_| {}).await?;
    pin(stack.envoy_id(), SERVER_CORE)?;
    let (answers, over) = (Answers::default(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            tokio::spawn(client(
                n,
                soak.clone(),
                stack.url().to_owned(),
                answers.clone(),
                over.clone(),
            ))
        })
        .collect();
    let mut samples = Vec::new();
    let begun = Instant::now();
    let mut cpu_before = cpu_micros(stack.envoy_id());
    let mut ticks = tokio::time::interval(Duration::from_secs(soak.sample));
    ticks.tick().await;
    while begun.elapsed() < Duration::from_secs(60 * soak.minutes) {
        let since = Instant::now();
        ticks.tick().await;
        let taken = answers
            .lock()
            .map(|mut answers| std::mem::take(&mut *answers))
            .unwrap_or_default();
        let cpu = cpu_micros(stack.envoy_id());
        let sample = sampled(
            &taken,
            since.elapsed(),
            begun.elapsed(),
            cpu - cpu_before,
            stack.envoy_id(),
        );
        cpu_before = cpu;
        progress(&sample);
        samples.push(sample);
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.map_err(|error| error.to_string())??;
    }
    stack.stop().await;
    Ok(samples)
}

#[allow(clippy::cast_precision_loss, reason = "counts of requests")]
fn sampled(
    taken: &[(Duration, bool)],
    length: Duration,
    minute: Duration,
    cpu: f64,
    envoy: u32,
) -> Sample {
    let mut hits: Vec<Duration> = taken
        .iter()
        .filter(|(_, hit)| *hit)
        .map(|(elapsed, _)| *elapsed)
        .collect();
    let count = taken.len().max(1) as f64;
    Sample {
        minute: minute.as_secs_f64() / 60.0,
        rate: taken.len() as f64 / length.as_secs_f64(),
        hits: hits.len() as f64 / count,
        p50: percentile(&mut hits, 0.5),
        p999: percentile(&mut hits, 0.999),
        cpu: cpu / count,
        resident: resident_bytes(envoy),
    }
}

/// One client: a request, and the next when its turn comes.
async fn client(
    n: u64,
    soak: Options,
    url: String,
    answers: Answers,
    over: Arc<AtomicBool>,
) -> Result<(), String> {
    let client = Client::builder()
        .pool_max_idle_per_host(1)
        .build()
        .map_err(|error| error.to_string())?;
    let popularity =
        Zipf::new(f64::from(soak.keys), EXPONENT).map_err(|error| error.to_string())?;
    let mut random: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(n);
    let mut turns = tokio::time::interval(Duration::from_micros(
        1_000_000 * CLIENTS / soak.rate.max(1),
    ));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !over.load(Ordering::Relaxed) {
        turns.tick().await;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number from 1 to keys"
        )]
        let key = popularity.sample(&mut random) as u32;
        let begun = Instant::now();
        let response = client
            .get(format!("{url}{}", path(key)))
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let hit = response
            .headers()
            .get("x-cache-status")
            .is_some_and(|status| status == "HIT");
        let (status, length) = (response.status(), response.content_length());
        response.bytes().await.map_err(|error| error.to_string())?;
        if !status.is_success() || length != Some(u64::from(size(key))) {
            return Err(format!("{}: {status}, {length:?} bytes", path(key)));
        }
        if let Ok(mut answers) = answers.lock() {
            answers.push((begun.elapsed(), hit));
        }
    }
    Ok(())
}

/// From 256 bytes to 4 KB, spread over the keys whatever their popularity.
fn size(key: u32) -> u32 {
    256 + key.wrapping_mul(2_654_435_761) % 3841
}

fn path(key: u32) -> String {
    let lifetime = "max-age%3D300,stale-while-revalidate%3D60";
    format!(
        "/anything/soak/{key}?mock-body-size={}&mock-cache-control={lifetime}",
        size(key)
    )
}

/// What the samples come to: the first quarter is left out, in which level 1 fills.
fn summary(samples: &[Sample]) -> Vec<Vec<String>> {
    let warm = samples.get(samples.len() / 4..).unwrap_or_default();
    let halves = warm.split_at(warm.len() / 2);
    let mean = |samples: &[Sample], of: fn(&Sample) -> f64| {
        #[allow(clippy::cast_precision_loss, reason = "a few dozen")]
        let count = samples.len().max(1) as f64;
        samples.iter().map(of).sum::<f64>() / count
    };
    let row = |what: &str, of: fn(&Sample) -> f64, digits: usize| {
        let number = |value: f64| format!("{value:.digits$}");
        let spread = crate::figures::spread(&warm.iter().map(of).collect::<Vec<_>>());
        vec![
            what.to_owned(),
            number(mean(halves.0, of)),
            number(mean(halves.1, of)),
            format!("{}–{}", number(spread.0), number(spread.1)),
        ]
    };
    vec![
        row("requests per second", |sample| sample.rate, 0),
        row("hits, %", |sample| sample.hits * 100.0, 1),
        row("Envoy, CPU µs per request", |sample| sample.cpu, 1),
        row("Envoy, resident MB", |sample| sample.resident / 1e6, 1),
        row(
            "hits, p50 in ms",
            |sample| sample.p50.as_secs_f64() * 1e3,
            2,
        ),
        row(
            "hits, p99.9 in ms",
            |sample| sample.p999.as_secs_f64() * 1e3,
            2,
        ),
    ]
}

/// Draws what was seen over time.
fn draw(file: &Path, title: &str, samples: &[Sample]) -> Result<(), String> {
    let line = |of: fn(&Sample) -> f64| {
        samples
            .iter()
            .map(|sample| (sample.minute, of(sample)))
            .collect::<Vec<_>>()
    };
    crate::lines::draw(
        file,
        title,
        &[
            ("Envoy, resident MB", line(|sample| sample.resident / 1e6)),
            ("Envoy, CPU µs per request", line(|sample| sample.cpu)),
            (
                "hits, p99.9 in ms",
                line(|sample| sample.p999.as_secs_f64() * 1e3),
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_lie_between_their_bounds_and_differ() {
        let sizes: Vec<u32> = (1..1000).map(size).collect();
        assert!(sizes.iter().all(|size| (256..=4096).contains(size)));
        assert!(sizes.iter().min() < Some(&300) && sizes.iter().max() > Some(&4000));
    }

    #[test]
    fn the_halves_are_compared_without_the_beginning() {
        let sample = |rate| Sample {
            minute: 0.0,
            rate,
            hits: 0.5,
            p50: Duration::ZERO,
            p999: Duration::ZERO,
            cpu: 1.0,
            resident: 1e6,
        };
        let samples: Vec<Sample> = [99.0, 99.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0]
            .map(sample)
            .to_vec();
        assert_eq!(
            summary(&samples)[0],
            ["requests per second", "1", "3", "1–3"]
        );
    }
}
