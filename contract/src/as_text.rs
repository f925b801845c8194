//! Types that JSON and Redis show as one text.

/// Serialises a type as what its `Display` writes, and reads it back by its `parse`, which takes a
/// `&str` and gives an `Option`; the last argument says what such a text is.
macro_rules! serialise_as_text {
    ($type:ty, $is:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom($is))
            }
        }
    };
}

/// Some bytes that people see as hex digits: read by `parse`, written by `Display` and `Debug`, and
/// serialised so; the last argument says what such a text is.
macro_rules! hex_bytes {
    ($type:ident, $is:literal) => {
        impl $type {
            #[doc = concat!("Reads hex digits: ", $is, ".")]
            pub fn parse(hex_digits: &str) -> Option<Self> {
                let mut bytes = [0; size_of::<$type>()];
                hex::decode_to_slice(hex_digits, &mut bytes).ok()?;
                Some(Self(bytes))
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        $crate::as_text::serialise_as_text!($type, $is);
    };
}

pub(crate) use {hex_bytes, serialise_as_text};
