//! The checkout that a program runs from: its folder, found when the program runs, and its `.env`.
//!
//! What this decides: which checkout is meant. Nothing is remembered from the build, so a checkout
//! that was moved or copied uses its own files. What it leaves out: what the settings mean.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

pub mod env_file;

/// A file that only the root of a checkout has.
const SIGN: &str = "envoy/envoy.yaml";

/// The root of the checkout: the nearest folder above the running program, else above the current
/// folder, that is one. `None` for a program that was installed elsewhere, as in a container.
pub fn root() -> Option<PathBuf> {
    let program = std::env::current_exe().ok();
    let current = std::env::current_dir().ok();
    program
        .iter()
        .chain(&current)
        .find_map(|place| root_above(place))
}

fn root_above(place: &Path) -> Option<PathBuf> {
    place
        .ancestors()
        .find(|folder| folder.join(SIGN).is_file())
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_checkout_is_its_own_root() {
        let copies = tempfile::tempdir().unwrap();
        for name in ["first", "second"] {
            let copy = copies.path().join(name);
            std::fs::create_dir_all(copy.join("envoy")).unwrap();
            std::fs::write(copy.join(SIGN), "").unwrap();
            assert_eq!(
                root_above(&copy.join("target/release/larder")),
                Some(copy.clone())
            );
            assert_eq!(root_above(&copy), Some(copy));
        }
        assert_eq!(root_above(copies.path()), None);
    }

    #[test]
    fn a_program_under_target_finds_the_checkout_above_it() {
        assert!(root().is_some_and(|root| root.join("project/src/lib.rs").is_file()));
    }
}
