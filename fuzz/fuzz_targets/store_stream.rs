//! Frames of the store stream, from either end: whoever can reach the other end must not be able to
//! do more than be refused.
#![no_main]

use larder_contract::store_stream::{Asked, Said};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(asked) = Asked::read(data) {
        let mut frame = Vec::new();
        asked.write(&mut frame);
        assert_eq!(Asked::read(&frame), Ok(asked));
    }
    if let Ok(said) = Said::read(data) {
        let mut frame = Vec::new();
        said.write(&mut frame);
        assert_eq!(Said::read(&frame), Ok(said));
    }
});
