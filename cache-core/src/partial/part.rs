//! Which part of a representation something is.

use larder_contract::ows::trim;

use crate::fields::Fields;

/// Which part of a representation a stored response holds: `first` and the length of its content
/// say where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Offset of the first byte held.
    pub first: u64,
    /// Length of the whole representation.
    pub complete: u64,
}

/// `Content-Range: bytes 0-4/10` (RFC 9110 §14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte.
    pub first: u64,
    /// Last byte, inclusive.
    pub last: u64,
    /// Length of the whole; `None` when the origin does not know it.
    pub complete: Option<u64>,
}

impl ContentRange {
    /// Reads the field. `None` when it is another unit, unsatisfied (`bytes */10`), or contradicts
    /// itself.
    pub fn of(fields: &Fields) -> Option<Self> {
        let value = std::str::from_utf8(trim(fields.get("content-range")?)).ok()?;
        let (unit, rest) = value.split_once(' ')?;
        let (range, complete) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |digits: &str| {
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| digits.parse().ok())?
        };
        let complete = if complete == "*" {
            None
        } else {
            Some(number(complete)?)
        };
        let (first, last) = (number(first)?, number(last)?);
        let fits = first <= last && complete.is_none_or(|complete| last < complete);
        (unit.eq_ignore_ascii_case("bytes") && fits).then_some(Self {
            first,
            last,
            complete,
        })
    }
}

impl Part {
    /// What `length` bytes of content under this `Content-Range` are. Where the field claims to
    /// reach the end and the content is shorter than that, the content is believed: it is what can
    /// be sent. `None` when that is no part worth keeping.
    pub fn of(claimed: ContentRange, length: u64) -> Option<Self> {
        let complete = claimed.complete?;
        let end = claimed.first.checked_add(length)?;
        let claimed_end = claimed.last.checked_add(1)?;
        if length == 0 || end > claimed_end {
            return None;
        }
        let complete = if claimed_end == complete {
            end
        } else {
            complete
        };
        Some(Self {
            first: claimed.first,
            complete,
        })
    }
}
