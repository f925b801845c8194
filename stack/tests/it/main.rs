//! End to end: real Envoy, real wasm, real sidecar, on memory and on Redis.

mod answers;
mod collapsing;
mod configuration;
mod faults;
mod fleet;
mod frames;
mod overrides;
mod passing;
mod raw_origin;
mod rfc;
mod support;
