//! Header fields as a message carries them, and how to read lists in them.
//!
//! What this decides: names compare without case, order and repeats are kept (RFC 9110 §5.2–5.3), list members are
//! split with quoted strings respected (§5.6.1), and which fields concern one connection only (§7.6.1).
//! What it leaves out: what any one field means.

use std::fmt;

use larder_contract::ows::trim;

/// Header fields in the order they were received; names in lower case, values as raw bytes.
///
/// All text lies in one buffer, line by line without a gap, a NUL behind each name and each value: as proxy-wasm hosts
/// hand fields over and want them back. So a message's head is taken over as it is, and written with one copy.
#[derive(Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// One bit for each name present; see [`NameMarks`]. Most questions are for a name that is not there.
    names: u64,
}

/// Where one field line lies in the buffer: name, NUL, value, NUL.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u32,
    name_len: u32,
    value_len: u32,
    marks: NameMarks,
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.lines.len() == other.lines.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes);
        f.debug_list().entries(self.iter().map(|(name, value)| format!("{}: {}", text(name), text(value)))).finish()
    }
}

impl Fields {
    /// No fields.
    pub const NONE: Self = Self { text: Vec::new(), lines: Vec::new(), names: 0 };

    /// No fields, with room for `lines` field lines of `text` bytes in all, two more for each line included.
    pub fn with_capacity(lines: usize, text: usize) -> Self {
        Self { text: Vec::with_capacity(text), lines: Vec::with_capacity(lines), names: 0 }
    }

