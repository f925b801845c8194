//! The plugin configuration.
#![no_main]

use larder_filter::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Config::parse(data);
});
