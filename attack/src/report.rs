//! What a run says: progress, each failure with its evidence, and the table at the end.

use crate::scenario::{Class, Scenario};

/// One check that is over.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static Scenario,
    pub(crate) input: &'static str,
    pub(crate) store: &'static str,
    /// What was instead of what was expected, with the evidence.
    pub(crate) failure: Option<(String, String)>,
}

impl Outcome {
    /// One line when it is over; all that is known where it failed.
    pub(crate) fn print(&self, verbose: bool) {
        let input = if self.input.is_empty() {
            String::new()
        } else {
            format!(" [{}]", self.input.escape_debug())
        };
        let name = format!("{}{input} on {}", self.scenario.title(), self.store);
        let Some((instead, evidence)) = &self.failure else {
            if verbose {
                println!("  passed  {name}");
            }
            return;
        };
        println!("  FAILED  {name}");
        println!("    expected: {}", self.scenario.expectation);
        println!("    instead:  {instead}");
        println!("    source:   {}", self.scenario.source);
        println!("    {}", evidence.trim_end().replace('\n', "\n    "));
    }
}

/// How many passed and failed in a class.
pub(crate) fn counts(outcomes: &[Outcome], class: Class, store: &str) -> (usize, usize) {
    let of_it = outcomes
        .iter()
        .filter(|outcome| outcome.scenario.class == class && outcome.store == store);
    of_it.fold((0, 0), |(passed, failed), outcome| match outcome.failure {
        None => (passed + 1, failed),
        Some(_) => (passed, failed + 1),
    })
}

/// The table by class, and the line that a script reads.
pub(crate) fn print_table(outcomes: &[Outcome], stores: &[&'static str]) {
    println!(
        "\n{:<62} {}",
        "class",
        stores
            .iter()
            .map(|store| format!("{store:>16}"))
            .collect::<String>()
    );
    for class in Class::ALL {
        let cells: Vec<(usize, usize)> = stores
            .iter()
            .map(|store| counts(outcomes, class, store))
            .collect();
        if cells.iter().all(|(passed, failed)| passed + failed == 0) {
            continue;
        }
        let cells = cells
            .iter()
            .map(|(passed, failed)| format!("{:>16}", format!("{passed} / {failed}")));
        println!("{:<62} {}", class.title(), cells.collect::<String>());
    }
    println!("(passed / failed)");
    let failed = outcomes
        .iter()
        .filter(|outcome| outcome.failure.is_some())
        .count();
    println!("{} passed, {failed} failed", outcomes.len() - failed);
}
