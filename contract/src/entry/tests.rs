use super::*;
use proptest::prelude::*;

fn example(body: &[u8]) -> EntryMeta {
    EntryMeta {
        url: "http://a.example/data?id=1".into(),
        status: 200,
        headers: Headers::from_pairs([
            ("content-type", b"text/plain".as_slice()),
            ("etag", b"\"1\""),
            ("x", b"caf\xe9"),
        ]),
        cache_type: CacheType::MustRevalidate,
        max_age: 10,
        use_stale_upto: 0,
        stale_while_revalidate: 0,
        stale_if_error: 0,
        initial_age: 0,
        must_revalidate: true,
        no_cache: false,
        public: false,
        request_time_ms: Timestamp::from_millis(1000),
        response_time_ms: Timestamp::from_millis(1010),
        fresh_until_ms: Timestamp::from_millis(11_010),
        serve_stale_until_ms: Timestamp::from_millis(11_010),
        ttl_ms: 70_000,
        selecting: Selecting(vec![
            (
                b"accept-encoding".as_slice().into(),
                Some(b"gzip".as_slice().into()),
            ),
            (b"x-a".as_slice().into(), None),
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
    let meta = example(b"hello");
    let frame = encode(&meta, b"hello");
    assert_eq!(decode(&frame), Ok((meta.clone(), b"hello".as_slice())));
    let entry = Entry::read(frame.clone().into()).unwrap();
    assert_eq!((entry.meta(), entry.body()), (&meta, b"hello".as_slice()));
    assert_eq!(entry.frame(), frame);
    assert_eq!(entry, Entry::new(meta, b"hello"));
}

#[test]
fn a_changed_entry_has_a_frame_that_says_so() {
    let mut entry = Entry::new(example(b"hello"), b"hello");
    entry.change(|meta| meta.move_times(-7));
    assert_eq!(entry.meta().request_time_ms, Timestamp::from_millis(993));
    assert_eq!(
        decode(entry.frame()),
        Ok((entry.meta().clone(), b"hello".as_slice()))
    );
}

#[test]
fn the_bytes_stay_as_the_head_of_the_frame_says() {
    let meta = EntryMeta {
        stale_from_ms: Some(Timestamp::from_millis(9)),
        ..example(b"hello")
    };
    let frame = encode(&meta, b"hello");
    let mut expected = Vec::new();
    let mut add = |bytes: &[u8]| expected.extend_from_slice(bytes);
    add(b"\x49\0\0\xc8"); // must-revalidate, stale since, a route; 200
    for number in [1000_u64, 1010, 11_010, 11_010, 70_000, 10, 0, 0, 0, 0, 5] {
        add(&number.to_be_bytes());
    }
    add(&xxh3_128(b"hello").to_be_bytes());
    add(&9_u64.to_be_bytes());
    add(&1010_u64.to_be_bytes());
    add(b"\0\0\0\x1ahttp://a.example/data?id=1");
    add(b"\0\0\0\x03\0\0\0\x0c\0\0\0\x0a\0\0\0\x04\0\0\0\x03\0\0\0\x01\0\0\0\x04");
    add(b"content-type\0text/plain\0etag\0\"1\"\0x\0caf\xe9\0");
    add(b"\0\0\0\x02\0\0\0\x0faccept-encoding\x01\0\0\0\x04gzip\0\0\0\x03x-a\0");
    add(b"\0\0\0\x01\0\0\0\x01t");
    let length = u32::try_from(expected.len()).unwrap().to_be_bytes();
    assert_eq!(frame[..8], *[b"LRD\x02".as_slice(), &length].concat());
    assert_eq!(frame[8..8 + expected.len()], expected);
    assert_eq!(frame[8 + expected.len()..], *b"hello");
    assert_eq!(
        frame.len(),
        frame.capacity() - 2 * 8,
        "two numbers are absent"
    );
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
fn another_version_is_not_read_and_what_is_no_entry_is_told_apart() {
    let mut bytes = encode(&example(b""), b"");
    bytes[3] = 1;
    assert_eq!(decode(&bytes), Err(EntryFault::Version));
    let of_version_1 = b"LRD\x01\0\0\0\x02{}";
    assert_eq!(decode(of_version_1), Err(EntryFault::Version));
    for (bytes, fault) in [
        (&b""[..], EntryFault::Framing),
        (b"LRX\x02\0\0\0\0", EntryFault::Framing),
        (b"LRD\x02\0\0\0\x01", EntryFault::Framing),
        (b"LRD\x02\0\0\0\0", EntryFault::Meta),
    ] {
        assert_eq!(decode(bytes), Err(fault), "{bytes:?}");
    }
}

#[test]
fn hash_fields_of_another_version_are_no_entry() {
    let read = |without: &str, more: Option<(&str, &str)>| {
        let mut fields = to_hash_fields(&example(b""));
        fields.retain(|(name, _)| name != without);
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        let more = more.map(|(name, value)| (name, value.as_bytes()));
        from_hash_fields(fields.chain(more))
    };
    assert!(read("", None).is_ok());
    assert!(read("route", None).is_ok(), "an older one may not say it");
    assert_eq!(read("url", None), Err(EntryFault::Meta));
    assert_eq!(read("", Some(("more", "1"))), Err(EntryFault::Meta));
    assert_eq!(read("version", None), Err(EntryFault::Version));
    let of_version_1 = Some(("version", "1"));
    assert_eq!(read("version", of_version_1), Err(EntryFault::Version));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..12)
}

fn metas() -> impl Strategy<Value = EntryMeta> {
    let headers = proptest::collection::vec(("[a-z-]{0,8}", bytes()), 0..5);
    let selecting = proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..4);
    let tags = proptest::collection::vec(".{0,6}", 0..4);
    let flags = any::<(bool, bool, bool)>();
    let times = any::<[u64; 4]>();
    let more = any::<(Option<u64>, Option<u64>, Option<u64>, Option<(u64, bool)>)>();
    let (kind, numbers) = (0..5_usize, any::<[u64; 6]>());
    (
        (".{0,30}", any::<u16>(), headers, selecting, tags),
        (flags, times, more, kind, numbers),
    )
        .prop_map(|((url, status, headers, selecting, tags), rest)| {
            let (flags, times, (stale, part_first, part_complete, route), kind, numbers) = rest;
            let at = Timestamp::from_millis;
            let boxed = |(name, value): (Vec<u8>, Option<Vec<u8>>)| {
                (name.into_boxed_slice(), value.map(Vec::into_boxed_slice))
            };
            EntryMeta {
                url,
                status,
                headers: Headers::from_pairs(headers),
                cache_type: [
                    CacheType::MustRevalidate,
                    CacheType::StaleWhileRevalidate,
                    CacheType::StaleIfError,
                    CacheType::Stale,
                    CacheType::Revalidate,
                ][kind],
                max_age: numbers[0],
                use_stale_upto: numbers[1],
                stale_while_revalidate: numbers[2],
                stale_if_error: numbers[3],
                initial_age: numbers[4],
                must_revalidate: flags.0,
                no_cache: flags.1,
                public: flags.2,
                request_time_ms: at(times[0]),
                response_time_ms: at(times[1]),
                fresh_until_ms: at(times[2]),
                serve_stale_until_ms: at(times[3]),
                ttl_ms: numbers[5],
                selecting: Selecting(selecting.into_iter().map(boxed).collect()),
                tags,
                stale_from_ms: stale.map(at),
                part_first,
                part_complete,
                route: route.map(|(when, changes)| RouteSeen {
                    at_ms: at(when),
                    changes,
                }),
                body_length: 0,
                digest: digest(b""),
            }
        })
}

proptest! {
    #[test]
    fn every_entry_survives_its_frame_and_redis(meta in metas(), body in bytes()) {
        let meta = EntryMeta { body_length: body.len() as u64, digest: digest(&body), ..meta };
        let frame = encode(&meta, &body);
        prop_assert_eq!(decode(&frame), Ok((meta.clone(), body.as_slice())));
        let fields = to_hash_fields(&meta);
        let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        prop_assert_eq!(from_hash_fields(fields), Ok(meta));
    }

    #[test]
    fn a_frame_that_is_cut_off_is_no_entry(meta in metas(), body in bytes()) {
        let meta = EntryMeta { body_length: body.len() as u64, digest: digest(&body), ..meta };
        let frame = encode(&meta, &body);
        for length in 0..frame.len() {
            prop_assert!(decode(&frame[..length]).is_err(), "{}", length);
        }
    }

    #[test]
    fn a_meta_that_is_shortened_or_prolonged_is_no_entry(meta in metas(), by in 1_u32..9, longer in any::<bool>()) {
        let frame = encode(&meta, b"");
        let length = frame.len() as u32 - 8;
        let (length, more) = if longer { (length + by, by) } else { (length - by, 0) };
        let mut wrong = frame;
        wrong[4..8].copy_from_slice(&length.to_be_bytes());
        wrong.extend(std::iter::repeat_n(0, more as usize));
        prop_assert!(decode_meta(&wrong).is_err());
    }

    #[test]
    fn whatever_is_read_is_written_the_same(
        meta in metas(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut frame = encode(&meta, b"");
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Ok((read, body_start)) = decode_meta(&frame) {
            let body = frame[body_start..].to_vec();
            prop_assert_eq!(encode(&read, &body), frame);
        }
    }

    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = decode(&bytes);
        let mut framed = MAGIC.to_vec();
        framed.extend_from_slice(&bytes);
        let _ = decode(&framed);
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        let _ = decode(&[&MAGIC, length.as_slice(), &bytes].concat());
    }
}
