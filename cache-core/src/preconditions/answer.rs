//! How a stored response answers, and with which of its fields.

use std::sync::Arc;

use crate::fields::Fields;
use crate::stored_response::StoredResponse;

/// How a stored response answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With all of it.
    Full,
    /// `304`: the client has it.
    NotModified,
    /// `206`.
    Partial(Piece),
    /// `416`, with these fields.
    RangeNotSatisfiable(Fields),
}

/// A part of a stored response, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// All fields of the `206`, without `content-length`.
    pub fields: Fields,
    /// What is sent.
    pub body: Arc<[u8]>,
}

/// The fields a `304` from a stored response carries: those of the `200`, less what describes
/// content that does not come (RFC 9110 §15.4.5). A browser takes over what a `304` says of access
/// and security, and needs it to hand the response out (CORS).
pub fn not_modified_fields(stored: &StoredResponse) -> Fields {
    let mut fields = stored.fields.clone();
    fields.retain(|name, _| !describes_representation(name) && !describes_whole_content(name));
    fields
}

/// The fields of a `206` from a stored response: those of the `200`, less what is true of its whole
/// content alone; a client would check the part against it (RFC 9110 §15.3.7, RFC 9530 §2).
/// `Repr-Digest` is about the whole by definition, and stays.
pub(super) fn partial_fields(stored: &StoredResponse) -> Fields {
    let mut fields = stored.fields.clone();
    fields.retain(|name, _| !describes_whole_content(name));
    fields
}

/// The fields of a `416` for a representation of `length` bytes: who may see it, and how long the
/// representation is. What the stored response says of its own caching and validation is not true
/// of an error, and a cache in front must not keep that for others (RFC 9110 §15.5.17).
pub(super) fn not_satisfiable_fields(stored: &StoredResponse, length: u64) -> Fields {
    const CARRIED: [&str; 7] = [
        "accept-ranges",
        "alt-svc",
        "date",
        "strict-transport-security",
        "timing-allow-origin",
        "vary",
        "x-content-type-options",
    ];
    let mut fields = stored.fields.clone();
    fields.retain(|name, _| {
        CARRIED.iter().any(|carried| carried.as_bytes() == name)
            || name.starts_with(b"access-control-")
            || name.starts_with(b"cross-origin-")
    });
    fields.append(b"cache-control", b"no-store");
    fields.append(b"content-range", format!("bytes */{length}").as_bytes());
    fields
}

/// Representation metadata that guides no cache (RFC 9110 §8, §15.4.5).
fn describes_representation(name: &[u8]) -> bool {
    matches!(
        name,
        b"content-disposition"
            | b"content-encoding"
            | b"content-language"
            | b"content-length"
            | b"content-range"
            | b"content-type"
            | b"repr-digest"
    )
}

/// Whether a field (its name in lower case) gives a digest or a length of the whole content: the
/// standard ones, and those of the object stores.
pub fn describes_whole_content(name: &[u8]) -> bool {
    const NAMES: [&str; 15] = [
        "content-crc32",
        "content-digest",
        "content-md5",
        "digest",
        "x-bz-content-sha1",
        "x-checksum",
        "x-content-sha256",
        "x-cos-hash-crc64ecma",
        "x-goog-hash",
        "x-goog-stored-content-length",
        "x-ms-blob-content-md5",
        "x-ms-content-crc64",
        "x-ms-content-md5",
        "x-oss-hash-crc64ecma",
        "x-uncompressed-content-length",
    ];
    NAMES.iter().any(|known| known.as_bytes() == name)
        || name.starts_with(b"x-amz-checksum-")
        || name.starts_with(b"x-checksum-")
}
