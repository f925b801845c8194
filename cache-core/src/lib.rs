//! RFC 9111 as pure code: what an HTTP cache may store, when it may reuse it, and what it must ask
//! the origin.
//!
//! Nothing here does I/O, reads a clock or knows Envoy. One request is one [`exchange::Exchange`]:
//! events in, effects out, the time as an argument. The rest are the rules it consults, one file
//! for each section of the RFC.

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

pub mod age;
pub mod cache_control;
pub mod cache_status;
pub mod codec;
pub mod collapse;
pub mod exchange;
pub mod field_names;
pub mod fields;
pub mod freshness;
pub mod glob;
pub mod invalidation;
pub mod message;
pub mod partial;
pub mod policy;
pub mod preconditions;
pub mod query_override;
pub mod refresh;
pub mod reuse;
pub mod route;
pub mod rules;
pub mod storability;
pub mod stored_response;
pub mod storing;
pub mod validation;
pub mod variants;
pub mod vary;
