//! Whether a name may be there, without reading names.

/// Two small hashes of a name in lower case, worked out once for each line, so that most questions
/// for names that are not there read none. `_` counts as `-` in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameMarks {
    /// Of the whole name: below [`Self::RANGE`].
    pub whole: u16,
    /// Of its first three letters, with which families of names begin: below [`Self::RANGE`].
    pub begin: u16,
}

impl NameMarks {
    /// Marks are smaller than this.
    pub const RANGE: usize = 2048;

    /// The marks of `name`.
    pub const fn of(name: &[u8]) -> Self {
        let (first, last) = match name {
            [] => (0, 0),
            [only] => (*only, *only),
            [first, .., last] => (*first, *last),
        };
        let (_, second_half) = name.split_at(name.len() / 2);
        let middle = match second_half {
            [middle, ..] => *middle,
            [] => 0,
        };
        let whole = (folded(first) * 31) ^ (folded(last) * 7);
        let whole = whole
            .wrapping_add(folded(middle) * 67)
            .wrapping_add((name.len() as u32).wrapping_mul(11));
        let begin = match name {
            [a, b, c, ..] => (folded(*a) * 5)
                .wrapping_add(folded(*b) * 37)
                .wrapping_add(folded(*c) * 101),
            _ => 0,
        };
        let range = Self::RANGE as u32;
        Self {
            whole: (whole % range) as u16,
            begin: (begin % range) as u16,
        }
    }

    /// Where a name leaves its mark in `Fields::names`.
    pub(super) const fn bit(self) -> u64 {
        1 << (self.whole & 63)
    }
}

const fn folded(byte: u8) -> u32 {
    if byte == b'_' {
        b'-' as u32
    } else {
        byte as u32
    }
}

/// Names, in lower case, that are asked for together; see [`super::Fields::contains_any`].
#[derive(Clone, Copy, Debug)]
pub struct NameSet<const N: usize> {
    pub(super) names: [&'static str; N],
    pub(super) bits: u64,
}

impl<const N: usize> NameSet<N> {
    /// The set of `names`.
    pub const fn new(names: [&'static str; N]) -> Self {
        let (mut bits, mut rest) = (0, names.as_slice());
        while let [name, others @ ..] = rest {
            bits |= NameMarks::of(name.as_bytes()).bit();
            rest = others;
        }
        Self { names, bits }
    }
}
