//! The proxy-wasm filter: Envoy callbacks in, host calls out.