    /// The fields of `pairs`, in their order.
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut fields = Self::default();
        for (name, value) in pairs {
            fields.append(name.as_ref(), value.as_ref());
        }
        fields
    }

    /// Takes over the text of `count` lines that lies in `buffer` from `start` on as [`Self::text`] gives it, names in lower
    /// case; `lengths` reads those of a line's name and value from the buffer. `None` when one is not to be read or the
    /// text is shorter than they say; what follows it is ignored.
    pub fn from_text(
        buffer: Vec<u8>,
        start: usize,
        count: usize,
        lengths: impl Fn(&[u8], usize) -> Option<(u32, u32)>,
    ) -> Option<Self> {
        let mut fields = Self { text: buffer, lines: Vec::with_capacity(count), names: 0 };
        let mut at = u32::try_from(start).ok()?;
        for line in 0..count {
            let (name_len, value_len) = lengths(&fields.text, line)?;
            let end = at.checked_add(name_len)?.checked_add(value_len)?.checked_add(2)?;
            let marks = NameMarks::of(fields.text.get(at as usize..(at + name_len) as usize)?);
            fields.names |= marks.bit();
            fields.lines.push(Line { start: at, name_len, value_len, marks });
            at = end;
        }
        if fields.text.len() < at as usize {
            return None;
        }
        fields.text.truncate(at as usize);
        Some(fields)
    }

    /// The text of all lines, in order: name, NUL, value, NUL.
    pub fn text(&self) -> &[u8] {
        let start = self.lines.first().map_or(self.text.len(), |line| line.start as usize);
        self.text.get(start..).unwrap_or_default()
    }

    /// The lengths of each line's name and value, in order.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = (u32, u32)> {
        self.lines.iter().map(|line| (line.name_len, line.value_len))
    }

    /// Number of field lines, repeats counted.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no field line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes of all names and values together, two more for each line included.
    pub fn text_len(&self) -> usize {
        self.text().len()
    }

    /// Adds a field line at the end. The name is stored in lower case; the value as it is.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let (Ok(start), Ok(name_len), Ok(value_len)) =
            (u32::try_from(self.text.len()), u32::try_from(name.len()), u32::try_from(value.len()))
        else {
            return; // 4 GiB of header text: no host hands us that
        };
        self.text.reserve(name.len() + value.len() + 2);
        self.text.extend_from_slice(name);
        let mut marks = NameMarks::default();
        if let Some(name) = self.text.get_mut(start as usize..) {
            name.make_ascii_lowercase();
            marks = NameMarks::of(name);
            self.names |= marks.bit();
        }
        self.text.push(0);
        self.text.extend_from_slice(value);
        self.text.push(0);
        self.lines.push(Line { start, name_len, value_len, marks });
    }

    /// Adds a field line whose value `write` appends to the buffer it is given. `name` is in lower case.
    pub fn append_with(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        self.text.push(0);
        let value = self.text.len();
        write(&mut self.text);
        if let (Ok(start), Ok(value_len)) = (u32::try_from(start), u32::try_from(self.text.len().saturating_sub(value)))
        {
            self.text.push(0);
            let marks = NameMarks::of(name.as_bytes());
            self.names |= marks.bit();
            self.lines.push(Line { start, name_len: (value - start as usize - 1) as u32, value_len, marks });
        } else {
            self.text.truncate(start);
        }
    }

    /// Removes every line of `name` and adds one with `value` at the end.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes every line of `name`. Returns whether there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let before = self.lines.len();
        if self.iter().any(|(line_name, _)| line_name.eq_ignore_ascii_case(name)) {
            self.retain(|line_name, _| !line_name.eq_ignore_ascii_case(name));
        }
        self.lines.len() != before
    }

    /// Keeps the lines for which `keep(name, value)` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        // What goes at the front leaves no gap; a response's `:status` does.
        let gone = self.iter().position(|(name, value)| keep(name, value)).unwrap_or(self.lines.len());
        self.lines.drain(..gone);
        if self.iter().all(|(name, value)| keep(name, value)) {
            return;
        }
        let mut kept = Self::with_capacity(self.lines.len(), self.text.len());
        for (name, value) in self.iter().filter(|(name, value)| keep(name, value)) {
            kept.append(name, value);
        }
        *self = kept;
    }

    /// All lines as `(name, value)`, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| line.read(&self.text))
    }

    /// The lines whose names have marks that `may_be` accepts, in order. Much cheaper than reading every name.
    pub fn marked(&self, may_be: impl Fn(NameMarks) -> bool) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().filter(move |line| may_be(line.marks)).map(|line| line.read(&self.text))
    }

    /// The value of the first line of `name` (given in lower case).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The values of every line of `name` (given in lower case), in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all_bytes(name.as_bytes())
    }

    /// As [`Self::all`], for a name that came from outside.
    pub fn all_bytes<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let lines = if self.names & NameMarks::of(name).bit() == 0 { &[] } else { self.lines.as_slice() };
        let named = lines.iter().filter(move |line| line.name_len as usize == name.len());
        named.map(|line| line.read(&self.text)).filter(move |(present, _)| *present == name).map(|(_, value)| value)
    }

    /// Whether there is a line of `name` (given in lower case).
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether `other` has the same lines, whatever the order of the names, leaving out those of `name`.
    pub fn same_but_for(&self, name: &str, other: &Self) -> bool {
        let lines = |fields: &Self| fields.iter().filter(|(known, _)| *known != name.as_bytes()).count();
        lines(self) == lines(other)
            && self
                .iter()
                .all(|(known, _)| known == name.as_bytes() || self.all_bytes(known).eq(other.all_bytes(known)))
    }

    /// Whether there is a line of any of `names`. Nearly free when there is none.
    pub fn contains_any<const N: usize>(&self, names: &NameSet<N>) -> bool {
        self.names & names.bits != 0 && names.names.iter().any(|name| self.contains(name))
    }

    /// The field value of `name` as one list: its lines joined with `, ` (RFC 9110 §5.3). `None` without a line.
    pub fn combined(&self, name: &str) -> Option<Vec<u8>> {
        let mut lines = self.all(name);
        let mut value = lines.next()?.to_vec();
        for line in lines {
            value.extend_from_slice(b", ");
            value.extend_from_slice(line);
        }
        Some(value)
    }

    /// The members of the comma-separated list in every line of `name`; see [`list_members`].
    pub fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name).flat_map(list_members)
    }
}

impl Line {
    fn read<'a>(&self, text: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let name = self.start as usize;
        let value = name + self.name_len as usize + 1;
        let read = |start: usize, len: u32| text.get(start..start + len as usize).unwrap_or_default();
        (read(name, self.name_len), read(value, self.value_len))
    }
}

/// Two small hashes of a name in lower case, worked out once for each line, so that most questions for names that are not
/// there read none. `_` counts as `-` in them.
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
        let whole = whole.wrapping_add(folded(middle) * 67).wrapping_add((name.len() as u32).wrapping_mul(11));
        let begin = match name {
            [a, b, c, ..] => (folded(*a) * 5).wrapping_add(folded(*b) * 37).wrapping_add(folded(*c) * 101),
            _ => 0,
        };
        let range = Self::RANGE as u32;
        Self { whole: (whole % range) as u16, begin: (begin % range) as u16 }
    }

    /// Where a name leaves its mark in [`Fields::names`].
    const fn bit(self) -> u64 {
        1 << (self.whole & 63)
    }
}

