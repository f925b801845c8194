//! The shared store behind HTTP: embedded memory or Redis.
//!
//! It moves entries, grants leases and holds waiting look-ups (`larder_contract::store_api` and
//! `store_stream` are the contract, both ends). It does not understand HTTP caching: to it an entry is three points in
//! time and some bytes.

#![forbid(unsafe_code)]

mod answering;
pub mod clock;
pub mod listening;
pub mod purging;
pub mod routes;
pub mod serving;
pub mod sessions;
pub mod store;
mod stream;
pub mod token;
pub mod waiting;

pub use answering::{Access, Limits};
pub use purging::{Purged, Purges};
pub use routes::app;
pub use store::Store;
pub use token::{Token, Tokens};
pub use waiting::Waiting;
