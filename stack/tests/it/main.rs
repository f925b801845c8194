//! End to end: real Envoy, real wasm, real sidecar, on memory and on Redis.

mod answers;
mod collapsing;
mod configuration;
mod edge;
mod faults;
mod fleet;
mod frames;
mod herds;
mod keys;
mod mock_origin;
mod neighbours;
mod overrides;
mod passing;
mod platforms;
mod promise;
mod raw_origin;
mod rfc;
mod routes;
mod rules;
mod sidecar;
mod start;
mod store_stream;
mod support;
mod trailers;
mod whose;