const fn folded(byte: u8) -> u32 {
    if byte == b'_' { b'-' as u32 } else { byte as u32 }
}

/// Names, in lower case, that are asked for together; see [`Fields::contains_any`].
#[derive(Clone, Copy, Debug)]
pub struct NameSet<const N: usize> {
    names: [&'static str; N],
    bits: u64,
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

/// The members of a comma-separated list, white space trimmed, empty ones left out; a comma inside a quoted string
/// does not separate (RFC 9110 §5.6.1, §5.6.4).
pub fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    split_unquoted(value, b',').map(trim).filter(|member| !member.is_empty())
}

/// `value` with one space behind each comma that separates, as RFC 9110 §5.3 joins lines; `None` when it has that
/// already. Envoy joins lines with a bare comma.
pub fn respaced(value: &[u8]) -> Option<Vec<u8>> {
    let mut parts = split_unquoted(value, b',');
    let mut spaced = parts.next()?.to_vec();
    for part in parts {
        spaced.push(b',');
        if !matches!(part.first(), Some(b' ' | b'\t')) {
            spaced.push(b' ');
        }
        spaced.extend_from_slice(part);
    }
    (spaced != value).then_some(spaced)
}

/// The parts of `value` between unquoted `separator` bytes, untrimmed.
pub fn split_unquoted(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = value.iter().position(|&byte| {
            if escaped {
                escaped = false;
            } else if quoted && byte == b'\\' {
                escaped = true;
            } else if byte == b'"' {
                quoted = !quoted;
            } else if !quoted && byte == separator {
                return true;
            }
            false
        });
        let part = value.get(..end.unwrap_or(value.len()))?;
        rest = end.and_then(|end| value.get(end + 1..));
        Some(part)
    })
}

/// Whether `name` (in lower case) is a field of one connection, never of a stored response (RFC 9110 §7.6.1,
/// RFC 9111 §3.1). Fields that `Connection` lists are such fields too; see [`connection_options`].
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"keep-alive"
            | b"proxy-authenticate"
            | b"proxy-authentication-info"
            | b"proxy-authorization"
            | b"proxy-connection"
            | b"te"
            | b"trailer"
            | b"transfer-encoding"
            | b"upgrade"
    )
}

/// The field names that `Connection` lists, in lower case (RFC 9110 §7.6.1).
pub fn connection_options(fields: &Fields) -> Vec<Vec<u8>> {
    fields.list("connection").map(<[u8]>::to_ascii_lowercase).collect()
}

