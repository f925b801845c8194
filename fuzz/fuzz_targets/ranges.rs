//! Range, Content-Range and If-Range against a stored response.
#![no_main]

use larder_cache_core::fields::Fields;
use larder_cache_core::partial::{ContentRange, Part};
use larder_cache_core::preconditions::range::{self, Asked};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (first, second) = data.split_at(data.len() / 2);
    let length = u64::from(first.first().copied().unwrap_or(0));
    if let Asked::Ranges(ranges) = range::parse(second, length, 16) {
        assert!(ranges.len() <= 16);
        assert!(ranges.iter().all(|range| range.start < range.end && range.end <= length));
        assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= length);
    }
    if let Some(claimed) = ContentRange::of(&Fields::from_pairs([("content-range", second)]))
        && let Some(part) = Part::of(claimed, length)
    {
        assert!(part.first + length <= part.complete);
    }
});
