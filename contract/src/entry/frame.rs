//! The bytes of one entry.
//!
//! ```text
//! 0     3      4            8          8+n
//! +-----+------+------------+----------+----------------+
//! | LRD | 0x02 | n u32      | meta (n) | body: the rest |
//! +-----+------+------------+----------+----------------+
//!
//! meta:   flags u8   type u8   status u16
//!         request_time u64   response_time u64   fresh_until u64   serve_stale_until u64   ttl u64
//!         max_age u64   use_stale_upto u64   stale_while_revalidate u64   stale_if_error u64
//!         initial_age u64   body_length u64   digest 16
//!         stale_from u64 (flag 0x08)   part_first u64 (0x10)   part_complete u64 (0x20)
//!         route_at u64 (0x40)
//!         url: bytes, UTF-8
//!         headers: count u32, then for each the lengths of its name and its value (u32, u32),
//!                  then for each its name, 0x00, its value, 0x00
//!         selecting: count u32, then for each: name bytes, 0x00 for an absent field, or 0x01 and
//!                  value bytes
//!         tags: count u32, then bytes, UTF-8, for each
//!
//! flags:  0x01 must_revalidate   0x02 no_cache   0x04 public   0x08 …   0x10 …   0x20 …   0x40 …
//!         0x80 the route changes what passes (only with 0x40)
//! type:   0 must-revalidate   1 stale-while-revalidate   2 stale-if-error   3 stale   4 revalidate
//! ```
//!
//! Numbers are big-endian, times are milliseconds since the Unix epoch, other spans than `ttl` (in
//! milliseconds) are in seconds. *Bytes* are their length (u32) and themselves. What follows the
//! tags within `n` makes it no entry. Reading takes no more memory than a few times the bytes.

use bytes::BufMut;

use super::{
    BodyDigest, CacheType, EntryFault, EntryMeta, Headers, RouteSeen, Selecting, VERSION, digest,
};
use crate::wire::{FrameFault, Reader, put_bytes, put_time};

/// First bytes of every encoded entry; the last one is the version.
pub const MAGIC: [u8; 4] = [b'L', b'R', b'D', VERSION];

/// Magic and the meta's length.
const HEADER_LEN: usize = 8;
/// The meta's numbers, all flags set.
const NUMBERS_LEN: usize = 4 + 15 * 8 + 16;

const MUST_REVALIDATE: u8 = 0x01;
const NO_CACHE: u8 = 0x02;
const PUBLIC: u8 = 0x04;
const STALE_FROM: u8 = 0x08;
const PART_FIRST: u8 = 0x10;
const PART_COMPLETE: u8 = 0x20;
const ROUTE: u8 = 0x40;
const ROUTE_CHANGES: u8 = 0x80;

/// In the order of their numbers.
const CACHE_TYPES: [CacheType; 5] = [
    CacheType::MustRevalidate,
    CacheType::StaleWhileRevalidate,
    CacheType::StaleIfError,
    CacheType::Stale,
    CacheType::Revalidate,
];

/// Writes an entry in the frame above.
pub fn encode(meta: &EntryMeta, body: &[u8]) -> Vec<u8> {
    let tags: usize = meta.tags.iter().map(|tag| tag.len() + 4).sum();
    let texts = meta.url.len() + meta.headers.encoded_len() + meta.selecting.encoded_len() + tags;
    let room = HEADER_LEN + NUMBERS_LEN + 4 * 4 + texts + body.len();
    let mut frame = Vec::with_capacity(room);
    frame.put_slice(&MAGIC);
    frame.put_u32(0);
    put_numbers(&mut frame, meta);
    put_bytes(&mut frame, meta.url.as_bytes());
    meta.headers.write(&mut frame);
    meta.selecting.write(&mut frame);
    frame.put_u32(u32::try_from(meta.tags.len()).unwrap_or(u32::MAX));
    for tag in &meta.tags {
        put_bytes(&mut frame, tag.as_bytes());
    }
    let length = u32::try_from(frame.len() - HEADER_LEN).unwrap_or(u32::MAX);
    if let Some(place) = frame.get_mut(MAGIC.len()..HEADER_LEN) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    frame.put_slice(body);
    frame
}

