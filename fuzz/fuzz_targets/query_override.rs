//! The cache-control query parameter.
#![no_main]

use larder_cache_core::query_override::{self, QueryOverride};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = [b"/?cache-control=".as_slice(), data].concat();
    if let Ok(Some(taken)) = query_override::take(&path) {
        let canonical = taken.directives.canonical();
        assert_eq!(QueryOverride::parse(canonical.as_bytes()), Ok(taken.directives));
    }
    let _ = query_override::take(data);
});
