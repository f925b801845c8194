//! End to end: real Envoy, real wasm, real sidecar, on memory and on Redis.

mod collapsing;
mod configuration;
mod faults;
mod fleet;
mod overrides;
mod passing;
mod rfc;
mod routes;
mod support;
