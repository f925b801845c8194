//! Header fields as a message carries them, and how to read lists in them.
//!
//! What this decides: names compare without case, order and repeats are kept (RFC 9110 §5.2–5.3),
//! list members are split with quoted strings respected (§5.6.1), and which fields concern one
//! connection only (§7.6.1). What it leaves out: what any one field means.

use std::fmt;

mod marks;
mod syntax;

pub use marks::{NameMarks, NameSet};
pub use syntax::{is_hop_by_hop, is_token, list_members, respaced, split_unquoted};

/// Header fields in the order they were received; names in lower case, values as raw bytes.
///
/// All text lies in one buffer, line by line without a gap, a NUL behind each name and each value:
/// as proxy-wasm hosts hand fields over and want them back. So a message's head is taken over as it
/// is, and written with one copy.
#[derive(Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// One bit for each name present; see [`NameMarks`]. Most questions are for a name that is not
    /// there.
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
        f.debug_list()
            .entries(
                self.iter()
                    .map(|(name, value)| format!("{}: {}", text(name), text(value))),
            )
            .finish()
    }
}

impl Fields {
    /// No fields.
    pub const NONE: Self = Self {
        text: Vec::new(),
        lines: Vec::new(),
        names: 0,
    };

    /// No fields, with room for `lines` field lines of `text` bytes in all, two more for each line
    /// included.
    pub fn with_capacity(lines: usize, text: usize) -> Self {
        Self {
            text: Vec::with_capacity(text),
            lines: Vec::with_capacity(lines),
            names: 0,
        }
    }

