//! A real Redis for tests: a `redis-server` on a free port, gone when dropped.

use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::error::{Result, StackError};
use crate::launch::{free_port, takes_connections};
use crate::process::Process;

/// What `SAVE` writes.
const SNAPSHOT: &str = "dump.rdb";

/// A running `redis-server` without persistence.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    process: Process,
    arguments: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts one. The error says how to install it where it is missing.
    pub async fn start() -> Result<Self> {
        Self::with(|_| Vec::new()).await
    }

    /// Starts one with settings of its own, as on its command line; they are given its port.
    pub async fn with(settings: impl FnOnce(u16) -> Vec<String>) -> Result<Self> {
        let port = free_port()?;
        Self::on(port, settings(port)).await
    }

    /// Starts one on a port, with settings of its own.
    pub(crate) async fn on(port: u16, settings: Vec<String>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (own, place) = (port.to_string(), folder.path().display().to_string());
        let usual = [
            "--port",
            &own,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            &place,
        ];
        Self::run(
            port,
            folder,
            usual
                .map(str::to_owned)
                .into_iter()
                .chain(settings)
                .collect(),
        )
        .await
    }

    /// Starts one that is told everything.
    pub(crate) async fn run(port: u16, folder: TempDir, arguments: Vec<String>) -> Result<Self> {
        let process = launch(&folder, &arguments)?;
        let mut server = Self {
            port,
            process,
            arguments,
            folder,
        };
        takes_connections(&mut server.process, port).await?;
        Ok(server)
    }

    /// Its port on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Runs `redis-cli` on it and gives what that prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends it a signal: stopped, it takes connections and never answers.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Starts it again on the same port, empty.
    pub async fn restart(&mut self) -> Result<()> {
        let _ = std::fs::remove_file(self.folder.path().join(SNAPSHOT));
        self.restart_from_snapshot().await
    }

    /// Starts it again on the same port with what it held at its last `SAVE`.
    pub async fn restart_from_snapshot(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(&self.folder, &self.arguments)?;
        takes_connections(&mut self.process, self.port).await
    }
}

fn launch(folder: &TempDir, arguments: &[String]) -> Result<Process> {
    let mut command = Command::new("redis-server");
    command.args(arguments);
    Process::start("redis-server", command, &folder.path().join("redis.log")).map_err(|error| {
        StackError(format!(
            "redis-server cannot be started ({error}); install it: apt-get install redis-server, or run make setup-redis"
        ))
    })
}
