//! What a run says at its end.

use std::collections::BTreeMap;

use super::checker::{Rule, Terms, Violation};
use super::figures::Figures;
use super::history::{History, Micros};
use super::schedule::Kind;
use super::story;

/// Stories told in full; the others are counted.
const STORIES: usize = 3;

/// Everything at the end, for people.
pub(crate) fn of(history: &History, terms: Terms, violations: &[Violation], again: &str) -> String {
    let figures = Figures::of(history, terms);
    let mut lines = vec![
        format!(
            "{} reads ({:.1} % hits, {} without a version), {} PUTs ({} failed), {} purges ({} refused), {} faults",
            figures.reads,
            figures.hit_ratio(),
            figures.failed_reads,
            figures.puts,
            figures.failed_puts,
            figures.purges,
            figures.failed_purges,
            history.spans.len()
        ),
        "".to_owned(),
        format!("{:<52} {:>12} {:>12}", "", "in peace", "near faults"),
    ];
    let mut row = |title: &str, values: [String; 2]| {
        lines.push(format!("{title:<52} {:>12} {:>12}", values[0], values[1]));
    };
    let [calm, troubled] = figures.lags;
    row(
        "answered PUTs",
        [calm.puts.to_string(), troubled.puts.to_string()],
    );
    row(
        "old versions from the other Envoy, after a PUT: p99",
        [millis(calm.p99), millis(troubled.p99)],
    );
    row("  worst", [millis(calm.worst), millis(troubled.worst)]);
    let [calm, troubled] = figures.latencies;
    row("reads: p50", [millis(calm.0), millis(troubled.0)]);
    row("  p99", [millis(calm.1), millis(troubled.1)]);
    lines.push(String::new());
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    history
        .spans
        .iter()
        .for_each(|span| *kinds.entry(span.fault.kind).or_default() += 1);
    lines.extend(
        kinds
            .iter()
            .map(|(kind, count)| format!("{count:>4} × {}", kind.title())),
    );
    lines.push(String::new());
    lines.extend(verdict(history, terms, violations, again));
    lines.join("\n")
}

fn verdict(history: &History, terms: Terms, violations: &[Violation], again: &str) -> Vec<String> {
    let promise = format!(
        "own PUT at once; other Envoys {} ms later in peace, {} s + {} s under faults",
        terms.calm / 1_000,
        terms.distrust / 1_000_000,
        terms.slack / 1_000_000
    );
    if violations.is_empty() {
        return vec![format!("the promise was kept ({promise})")];
    }
    let mut lines = vec![format!(
        "the promise was broken {} times ({promise})",
        violations.len()
    )];
    let mut rules: BTreeMap<Rule, Vec<Violation>> = BTreeMap::new();
    violations
        .iter()
        .for_each(|one| rules.entry(one.rule).or_default().push(*one));
    for (rule, all) in rules {
        lines.push(format!("\n{} × {}", all.len(), rule.title()));
        let mut told: Vec<Vec<String>> = all
            .iter()
            .take(200)
            .map(|one| story::of(history, *one))
            .collect();
        told.sort_by_key(Vec::len);
        for story in told.iter().take(STORIES) {
            lines.push(String::new());
            lines.extend(story.iter().map(|line| format!("  {line}")));
        }
    }
    lines.push(format!("\nagain: {again}"));
    lines
}

fn millis(time: Micros) -> String {
    format!("{:.1} ms", time as f64 / 1_000.0)
}
