//! End to end: real Envoy, real wasm, real sidecar, on memory and on Redis.

mod collapsing;
mod configuration;
mod edge;
mod faults;
mod fleet;
mod herds;
mod overrides;
mod passing;
mod rfc;
mod routes;
mod rules;
mod sidecar;
mod start;
mod support;
mod whose;
