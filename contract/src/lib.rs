//! The contract between Larder's filter and its sidecar: every message, both ends of it, and the
//! words they are made of.
//!
//! It is the leaf of the house: `filter → cache-core → contract ← sidecar`. Nothing here knows what
//! a cache may store or reuse; the sidecar depends on this crate alone, so the compiler proves that
//! it does not understand caching.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod as_text;
pub mod crowding;
pub mod entry;
mod http_date;
pub mod http_time;
pub mod key;
pub mod latin1;
pub mod ows;
pub mod path;
pub mod purge;
pub mod purge_order;
pub mod selectors;
pub mod store_api;
pub mod store_stream;
mod wire;
