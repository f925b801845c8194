//! Targeted fields, which are structured dictionaries.
#![no_main]

use larder_cache_core::cache_control::ResponseDirectives;
use larder_cache_core::fields::Fields;
use larder_cache_core::policy::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let fields = Fields::from_pairs([("surrogate-control", data), ("cdn-cache-control", data)]);
    let policy =
        Policy { targeted_fields: vec!["cdn-cache-control".into(), "surrogate-control".into()], ..Policy::default() };
    let directives = ResponseDirectives::of(&fields, &policy);
    if directives.targeted {
        let _ = directives.no_cache.fields();
    }
});
