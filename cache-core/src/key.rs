//! The cache key (RFC 9111 §2): what makes two requests ask for the same resource.
//!
//! What this decides: namespace, scheme, authority with port, exact path and query, each prefixed with its length, so
//! that no two different lists of parts give the same bytes. What it leaves out: which variant; that is `vary`, and the
//! query override counts as one more selecting field ([`OVERRIDE_FIELD`]), so that invalidating a URL takes all of them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::store_api::KeyDigest;

/// The pseudo-field under which a request carries its override in canonical form; see `query_override`.
pub const OVERRIDE_FIELD: &str = ":override";

/// The bytes that identify a resource: equal bytes, same resource. Level 1 looks up by these.
/// In JSON it is hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrimaryKey(Box<[u8]>);

impl PrimaryKey {
    /// The key of one resource. `namespace` keeps several configurations apart in one store; `path` is the path and
    /// query as the origin gets it.
    pub fn new(namespace: &[u8], scheme: &[u8], authority: &[u8], path: &[u8]) -> Self {
        let parts = [namespace, scheme, authority, path];
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
        for part in parts {
            append_part(&mut bytes, part);
        }
        Self(bytes.into_boxed_slice())
    }

    /// Takes back what [`Self::as_bytes`] gave, on its way through another worker's inbox.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the bytes: what leaves the process.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest(Sha256::digest(&self.0).into())
    }
}

impl Serialize for PrimaryKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for PrimaryKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let bytes = hex::decode(digits).map_err(|_| serde::de::Error::custom("a primary key is hex"))?;
        Ok(Self::from_bytes(&bytes))
    }
}

/// Appends `part` behind its length as 4 bytes, so that ("ab", "c") and ("a", "bc") differ.
pub fn append_part(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(parts: [&str; 4]) -> PrimaryKey {
        let [namespace, scheme, authority, path] = parts.map(str::as_bytes);
        PrimaryKey::new(namespace, scheme, authority, path)
    }

    #[test]
    fn scheme_host_port_path_and_query_all_count() {
        let base = ["n", "http", "a.example", "/p?q=1"];
        for other in [
            ["m", "http", "a.example", "/p?q=1"],
            ["n", "https", "a.example", "/p?q=1"],
            ["n", "http", "b.example", "/p?q=1"],
            ["n", "http", "a.example:8080", "/p?q=1"],
            ["n", "http", "a.example", "/P?q=1"],
            ["n", "http", "a.example", "/p?q=2"],
            ["n", "http", "a.example", "/p"],
            ["n", "http", "a.example/", "p?q=1"],
        ] {
            assert_ne!(key(base), key(other), "{other:?}");
            assert_ne!(key(base).digest(), key(other).digest(), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn different_parts_never_make_the_same_key(a in any::<[String; 4]>(), b in any::<[String; 4]>()) {
            let as_key = |parts: &[String; 4]| key([&parts[0], &parts[1], &parts[2], &parts[3]]);
            prop_assert_eq!(as_key(&a) == as_key(&b), a == b);
        }
    }
}
