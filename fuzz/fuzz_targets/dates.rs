//! HTTP-dates and delta-seconds.
#![no_main]

use larder_contract::http_time::{DeltaSeconds, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(time) = Timestamp::parse_http_date(data) {
        // Whatever was read is written as a date that reads the same.
        assert_eq!(Timestamp::parse_http_date(time.to_http_date().as_bytes()), Some(time));
    }
    let _ = DeltaSeconds::parse(data);
});
