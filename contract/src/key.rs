//! The cache key (RFC 9111 §2): what makes two requests ask for the same resource.
//!
//! What this decides: namespace, scheme, authority with port, path and query, each prefixed with
//! its length, so that no two different lists of parts give the same bytes. Each part is in its one
//! canonical spelling ([`canonical_authority`], [`canonical_path`]), so that a request, a purge and
//! an invalidation of one resource meet. What it leaves out: which variant; that is `vary`, and the
//! query override counts as one more selecting field ([`OVERRIDE_FIELD`]), so that invalidating a
//! URL takes all of them.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use crate::as_text::hex_bytes;
use crate::path::canonical_path;

/// The pseudo-field under which a request carries its override in canonical form; see
/// `query_override`.
pub const OVERRIDE_FIELD: &str = ":override";

/// The pseudo-field that stands for the fields of a request that select although no `Vary` names
/// them; see `vary::unkeyed`.
pub const UNKEYED_FIELD: &str = ":unkeyed";

/// The pseudo-fields that belong to the selecting fields of every response.
pub const ALWAYS_SELECTING: [&str; 2] = [OVERRIDE_FIELD, UNKEYED_FIELD];

/// The bytes that identify a resource: equal bytes, same resource. Level 1 looks up by these. What
/// leaves the process, or is remembered of a resource that may never have been stored, is their
/// digest.
#[derive(Clone, Debug)]
pub struct PrimaryKey {
    bytes: Box<[u8]>,
    /// Reckoned at the first use, for a hit needs none; clones made after that have it.
    digest: OnceLock<KeyDigest>,
}

impl PartialEq for PrimaryKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for PrimaryKey {}

impl Hash for PrimaryKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl PrimaryKey {
    /// The key of one resource. `namespace` keeps several configurations apart in one store;
    /// `scheme` and `authority` may be spelled in any way; `path` is the path and query as Envoy
    /// has normalised it, its hex digits in any case.
    pub fn new(namespace: &[u8], scheme: &[u8], authority: &[u8], path: &[u8]) -> Self {
        let scheme = canonical_scheme(scheme);
        let authority = canonical_authority(&scheme, authority);
        let path = canonical_path(path);
        let parts = [namespace, &scheme, &authority, &path];
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
        for part in parts {
            append_part(&mut bytes, part);
        }
        Self {
            bytes: bytes.into_boxed_slice(),
            digest: OnceLock::new(),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes: what leaves the process.
    pub fn digest(&self) -> KeyDigest {
        *self
            .digest
            .get_or_init(|| KeyDigest(Sha256::digest(&self.bytes).into()))
    }
}

/// SHA-256 of a primary key: what the store knows of a URL. 64 hex digits in paths and JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyDigest(pub [u8; 32]);

hex_bytes!(KeyDigest, "a key is 64 hex digits");

/// A scheme in lower case (RFC 3986 §3.1).
pub fn canonical_scheme(scheme: &[u8]) -> Cow<'_, [u8]> {
    in_lower_case(scheme)
}

/// Host and port in the one spelling that all equal ones have (RFC 9110 §4.2.3): the host in lower
/// case, the port without leading zeros, and left out where it is empty or the default of `scheme`.
/// A dot at the host's end stays, for some origins answer otherwise under such a name. What cannot
/// be read as host and port is only put in lower case.
pub fn canonical_authority<'a>(scheme: &[u8], authority: &'a [u8]) -> Cow<'a, [u8]> {
    let Some((host, digits)) = host_and_port(authority) else {
        return in_lower_case(authority);
    };
    let significant = digits
        .iter()
        .position(|&digit| digit != b'0')
        .unwrap_or(digits.len());
    let port = digits.get(significant..).unwrap_or_default();
    let is_default =
        digits.is_empty() || default_port(scheme).is_some_and(|default| default == port);
    if is_default {
        in_lower_case(host)
    } else if significant == 0 {
        in_lower_case(authority)
    } else {
        let port: &[u8] = if port.is_empty() { b"0" } else { port };
        Cow::Owned([in_lower_case(host).as_ref(), b":", port].concat())
    }
}

