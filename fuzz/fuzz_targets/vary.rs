//! Vary, and the normalisation of what it selects by.
#![no_main]

use larder_cache_core::fields::Fields;
use larder_cache_core::message::Request;
use larder_cache_core::vary::{SelectingFields, language};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (first, second) = data.split_at(data.len() / 2);
    let text = String::from_utf8_lossy(second);
    let mut request = Request::new("GET", "a", "/").with("accept-encoding", &text).with("accept-language", &text);
    language::add_pseudo_fields(&mut request.fields);
    let response = Fields::from_pairs([("vary", first), ("content-language", second)]);
    if let Some(selecting) = SelectingFields::of_response(&request, &response) {
        assert!(selecting.matches(&request), "a response matches the request that brought it");
        assert_eq!(SelectingFields::from_pairs(&selecting.to_pairs()), Some(selecting));
    }
});
