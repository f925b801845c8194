//! Optional white space around field values (RFC 9110 §5.6.3).

/// `value` without SP and HTAB at both ends.
pub fn trim(value: &[u8]) -> &[u8] {
    let is_ows = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value
        .iter()
        .position(|byte| !is_ows(byte))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !is_ows(byte))
        .map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}
