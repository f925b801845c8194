//! The filter's logic over a fake host, natively.

mod documentation;
mod fake_host;
mod route_policies;
mod routes;
mod store_stream;
mod stories;
