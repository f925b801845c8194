//! What a run comes to in numbers.

use std::collections::HashMap;

use super::checker::{Calm, Terms};
use super::history::{Got, History, Micros};

/// How much later than a PUT was answered another Envoy still served what was before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lags {
    /// PUTs that were answered.
    pub(crate) puts: usize,
    pub(crate) p99: Micros,
    pub(crate) worst: Micros,
}

/// Everything that is told at the end.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) reads: usize,
    pub(crate) hits: usize,
    pub(crate) failed_reads: usize,
    pub(crate) puts: usize,
    pub(crate) failed_puts: usize,
    pub(crate) purges: usize,
    pub(crate) failed_purges: usize,
    /// With no fault near, and else.
    pub(crate) lags: [Lags; 2],
    /// How long reads took, with no fault near and else: p50 and p99.
    pub(crate) latencies: [(Micros, Micros); 2],
}

impl Figures {
    /// Counts a history.
    pub(crate) fn of(history: &History, terms: Terms) -> Self {
        let calm = Calm::of(&history.spans, terms.recovery);
        let is_hit = |got: &Got| matches!(got, Got::Version(answer) if answer.hit);
        let answered = |got: &Got| matches!(got, Got::Version(_));
        let mut latencies = [Vec::new(), Vec::new()];
        for read in history.reads.iter().filter(|read| answered(&read.got)) {
            latencies[usize::from(!calm.is_calm(read.begin, read.end))].push(read.end - read.begin);
        }
        Self {
            reads: history.reads.len(),
            hits: history
                .reads
                .iter()
                .filter(|read| is_hit(&read.got))
                .count(),
            failed_reads: history
                .reads
                .iter()
                .filter(|read| !answered(&read.got))
                .count(),
            puts: history.puts.len(),
            failed_puts: history
                .puts
                .iter()
                .filter(|put| put.answered.is_err())
                .count(),
            purges: history.purges.len(),
            failed_purges: history.purges.iter().filter(|purge| !purge.done).count(),
            lags: lags(history, &calm, terms),
            latencies: latencies.map(|mut all| {
                all.sort_unstable();
                (share(&all, 50), share(&all, 99))
            }),
        }
    }

    /// Hits among all reads, in percent.
    pub(crate) fn hit_ratio(&self) -> f64 {
        // Counts of reads are far below what a double holds exactly.
        self.hits as f64 * 100.0 / self.reads.max(1) as f64
    }
}

fn lags(history: &History, calm: &Calm, terms: Terms) -> [Lags; 2] {
    let mut of_key: HashMap<usize, Vec<usize>> = HashMap::new();
    for (at, put) in history
        .puts
        .iter()
        .enumerate()
        .filter(|(_, put)| put.answered.is_ok())
    {
        of_key.entry(put.key).or_default().push(at);
    }
    let mut worst: HashMap<usize, Micros> = of_key.values().flatten().map(|at| (*at, 0)).collect();
    for read in &history.reads {
        let (Got::Version(answer), Some(puts)) = (&read.got, of_key.get(&read.key)) else {
            continue;
        };
        let newer = puts.partition_point(|put| history.puts[*put].version <= answer.version);
        if let Some(&at) = puts.get(newer)
            && history.puts[at].end < read.begin
            && let Some(lag) = worst.get_mut(&at)
        {
            *lag = (*lag).max(read.begin - history.puts[at].end);
        }
    }
    let mut sorted = [Vec::new(), Vec::new()];
    for (at, lag) in worst {
        let put = &history.puts[at];
        sorted[usize::from(!calm.is_calm(put.begin, put.end + terms.calm))].push(lag);
    }
    sorted.map(|mut all| {
        all.sort_unstable();
        Lags {
            puts: all.len(),
            p99: share(&all, 99),
            worst: all.last().copied().unwrap_or(0),
        }
    })
}

/// The value below which so many in a hundred lie.
fn share(sorted: &[Micros], percent: usize) -> Micros {
    sorted
        .get(sorted.len() * percent / 100)
        .or(sorted.last())
        .copied()
        .unwrap_or(0)
}