fn default_port(scheme: &[u8]) -> Option<&'static [u8]> {
    match scheme {
        b"http" => Some(b"80"),
        b"https" => Some(b"443"),
        _ => None,
    }
}

/// The parts around the colon before the port. `None` where there is no port, as within an IPv6
/// address.
pub fn host_and_port(authority: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = authority.iter().rposition(|&byte| byte == b':')?;
    let (host, port) = (authority.get(..colon)?, authority.get(colon + 1..)?);
    let is_literal = host.starts_with(b"[") && host.ends_with(b"]");
    let is_name = !host.is_empty() && !host.contains(&b':');
    ((is_literal || is_name) && port.iter().all(u8::is_ascii_digit)).then_some((host, port))
}

fn in_lower_case(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
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

    #[test]
    fn every_spelling_of_a_host_and_port_is_one_key() {
        for (scheme, spelled, canonical) in [
            ("http", "SHOP.Example", "shop.example"),
            ("HTTP", "shop.example:80", "shop.example"),
            ("http", "shop.example:", "shop.example"),
            ("http", "shop.example:0080", "shop.example"),
            ("http", "shop.example:08080", "shop.example:8080"),
            ("https", "shop.example:443", "shop.example"),
            ("http", "[2001:DB8::1]:80", "[2001:db8::1]"),
            ("https", "[::1]:443", "[::1]"),
        ] {
            assert_eq!(
                key(["n", scheme, spelled, "/"]),
                key(["n", &scheme.to_lowercase(), canonical, "/"]),
                "{spelled}"
            );
        }
    }

    #[test]
    fn every_case_of_a_percent_encoding_is_one_key() {
        let at = |path| key(["n", "http", "a", path]);
        assert_eq!(at("/%c3%a9?%e2"), at("/%C3%A9?%E2"));
        for (one, other) in [
            ("/%2f", "/"),
            ("/%2561", "/%61"),
            ("/%C3", "/%c4"),
            ("/%zz", "/%ZZ"),
        ] {
            assert_ne!(at(one), at(other), "{one}");
        }
    }

    #[test]
    fn what_is_another_name_or_another_port_stays_another_key() {
        for (scheme, one, other) in [
            ("http", "shop.example.", "shop.example"),
            ("http", "shop.example:443", "shop.example"),
            ("https", "shop.example:80", "shop.example"),
            ("http", "[::80]", "[:]"),
            ("http", "::1:80", "::1"),
            ("http", "a:0", "a"),
            ("http", "a:80x", "a"),
        ] {
            assert_ne!(
                key(["n", scheme, one, "/"]),
                key(["n", scheme, other, "/"]),
                "{one}"
            );
        }
    }

    #[test]
    fn keys_are_64_hex_digits_in_json() {
        let key = KeyDigest([0xab; 32]);
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{}\"", "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<KeyDigest>(&json).unwrap(), key);
        assert!(serde_json::from_str::<KeyDigest>("\"abc\"").is_err());
    }

    proptest! {
        #[test]
        fn different_parts_never_make_the_same_key(a in any::<[String; 4]>(), b in any::<[String; 4]>()) {
            let as_key = |parts: &[String; 4]| key([&parts[0], &parts[1], &parts[2], &parts[3]]);
            let canonical = |[namespace, scheme, authority, path]: [String; 4]| {
                let scheme = canonical_scheme(scheme.as_bytes()).into_owned();
                let authority = canonical_authority(&scheme, authority.as_bytes()).into_owned();
                (namespace, scheme, authority, canonical_path(path.as_bytes()).into_owned())
            };
            prop_assert_eq!(as_key(&a) == as_key(&b), canonical(a) == canonical(b));
        }

        #[test]
        fn a_canonical_authority_stays_as_it_is(authority in "[a-zA-Z0-9.:\\[\\]]{0,9}(:[0-9]{0,4})?") {
            let once = canonical_authority(b"http", authority.as_bytes()).into_owned();
            prop_assert_eq!(canonical_authority(b"http", &once).into_owned(), once);
        }
    }
}
