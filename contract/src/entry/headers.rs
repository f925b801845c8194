//! Header fields as a host of filters hands them over and wants them back: one text, and the
//! lengths of the names and values in it. So an entry is written and read with two copies, however
//! many fields there are.

use bytes::BufMut;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::latin1::{narrow, widen};
use crate::wire::{FrameFault, Reader};

/// Header fields in order, names in lower case, values as raw bytes. In JSON a list of pairs of
/// texts, in which each byte is the character of its number; see [`crate::latin1`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Of each field: of its name, of its value.
    lengths: Vec<(u32, u32)>,
    /// Of each field: name, NUL, value, NUL.
    text: Vec<u8>,
}

impl Headers {
    /// The fields whose names and values have these lengths and lie in `text`, name, NUL, value,
    /// NUL, one behind the other. `None` when that is not so, or a name is not in lower case.
    pub fn of(lengths: Vec<(u32, u32)>, text: Vec<u8>) -> Option<Self> {
        let headers = Self { lengths, text };
        headers.holds_together().then_some(headers)
    }

    /// The fields of `pairs`, in their order. Names are put in lower case.
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut headers = Self::default();
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            let length = |part: &[u8]| u32::try_from(part.len()).ok();
            let (Some(name_len), Some(value_len)) = (length(name), length(value)) else {
                continue; // 4 GiB of header text
            };
            headers.lengths.push((name_len, value_len));
            headers.text.extend(name.iter().map(u8::to_ascii_lowercase));
            headers.text.push(0);
            headers.text.extend_from_slice(value);
            headers.text.push(0);
        }
        headers
    }

    /// The lengths and the text, as [`Self::of`] takes them.
    pub fn into_parts(self) -> (Vec<(u32, u32)>, Vec<u8>) {
        (self.lengths, self.text)
    }

    /// All fields as `(name, value)`, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.text.as_slice();
        self.lengths.iter().map_while(move |&lengths| {
            let (name, value, left) = first(rest, lengths)?;
            rest = left;
            Some((name, value))
        })
    }

    /// The value of the first field of `name` (given in lower case).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(known, _)| *known == name.as_bytes())
            .map(|(_, value)| value)
    }

    fn holds_together(&self) -> bool {
        let mut rest = self.text.as_slice();
        for &lengths in &self.lengths {
            match first(rest, lengths) {
                Some((name, _, left)) if !name.iter().any(u8::is_ascii_uppercase) => rest = left,
                _ => return false,
            }
        }
        rest.is_empty()
    }

    /// Bytes in a frame, without the count.
    pub(super) fn encoded_len(&self) -> usize {
        self.lengths.len() * 8 + self.text.len()
    }

    pub(super) fn write(&self, frame: &mut Vec<u8>) {
        frame.put_u32(u32::try_from(self.lengths.len()).unwrap_or(u32::MAX));
        for (name, value) in &self.lengths {
            frame.put_u32(*name);
            frame.put_u32(*value);
        }
        frame.put_slice(&self.text);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, FrameFault> {
        let count = usize::try_from(reader.u32()?).map_err(|_| FrameFault::Short)?;
        let lengths = reader.bytes(count.checked_mul(8).ok_or(FrameFault::Short)?)?;
        let (pairs, _) = lengths.as_chunks::<8>();
        let pair = |pair: &[u8; 8]| {
            let both = u64::from_be_bytes(*pair);
            ((both >> 32) as u32, both as u32)
        };
        let lengths: Vec<(u32, u32)> = pairs.iter().map(pair).collect();
        let all = lengths.iter().try_fold(0_usize, |all, &(name, value)| {
            all.checked_add(usize::try_from(name).ok()?)?
                .checked_add(usize::try_from(value).ok()?)?
                .checked_add(2)
        });
        let text = reader.bytes(all.ok_or(FrameFault::Short)?)?.to_vec();
        Self::of(lengths, text).ok_or(FrameFault::Unknown)
    }
}

/// The first field of `text`, and what follows it.
fn first(text: &[u8], (name, value): (u32, u32)) -> Option<(&[u8], &[u8], &[u8])> {
    let part = |text: &'_ [u8], length: u32| -> Option<usize> {
        let length = usize::try_from(length).ok()?;
        (text.get(length) == Some(&0)).then_some(length)
    };
    let name_len = part(text, name)?;
    let (name, rest) = (text.get(..name_len)?, text.get(name_len + 1..)?);
    let value_len = part(rest, value)?;
    Some((name, rest.get(..value_len)?, rest.get(value_len + 1..)?))
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|(name, value)| (widen(name), widen(value))))
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(String, String)>::deserialize(deserializer)?;
        let bytes = |(name, value): &(String, String)| Some((narrow(name)?, narrow(value)?));
        let pairs = pairs.iter().map(bytes).collect::<Option<Vec<_>>>();
        pairs
            .map(Self::from_pairs)
            .ok_or_else(|| serde::de::Error::custom("a field has bytes above U+00FF"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_together_is_no_list_of_fields() {
        let of = |lengths: &[(u32, u32)], text: &[u8]| Headers::of(lengths.to_vec(), text.to_vec());
        let pairs = Headers::from_pairs([("X", "1"), ("y", "")]);
        assert_eq!(of(&[(1, 1), (1, 0)], b"x\x001\0y\0\0"), Some(pairs));
        for (lengths, text) in [
            (&[(1, 1)][..], &b"X\x001\0"[..]),
            (&[(1, 1)], b"x\x001"),
            (&[(1, 1)], b"x\x0012"),
            (&[(1, 1)], b"x:1\0"),
            (&[(1, 1)], b"x\x001\0more"),
            (&[(u32::MAX, u32::MAX)], b"x\x001\0"),
            (&[], b"x"),
        ] {
            assert_eq!(of(lengths, text), None, "{lengths:?} {text:?}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_name() {
        let headers = Headers::from_pairs([("etag", "\"1\""), ("x", "a"), ("x", "b")]);
        assert_eq!(headers.get("x"), Some(b"a".as_slice()));
        assert_eq!(headers.get("y"), None);
    }
}
