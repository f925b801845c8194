//! Starts the whole system as child processes, on free or given ports.
//!
//! Its users: `larder run`, the end-to-end tests, the sidecar's tests, the attack suite, the
//! benchmarks, and `make chaos`. What it leaves out: building; it says which command builds what is
//! missing.

pub mod chaos;
mod checkout;
pub mod error;
pub mod eventually;
pub mod fleet;
pub mod launch;
pub mod link;
mod logs;
pub mod process;
mod readiness;
pub mod redis_cluster;
mod redis_server;
pub mod render;
pub mod settings;
pub mod snippet;
pub mod stack;
pub mod swap;

pub use error::StackError;
pub use eventually::eventually;
pub use fleet::{Fleet, Sidecars};
pub use readiness::OriginsInTrouble;
pub use redis_cluster::{RedisCluster, RedisSentinels};
pub use redis_server::RedisServer;
pub use settings::{Origins, Settings, StoreKind};
pub use stack::Stack;
