//! What an entry was selected by.

use bytes::BufMut;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::latin1::{narrow, widen};
use crate::selectors::{Selector, SelectorToken, Selectors};
use crate::wire::{FrameFault, Reader, put_bytes};

/// A name in lower case, and a normalised value.
pub type SelectingField = (Box<[u8]>, Option<Box<[u8]>>);

/// Selecting fields with their normalised values in the request that was answered; `None` where a
/// field was absent (RFC 9111 §4.1). Names are in lower case. In JSON a list of pairs of texts, in
/// which each byte is the character of its number; see [`crate::latin1`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selecting(pub Vec<SelectingField>);

impl Selecting {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0
            .iter()
            .map(|(name, value)| (&**name, value.as_deref()))
    }

    /// As the store compares them.
    pub fn selectors(&self) -> Selectors {
        let selector = |value: Option<&[u8]>| match value {
            Some(value) => Selector::Is(SelectorToken::of(value)),
            None => Selector::Absent,
        };
        self.iter()
            .map(|(name, value)| (widen(name), selector(value)))
            .collect()
    }

    /// Bytes in a frame, without the count.
    pub(super) fn encoded_len(&self) -> usize {
        let value = |value: Option<&[u8]>| value.map_or(1, |value| 5 + value.len());
        self.iter()
            .map(|(name, text)| 4 + name.len() + value(text))
            .sum()
    }

    pub(super) fn write(&self, frame: &mut Vec<u8>) {
        frame.put_u32(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        for (name, value) in self.iter() {
            put_bytes(frame, name);
            frame.put_u8(u8::from(value.is_some()));
            value.iter().for_each(|value| put_bytes(frame, value));
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, FrameFault> {
        let count = reader.u32()?;
        let mut field = || {
            let name = reader.long_bytes()?.into();
            let value = match reader.flag()? {
                true => Some(reader.long_bytes()?.into()),
                false => None,
            };
            Ok((name, value))
        };
        (0..count)
            .map(|_| field())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Serialize for Selecting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts = self
            .iter()
            .map(|(name, value)| (widen(name), value.map(widen)));
        serializer.collect_seq(texts)
    }
}

impl<'de> Deserialize<'de> for Selecting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<(String, Option<String>)>::deserialize(deserializer)?;
        let bytes = |text: &str| narrow(text).map(Vec::into_boxed_slice);
        let field = |(name, value): &(String, Option<String>)| {
            let value = match value {
                Some(value) => Some(bytes(value)?),
                None => None,
            };
            Some((bytes(name)?, value))
        };
        let fields = texts.iter().map(field).collect::<Option<Vec<_>>>();
        fields
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a field has bytes above U+00FF"))
    }
}