fn put_numbers(frame: &mut Vec<u8>, meta: &EntryMeta) {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    frame.put_u8(
        flag(meta.must_revalidate, MUST_REVALIDATE)
            | flag(meta.no_cache, NO_CACHE)
            | flag(meta.public, PUBLIC)
            | flag(meta.stale_from_ms.is_some(), STALE_FROM)
            | flag(meta.part_first.is_some(), PART_FIRST)
            | flag(meta.part_complete.is_some(), PART_COMPLETE)
            | flag(meta.route.is_some(), ROUTE)
            | flag(meta.route.is_some_and(|seen| seen.changes), ROUTE_CHANGES),
    );
    frame.put_u8(match meta.cache_type {
        CacheType::MustRevalidate => 0,
        CacheType::StaleWhileRevalidate => 1,
        CacheType::StaleIfError => 2,
        CacheType::Stale => 3,
        CacheType::Revalidate => 4,
    });
    frame.put_u16(meta.status);
    put_time(frame, meta.request_time_ms);
    put_time(frame, meta.response_time_ms);
    put_time(frame, meta.fresh_until_ms);
    put_time(frame, meta.serve_stale_until_ms);
    for number in [
        meta.ttl_ms,
        meta.max_age,
        meta.use_stale_upto,
        meta.stale_while_revalidate,
        meta.stale_if_error,
        meta.initial_age,
        meta.body_length,
    ] {
        frame.put_u64(number);
    }
    frame.put_slice(&meta.digest.0);
    let times = [
        meta.stale_from_ms.map(|time| time.as_millis()),
        meta.part_first,
        meta.part_complete,
        meta.route.map(|seen| seen.at_ms.as_millis()),
    ];
    for number in times.into_iter().flatten() {
        frame.put_u64(number);
    }
}

/// Reads the meta and where the body begins, without checking the body: what is needed to judge an
/// entry that was checked before.
pub fn decode_meta(bytes: &[u8]) -> Result<(EntryMeta, usize), EntryFault> {
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(EntryFault::Framing)?;
    if magic[..3] != MAGIC[..3] {
        return Err(EntryFault::Framing);
    }
    if magic[3] != MAGIC[3] {
        return Err(EntryFault::Version);
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(EntryFault::Framing)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| EntryFault::Framing)?;
    let meta = rest.get(..length).ok_or(EntryFault::Framing)?;
    Ok((read_meta(Reader(meta))?, HEADER_LEN + length))
}

/// Reads an entry, and checks its body against its meta.
pub fn decode(bytes: &[u8]) -> Result<(EntryMeta, &[u8]), EntryFault> {
    let (meta, body_start) = decode_meta(bytes)?;
    let body = bytes.get(body_start..).ok_or(EntryFault::Framing)?;
    check_body(&meta, body)?;
    Ok((meta, body))
}

/// Checks length and digest of a body.
pub fn check_body(meta: &EntryMeta, body: &[u8]) -> Result<(), EntryFault> {
    if u64::try_from(body.len()) != Ok(meta.body_length) {
        return Err(EntryFault::Length);
    }
    if digest(body) != meta.digest {
        return Err(EntryFault::Digest);
    }
    Ok(())
}

fn read_meta(mut reader: Reader<'_>) -> Result<EntryMeta, FrameFault> {
    let reader = &mut reader;
    let (flags, kind) = (reader.u8()?, usize::from(reader.u8()?));
    let has = |flag: u8| flags & flag != 0;
    if has(ROUTE_CHANGES) && !has(ROUTE) {
        return Err(FrameFault::Unknown);
    }
    let when = |reader: &mut Reader<'_>, flag: u8| has(flag).then(|| reader.u64()).transpose();
    let meta = EntryMeta {
        must_revalidate: has(MUST_REVALIDATE),
        no_cache: has(NO_CACHE),
        public: has(PUBLIC),
        cache_type: *CACHE_TYPES.get(kind).ok_or(FrameFault::Unknown)?,
        status: reader.u16()?,
        request_time_ms: reader.time()?,
        response_time_ms: reader.time()?,
        fresh_until_ms: reader.time()?,
        serve_stale_until_ms: reader.time()?,
        ttl_ms: reader.u64()?,
        max_age: reader.u64()?,
        use_stale_upto: reader.u64()?,
        stale_while_revalidate: reader.u64()?,
        stale_if_error: reader.u64()?,
        initial_age: reader.u64()?,
        body_length: reader.u64()?,
        digest: BodyDigest(reader.array()?),
        stale_from_ms: has(STALE_FROM).then(|| reader.time()).transpose()?,
        part_first: when(reader, PART_FIRST)?,
        part_complete: when(reader, PART_COMPLETE)?,
        route: has(ROUTE)
            .then(|| reader.time())
            .transpose()?
            .map(|at_ms| RouteSeen {
                at_ms,
                changes: has(ROUTE_CHANGES),
            }),
        url: utf8(reader)?,
        headers: Headers::read(reader)?,
        selecting: Selecting::read(reader)?,
        tags: read_tags(reader)?,
    };
    std::mem::replace(reader, Reader(&[])).end(meta)
}

fn read_tags(reader: &mut Reader<'_>) -> Result<Vec<String>, FrameFault> {
    (0..reader.u32()?).map(|_| utf8(reader)).collect()
}

fn utf8(reader: &mut Reader<'_>) -> Result<String, FrameFault> {
    let text = std::str::from_utf8(reader.long_bytes()?).map_err(|_| FrameFault::Unknown)?;
    Ok(text.to_owned())
}
