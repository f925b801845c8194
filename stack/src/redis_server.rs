//! A real Redis for tests: a `redis-server` on a free port, gone when dropped.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::eventually;
use crate::process::Process;

/// What `SAVE` writes.
const SNAPSHOT: &str = "dump.rdb";

/// A running `redis-server` without persistence.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    process: Process,
    folder: tempfile::TempDir,
}

impl RedisServer {
    /// Starts one. The error says how to install it where it is missing.
    pub async fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = free_port()?;
        let process = launch(port, folder.path())?;
        let server = Self { port, process, folder };
        server.answers().await?;
        Ok(server)
    }

    async fn answers(&self) -> Result<(), String> {
        let address = ("127.0.0.1", self.port);
        let up =
            eventually(Duration::from_secs(10), || async move { tokio::net::TcpStream::connect(address).await.ok() });
        up.await.map(drop).ok_or_else(|| format!("redis-server does not answer: {}", self.process.last_lines(5)))
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs `redis-cli` on it and gives what that prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
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
    pub async fn restart(&mut self) -> Result<(), String> {
        let _ = std::fs::remove_file(self.folder.path().join(SNAPSHOT));
        self.restart_from_snapshot().await
    }

    /// Starts it again on the same port with what it held at its last `SAVE`.
    pub async fn restart_from_snapshot(&mut self) -> Result<(), String> {
        self.process.kill();
        self.process = launch(self.port, self.folder.path())?;
        self.answers().await
    }
}

fn launch(port: u16, folder: &std::path::Path) -> Result<Process, String> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).arg("--dir");
    command.arg(folder);
    Process::start("redis-server", command, &folder.join("redis.log")).map_err(|error| {
        format!("redis-server cannot be started ({error}); install it: apt-get install redis-server, or run make setup-redis")
    })
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}
