//! `.env`: settings for everything that `make run` starts, and for `larder`.
//!
//! What this decides: which lines are understood. A setting that nobody reads is a misspelt one, so
//! it is refused like a line that does not parse; `.env.example` lists all settings. No value is
//! ever shown: most are secrets.

use std::fmt;
use std::path::Path;

/// The settings, one commented line each.
const EXAMPLE: &str = include_str!("../../.env.example");
/// `docker compose` reads the same file and has settings of its own.
const OF_COMPOSE: [&str; 2] = ["COMPOSE_", "DOCKER_"];
/// A name with at most so many letters wrong is taken for a misspelt one.
const MISSPELT: usize = 2;

/// What is wrong with `.env`, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from 1.
    line: usize,
    problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".env, line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for Mistake {}

/// Puts the settings of `folder`'s `.env` into the environment; what is there already stays. No
/// file, no settings.
pub fn load(folder: &Path) -> Result<(), Mistake> {
    let path = folder.join(".env");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Mistake {
                line: 1,
                problem: format!("cannot be read ({error})"),
            });
        }
    };
    check(&text)?;
    dotenvy::from_path(&path).map_err(|_| Mistake {
        line: 1,
        problem: "cannot be read".to_owned(),
    })
}

fn check(text: &str) -> Result<(), Mistake> {
    for setting in dotenvy::from_read_iter(text.as_bytes()) {
        let (name, _) = setting.map_err(|error| match error {
            dotenvy::Error::LineParse(unread, _) => unreadable(text, &unread),
            _ => Mistake {
                line: 1,
                problem: "cannot be read".to_owned(),
            },
        })?;
        if !is_known(&name) {
            let gives = |line: &str| {
                line.trim_start()
                    .trim_start_matches("export ")
                    .trim_start()
                    .starts_with(&name)
            };
            let line = text.lines().position(gives).unwrap_or(0) + 1;
            return Err(Mistake {
                line,
                problem: format!("{name} is not a setting; {}", suggestion(&name)),
            });
        }
    }
    Ok(())
}

/// `unread` is what the parser gave up on: a line with what follows it, or the value of one.
fn unreadable(text: &str, unread: &str) -> Mistake {
    let unread = unread.trim_start().lines().next().unwrap_or_default();
    let value_of = |line: &str| {
        line.split_once('=')
            .map(|(_, value)| value.trim_start().to_owned())
    };
    let is_it = |line: &str| {
        line.trim_start().starts_with(unread)
            || value_of(line).is_some_and(|value| value.starts_with(unread))
    };
    let (index, line) = text
        .lines()
        .enumerate()
        .find(|(_, line)| is_it(line))
        .unwrap_or_default();
    let has_name = line
        .split_once('=')
        .is_some_and(|(name, _)| !name.trim().is_empty());
    let problem = match value_of(line).filter(|_| has_name) {
        None => "this is not NAME=value",
        Some(value)
            if value.starts_with(['"', '\'']) && value.matches(&value[..1]).count() == 1 =>
        {
            "the quote is not closed"
        }
        Some(_) => "the value needs quotes",
    };
    Mistake {
        line: index + 1,
        problem: problem.to_owned(),
    }
}

fn suggestion(name: &str) -> String {
    match known().map(|known| (distance(known, name), known)).min() {
        Some((wrong, known)) if wrong <= MISSPELT => format!("is {known} meant?"),
        _ => ".env.example lists all settings".to_owned(),
    }
}

fn is_known(name: &str) -> bool {
    OF_COMPOSE.iter().any(|prefix| name.starts_with(prefix)) || known().any(|known| known == name)
}

/// Every name that `.env.example` gives an example of.
fn known() -> impl Iterator<Item = &'static str> {
    EXAMPLE.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("# ").unwrap_or(line).split_once('=')?;
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        is_name.then_some(name)
    })
}

/// How many letters have to be put in, taken out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        check(text).unwrap_err().to_string()
    }

    #[test]
    fn settings_comments_quotes_and_what_compose_reads_are_accepted() {
        let text = "# a comment\n\nREDIS_URL=redis://:p@h:1/0\nexport LARDER_PURGE_TOKEN=\"a b\"\nCOMPOSE_PROJECT_NAME=x\n\
                    LARDER_STORE_SECRET='two\nlines'\nPORT=3001\n";
        assert_eq!(check(text), Ok(()));
        assert_eq!(check(""), Ok(()));
        assert_eq!(check(EXAMPLE), Ok(()));
        assert_eq!(check("REDIS_URL=\n"), Ok(()));
    }

    #[test]
    fn a_broken_line_is_named_by_its_number_and_no_value_is_shown() {
        assert_eq!(
            refused("REDIS_URL=\nhello\n"),
            ".env, line 2: this is not NAME=value"
        );
        assert_eq!(
            refused("\nLARDER_PURGE_TOKEN=\"abc\nREDIS_URL=x\n"),
            ".env, line 2: the quote is not closed"
        );
        assert_eq!(
            refused("LARDER_PURGE_TOKEN='abc"),
            ".env, line 1: the quote is not closed"
        );
        assert_eq!(
            refused("LARDER_PURGE_TOKEN=secret words"),
            ".env, line 1: the value needs quotes"
        );
        assert_eq!(refused("=x"), ".env, line 1: this is not NAME=value");
    }

    #[test]
    fn a_misspelt_setting_is_refused_with_the_one_that_was_meant() {
        assert_eq!(
            refused("# x\nREDIS_URI=redis://h\n"),
            ".env, line 2: REDIS_URI is not a setting; is REDIS_URL meant?"
        );
        assert_eq!(
            refused("REDIS_URI=\n"),
            ".env, line 1: REDIS_URI is not a setting; is REDIS_URL meant?"
        );
        assert_eq!(
            refused("export LARDER_PURGE_TOKN=x"),
            ".env, line 1: LARDER_PURGE_TOKN is not a setting; is LARDER_PURGE_TOKEN meant?"
        );
        assert_eq!(
            refused("SOMETHING_ELSE=1"),
            ".env, line 1: SOMETHING_ELSE is not a setting; .env.example lists all settings"
        );
    }

    #[test]
    fn no_file_is_no_mistake() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()), Ok(()));
        std::fs::write(folder.path().join(".env"), "nonsense").unwrap();
        assert!(load(folder.path()).is_err());
    }
}
