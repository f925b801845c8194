//! An entry from the store: whoever can write there must not be able to do more than make us miss.
#![no_main]

use larder_cache_core::codec;
use larder_cache_core::fields::are_safe_to_emit;
use larder_contract::http_time::Timestamp;
use larder_cache_core::policy::Policy;
use larder_contract::entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok((meta, body_start)) = entry::decode_meta(data) {
        assert_eq!(entry::encode(&meta, &data[body_start..]), data);
    }
    if let Ok(entry) = entry::decode(data)
        && let Ok(stored) = codec::from_entry(entry)
    {
        assert!(are_safe_to_emit(&stored.fields));
        let now = Timestamp::from_millis(1 << 40);
        let frame = entry::encode(&codec::to_meta(&stored, &Policy::default(), now), &stored.body);
        assert!(entry::decode(&frame).is_ok());
    }
});
