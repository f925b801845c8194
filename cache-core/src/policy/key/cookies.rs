//! The cookies of a request one by one (RFC 6265 §4.2.1).
//!
//! What this decides: where one cookie ends and the next begins, and which are left when some count
//! as absent. What it leaves out: which those are.

use larder_contract::ows::trim;

use crate::fields::Fields;
use crate::glob::Glob;

/// The name of the request field.
pub const FIELD: &str = "cookie";

/// The cookies as name and value, in order; one without `=` has no name.
pub fn pairs(fields: &Fields) -> impl Iterator<Item = (&[u8], &[u8])> {
    pieces(fields).map(split)
}

fn pieces(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    fields
        .all(FIELD)
        .flat_map(|line| line.split(|&byte| byte == b';'))
        .map(trim)
        .filter(|piece| !piece.is_empty())
}

fn split(piece: &[u8]) -> (&[u8], &[u8]) {
    match piece.iter().position(|&byte| byte == b'=') {
        Some(at) => {
            let (name, value) = piece.split_at(at);
            (trim(name), value.get(1..).unwrap_or_default())
        }
        None => (b"", piece),
    }
}

/// Whether one of `globs` means a cookie of that name.
pub fn is_among(globs: &[Glob], name: &[u8]) -> bool {
    globs.iter().any(|glob| glob.matches(name))
}

/// The value of the field without the cookies that `ignored` means. `None` where it means none of
/// them, so that the field stays as it is.
pub fn without(fields: &Fields, ignored: &[Glob]) -> Option<Vec<u8>> {
    let is_kept = |piece: &&[u8]| !is_among(ignored, split(piece).0);
    if ignored.is_empty() || pieces(fields).all(|piece| is_kept(&piece)) {
        return None;
    }
    let kept: Vec<&[u8]> = pieces(fields).filter(is_kept).collect();
    Some(kept.join(&b"; "[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(lines: &[&str], ignored: &[&str]) -> Option<String> {
        let fields = Fields::from_pairs(lines.iter().map(|line| (FIELD, *line)));
        let ignored: Vec<Glob> = ignored.iter().map(|text| Glob::new(text)).collect();
        without(&fields, &ignored).map(|left| String::from_utf8(left).unwrap())
    }

    #[test]
    fn cookies_that_count_as_absent_leave_the_others_in_order() {
        for (lines, expected) in [
            (&["_ga=1; sid=2; _gid=3"][..], Some("sid=2")),
            (&["_ga=1", "sid=2"], Some("sid=2")),
            (&["_ga=1; _gid=2"], Some("")),
            (&["sid=2"], None),
            (&["a=_ga=1"], None),
            (&["_ga"], None),
            (&["b=1;_ga=2;a=3"], Some("b=1; a=3")),
        ] {
            let left = left(lines, &["_ga", "_gid"]);
            assert_eq!(left.as_deref(), expected, "{lines:?}");
        }
    }
}
