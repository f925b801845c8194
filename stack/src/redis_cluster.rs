//! A real Redis Cluster for tests, three masters and three replicas on loopback, and a master
//! watched by sentinels.

use std::process::Command;
use std::time::Duration;

use crate::RedisServer;
use crate::error::{Result, StackError};
use crate::eventually;
use crate::launch::free_port;

const READY: Duration = Duration::from_secs(30);
/// A replica asks for its first copy, and gets it at once.
const AT_ONCE: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

/// Six nodes; gone when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the nodes and joins them.
    pub async fn start() -> Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
            let settings = settings
                .iter()
                .chain(&AT_ONCE)
                .map(|word| (*word).to_owned());
            nodes.push(RedisServer::on(cluster_port()?, settings.collect()).await?);
        }
        let cluster = Self { nodes };
        let addresses = cluster.nodes.iter().map(RedisServer::address);
        let mut join = Command::new("redis-cli");
        join.args(["--cluster", "create"]).args(addresses).args([
            "--cluster-replicas",
            "1",
            "--cluster-yes",
        ]);
        let output = join.output()?;
        if !output.status.success() {
            return Err(StackError(
                String::from_utf8_lossy(&output.stdout).into_owned(),
            ));
        }
        cluster.is_whole().await?;
        // A replica that has never been in step with its master is not elected.
        let in_step = || async {
            let mut roles = cluster
                .nodes
                .iter()
                .map(|node| node.cli(&["INFO", "replication"]));
            roles
                .all(|role| role.contains("role:master") || role.contains("master_link_status:up"))
                .then_some(())
        };
        eventually(READY, in_step)
            .await
            .ok_or_else(|| StackError("the replicas did not get in step".to_owned()))?;
        Ok(cluster)
    }

    /// Every living node sees every slot served.
    pub async fn is_whole(&self) -> Result<()> {
        let whole = || async {
            let mut living = self.nodes.iter().map(|node| node.cli(&["CLUSTER", "INFO"]));
            living
                .all(|info| info.is_empty() || info.contains("cluster_state:ok"))
                .then_some(())
        };
        eventually(READY, whole)
            .await
            .ok_or_else(|| StackError("the cluster did not become whole".to_owned()))
    }

    /// `redis+cluster://127.0.0.1:PORT,…`
    pub fn url(&self) -> String {
        format!("redis+cluster://{}", addresses(&self.nodes))
    }

    /// All keys of all masters.
    pub fn keys(&self) -> Vec<String> {
        let all: Vec<String> = self
            .living_masters()
            .map(|node| node.cli(&["KEYS", "*"]))
            .collect();
        all.iter()
            .flat_map(|keys| keys.lines())
            .filter(|key| !key.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Ports of the nodes that are masters now.
    pub fn masters(&self) -> Vec<u16> {
        self.living_masters().map(RedisServer::port).collect()
    }

    fn living_masters(&self) -> impl Iterator<Item = &RedisServer> {
        self.nodes
            .iter()
            .filter(|node| node.cli(&["ROLE"]).starts_with("master"))
    }

    /// Ends the master that serves a key without warning. Its replica takes over after about a
    /// second.
    pub fn kill_master_of(&mut self, key: &str) {
        let Some(any) = self.nodes.first() else {
            return;
        };
        let slot: u32 = any
            .cli(&["CLUSTER", "KEYSLOT", key])
            .trim()
            .parse()
            .unwrap_or_default();
        if let Some(node) = self.nodes.iter_mut().find(|node| serves(node, slot)) {
            node.kill();
        }
    }
}

fn serves(node: &RedisServer, slot: u32) -> bool {
    let nodes = node.cli(&["CLUSTER", "NODES"]);
    nodes
        .lines()
        .filter(|line| line.contains("myself,master"))
        .any(|line| {
            let ranges = line.split_whitespace().skip(8).filter_map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
            });
            ranges.into_iter().any(|range| range.contains(&slot))
        })
}

fn addresses(servers: &[RedisServer]) -> String {
    servers
        .iter()
        .map(RedisServer::address)
        .collect::<Vec<_>>()
        .join(",")
}

/// A master, its replica, and three sentinels that watch them.
#[derive(Debug)]
pub struct RedisSentinels {
    master: RedisServer,
    _replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Starts all.
    pub async fn start() -> Result<Self> {
        let settings = |more: &[&str]| {
            AT_ONCE
                .iter()
                .chain(more)
                .map(|word| (*word).to_owned())
                .collect()
        };
        let master = RedisServer::on(free_port()?, settings(&[])).await?;
        let of_master = format!("127.0.0.1 {}", master.port());
        let replica = RedisServer::on(free_port()?, settings(&["--replicaof", &of_master])).await?;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(sentinel_of(&master).await?);
        }
        let all = Self {
            master,
            _replica: replica,
            sentinels,
        };
        let agreed = || async {
            let mut views = all
                .sentinels
                .iter()
                .map(|sentinel| sentinel.cli(&["SENTINEL", "MASTER", "main"]));
            let sees = |view: &str, name: &str| {
                view.lines()
                    .skip_while(|line| *line != name)
                    .nth(1)
                    .map(str::to_owned)
            };
            let agrees = |view: String| {
                sees(&view, "num-other-sentinels").as_deref() == Some("2")
                    && sees(&view, "num-slaves").as_deref() == Some("1")
            };
            views.all(agrees).then_some(())
        };
        eventually(READY, agreed)
            .await
            .ok_or_else(|| StackError("the sentinels did not find each other".to_owned()))?;
        Ok(all)
    }

    /// `redis+sentinel://127.0.0.1:PORT,…/main`
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}/main", addresses(&self.sentinels))
    }

    /// Ends the first master without warning.
    pub fn kill_master(&mut self) {
        self.master.kill();
    }
}

/// A sentinel keeps what it knows in its configuration.
async fn sentinel_of(master: &RedisServer) -> Result<RedisServer> {
    let (port, folder) = (free_port()?, tempfile::tempdir()?);
    let config = folder.path().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 2\n\
         sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
        folder.path().display(),
        master.port()
    );
    std::fs::write(&config, text)?;
    RedisServer::run(
        port,
        folder,
        vec![config.display().to_string(), "--sentinel".to_owned()],
    )
    .await
}

/// A node's bus listens 10000 ports higher.
fn cluster_port() -> Result<u16> {
    for _ in 0..100 {
        let port = free_port()?;
        if port < 55_000 && std::net::TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return Ok(port);
        }
    }
    Err(StackError("no two free ports 10000 apart".to_owned()))
}
