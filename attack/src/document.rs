//! The generated parts of `docs/security.md`: which scenarios there are, and how the last run went.
//!
//! Each stands between two marks. A test compares the first with the scenarios, so that it cannot
//! rot.

use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use crate::classes;
use crate::report::{Outcome, counts};
use crate::scenario::Class;

const SCENARIOS: (&str, &str) = (
    "<!-- scenarios: larder-attack writes this -->",
    "<!-- end of scenarios -->",
);
const RESULTS: (&str, &str) = (
    "<!-- results: larder-attack writes this -->",
    "<!-- end of results -->",
);

/// Writes both parts.
pub(crate) fn write(
    path: &Path,
    outcomes: &[Outcome],
    stores: &[&'static str],
) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let text = with_part(&text, SCENARIOS, &scenarios())?;
    let text = with_part(&text, RESULTS, &results(outcomes, stores))?;
    std::fs::write(path, text).map_err(|error| error.to_string())
}

fn with_part(text: &str, (start, end): (&str, &str), part: &str) -> Result<String, String> {
    let (before, rest) = text
        .split_once(start)
        .ok_or_else(|| format!("the mark {start} is missing"))?;
    let (_, after) = rest
        .split_once(end)
        .ok_or_else(|| format!("the mark {end} is missing"))?;
    Ok(format!("{before}{start}\n\n{part}\n{end}{after}"))
}

/// One table for each class.
fn scenarios() -> String {
    let mut text = String::new();
    for class in Class::ALL {
        let _ = writeln!(text, "### {} (`{}`)\n", class.title(), class.name());
        text.push_str("| scenario | inputs | what has to hold | source |\n|---|---|---|---|\n");
        for scenario in classes::all()
            .into_iter()
            .filter(|scenario| scenario.class == class)
        {
            let (expectation, source) = (scenario.expectation, scenario.source);
            let _ = writeln!(
                text,
                "| `{}` | {} | {expectation} | {source} |",
                scenario.name,
                scenario.inputs.len()
            );
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn results(outcomes: &[Outcome], stores: &[&'static str]) -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut text = format!("Run on {}, {}. Passed / failed:\n\n", &now[..10], machine());
    let _ = writeln!(text, "| class | {} |", stores.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(stores.len()));
    for class in Class::ALL {
        let cells: Vec<String> = stores
            .iter()
            .map(|store| {
                let (passed, failed) = counts(outcomes, class, store);
                format!("{passed} / {failed}")
            })
            .collect();
        let _ = writeln!(text, "| {} | {} |", class.title(), cells.join(" | "));
    }
    let mut failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.failure.is_some())
        .map(|outcome| format!("`{}` on {}", outcome.scenario.title(), outcome.store))
        .collect();
    failed.sort();
    failed.dedup();
    if !failed.is_empty() {
        let _ = writeln!(text, "\nWhat failed: {}.", failed.join(", "));
    }
    text
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| {
        line.strip_prefix("model name")?
            .split_once(": ")
            .map(|(_, name)| name)
    });
    let count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{} × {}, {}",
        count,
        model.unwrap_or("an unnamed processor").trim(),
        std::env::consts::OS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_scenario_as_it_is() {
        let text = include_str!("../../docs/security.md");
        let written = with_part(text, SCENARIOS, &scenarios()).unwrap();
        assert!(
            written == text,
            "docs/security.md is behind: run larder-attack --document docs/security.md"
        );
    }

    #[test]
    fn a_part_is_replaced_between_its_marks() {
        assert_eq!(
            with_part("a <b>old</b> c", ("<b>", "</b>"), "new").unwrap(),
            "a <b>\n\nnew\n</b> c"
        );
        assert!(
            with_part("a", ("<b>", "</b>"), "")
                .unwrap_err()
                .contains("<b>")
        );
    }
}
