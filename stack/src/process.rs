//! One child process with its log, gone when its owner is gone, whatever became of the owner.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{eventually, logs};

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output going to `log`. In a process group of its own, so that
    /// Ctrl-C reaches only the owner, who stops its children in order.
    pub fn start(name: &str, mut command: Command, log: &Path) -> io::Result<Self> {
        // What is appended goes on at the end of a log that was emptied.
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        file.set_len(0)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        die_with_parent(&mut command);
        let child = command.spawn()?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All it has said so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Its last lines, for a person.
    pub fn last_lines(&self, count: usize) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Empties its log when that is longer than `bytes`; what was in it stays in a file ending in
    /// `.1`.
    pub fn keep_log_within(&self, bytes: u64) {
        logs::empty(&self.log, bytes);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and after a while does not ask any more.
    pub async fn stop(&mut self, patience: Duration) {
        self.signal(Signal::SIGTERM);
        let ended = eventually(patience, || {
            let ended = !self.is_running();
            async move { ended.then_some(()) }
        });
        if ended.await.is_none() {
            self.kill();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "pre_exec is unsafe; the one call made in it is async-signal-safe"
)]
fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is a plain system call; nothing is allocated between fork and exec.
    unsafe {
        command
            .pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}
