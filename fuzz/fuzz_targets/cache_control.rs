//! Cache-Control, Pragma and the targeted fields, of responses and requests.
#![no_main]

use larder_cache_core::cache_control::{RequestDirectives, ResponseDirectives};
use larder_cache_core::fields::Fields;
use larder_contract::http_time::DeltaSeconds;
use larder_cache_core::policy::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (first, second) = data.split_at(data.len() / 2);
    let fields = Fields::from_pairs([("cache-control", first), ("cdn-cache-control", second), ("pragma", first)]);
    let policy = Policy::strict();
    let directives = ResponseDirectives::of(&fields, &policy);
    assert!(directives.max_age.is_none_or(|secs| secs <= DeltaSeconds::MAX));
    let _ = RequestDirectives::of(&fields, &policy.request_directives);
});
