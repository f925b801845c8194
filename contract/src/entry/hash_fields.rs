//! An entry as the fields of a Redis hash, for `HGETALL`: each member of the meta is one, text as
//! it is, all else as JSON. The body lies beside them.

use super::{EntryFault, EntryMeta, VERSION};
use crate::latin1::widen;

/// The hash field that holds the body.
pub const BODY_FIELD: &str = "body";
/// The hash field that says which version wrote it.
const VERSION_FIELD: &str = "version";
/// The hash field that repeats the entity tag, for people: it is one of the headers.
const ETAG_FIELD: &str = "etag";

/// The meta as hash fields. The body goes into [`BODY_FIELD`] beside them.
pub fn to_hash_fields(meta: &EntryMeta) -> Vec<(String, String)> {
    let Ok(serde_json::Value::Object(members)) = serde_json::to_value(meta) else {
        return Vec::new();
    };
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let etag = meta.headers.get(ETAG_FIELD).map(widen).unwrap_or_default();
    let members = members.into_iter().map(|(name, value)| (name, text(value)));
    let more = [(VERSION_FIELD, VERSION.to_string()), (ETAG_FIELD, etag)];
    members
        .chain(more.map(|(name, value)| (name.to_owned(), value)))
        .collect()
}

/// Reads hash fields back; fields that no entry of this version has are refused, as is a missing
/// one.
pub fn from_hash_fields<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<EntryMeta, EntryFault> {
    const TEXT: [&str; 3] = ["url", "cache_type", "digest"];
    let (mut members, mut version) = (serde_json::Map::new(), None);
    for (name, value) in fields {
        let value = match name {
            BODY_FIELD | ETAG_FIELD => continue,
            VERSION_FIELD => {
                version = Some(value);
                continue;
            }
            name if TEXT.contains(&name) => {
                let text = std::str::from_utf8(value).map_err(|_| EntryFault::Meta)?;
                serde_json::Value::String(text.to_owned())
            }
            _ => serde_json::from_slice(value).map_err(|_| EntryFault::Meta)?,
        };
        members.insert(name.to_owned(), value);
    }
    if version != Some(VERSION.to_string().as_bytes()) {
        return Err(EntryFault::Version);
    }
    serde_json::from_value(members.into()).map_err(|_| EntryFault::Meta)
}
