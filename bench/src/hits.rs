//! Hits per second and CPU per hit, beside Envoy's own filters in the same run.

use std::process::Command;
use std::time::Duration;

use larder_stack::{Settings, Stack, eventually};
use reqwest::Client;

use crate::figures::median;
use crate::peers::{Kind, Peer};

pub(crate) const HEAD: [&str; 6] = ["content", "server", "requests/s", "CPU µs/request", "× `cache_v2`", "spread"];

/// The table, and what is missing from it with the reason.
pub(crate) struct Measured {
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) absent: Vec<String>,
}

/// One contestant of a round.
struct Contestant {
    name: &'static str,
    url: String,
    pid: u32,
    rates: Vec<f64>,
    cpu: Vec<f64>,
}

const LARDER: &str = "**Larder, level 1**";

/// Measures every size: rounds in which each contestant has its turn.
pub(crate) async fn measure(
    seconds: u64,
    rounds: usize,
    sizes: &[usize],
    progress: impl Fn(&str),
) -> Result<Measured, String> {
    has_programs()?;
    let mut measured = Measured { rows: Vec::new(), absent: vec!["nginx and Varnish".to_owned()] };
    for &size in sizes {
        progress(&format!("{size} bytes: starting"));
        let config = include_str!("../../envoy/filters/default.json").to_owned();
        let settings = Settings {
            filter_config: config,
            workers: 1,
            access_log: false,
            health_path: String::new(),
            ..Settings::default()
        };
        let stack = Stack::start(settings, |_| {}).await.map_err(|error| error.to_string())?;
        let path = format!("/anything/hit?mock-body-size={size}&mock-cache-control=max-age%3D3600");
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let body = folder.path().join("body");
        std::fs::write(&body, vec![b'x'; size]).map_err(|error| error.to_string())?;
        let origin = stack.origin_url(0).trim_start_matches("http://").to_owned();
        let mut peers: Vec<Peer> = Vec::new();
        for kind in Kind::ALL {
            if kind == Kind::Direct && size > 4096 {
                measured.absent.push("Envoy's direct response above 4 KB, which is its limit".to_owned());
                continue;
            }
            match kind.start(&origin, folder.path(), &body).await {
                Ok(peer) => peers.push(peer),
                Err(problem) => measured.absent.push(problem),
            }
        }
        let contestant = |name, url: &str, pid| Contestant {
            name,
            url: format!("{url}{path}"),
            pid,
            rates: Vec::new(),
            cpu: Vec::new(),
        };
        let mut all = vec![contestant(LARDER, stack.url(), stack.envoy_id())];
        all.extend(peers.iter().map(|peer| contestant(peer.name, &peer.url, peer.pid)));
        for contestant in &all {
            pin(contestant.pid, 0);
            warm(&contestant.url).await?;
        }
        for round in 1..=rounds {
            progress(&format!("{size} bytes: round {round} of {rounds}"));
            for contestant in &mut all {
                contestant.turn(seconds)?;
            }
        }
        measured.rows.extend(rows(size, &mut all));
        stack.stop().await;
    }
    measured.absent.sort();
    measured.absent.dedup();
    Ok(measured)
}

fn has_programs() -> Result<(), String> {
    for program in ["wrk", "taskset"] {
        if Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output()
            .map_or(true, |found| !found.status.success())
        {
            return Err(format!("{program} is missing; make setup-bench installs it"));
        }
    }
    Ok(())
}

fn rows(size: usize, all: &mut [Contestant]) -> Vec<Vec<String>> {
    let rates: Vec<(f64, f64)> = all.iter_mut().map(|one| (median(&mut one.rates), median(&mut one.cpu))).collect();
    let yardstick =
        all.iter().zip(&rates).find(|(one, _)| one.name == Kind::CacheV2.name()).map(|(_, (rate, _))| *rate);
    let row = |(one, (rate, cpu)): (&Contestant, &(f64, f64))| {
        let (least, most) = (one.rates.first().copied().unwrap_or(0.0), one.rates.last().copied().unwrap_or(0.0));
        vec![
            format!("{} KB", size / 1024),
            one.name.to_owned(),
            format!("{rate:.0}"),
            format!("{cpu:.1}"),
            yardstick.map_or("–".to_owned(), |yardstick| format!("{:.2}", rate / yardstick)),
            format!("{least:.0}–{most:.0}"),
        ]
    };
    all.iter().zip(&rates).map(row).collect()
}

impl Contestant {
    fn turn(&mut self, seconds: u64) -> Result<(), String> {
        let before = cpu_micros(self.pid);
        let mut wrk = Command::new("taskset");
        wrk.args(["-c", "1", "wrk", "-t1", "-c32", &format!("-d{seconds}s"), &self.url]);
        let output = wrk.output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = |before: &str, after: &str| -> Option<f64> {
            let rest = text.split_once(before)?.1;
            rest.split(after).next()?.trim().parse().ok()
        };
        let rate = number("Requests/sec:", "\n").ok_or_else(|| format!("wrk said: {text}"))?;
        if text.contains("Non-2xx") {
            return Err(format!("{}: {text}", self.name));
        }
        let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok());
        let requests = requests.ok_or_else(|| format!("wrk said: {text}"))?;
        self.rates.push(rate);
        self.cpu.push((cpu_micros(self.pid) - before) / requests);
        Ok(())
    }
}

/// A few requests, until two in a row are alike; a cache holds it then.
async fn warm(url: &str) -> Result<(), String> {
    let client = Client::new();
    let warm = eventually(Duration::from_secs(10), || async {
        for _ in 0..5 {
            client.get(url).send().await.ok()?.bytes().await.ok()?;
        }
        Some(())
    });
    warm.await.ok_or_else(|| format!("{url} does not answer"))
}

/// All threads of a process on one core.
fn pin(pid: u32, core: u32) {
    let _ = Command::new("taskset").args(["-a", "-c", "-p", &core.to_string(), &pid.to_string()]).output();
}

/// User and system time of a process, in microseconds.
fn cpu_micros(pid: u32) -> f64 {
    const MICROS_PER_TICK: f64 = 10_000.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * MICROS_PER_TICK
}
