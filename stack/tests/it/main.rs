//! End to end: real Envoy, real wasm, real sidecar, on memory and on Redis.

mod collapsing;
mod configuration;
mod faults;
mod fleet;
mod herds;
mod overrides;
mod passing;
mod rfc;
mod rules;
mod sidecar;
mod support;
mod whose;
