//! Where things are in the checkout that this program runs from.

use std::path::{Path, PathBuf};

use crate::error::{Result, StackError};

/// The checkout's folder, found when the program runs (see [`larder_project::root`]); else the
/// current one.
pub fn project_root() -> PathBuf {
    larder_project::root()
        .or_else(|| std::env::current_dir().ok())
        .unwrap_or_default()
}

/// A build product; the error names the command that makes it.
pub fn built(root: &Path, relative: &str, command: &str) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let path = match (target, relative.strip_prefix("target/")) {
        (Some(target), Some(rest)) => target.join(rest),
        _ => root.join(relative),
    };
    if path.exists() {
        Ok(path)
    } else {
        Err(StackError(format!("{relative} is missing; run {command}")))
    }
}

/// The filter's module; the error names the command that makes it.
pub fn filter_module(root: &Path) -> Result<PathBuf> {
    built(
        root,
        "target/wasm32-wasip1/wasm/larder_filter.wasm",
        "make wasm",
    )
}

/// Envoy's binary: `ENVOY`, or the one that was fetched.
pub fn envoy_binary(root: &Path) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let path = root.join(".larder/envoy-1.40.0/envoy");
    if path.exists() {
        Ok(path)
    } else {
        Err(StackError(
            "Envoy is missing; run make envoy, or set ENVOY".to_owned(),
        ))
    }
}
