//! The fields and cookies of a request that select although no `Vary` names them, as one
//! pseudo-field.
//!
//! What this decides: a response belongs to the requests with the same such fields and values, byte
//! for byte, for nobody knows what an origin makes of them. Requests without any share one variant.
//! What it leaves out: which fields and cookies these are (`policy::unkeyed`, `policy::key`).

use std::borrow::Cow;

use larder_contract::key::UNKEYED_FIELD;

use crate::fields::Fields;
use crate::policy::key::cookies;
use crate::policy::{Handling, Policy};

/// Adds the pseudo-field to a request that has any of them; once.
pub fn add_pseudo_field(request: &mut Fields, policy: &Policy) {
    let lines = policy.unkeyed_fields.lines(request, Handling::Select);
    let mut lines: Vec<(Cow<'_, [u8]>, &[u8])> = lines
        .map(|(name, value)| (Cow::Borrowed(name), value))
        .collect();
    let keyed = policy.key_cookies();
    if !keyed.is_empty() {
        let cookies = cookies::pairs(request).filter(|(name, _)| cookies::is_among(keyed, name));
        // No field has a colon in its name.
        lines.extend(cookies.map(|(name, value)| (Cow::Owned([b"cookie:", name].concat()), value)));
    }
    if lines.is_empty() || request.contains(UNKEYED_FIELD) {
        return;
    }
    // By name: the order of lines of different names means nothing, that of one name's does (RFC
    // 9110 §5.3).
    lines.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut value = Vec::new();
    for part in lines.iter().flat_map(|(name, value)| [&**name, *value]) {
        value.extend_from_slice(part.len().to_string().as_bytes());
        value.push(b':');
        value.extend_from_slice(part);
    }
    request.append(UNKEYED_FIELD.as_bytes(), &value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(pairs: &[(&str, &str)]) -> Option<String> {
        let mut fields = Fields::from_pairs(pairs.iter().copied());
        for _ in 0..2 {
            add_pseudo_field(&mut fields, &Policy::default());
        }
        assert!(fields.all(UNKEYED_FIELD).count() <= 1);
        fields
            .get(UNKEYED_FIELD)
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_request_without_any_gets_none() {
        assert_eq!(
            value(&[
                ("accept", "*/*"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-request-id", "7")
            ]),
            None
        );
    }

    #[test]
    fn names_are_ordered_and_lines_of_one_name_are_not() {
        let two = value(&[("x-host", "a"), ("forwarded", "host=b")]);
        assert_eq!(two.as_deref(), Some("9:forwarded6:host=b6:x-host1:a"));
        assert_eq!(two, value(&[("forwarded", "host=b"), ("x-host", "a")]));
        assert_ne!(
            value(&[("x-host", "a"), ("x-host", "b")]),
            value(&[("x-host", "b"), ("x-host", "a")])
        );
    }

    #[test]
    fn different_fields_never_have_the_same_value() {
        let different = [
            &[("x-host", "a")][..],
            &[("x-host", "")],
            &[("x-host", "a"), ("x-host", "")],
            &[("x_host", "a")],
            &[("x-host", "a6:x-host0:")],
            &[("x-url", "a")],
        ];
        for (index, one) in different.iter().enumerate() {
            for other in different.iter().skip(index + 1) {
                assert_ne!(value(one), value(other), "{one:?} {other:?}");
            }
        }
    }
}
