//! The wasm floor: what a filter costs that answers every request at once and does nothing else.
//!
//! Its plugin configuration is the answer: `at-once` or `two-steps` on the first line, then the
//! header fields, one on each line, an empty line, and the content. Envoy calls each callback that
//! a module exports, so what it may do beyond answering at once is a matter of what is compiled in:
//! see the features in `Cargo.toml`. No SDK is used.

#[cfg(target_arch = "wasm32")]
mod answer;
#[cfg(target_arch = "wasm32")]
mod callbacks;
