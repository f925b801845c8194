//! Header values are bytes, JSON is text: each byte becomes the character of the same number.

/// Text with each byte as the character of the same number, so that any bytes survive JSON.
pub fn widen(bytes: &[u8]) -> String {
    in_ascii(bytes).map_or_else(
        || bytes.iter().map(|&byte| char::from(byte)).collect(),
        str::to_owned,
    )
}

/// The bytes as text, where that needs no other than they are.
pub fn in_ascii(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.is_ascii().then_some(text)
}

/// The bytes that [`widen`] made text of. `None` when a character is above U+00FF.
pub fn narrow(text: &str) -> Option<Vec<u8>> {
    if text.is_ascii() {
        return Some(text.as_bytes().to_vec());
    }
    text.chars()
        .map(|character| u8::try_from(u32::from(character)).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn narrowing_undoes_widening(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(narrow(&widen(&bytes)), Some(bytes));
        }
    }
}
