//! The shared store behind HTTP: embedded memory or Redis.

fn main() {}
