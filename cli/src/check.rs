//! `larder check`: is a file a filter configuration? By the filter's own parser, so that what passes
//! here is taken by Envoy.
//!
//! What this decides: how mistakes and warnings are told. What it leaves out: which there are
//! (`larder-filter`), and where in the text they stand (`check::position`).

use std::path::Path;

use larder_filter::config::{Config, Mistake, Refused};
use larder_stack::StackError;

use crate::options::Check;
use crate::{Result, read};

mod position;
mod schema;

use position::Positions;

pub(crate) fn check(options: &Check) -> Result<()> {
    let Some(file) = &options.file else {
        // clap asks for one of the two.
        print!("{}", schema::text());
        return Ok(());
    };
    let text = read(Path::new(file))?;
    let findings = Findings::of(&text);
    for line in findings.lines(file, options.strict) {
        eprintln!("{line}");
    }
    match findings.verdict(options.strict) {
        Ok(told) => {
            println!("{file} is a configuration{told}");
            Ok(())
        }
        Err(problem) => Err(StackError(format!("{file} {problem}"))),
    }
}

/// What is to be said of a document.
struct Findings<'a> {
    positions: Positions<'a>,
    /// A syntax error's place.
    not_json: Option<(usize, usize, String)>,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl<'a> Findings<'a> {
    fn of(text: &'a str) -> Self {
        let mut found = Self {
            positions: Positions::of(text),
            not_json: None,
            mistakes: Vec::new(),
            warnings: Vec::new(),
        };
        match Config::read(text.as_bytes()) {
            Ok(config) => found.warnings = config.warnings(text.as_bytes()),
            Err(Refused::NotJson(error)) => {
                let whole = error.to_string();
                let (problem, _) = whole.rsplit_once(" at line ").unwrap_or((&whole, ""));
                found.not_json = Some((error.line(), error.column(), problem.to_owned()));
                return found;
            }
            Err(Refused::Mistakes(mistakes)) => found.mistakes = mistakes,
        }
        found.warnings.extend(found.positions.twice());
        found
    }

    /// `FILE:LINE:COLUMN: error: …`, as compilers write and editors read it.
    fn lines(&self, file: &str, strict: bool) -> Vec<String> {
        let mut found: Vec<(usize, usize, String)> = Vec::new();
        if let Some((line, column, problem)) = &self.not_json {
            found.push((*line, *column, format!("error: not JSON: {problem}")));
        }
        let as_warning = if strict { "error" } else { "warning" };
        for (kind, list) in [("error", &self.mistakes), (as_warning, &self.warnings)] {
            for mistake in list {
                let (line, column) = self.positions.at(&mistake.path);
                found.push((line, column, format!("{kind}: {mistake}")));
            }
        }
        found.sort_by_key(|(line, column, _)| (*line, *column));
        found
            .into_iter()
            .map(|(line, column, told)| format!("{file}:{line}:{column}: {told}"))
            .collect()
    }

    /// In words, behind the file's name.
    fn verdict(&self, strict: bool) -> std::result::Result<String, String> {
        let count = |number: usize, what: &str| {
            let plural = if number == 1 { "" } else { "s" };
            format!("{number} {what}{plural}")
        };
        let mistakes = self.mistakes.len() + usize::from(self.not_json.is_some());
        let warnings = count(self.warnings.len(), "warning");
        if mistakes > 0 {
            let mistakes = count(mistakes, "mistake");
            Err(format!("is no configuration: {mistakes}"))
        } else if strict && !self.warnings.is_empty() {
            Err(format!("has {warnings}, which --strict does not allow"))
        } else if self.warnings.is_empty() {
            Ok(String::new())
        } else {
            Ok(format!(", with {warnings}"))
        }
    }
}

#[cfg(test)]
mod tests;
