//! Logs that do not fill the disk: each has a bound, and what was written before stays once, in a
//! file ending in `.1`.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// Moves a log that is longer than `bytes` aside, and says so. Whoever writes it has to open it
/// anew.
pub(crate) fn move_aside(log: &Path, bytes: u64) -> bool {
    is_longer(log, bytes) && std::fs::rename(log, older(log)).is_ok()
}

/// Empties a log that is longer than `bytes`, for a writer that appends and cannot open it anew.
pub(crate) fn empty(log: &Path, bytes: u64) {
    if is_longer(log, bytes) && std::fs::copy(log, older(log)).is_ok() {
        let _ = OpenOptions::new()
            .write(true)
            .open(log)
            .and_then(|file| file.set_len(0));
    }
}

fn is_longer(log: &Path, bytes: u64) -> bool {
    std::fs::metadata(log).is_ok_and(|meta| meta.len() > bytes)
}

fn older(log: &Path) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_is_emptied_past_its_bound_and_its_writer_goes_on_at_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("x.log");
        let mut writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        writer.write_all(b"0123456789").unwrap();
        empty(&log, 10);
        assert_eq!(
            std::fs::read(&log).unwrap(),
            b"0123456789",
            "the bound itself is allowed"
        );
        empty(&log, 9);
        writer.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&log).unwrap(), b"new");
        assert_eq!(
            std::fs::read(folder.path().join("x.log.1")).unwrap(),
            b"0123456789"
        );
    }

    #[test]
    fn a_log_is_moved_aside_past_its_bound_over_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("x.log");
        assert!(!move_aside(&log, 1), "there is none");
        for content in ["first", "second"] {
            std::fs::write(&log, content).unwrap();
            assert!(move_aside(&log, 1) && !log.exists());
        }
        assert_eq!(
            std::fs::read(folder.path().join("x.log.1")).unwrap(),
            b"second"
        );
    }
}
