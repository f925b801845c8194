//! What the documents list is what the code has.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use larder_cache_core::cache_status::Detail;
use larder_cache_core::exchange::details::Details;

#[test]
fn every_detail_is_in_the_table_and_nothing_else_is() {
    let (document, _) = cache_status();
    let listed: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let mut known: Vec<&str> = Detail::all().map(Detail::token).collect();
    let mut sorted = listed.clone();
    known.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(sorted, known);
}

#[test]
fn every_word_for_the_access_log_is_in_the_table_and_nothing_else_is() {
    let (_, document) = cache_status();
    let listed: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(listed, Details::ALL.map(Details::word));
}

/// The document's two tables: of reasons, and of words for the access log.
fn cache_status() -> (&'static str, &'static str) {
    include_str!("../../docs/cache-status.md")
        .split_once("## The access log")
        .unwrap()
}

#[test]
fn every_module_and_test_that_the_rfc_coverage_names_exists() {
    // Cargo runs tests in the package's folder, in whatever checkout this is.
    let root = Path::new("..");
    let tests = test_names(root);
    let mut rows = 0;
    for line in include_str!("../../docs/rfc-coverage.md")
        .lines()
        .filter(|line| line.matches(" | ").count() >= 5)
    {
        let cells: Vec<&str> = line
            .trim_matches(['|', ' '])
            .split(" | ")
            .map(str::trim)
            .collect();
        let [_, _, _, module, test, _] = cells[..] else {
            panic!("six columns: {line}")
        };
        if module == "module" {
            continue;
        }
        rows += 1;
        assert!(
            root.join(module.trim_matches('`')).is_file(),
            "no file {module}"
        );
        assert!(tests.contains(test.trim_matches('`')), "no test {test}");
    }
    assert!(rows > 60, "{rows} rows");
}

/// The names of all test functions of the project, including those in `proptest!`.
fn test_names(root: &Path) -> HashSet<String> {
    let mut names = HashSet::new();
    let mut folders: Vec<PathBuf> = [
        "contract",
        "cache-core",
        "filter",
        "sidecar",
        "mock-origin",
        "stack",
    ]
    .iter()
    .map(|name| root.join(name))
    .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let mut is_test = false;
                for line in text.lines().map(str::trim) {
                    if line == "#[test]" || line == "#[tokio::test]" {
                        is_test = true;
                    } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
                        names.extend(rest.split(['(', '<']).next().map(str::to_owned));
                        is_test = false;
                    }
                }
            }
        }
    }
    names
}
