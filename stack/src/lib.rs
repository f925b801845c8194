//! Starts the whole system as child processes, on free or given ports.
//!
//! Four users: `make run`, the end-to-end tests, the benchmarks, and `make chaos`. What it leaves out: building; it says which command
//! builds what is missing.

pub mod chaos;
mod checkout;
pub mod eventually;
mod logs;
pub mod process;
mod readiness;
pub mod redis_cluster;
mod redis_server;
pub mod render;
pub mod settings;
pub mod stack;
pub mod swap;

pub use eventually::eventually;
pub use readiness::OriginsInTrouble;
pub use redis_cluster::{RedisCluster, RedisSentinels};
pub use redis_server::RedisServer;
pub use settings::{Origins, Settings, StoreKind};
pub use stack::{Stack, StackError};
