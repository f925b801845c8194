//! Where connections lead: the server, the cluster's nodes, or whom the sentinels name at the
//! moment.

use std::time::Duration;

use redis::aio::PubSub;
use redis::cluster::ClusterClient;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsMode};
use tokio::time::timeout;

use super::address::Address;
use super::dial::{self, Connection, STEP, meaning};
use super::tls::{SERVER_NAME, Tls};

/// Longest time to find a cluster's nodes.
const CLUSTER: Duration = Duration::from_secs(4);

/// What a connection is made with.
pub(super) struct Reach {
    target: Target,
    tls: Tls,
    timeout: Duration,
}

enum Target {
    Server(ConnectionInfo),
    Cluster(Vec<ConnectionInfo>),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        master: String,
        node: RedisConnectionInfo,
        has_tls: bool,
    },
}

impl Reach {
    /// Reads the addresses. The error names a setting.
    pub(super) fn new(address: &Address, tls: Tls, timeout: Duration) -> Result<Self, String> {
        // What the library says of a URL may show its password.
        let read = |url: &String| {
            let info = url.as_str().into_connection_info();
            info.map(|info| info.set_tcp_settings(dial::tcp_settings()))
                .map_err(|_| "REDIS_URL: its host, port or database cannot be read".to_owned())
        };
        let read_all = |urls: &[String]| urls.iter().map(read).collect::<Result<Vec<_>, _>>();
        let target = match address {
            Address::Server(url) => Target::Server(read(url)?),
            Address::Cluster(nodes) if address.has_tls() && tls.server_name.is_some() => {
                return Err(format!(
                    "{SERVER_NAME} cannot be used with a cluster of {} nodes",
                    nodes.len()
                ));
            }
            Address::Cluster(nodes) => Target::Cluster(read_all(nodes)?),
            Address::Sentinel {
                sentinels,
                master,
                credentials,
            } => Target::Sentinel {
                sentinels: read_all(sentinels)?,
                master: master.clone(),
                node: read(credentials)?.redis_settings().clone(),
                has_tls: address.has_tls(),
            },
        };
        Ok(Self {
            target,
            tls,
            timeout,
        })
    }

    /// A connection for commands. `ended` is told when a connection to one server is over.
    pub(super) async fn commands(
        &self,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Connection, String> {
        match &self.target {
            Target::Server(info) => dial::commands(info, &self.tls, self.timeout, ended)
                .await
                .map(Connection::Plain),
            Target::Sentinel { .. } => {
                let master = self.master().await?;
                dial::commands(&master, &self.tls, self.timeout, ended)
                    .await
                    .map(Connection::Plain)
            }
            Target::Cluster(nodes) => match timeout(CLUSTER, self.cluster(nodes)).await {
                Ok(Ok(connection)) => Ok(connection),
                failed => Err(self
                    .trouble_of(nodes, failed.ok().and_then(Result::err))
                    .await),
            },
        }
    }

    /// A connection to listen on.
    pub(super) async fn listening(&self) -> Result<PubSub, String> {
        match &self.target {
            Target::Server(info) => dial::listening(info, &self.tls).await,
            Target::Sentinel { .. } => dial::listening(&self.master().await?, &self.tls).await,
            Target::Cluster(nodes) => {
                let mut last = Err("no node is named".to_owned());
                for node in nodes {
                    last = dial::listening(node, &self.tls).await;
                    if last.is_ok() {
                        break;
                    }
                }
                last
            }
        }
    }

    async fn cluster(&self, nodes: &[ConnectionInfo]) -> Result<Connection, String> {
        let mut builder = ClusterClient::builder(nodes.iter().cloned())
            .connection_timeout(STEP)
            .response_timeout(self.timeout)
            .tcp_settings(dial::tcp_settings())
            .retries(3)
            .min_retry_wait(10)
            .max_retry_wait(100);
        if nodes
            .iter()
            .any(|node| matches!(node.addr(), ConnectionAddr::TcpTls { .. }))
        {
            builder = builder.tls(TlsMode::Secure).certs(self.tls.certificates()?);
        }
        let client = builder.build().map_err(|error| meaning(&error))?;
        client
            .get_async_connection()
            .await
            .map(Connection::Cluster)
            .map_err(|error| meaning(&error))
    }

    /// Why there is no cluster: what is wrong with the first node that cannot be reached says more
    /// than the library.
    async fn trouble_of(&self, nodes: &[ConnectionInfo], said: Option<String>) -> String {
        for node in nodes {
            if let Err(why) = dial::commands(node, &self.tls, self.timeout, || {}).await {
                return why;
            }
        }
        said.unwrap_or_else(|| format!("the cluster is not found within {} s", CLUSTER.as_secs()))
    }

    /// The master that a sentinel names and that says so itself.
    async fn master(&self) -> Result<ConnectionInfo, String> {
        let Target::Sentinel {
            sentinels,
            master,
            node,
            has_tls,
        } = &self.target
        else {
            return Err("no sentinels are named".to_owned());
        };
        let mut last = "no sentinel is named".to_owned();
        for sentinel in sentinels {
            match self.ask_sentinel(sentinel, master).await {
                Ok((host, port)) => {
                    let found = named(host, port, *has_tls)?.set_redis_settings(node.clone());
                    match self.role(&found).await {
                        Ok(()) => return Ok(found),
                        Err(why) => last = format!("{}: {why}", found.addr()),
                    }
                }
                Err(why) => last = format!("sentinel {}: {why}", sentinel.addr()),
            }
        }
        Err(last)
    }

    async fn ask_sentinel(
        &self,
        sentinel: &ConnectionInfo,
        master: &str,
    ) -> Result<(String, u16), String> {
        let mut plain = dial::commands(sentinel, &self.tls, STEP, || {}).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let named: Option<(String, u16)> = command
            .query_async(&mut plain.connection)
            .await
            .map_err(|error| meaning(&error))?;
        named.ok_or_else(|| format!("it knows no master {master:?}"))
    }

    async fn role(&self, info: &ConnectionInfo) -> Result<(), String> {
        let mut plain = dial::commands(info, &self.tls, STEP, || {}).await?;
        let role: Result<Vec<redis::Value>, _> =
            redis::cmd("ROLE").query_async(&mut plain.connection).await;
        match role.as_ref().map(|role| role.first()) {
            Ok(Some(redis::Value::BulkString(role))) if role != b"master" => {
                Err("it is no master (yet)".to_owned())
            }
            // Whoever may not ask for the role believes the sentinel.
            _ => Ok(()),
        }
    }
}

fn named(host: String, port: u16, has_tls: bool) -> Result<ConnectionInfo, String> {
    let scheme = if has_tls { "rediss" } else { "redis" };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let info = format!("{scheme}://{host}:{port}").into_connection_info();
    info.map(|info| info.set_tcp_settings(dial::tcp_settings()))
        .map_err(|_| format!("a sentinel names {host:?} as the master"))
}