/// Whether every name is a token and every value free of CR, LF and NUL, so that writing the fields to a connection
/// cannot split a message (RFC 9110 §5.5). Pseudo-fields, which begin with `:`, are not tokens.
pub fn are_safe_to_emit(fields: &Fields) -> bool {
    fields.iter().all(|(name, value)| is_token(name) && !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)))
}

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(value: &str) -> Vec<&str> {
        list_members(value.as_bytes()).map(|member| std::str::from_utf8(member).unwrap()).collect()
    }

    #[test]
    fn the_same_lines_are_told_whatever_the_order_of_names() {
        let fields = |pairs: &[(&str, &str)]| Fields::from_pairs(pairs.iter().copied());
        let one = fields(&[("a", "1"), ("b", "2"), ("a", "3"), ("date", "x")]);
        assert!(one.same_but_for("date", &fields(&[("b", "2"), ("date", "y"), ("date", "z"), ("a", "1"), ("a", "3")])));
        assert!(!one.same_but_for("date", &fields(&[("b", "2"), ("a", "3"), ("a", "1")])), "an order within a name");
        assert!(!one.same_but_for("date", &fields(&[("a", "1"), ("a", "3"), ("b", "2"), ("c", "4")])));
        assert!(!one.same_but_for("date", &fields(&[("a", "1"), ("a", "3"), ("c", "2")])));
    }

    #[test]
    fn a_list_is_split_at_commas_outside_quoted_strings() {
        for (value, expected) in [
            ("a, b ,c", vec!["a", "b", "c"]),
            (", ,a,,", vec!["a"]),
            (r#"ext="x, no-store, y", max-age=60"#, vec![r#"ext="x, no-store, y""#, "max-age=60"]),
            (r#"a="\",b", c"#, vec![r#"a="\",b""#, "c"]),
            (r#"a="unclosed, b"#, vec![r#"a="unclosed, b"#]),
            ("", vec![]),
        ] {
            assert_eq!(members(value), expected, "{value}");
        }
    }

    #[test]
    fn joined_lines_get_their_space_back() {
        assert_eq!(respaced(b"max-age=1,s-maxage=2, x").unwrap(), b"max-age=1, s-maxage=2, x");
        for fine in ["", "max-age=1", "a, b", "a,\tb", "private=\"a,b\""] {
            assert_eq!(respaced(fine.as_bytes()), None, "{fine}");
        }
    }

    #[test]
    fn names_lose_their_case_and_lines_keep_their_order_and_repeats() {
        let fields = Fields::from_pairs([("Link", "a"), ("ETag", "\"x\""), ("link", "b")]);
        assert_eq!(fields.all("link").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(fields.combined("link").unwrap(), b"a, b");
        assert_eq!(fields.get("etag"), Some(&b"\"x\""[..]));
    }

    #[test]
    fn setting_a_field_replaces_all_its_lines() {
        let mut fields = Fields::from_pairs([("a", "1"), ("b", "2"), ("a", "3")]);
        fields.set(b"A", b"4");
        assert_eq!(fields, Fields::from_pairs([("b", "2"), ("a", "4")]));
    }

    #[test]
    fn a_line_break_or_a_nul_in_a_value_is_not_safe_to_emit() {
        for bad in ["a\r\nset-cookie: x", "a\nb", "a\rb", "a\0b"] {
            assert!(!are_safe_to_emit(&Fields::from_pairs([("x", bad)])), "{bad:?}");
        }
        for bad in ["", "a b", "a:b", ":status", "a\r"] {
            assert!(!are_safe_to_emit(&Fields::from_pairs([(bad, "v")])), "{bad:?}");
        }
        assert!(are_safe_to_emit(&Fields::from_pairs([("x", &b"caf\xe9 \t"[..])])));
    }

    proptest! {
        #[test]
        fn splitting_loses_no_byte(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            let parts: Vec<&[u8]> = split_unquoted(&value, b',').collect();
            prop_assert_eq!(parts.join(&b','), value);
        }

        #[test]
        fn what_is_appended_is_read_back(pairs in proptest::collection::vec(("[a-z]{1,8}", ".*"), 0..8)) {
            let fields = Fields::from_pairs(pairs.clone());
            let read: Vec<_> = fields.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            let given: Vec<_> = pairs.into_iter().map(|(n, v)| (n.into_bytes(), v.into_bytes())).collect();
            prop_assert_eq!(read, given);
        }

        #[test]
        fn text_and_lengths_are_taken_over_as_they_were_given(
            pairs in proptest::collection::vec(("[a-z:-]{0,8}", ".*"), 0..8), junk in 0usize..9, cut in 1usize..20,
        ) {
            let fields = Fields::from_pairs(pairs);
            let mut buffer = vec![b'?'; junk];
            buffer.extend_from_slice(fields.text());
            let lengths: Vec<_> = fields.lengths().collect();
            let length = |_: &[u8], line: usize| lengths.get(line).copied();
            let taken = Fields::from_text(buffer.clone(), junk, lengths.len(), length).unwrap();
            prop_assert_eq!(&taken, &fields);
            prop_assert_eq!(taken.text(), fields.text());
            if !fields.is_empty() {
                buffer.truncate(buffer.len().saturating_sub(cut));
                prop_assert!(Fields::from_text(buffer, junk, lengths.len(), length).is_none());
            }
        }

        #[test]
        fn a_name_is_found_exactly_where_it_is(
            pairs in proptest::collection::vec(("[a-c]{1,3}", "[a-z]?"), 0..8), name in "[a-c]{1,3}",
        ) {
            let mut fields = Fields::from_pairs(pairs.clone());
            let held = pairs.iter().filter(|(held, _)| *held == name).count();
            prop_assert_eq!(fields.all(&name).count(), held);
            prop_assert_eq!(fields.remove(name.as_bytes()), held > 0);
            prop_assert_eq!(fields.len(), pairs.len() - held);
            prop_assert!(!fields.contains(&name));
        }
    }
}
