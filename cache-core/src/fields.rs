//! Header fields as a message carries them, and how to read lists in them.
//!
//! What this decides: names compare without case, order and repeats are kept (RFC 9110 §5.2–5.3), list members are
//! split with quoted strings respected (§5.6.1), and which fields concern one connection only (§7.6.1).
//! What it leaves out: what any one field means.

/// Header fields in the order they were received; names in lower case, values as raw bytes.
///
/// All text lies in one buffer, so a set of fields costs two allocations however many fields it has.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// Where one field line lies in the buffer: name, then value right behind it.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u32,
    name_len: u32,
    value_len: u32,
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.lines.len() == other.lines.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl Fields {
    /// No fields, with room for `lines` field lines of `text` bytes in all.
    pub fn with_capacity(lines: usize, text: usize) -> Self {
        Self { text: Vec::with_capacity(text), lines: Vec::with_capacity(lines) }
    }

    /// The fields of `pairs`, in their order.
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut fields = Self::default();
        for (name, value) in pairs {
            fields.append(name.as_ref(), value.as_ref());
        }
        fields
    }

    /// Number of field lines, repeats counted.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no field line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes of all names and values together.
    pub fn text_len(&self) -> usize {
        self.lines.iter().map(|line| (line.name_len + line.value_len) as usize).sum()
    }

    /// Adds a field line at the end. The name is stored in lower case; the value as it is.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let (Ok(start), Ok(name_len), Ok(value_len)) =
            (u32::try_from(self.text.len()), u32::try_from(name.len()), u32::try_from(value.len()))
        else {
            return; // 4 GiB of header text: no host hands us that
        };
        self.text.extend(name.iter().map(u8::to_ascii_lowercase));
        self.text.extend_from_slice(value);
        self.lines.push(Line { start, name_len, value_len });
    }

    /// Removes every line of `name` and adds one with `value` at the end.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes every line of `name`. Returns whether there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let before = self.lines.len();
        self.retain(|line_name, _| !line_name.eq_ignore_ascii_case(name));
        self.lines.len() != before
    }

    /// Keeps the lines for which `keep(name, value)` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let text = &self.text;
        self.lines.retain(|line| {
            let (name, value) = line.read(text);
            keep(name, value)
        });
    }

    /// All lines as `(name, value)`, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| line.read(&self.text))
    }

    /// The value of the first line of `name` (given in lower case).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The values of every line of `name` (given in lower case), in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(line_name, _)| *line_name == name.as_bytes()).map(|(_, value)| value)
    }

    /// Whether there is a line of `name` (given in lower case).
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
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
        let start = self.start as usize;
        let middle = start + self.name_len as usize;
        let end = middle + self.value_len as usize;
        (text.get(start..middle).unwrap_or_default(), text.get(middle..end).unwrap_or_default())
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

/// `value` without optional white space (SP and HTAB) at both ends (RFC 9110 §5.6.3).
pub fn trim(value: &[u8]) -> &[u8] {
    let is_ows = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_ows(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_ows(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
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
    }
}
