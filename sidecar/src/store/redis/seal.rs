//! Integrity of what lies in Redis, where the operator shares a secret among the sidecars.
//!
//! What this decides: an entry counts only with an HMAC-SHA256 over its key, its meta and its body,
//! so that whoever can write to Redis without the secret cannot put a response into the cache, nor
//! move one to another URL or variant. What it leaves out: an old entry put back under its own key
//! is authentic (its freshness runs out all the same), and entries can be deleted. Numbers that
//! purges change in place are not sealed; they can only shorten an entry's life, for the filter
//! reckons freshness by the sealed ones.

use hmac::{Hmac, KeyInit, Mac};
use larder_contract::key::KeyDigest;
use sha2::Sha256;

/// The hash field of the seal.
pub(super) const SEAL_FIELD: &str = "seal";
/// Changed in place by a soft purge.
const UNSEALED: [&str; 3] = ["fresh_until_ms", "serve_stale_until_ms", "stale_from_ms"];
/// A secret shorter than this, in bytes, is refused.
const MIN_SECRET: usize = 16;

/// Seals entries and checks seals, if there is a secret.
#[derive(Clone, Default)]
pub struct Seal(Option<Hmac<Sha256>>);

impl std::fmt::Debug for Seal {
    /// Never the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "Seal(secret)"
        } else {
            "Seal(none)"
        })
    }
}

impl Seal {
    /// With the operator's secret. The error says what is wrong with it.
    pub fn new(secret: &str) -> Result<Self, String> {
        if secret.len() < MIN_SECRET {
            return Err(format!(
                "LARDER_STORE_SECRET needs at least {MIN_SECRET} characters; openssl rand -hex 32 makes one"
            ));
        }
        let key = Hmac::new_from_slice(secret.as_bytes()).map_err(|error| error.to_string())?;
        Ok(Self(Some(key)))
    }

    /// The seal of an entry; `None` without a secret.
    pub(super) fn seal(&self, key: &KeyDigest, fields: &[(String, Vec<u8>)]) -> Option<String> {
        let mac = over(self.0.clone()?, key, fields).finalize();
        Some(
            mac.into_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }

    /// Whether an entry may be believed: it has the right seal, or there is no secret.
    pub(super) fn holds(
        &self,
        key: &KeyDigest,
        fields: &[(String, Vec<u8>)],
        seal: Option<&[u8]>,
    ) -> bool {
        let Some(mac) = self.0.clone() else {
            return true;
        };
        let pairs = seal.unwrap_or_default().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let given: Option<Vec<u8>> = pairs.map(byte).collect();
        given.is_some_and(|given| over(mac, key, fields).verify_slice(&given).is_ok())
    }
}

/// Every part with its length, the fields in the order of their names.
fn over(mut mac: Hmac<Sha256>, key: &KeyDigest, fields: &[(String, Vec<u8>)]) -> Hmac<Sha256> {
    let mut part = |bytes: &[u8]| {
        mac.update(&(bytes.len() as u64).to_be_bytes());
        mac.update(bytes);
    };
    part(&key.0);
    let mut sealed: Vec<&(String, Vec<u8>)> = fields
        .iter()
        .filter(|(name, _)| name != SEAL_FIELD && !UNSEALED.contains(&name.as_str()))
        .collect();
    sealed.sort();
    for (name, value) in sealed {
        part(name.as_bytes());
        part(value);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyDigest = KeyDigest([7; 32]);

    fn fields(pairs: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn any_change_but_a_purges_breaks_the_seal() {
        let seal = Seal::new("a secret of some length").unwrap();
        let original = fields(&[
            ("body", "hello"),
            ("etag", "\"1\""),
            ("fresh_until_ms", "9"),
        ]);
        let mark = seal.seal(&KEY, &original).unwrap();
        let holds =
            |pairs: &[(&str, &str)]| seal.holds(&KEY, &fields(pairs), Some(mark.as_bytes()));
        assert!(holds(&[
            ("fresh_until_ms", "5"),
            ("etag", "\"1\""),
            ("body", "hello"),
            ("stale_from_ms", "5")
        ]));
        for changed in [
            &[("body", "hallo"), ("etag", "\"1\"")][..],
            &[("body", "hello"), ("etag", "\"2\"")],
            &[("body", "hello")],
            &[("body", "hello"), ("etag", "\"1\""), ("more", "")],
            &[("bodyhello", ""), ("etag", "\"1\"")],
        ] {
            assert!(!holds(changed), "{changed:?}");
        }
        assert!(
            !seal.holds(&KeyDigest([8; 32]), &original, Some(mark.as_bytes())),
            "another URL"
        );
        for bad in [None, Some(&b""[..]), Some(b"zz"), Some(b"00")] {
            assert!(!seal.holds(&KEY, &original, bad));
        }
        let other = Seal::new("another secret of some length").unwrap();
        assert!(!other.holds(&KEY, &original, Some(mark.as_bytes())));
    }

    #[test]
    fn without_a_secret_nothing_is_sealed_and_everything_believed() {
        assert_eq!(Seal::default().seal(&KEY, &[]), None);
        assert!(Seal::default().holds(&KEY, &fields(&[("body", "x")]), None));
        assert!(Seal::new("short").is_err());
    }
}
