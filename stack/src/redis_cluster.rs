//! A real Redis Cluster for tests, three masters and three replicas on loopback, and a master watched by sentinels.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::eventually;
use crate::process::Process;
use crate::redis_server::free_port;

const READY: Duration = Duration::from_secs(30);

/// Six nodes; gone when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<(u16, Process)>,
    _folder: TempDir,
}

impl RedisCluster {
    /// Starts the nodes and joins them.
    pub async fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let port = cluster_port()?;
            let own = folder.path().join(port.to_string());
            std::fs::create_dir(&own).map_err(|error| error.to_string())?;
            let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
            nodes.push((port, launch(port, &own, &settings)?));
        }
        let cluster = Self { nodes, _folder: folder };
        for (port, process) in &cluster.nodes {
            answers(*port, process).await?;
        }
        let addresses: Vec<String> = cluster.ports().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut join = Command::new("redis-cli");
        join.args(["--cluster", "create"]).args(&addresses).args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = join.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        cluster.is_whole().await?;
        // A replica that has never been in step with its master is not elected.
        let in_step = || async {
            let mut roles = cluster.ports().map(|port| cli(port, &["INFO", "replication"]));
            roles.all(|role| role.contains("role:master") || role.contains("master_link_status:up")).then_some(())
        };
        eventually(READY, in_step).await.ok_or("the replicas did not get in step")?;
        Ok(cluster)
    }

    /// Every living node sees every slot served.
    pub async fn is_whole(&self) -> Result<(), String> {
        let whole = || async {
            let mut living = self.nodes.iter().map(|(port, _)| cli(*port, &["CLUSTER", "INFO"]));
            living.all(|info| info.is_empty() || info.contains("cluster_state:ok")).then_some(())
        };
        eventually(READY, whole).await.ok_or_else(|| "the cluster did not become whole".to_owned())
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        self.nodes.iter().map(|(port, _)| *port)
    }

    /// `redis+cluster://127.0.0.1:PORT,…`
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.ports().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// All keys of all masters.
    pub fn keys(&self) -> Vec<String> {
        let of = |port| cli(port, &["KEYS", "*"]).lines().filter(|key| !key.is_empty()).map(str::to_owned).collect();
        self.masters().into_iter().flat_map(|port| -> Vec<String> { of(port) }).collect()
    }

    /// Ports of the nodes that are masters now.
    pub fn masters(&self) -> Vec<u16> {
        self.ports().filter(|port| cli(*port, &["ROLE"]).starts_with("master")).collect()
    }

    /// Ends the master that serves a key without warning. Its replica takes over after about a second.
    pub fn kill_master_of(&mut self, key: &str) {
        let Some(any) = self.ports().next() else { return };
        let slot: u32 = cli(any, &["CLUSTER", "KEYSLOT", key]).trim().parse().unwrap_or_default();
        let serves = |port: u16| {
            cli(port, &["CLUSTER", "NODES"]).lines().filter(|line| line.contains("myself,master")).any(|line| {
                line.split_whitespace()
                    .skip(8)
                    .filter_map(|range| {
                        let (first, last) = range.split_once('-').unwrap_or((range, range));
                        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
                    })
                    .any(|range| range.contains(&slot))
            })
        };
        if let Some((_, process)) = self.nodes.iter_mut().find(|(port, _)| serves(*port)) {
            process.kill();
        }
    }
}

/// A master, its replica, and three sentinels that watch them.
#[derive(Debug)]
pub struct RedisSentinels {
    servers: Vec<(u16, Process)>,
    sentinels: Vec<(u16, Process)>,
    _folder: TempDir,
}

impl RedisSentinels {
    /// Starts all.
    pub async fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = |port: u16| folder.path().join(port.to_string());
        let mut servers: Vec<(u16, Process)> = Vec::new();
        for _ in 0..2 {
            let port = free_port()?;
            std::fs::create_dir(path(port)).map_err(|error| error.to_string())?;
            let master = servers.first().map(|(port, _)| format!("127.0.0.1 {port}"));
            let replica: Vec<&str> = master.as_deref().map(|master| vec!["--replicaof", master]).unwrap_or_default();
            let process = launch(port, &path(port), &replica)?;
            answers(port, &process).await?;
            servers.push((port, process));
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let port = free_port()?;
            std::fs::create_dir(path(port)).map_err(|error| error.to_string())?;
            let config = path(port).join("sentinel.conf");
            let text = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
                path(port).display(),
                servers[0].0
            );
            std::fs::write(&config, text).map_err(|error| error.to_string())?;
            let mut command = Command::new("redis-server");
            command.arg(&config).arg("--sentinel");
            let process = Process::start("sentinel", command, &path(port).join("sentinel.log"));
            let process = process.map_err(|error| error.to_string())?;
            answers(port, &process).await?;
            sentinels.push((port, process));
        }
        let all = Self { servers, sentinels, _folder: folder };
        let agreed = || async {
            let mut views = all.sentinels.iter().map(|(port, _)| cli(*port, &["SENTINEL", "MASTER", "main"]));
            let sees = |view: &str, name: &str| view.lines().skip_while(|line| *line != name).nth(1).map(str::to_owned);
            views
                .all(|view| {
                    sees(&view, "num-other-sentinels").as_deref() == Some("2")
                        && sees(&view, "num-slaves").as_deref() == Some("1")
                })
                .then_some(())
        };
        eventually(READY, agreed).await.ok_or("the sentinels did not find each other")?;
        Ok(all)
    }

    /// `redis+sentinel://127.0.0.1:PORT,…/main`
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }

    /// Ends the first master without warning.
    pub fn kill_master(&mut self) {
        if let Some((_, process)) = self.servers.first_mut() {
            process.kill();
        }
    }
}

/// A node's bus listens 10000 ports higher.
fn cluster_port() -> Result<u16, String> {
    for _ in 0..100 {
        let port = free_port()?;
        if port < 55_000 && std::net::TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return Ok(port);
        }
    }
    Err("no two free ports 10000 apart".to_owned())
}

fn launch(port: u16, folder: &std::path::Path, settings: &[&str]) -> Result<Process, String> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args(["--repl-diskless-sync-delay", "0"]).arg("--dir").arg(folder).args(settings);
    Process::start("redis-server", command, &folder.join("redis.log")).map_err(|error| {
        format!("redis-server cannot be started ({error}); install it: apt-get install redis-server, or run make setup-redis")
    })
}

async fn answers(port: u16, process: &Process) -> Result<(), String> {
    let up = eventually(READY, || async { cli(port, &["PING"]).contains("PONG").then_some(()) });
    up.await.ok_or_else(|| format!("redis-server does not answer: {}", process.last_lines(5)))
}

fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
