//! Proxy-wasm's list of pairs: how a host hands header fields over and wants them back.
//!
//! Little-endian: the number of pairs; for each the lengths of its name and its value; then the
//! text, name, NUL, value, NUL. [`Fields`] keeps its text just so: reading takes the host's buffer
//! over, writing is a copy for each part.

use larder_cache_core::fields::Fields;

/// More pairs than any host lets through, and what a count from outside may make us reserve.
const MAX_PAIRS: usize = 4096;

/// Reads a host's list. `None` when it cannot be one.
pub fn read(bytes: Vec<u8>) -> Option<Fields> {
    if bytes.is_empty() {
        return Some(Fields::default());
    }
    let count = number(&bytes, 0)? as usize;
    if count > MAX_PAIRS {
        return None;
    }
    let lengths = |bytes: &[u8], pair: usize| {
        Some((number(bytes, 4 + pair * 8)?, number(bytes, 8 + pair * 8)?))
    };
    Fields::from_text(bytes, 4 + count * 8, count, lengths)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Writes the fields of all `parts`, one behind the other, in place of what `list` held.
pub fn write(parts: &[&Fields], list: &mut Vec<u8>) {
    let count: usize = parts.iter().map(|part| part.len()).sum();
    list.clear();
    list.reserve(4 + count * 8 + parts.iter().map(|part| part.text_len()).sum::<usize>());
    list.extend_from_slice(&u32::try_from(count).unwrap_or(0).to_le_bytes());
    for (name, value) in parts.iter().flat_map(|part| part.lengths()) {
        list.extend_from_slice(&(u64::from(name) | u64::from(value) << 32).to_le_bytes());
    }
    for part in parts {
        list.extend_from_slice(part.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_written_as_proxy_wasm_says() {
        let mut list = vec![9; 3];
        write(
            &[
                &Fields::from_pairs([("a", "xy")]),
                &Fields::from_pairs([("bc", "")]),
            ],
            &mut list,
        );
        assert_eq!(
            list,
            b"\x02\0\0\0\x01\0\0\0\x02\0\0\0\x02\0\0\0\0\0\0\0a\0xy\0bc\0\0"
        );
    }

    #[test]
    fn nothing_is_an_empty_list() {
        assert!(read(Vec::new()).unwrap().is_empty());
        assert!(read(vec![0; 4]).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(pairs in proptest::collection::vec(("[a-z]{0,8}", ".*"), 0..8), at in 0usize..8) {
            let at = at.min(pairs.len());
            let (first, second) = (Fields::from_pairs(pairs_of(&pairs[..at])), Fields::from_pairs(pairs_of(&pairs[at..])));
            let mut list = Vec::new();
            write(&[&first, &second], &mut list);
            prop_assert_eq!(read(list).unwrap(), Fields::from_pairs(pairs_of(&pairs)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(bytes);
        }

        #[test]
        fn a_list_cut_short_is_refused(pairs in proptest::collection::vec(("[a-z]{1,8}", ".*"), 1..8), cut in 1usize..99) {
            let mut list = Vec::new();
            write(&[&Fields::from_pairs(pairs_of(&pairs))], &mut list);
            let left = list.len().saturating_sub(cut).max(1);
            list.truncate(left);
            prop_assert!(read(list).is_none());
        }
    }

    fn pairs_of(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
        pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
}
