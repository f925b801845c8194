//! Under which key requests collapse, and which slots that key may use.

use larder_contract::key::{ALWAYS_SELECTING, KeyDigest, append_part};
use sha2::{Digest, Sha256};

use crate::vary::SelectingFields;

/// How many slots a key may use.
pub const PLACES: usize = 4;

/// What concurrent requests must agree in to become one fetch: the resource, and as far as known
/// the variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CollapseKey(pub [u8; 32]);

impl CollapseKey {
    /// `selecting` holds the values this request has for the fields that are known to select; none
    /// while nothing is known of the resource. In whatever order they come: `Vary` may name them in
    /// another one tomorrow. A request that has none of those that always select shares the
    /// resource's own digest with its like, which costs nothing to reckon.
    ///
    /// A digest that nobody finds collisions of, and over the values themselves: whoever waits for
    /// a fetch takes what it brings for the resource that it asked for.
    pub fn new(resource: &KeyDigest, selecting: &SelectingFields) -> Self {
        let says_nothing = |(name, value): (&[u8], Option<&[u8]>)| {
            value.is_none()
                && ALWAYS_SELECTING
                    .iter()
                    .any(|known| known.as_bytes() == name)
        };
        if selecting.iter().all(says_nothing) {
            return Self(resource.0);
        }
        let mut fields: Vec<_> = selecting.iter().collect();
        fields.sort_unstable();
        let mut bytes = resource.0.to_vec();
        for (name, value) in fields {
            append_part(&mut bytes, name);
            bytes.push(u8::from(value.is_some()));
            append_part(&mut bytes, value.unwrap_or_default());
        }
        Self(Sha256::digest(&bytes).into())
    }

    /// The same for requests whose cookie alone may keep their answer from everybody else: they
    /// collapse among themselves.
    #[must_use]
    pub fn with_cookie(self) -> Self {
        let mut bytes = self.0.to_vec();
        append_part(&mut bytes, b"cookie");
        Self(Sha256::digest(&bytes).into())
    }

    /// The slots this key may use among `slots`. `salt` is a secret of this Envoy's: without it
    /// nobody can choose keys that keep another key from its slots.
    pub fn places(&self, slots: u32, salt: u64) -> [u32; PLACES] {
        let (words, _) = self.0.as_chunks::<8>();
        let mut places = [0; PLACES];
        for (place, word) in places.iter_mut().zip(words) {
            // Multiplying by a secret odd number and taking the uppermost bits is a keyed hash of
            // what is random already.
            let mixed =
                (u64::from_be_bytes(*word).wrapping_mul(salt | 1) >> 32) * u64::from(slots.max(1));
            *place = u32::try_from(mixed >> 32).unwrap_or(0);
        }
        places
    }
}
