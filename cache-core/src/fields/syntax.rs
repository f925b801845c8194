//! What lists, quoted strings and tokens look like in fields (RFC 9110 §5.6), and which names
//! concern one connection.

use larder_contract::ows::trim;

/// The members of a comma-separated list, white space trimmed, empty ones left out; a comma inside
/// a quoted string does not separate (RFC 9110 §5.6.1, §5.6.4).
pub fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    split_unquoted(value, b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// `value` with one space behind each comma that separates, as RFC 9110 §5.3 joins lines; `None`
/// when it has that already. Envoy joins lines with a bare comma.
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

/// Whether `name` (in lower case) is a field of one connection, never of a stored response (RFC
/// 9110 §7.6.1, RFC 9111 §3.1). Fields that `Connection` lists are such fields too; see
/// [`super::connection_options`].
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

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
