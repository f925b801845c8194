use super::*;
use crate::latin1::widen;
use crate::selectors::{Selector, SelectorToken};
use proptest::prelude::*;

fn example(body: &[u8]) -> EntryMeta {
    EntryMeta {
        version: VERSION,
        url: "http://a.example/data?id=1".into(),
        status: 200,
        headers: vec![
            ("content-type".into(), "text/plain".into()),
            ("x".into(), widen(b"caf\xe9")),
        ],
        cache_type: "must-revalidate".into(),
        max_age: 10,
        use_stale_upto: 0,
        stale_while_revalidate: 0,
        stale_if_error: 0,
        etag: "\"1\"".into(),
        initial_age: 0,
        must_revalidate: true,
        no_cache: false,
        public: false,
        request_time_ms: Timestamp::from_millis(1000),
        response_time_ms: Timestamp::from_millis(1010),
        fresh_until_ms: Timestamp::from_millis(11_010),
        serve_stale_until_ms: Timestamp::from_millis(11_010),
        ttl_ms: 70_000,
        selecting: vec![
            ("accept-encoding".into(), Some("gzip".into())),
            ("x-a".into(), None),
        ],
        selectors: Selectors::from([
            (
                "accept-encoding".into(),
                Selector::Is(SelectorToken::of(b"gzip")),
            ),
            ("x-a".into(), Selector::Absent),
        ]),
        tags: vec!["t".into()],
        stale_from_ms: None,
        part_first: None,
        part_complete: None,
        route: Some(RouteSeen {
            at_ms: Timestamp::from_millis(1010),
            changes: false,
        }),
        body_length: body.len() as u64,
        digest: digest(body),
    }
}

#[test]
fn an_entry_survives_its_frame() {
    let entry = Entry {
        meta: example(b"hello"),
        body: b"hello".to_vec(),
    };
    assert_eq!(decode(&encode(&entry.meta, &entry.body)), Ok(entry));
}

#[test]
fn an_entry_survives_redis_hash_fields() {
    let meta = example(b"hello");
    let fields = to_hash_fields(&meta);
    let read = from_hash_fields(
        fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes())),
    );
    assert_eq!(read, Ok(meta));
}

#[test]
fn the_hash_fields_a_person_looks_for_are_there_in_plain_text() {
    let fields = to_hash_fields(&example(b""));
    let value = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(value("cache_type"), Some("must-revalidate"));
    assert_eq!(value("max_age"), Some("10"));
    assert_eq!(value("use_stale_upto"), Some("0"));
    assert_eq!(value("etag"), Some("\"1\""));
    assert!(value("headers").unwrap().contains("content-type"));
}

#[test]
fn a_flipped_byte_in_the_body_is_found() {
    let mut bytes = encode(&example(b"hello"), b"hello");
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(decode(&bytes), Err(EntryFault::Digest));
}

#[test]
fn a_missing_tail_is_found() {
    let bytes = encode(&example(b"hello"), b"hello");
    assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(EntryFault::Length));
}

#[test]
fn a_soft_purge_ends_freshness_at_the_earlier_of_two_times_and_moves_the_stale_window_along() {
    let at = Timestamp::from_millis;
    let mut meta = EntryMeta {
        serve_stale_until_ms: at(16_010),
        ..example(b"")
    };
    let ends = |meta: &EntryMeta| {
        (
            meta.stale_from_ms,
            meta.fresh_until_ms,
            meta.serve_stale_until_ms,
        )
    };
    for (time, changes, expected) in [
        (12_000, true, (Some(at(12_000)), at(11_010), at(16_010))),
        (9_000, true, (Some(at(9_000)), at(9_000), at(14_000))),
        (9_500, false, (Some(at(9_000)), at(9_000), at(14_000))),
        (9_000, false, (Some(at(9_000)), at(9_000), at(14_000))),
        (8_000, true, (Some(at(8_000)), at(8_000), at(13_000))),
    ] {
        assert_eq!(meta.end_freshness(at(time)), changes, "{time}");
        assert_eq!(ends(&meta), expected, "{time}");
    }
}

#[test]
fn another_version_is_not_read() {
    let mut bytes = encode(&example(b""), b"");
    bytes[3] = 2;
    assert_eq!(decode(&bytes), Err(EntryFault::Version));
    let mut meta = example(b"");
    meta.version = 2;
    assert_eq!(decode(&encode(&meta, b"")), Err(EntryFault::Version));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = decode(&bytes);
        let mut framed = MAGIC.to_vec();
        framed.extend_from_slice(&bytes);
        let _ = decode(&framed);
    }
}
