//! An origin server that does what a test or a reader tells it.

fn main() {}
