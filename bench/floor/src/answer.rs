//! The answer, made ready once.

/// What every request gets.
pub(crate) struct Answer {
    /// First a stand-in, then this in its place; else all at once.
    pub(crate) two_steps: bool,
    /// Header fields as proxy-wasm's list of pairs; with `:status` and `content-length` where it
    /// replaces a whole head.
    pub(crate) head: Vec<u8>,
    /// Content.
    pub(crate) content: Vec<u8>,
}

impl Answer {
    /// Reads the plugin configuration. `None` where it is not one.
    pub(crate) fn read(configuration: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(configuration).ok()?;
        let (head, content) = text.split_once("\n\n")?;
        let mut lines = head.lines();
        let two_steps = match lines.next()? {
            "two-steps" => true,
            "at-once" => false,
            _ => return None,
        };
        let length = content.len().to_string();
        let mut fields = Vec::new();
        if two_steps {
            fields.extend([(":status", "200"), ("content-length", length.as_str())]);
        }
        for line in lines {
            fields.push(line.split_once(": ")?);
        }
        Some(Self {
            two_steps,
            head: pairs(&fields),
            content: content.as_bytes().to_vec(),
        })
    }
}

/// Little-endian: the number of pairs; the lengths of each name and value; then name, NUL, value,
/// NUL of each.
fn pairs(fields: &[(&str, &str)]) -> Vec<u8> {
    let number = |size: usize| u32::try_from(size).unwrap_or(0).to_le_bytes();
    let mut list = number(fields.len()).to_vec();
    for (name, value) in fields {
        list.extend(number(name.len()));
        list.extend(number(value.len()));
    }
    for text in fields.iter().flat_map(|(name, value)| [name, value]) {
        list.extend(text.bytes());
        list.push(0);
    }
    list
}
