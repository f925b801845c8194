//! Starts the whole system as child processes: make run, the end-to-end tests, the benchmarks.
