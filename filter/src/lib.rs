//! The proxy-wasm filter. The story of one GET:
//!
//! 1. Envoy hands over the request's head ([`vm::Vm::on_request_headers`]); it is read once.
//! 2. Its route, where it picks one ([`config::RoutePolicies`]), or else the first rule that matches
//!    gives the policy ([`config::Config::policy_for`]).
//! 3. The VM's inbox is read first, so that an invalidation queued before this request is applied
//!    ([`vm`]).
//! 4. The request becomes the first event of an exchange ([`larder_cache_core::exchange`]), which
//!    decides everything.
//! 5. Level 1 is looked into ([`l1::Level1::look_up`]); a fresh hit is answered here and now.
//! 6. Else the request goes to its leader slot (`collapsing`): it becomes the leader, or waits for
//!    the current one.
//! 7. The leader asks the store, within a budget ([`store_client`]); what is found answers, or is
//!    to be validated.
//! 8. Its own stream goes on to the origin, made conditional where there is something to validate
//!    ([`stream`]).
//! 9. The answer passes to the client as it comes, and is copied where it may be stored.
//! 10. At its end it is kept in level 1, handed over to waiting workers, and sent to the store.
//! 11. Those who waited are answered in batches from the VM's own callback
//!     ([`vm::Vm::on_queue_ready`]).
//! 12. A stale hit that may be served is, and one refresh goes out in the background ([`refresh`]).
//!
//! No caching rule lives here. `proxy-wasm` does not link natively, so all that touches Envoy is in
//! one module for wasm32, and the rest runs over [`host::Host`], with a fake host in tests.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod answer;
mod at_hand;
pub mod breaker;
mod calls;
mod cause;
mod collapsing;
pub mod config;
mod doubt;
#[cfg(target_arch = "wasm32")]
mod envoy;
mod follow;
pub mod host;
mod identity;
pub mod l1;
mod marked;
pub mod metrics;
pub mod pairs;
mod peers;
mod quick_ticks;
pub mod refresh;
mod refused;
mod shared_number;
pub mod steady_clock;
pub mod store_client;
pub mod stream;
mod streams;
mod undecided;
mod unshared;
mod untold;
pub mod vm;
mod watched;
