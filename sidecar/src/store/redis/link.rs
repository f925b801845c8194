//! How Redis is reached: one server, a cluster, or the master that sentinels name.
//!
//! What this decides: what `REDIS_URL` means, and when a connection is given up. Redirections, reconnection and pipelining
//! are the library's.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisError, RedisResult,
    ScriptInvocation, Value,
};
use tokio::sync::Mutex;

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(1);

/// Where Redis is, as `REDIS_URL` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `redis://…`, `rediss://…`
    Server(String),
    /// `redis+cluster://[user:password@]host:port,host:port`: each as a URL of its own.
    Cluster(Vec<String>),
    /// `redis+sentinel://[user:password@]host:port,host:port/MASTER[/database]`
    Sentinel {
        /// Each sentinel as a URL.
        sentinels: Vec<String>,
        /// The master's name.
        master: String,
        /// The master's user, password and database, as a URL without a host.
        credentials: String,
    },
}

impl Place {
    /// Reads `REDIS_URL`. The error says what it may look like.
    pub fn parse(url: &str) -> Result<Self, String> {
        const FORMS: &str = "REDIS_URL is redis://host, rediss://host, redis+cluster://host:port,host:port or \
                             redis+sentinel://host:port,host:port/master";
        let (scheme, rest) = url.split_once("://").ok_or(FORMS)?;
        let plain = if scheme.starts_with("rediss") { "rediss" } else { "redis" };
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (format!("{credentials}@"), rest),
            None => (String::new(), rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts: Vec<&str> = hosts.split(',').filter(|host| !host.is_empty()).collect();
        if hosts.is_empty() {
            return Err(FORMS.to_owned());
        }
        match scheme {
            "redis" | "rediss" if hosts.len() == 1 => Ok(Self::Server(url.to_owned())),
            "redis+cluster" | "rediss+cluster" => {
                Ok(Self::Cluster(hosts.iter().map(|host| format!("{plain}://{credentials}{host}")).collect()))
            }
            "redis+sentinel" | "rediss+sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(format!("the master's name is missing; {FORMS}"));
                }
                Ok(Self::Sentinel {
                    sentinels: hosts.iter().map(|host| format!("{plain}://{host}")).collect(),
                    master: master.to_owned(),
                    credentials: format!("{plain}://{credentials}master/{database}"),
                })
            }
            _ => Err(FORMS.to_owned()),
        }
    }
}

/// A way to Redis. Cheap to clone; all clones share one pipelined connection.
#[derive(Clone)]
pub struct Link(Way);

#[derive(Clone)]
enum Way {
    Server(Box<Client>, ConnectionManager),
    Cluster(Vec<Client>, ClusterConnection),
    Sentinel(Arc<Mutex<Master>>),
}

/// The master as the sentinels last named it.
struct Master {
    sentinels: SentinelClient,
    connection: Option<MultiplexedConnection>,
    timeout: Duration,
}

impl Link {
    /// Connects; each command may then take `timeout`.
    pub async fn connect(place: &Place, timeout: Duration) -> RedisResult<Self> {
        Ok(Self(match place {
            Place::Server(url) => {
                let client = Client::open(url.as_str())?;
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(CONNECT))
                    .set_response_timeout(Some(timeout))
                    .set_number_of_retries(1);
                let manager = ConnectionManager::new_with_config(client.clone(), config).await?;
                Way::Server(Box::new(client), manager)
            }
            Place::Cluster(nodes) => {
                let clients = nodes.iter().map(|node| Client::open(node.as_str())).collect::<RedisResult<Vec<_>>>()?;
                let cluster = ClusterClient::builder(nodes.iter().map(String::as_str))
                    .connection_timeout(CONNECT)
                    .response_timeout(timeout)
                    .retries(3)
                    .min_retry_wait(10)
                    .max_retry_wait(100)
                    .build()?;
                Way::Cluster(clients, cluster.get_async_connection().await?)
            }
            Place::Sentinel { sentinels, master, credentials } => {
                let info: ConnectionInfo = credentials.as_str().into_connection_info()?;
                let node =
                    SentinelNodeConnectionInfo::default().set_redis_connection_info(info.redis_settings().clone());
                let urls: Vec<&str> = sentinels.iter().map(String::as_str).collect();
                let client = SentinelClient::build(urls, master.clone(), Some(node), SentinelServerType::Master)?;
                let master = Master { sentinels: client, connection: None, timeout };
                Way::Sentinel(Arc::new(Mutex::new(master)))
            }
        }))
    }

    /// Runs a script.
    pub async fn run(&self, invocation: &ScriptInvocation<'_>) -> RedisResult<Value> {
        match &self.0 {
            Way::Server(_, manager) => invocation.invoke_async(&mut manager.clone()).await,
            Way::Cluster(_, cluster) => invocation.invoke_async(&mut cluster.clone()).await,
            Way::Sentinel(master) => {
                let mut connection = master.lock().await.connection().await?;
                let result = invocation.invoke_async(&mut connection).await;
                lost(master, &result).await;
                result
            }
        }
    }

    /// Runs a command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match &self.0 {
            Way::Server(_, manager) => command.query_async(&mut manager.clone()).await,
            Way::Cluster(_, cluster) => command.query_async(&mut cluster.clone()).await,
            Way::Sentinel(master) => {
                let mut connection = master.lock().await.connection().await?;
                let result = command.query_async(&mut connection).await;
                lost(master, &result).await;
                result
            }
        }
    }

    /// A connection to listen on. In a cluster any node will do: messages reach all.
    pub async fn pubsub(&self) -> RedisResult<PubSub> {
        match &self.0 {
            Way::Server(client, _) => client.get_async_pubsub().await,
            Way::Cluster(clients, _) => {
                let mut last = Err(RedisError::from((redis::ErrorKind::Client, "no node of the cluster answers")));
                for client in clients {
                    last = client.get_async_pubsub().await;
                    if last.is_ok() {
                        break;
                    }
                }
                last
            }
            Way::Sentinel(master) => {
                let client = master.lock().await.sentinels.async_get_client().await?;
                client.get_async_pubsub().await
            }
        }
    }
}

impl Master {
    async fn connection(&mut self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(self.timeout));
        let connection = self.sentinels.get_async_connection_with_config(&config).await?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }
}

/// After a fault the sentinels are asked anew: there may be another master.
async fn lost<T>(master: &Mutex<Master>, result: &RedisResult<T>) {
    if result.is_err() {
        master.lock().await.connection = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_a_cluster_or_sentinels() {
        let server = |url: &str| Ok(Place::Server(url.to_owned()));
        assert_eq!(Place::parse("redis://u:p@h:1/2"), server("redis://u:p@h:1/2"));
        assert_eq!(Place::parse("rediss://h"), server("rediss://h"));
        let nodes = ["rediss://u:p@a:1", "rediss://u:p@b:2"].map(str::to_owned).to_vec();
        assert_eq!(Place::parse("rediss+cluster://u:p@a:1,b:2"), Ok(Place::Cluster(nodes)));
        assert_eq!(
            Place::parse("redis+sentinel://:p@a:1,b:2/main/3"),
            Ok(Place::Sentinel {
                sentinels: vec!["redis://a:1".to_owned(), "redis://b:2".to_owned()],
                master: "main".to_owned(),
                credentials: "redis://:p@master/3".to_owned(),
            })
        );
        for wrong in ["", "h:1", "http://h", "redis://", "redis://a,b", "redis+sentinel://a:1"] {
            assert!(Place::parse(wrong).unwrap_err().contains("redis+cluster"), "{wrong}");
        }
    }
}