    /// The fields of `pairs`, in their order.
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut fields = Self::default();
        for (name, value) in pairs {
            fields.append(name.as_ref(), value.as_ref());
        }
        fields
    }

    /// Takes over the text of `count` lines that lies in `buffer` from `start` on as [`Self::text`]
    /// gives it, names in lower case; `lengths` reads those of a line's name and value from the
    /// buffer. `None` when one is not to be read or the text is shorter than they say; what follows
    /// it is ignored.
    pub fn from_text(
        buffer: Vec<u8>,
        start: usize,
        count: usize,
        lengths: impl Fn(&[u8], usize) -> Option<(u32, u32)>,
    ) -> Option<Self> {
        let mut fields = Self {
            text: buffer,
            lines: Vec::with_capacity(count),
            names: 0,
        };
        let mut at = u32::try_from(start).ok()?;
        for line in 0..count {
            let (name_len, value_len) = lengths(&fields.text, line)?;
            let end = at
                .checked_add(name_len)?
                .checked_add(value_len)?
                .checked_add(2)?;
            let marks = NameMarks::of(fields.text.get(at as usize..(at + name_len) as usize)?);
            fields.names |= marks.bit();
            fields.lines.push(Line {
                start: at,
                name_len,
                value_len,
                marks,
            });
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
        let start = self
            .lines
            .first()
            .map_or(self.text.len(), |line| line.start as usize);
        self.text.get(start..).unwrap_or_default()
    }

    /// The lengths of each line's name and value, in order.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = (u32, u32)> {
        self.lines
            .iter()
            .map(|line| (line.name_len, line.value_len))
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
        let (Ok(start), Ok(name_len), Ok(value_len)) = (
            u32::try_from(self.text.len()),
            u32::try_from(name.len()),
            u32::try_from(value.len()),
        ) else {
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
        self.lines.push(Line {
            start,
            name_len,
            value_len,
            marks,
        });
    }

    /// Adds a field line whose value `write` appends to the buffer it is given. `name` is in lower
    /// case.
    pub fn append_with(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        self.text.extend_from_slice(name.as_bytes());
        self.text.push(0);
        let value = self.text.len();
        write(&mut self.text);
        if let (Ok(start), Ok(value_len)) = (
            u32::try_from(start),
            u32::try_from(self.text.len().saturating_sub(value)),
        ) {
            self.text.push(0);
            let marks = NameMarks::of(name.as_bytes());
            self.names |= marks.bit();
            self.lines.push(Line {
                start,
                name_len: (value - start as usize - 1) as u32,
                value_len,
                marks,
            });
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
        if self
            .iter()
            .any(|(line_name, _)| line_name.eq_ignore_ascii_case(name))
        {
            self.retain(|line_name, _| !line_name.eq_ignore_ascii_case(name));
        }
        self.lines.len() != before
    }

    /// Keeps the lines for which `keep(name, value)` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        // What goes at the front leaves no gap; a response's `:status` does.
        let gone = self
            .iter()
            .position(|(name, value)| keep(name, value))
            .unwrap_or(self.lines.len());
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

    /// Of each name the first line as `(name, value)`, in order, and whether more lines follow.
    pub fn firsts(&self) -> impl Iterator<Item = (&[u8], &[u8], bool)> {
        self.lines.iter().enumerate().filter_map(|(at, line)| {
            let (name, value) = line.read(&self.text);
            let has_the_same = |other: &Line| {
                other.marks == line.marks
                    && other.name_len == line.name_len
                    && other.read(&self.text).0 == name
            };
            let (before, rest) = self.lines.split_at_checked(at)?;
            let is_first = !before.iter().any(has_the_same);
            is_first.then(|| (name, value, rest.iter().skip(1).any(has_the_same)))
        })
    }

    /// The lines whose names have marks that `may_be` accepts, in order. Much cheaper than reading
    /// every name.
    pub fn marked(
        &self,
        may_be: impl Fn(NameMarks) -> bool,
    ) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines
            .iter()
            .filter(move |line| may_be(line.marks))
            .map(|line| line.read(&self.text))
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
        let lines = if self.names & NameMarks::of(name).bit() == 0 {
            &[]
        } else {
            self.lines.as_slice()
        };
        let named = lines
            .iter()
            .filter(move |line| line.name_len as usize == name.len());
        named
            .map(|line| line.read(&self.text))
            .filter(move |(present, _)| *present == name)
            .map(|(_, value)| value)
    }

    /// Whether there is a line of `name` (given in lower case).
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether `other` has the same lines, whatever the order of the names, leaving out those of
    /// `name`.
    pub fn same_but_for(&self, name: &str, other: &Self) -> bool {
        let lines = |fields: &Self| {
            fields
                .iter()
                .filter(|(known, _)| *known != name.as_bytes())
                .count()
        };
        lines(self) == lines(other)
            && self.iter().all(|(known, _)| {
                known == name.as_bytes() || self.all_bytes(known).eq(other.all_bytes(known))
            })
    }

    /// Whether there is a line of any of `names`. Nearly free when there is none.
    pub fn contains_any<const N: usize>(&self, names: &NameSet<N>) -> bool {
        self.names & names.bits != 0 && names.names.iter().any(|name| self.contains(name))
    }

    /// The field value of `name` as one list: its lines joined with `, ` (RFC 9110 §5.3). `None`
    /// without a line.
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
        let read =
            |start: usize, len: u32| text.get(start..start + len as usize).unwrap_or_default();
        (read(name, self.name_len), read(value, self.value_len))
    }
}

/// The field names that `Connection` lists, in lower case (RFC 9110 §7.6.1).
pub fn connection_options(fields: &Fields) -> Vec<Vec<u8>> {
    fields
        .list("connection")
        .map(<[u8]>::to_ascii_lowercase)
        .collect()
}

/// Whether every name is a token and every value free of CR, LF and NUL, so that writing the fields
/// to a connection cannot split a message (RFC 9110 §5.5). Pseudo-fields, which begin with `:`, are
/// not tokens.
pub fn are_safe_to_emit(fields: &Fields) -> bool {
    fields.iter().all(|(name, value)| {
        is_token(name) && !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
    })
}

#[cfg(test)]
mod tests;
