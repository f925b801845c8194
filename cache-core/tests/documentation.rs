//! What the documents list is what the code has.

use larder_cache_core::cache_status::Detail;

#[test]
fn every_detail_is_in_the_table_and_nothing_else_is() {
    let document = include_str!("../../docs/cache-status.md");
    let listed: Vec<&str> = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut known: Vec<&str> = Detail::all().map(Detail::token).collect();
    let mut sorted = listed.clone();
    known.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(sorted, known);
}
