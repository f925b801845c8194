//! One contract by single calls and by the store stream, clocks that differ by both, and what
//! becomes of a stream whose other end misbehaves.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/served.rs"]
mod reached;

mod asking;
mod clocks;
mod contract;
mod faults;
mod wire;
