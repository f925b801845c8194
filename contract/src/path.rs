//! One spelling for each path and query, so that a request, a purge and an invalidation of one
//! resource meet.
//!
//! What this decides: that the hex digits of a percent-encoding have no case (RFC 3986 §6.2.2.1),
//! and what Envoy makes of a path before the cache sees it. What it leaves out: doubled slashes and
//! `%2F`, which Envoy keeps as they are (`merge_slashes: false`, `KEEP_UNCHANGED`), and the order
//! of a query.

use std::borrow::Cow;

/// Path and query of a request with the hex digits of percent-encodings in upper case (RFC 3986
/// §6.2.2.1). All else that is equivalent has met in Envoy already. Allocates only for what is
/// spelled otherwise.
pub fn canonical_path(path: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = path.iter().position(|&byte| byte == b'%') else {
        return Cow::Borrowed(path);
    };
    let mut spelled = Cow::Borrowed(path);
    let mut at = first;
    while at < path.len() {
        let Some(&[b'%', high, low]) = path.get(at..at + 3) else {
            at += 1;
            continue;
        };
        if !(high.is_ascii_hexdigit() && low.is_ascii_hexdigit()) {
            at += 1;
            continue;
        }
        if (high.is_ascii_lowercase() || low.is_ascii_lowercase())
            && let Some(escape) = spelled.to_mut().get_mut(at..at + 3)
        {
            escape.make_ascii_uppercase();
        }
        at += 3;
    }
    spelled
}

/// Path and query as they stand in a URL, in the spelling that a request for them has behind
/// Envoy's `normalize_path`: backslashes are slashes, unreserved characters are decoded, characters
/// that no path may have are encoded, and dot segments are gone (RFC 3986 §6.2.2). The query keeps
/// all but the case of its hex digits. An empty path is `/`.
pub fn path_as_requested(path: &[u8]) -> Vec<u8> {
    let question_mark = path
        .iter()
        .position(|&byte| byte == b'?')
        .unwrap_or(path.len());
    let (path, query) = path.split_at(question_mark);
    let mut spelled = without_dot_segments(&with_unreserved_decoded(path));
    for &byte in query {
        if byte.is_ascii_graphic() {
            spelled.push(byte)
        } else {
            append_encoded(&mut spelled, byte)
        }
    }
    canonical_path(&spelled).into_owned()
}

fn with_unreserved_decoded(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    // Where a `%` stands that encodes nothing.
    let mut stray = None;
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', &[high, low, ref behind @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest = behind;
                match digit(high) << 4 | digit(low) {
                    plain if is_unreserved(plain) => decoded.push(plain),
                    _ => decoded.extend([b'%', high, low]),
                }
            }
            (b'%', _) => {
                stray = Some(decoded.len());
                decoded.push(b'%');
            }
            (b'\\', _) => decoded.push(b'/'),
            (b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}', _) => {
                append_encoded(&mut decoded, byte)
            }
            _ if byte.is_ascii_graphic() => decoded.push(byte),
            _ => append_encoded(&mut decoded, byte),
        }
        // What was decoded behind it must not make it encode something.
        if let Some(at) = stray
            && let Some([high, low]) = decoded.get(at + 1..)
            && high.is_ascii_hexdigit()
            && low.is_ascii_hexdigit()
        {
            decoded.splice(at + 1..at + 1, *b"25");
            stray = None;
        }
    }
    decoded
}

/// RFC 3986 §5.2.4. Envoy takes `..;x` for `..`, as some servers do.
fn without_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path
        .strip_prefix(b"/")
        .unwrap_or(path)
        .split(|&byte| byte == b'/')
    {
        let name = segment
            .split(|&byte| byte == b';')
            .next()
            .unwrap_or_default();
        ends_in_folder = matches!(name, b"." | b"..");
        if name == b".." {
            kept.pop();
        } else if !ends_in_folder {
            kept.push(segment);
        }
    }
    if ends_in_folder {
        kept.push(b"");
    }
    [b"/", kept.join(&b'/').as_slice()].concat()
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The value of a hex digit.
fn digit(hex_digit: u8) -> u8 {
    if hex_digit.is_ascii_digit() {
        hex_digit - b'0'
    } else {
        hex_digit.to_ascii_uppercase() - b'A' + 10
    }
}

fn append_encoded(text: &mut Vec<u8>, byte: u8) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or_default();
    text.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn requested(path: &str) -> String {
        String::from_utf8(path_as_requested(path.as_bytes())).unwrap()
    }

    fn canonical(path: &str) -> String {
        String::from_utf8(canonical_path(path.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn hex_digits_have_one_case_and_nothing_else_changes() {
        for (spelled, expected) in [
            ("/%c3%a9?q=%e2%82%aC", "/%C3%A9?q=%E2%82%AC"),
            ("/%2f%zz%a%%e", "/%2F%zz%a%%e"),
            ("/%%aa%25aa", "/%%AA%25aa"),
            ("/a%4", "/a%4"),
            ("/abc?d=e", "/abc?d=e"),
        ] {
            assert_eq!(canonical(spelled), expected);
        }
        assert!(
            matches!(canonical_path(b"/a%C3?b"), Cow::Borrowed(_)),
            "nothing to allocate for"
        );
    }

    /// The right side is what an origin behind Envoy 1.40.0 with `envoy/envoy.yaml` was asked for.
    #[test]
    fn a_url_gets_the_path_that_envoy_makes_of_it() {
        for (spelled, expected) in [
            ("", "/"),
            ("?x", "/?x"),
            ("/?", "/?"),
            ("/%61%41%5a%7E%2d%2E%5F%30", "/aAZ~-._0"),
            ("/a/../b", "/b"),
            ("/a/./b/.", "/a/b/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e", "/"),
            ("/../../b", "/b"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/a/b//../../c", "/a/c"),
            ("//a/..", "//"),
            ("/q/..//x", "//x"),
            ("/a/..;x/b", "/b"),
            ("/a/.;/b", "/a/b"),
            ("/a;x/..%3b/b", "/a;x/..%3B/b"),
            ("/a\\..\\b", "/b"),
            ("/a%5c..%5cb", "/a%5C..%5Cb"),
            ("/a%2fb/%2e%2e%2fc", "/a%2Fb/..%2Fc"),
            ("/a/.../.b/..c", "/a/.../.b/..c"),
            ("/%2561/%252e", "/%2561/%252e"),
            ("/%zz/%/%4", "/%zz/%/%4"),
            ("/%%61", "/%a"),
            ("/%%36%31", "/%2561"),
            ("/%2%35", "/%2525"),
            ("/{|}^`\"<>[]", "/%7B%7C%7D%5E%60%22%3C%3E[]"),
            ("/!'()*;,@:$&=+%21%27", "/!'()*;,@:$&=+%21%27"),
            ("/\u{e9} x?\u{e9} {", "/%C3%A9%20x?%C3%A9%20{"),
            ("/a?b=%c3%61/../c//\\", "/a?b=%C3%61/../c//\\"),
        ] {
            assert_eq!(requested(spelled), expected, "{spelled}");
        }
    }

    #[test]
    fn what_is_another_resource_stays_apart() {
        for (one, other) in [
            ("/a%2fb", "/a/b"),
            ("/%2561", "/a"),
            ("/%25", "/%"),
            ("/a%3fb", "/a?b"),
            ("/a%23b", "/a"),
            ("/a%3bb", "/a;b"),
            ("/a//b", "/a/b"),
            ("/a/", "/a"),
            ("/A", "/a"),
            ("/?", "/"),
            ("/?%61", "/?a"),
        ] {
            assert_ne!(requested(one), requested(other), "{one}");
            assert_ne!(canonical(one), canonical(other), "{one}");
        }
    }

    /// A path out of what matters to its spelling.
    const ODD: &str =
        "/([a%2f5cE.;/\\\\{\u{e9}]|%2e|%61|%c3|%25|%2F|\\.\\./){0,12}(\\?[a%c3/.]{0,4})?";

    proptest! {
        #[test]
        fn a_canonical_path_stays_as_it_is(path in ODD) {
            let once = canonical(&path);
            prop_assert_eq!(canonical(&once), once);
            let once = requested(&path);
            prop_assert_eq!(canonical(&once), once.clone());
            prop_assert_eq!(requested(&once), once);
        }

        #[test]
        fn the_case_of_hex_digits_never_counts(bytes in proptest::collection::vec(any::<u8>(), 0..9)) {
            let spelled = |digits: fn(u8) -> String| bytes.iter().map(|&byte| digits(byte)).collect::<String>();
            let (lower, upper) = (spelled(|byte| format!("%{byte:02x}")), spelled(|byte| format!("%{byte:02X}")));
            prop_assert_eq!(canonical(&lower), upper.clone());
            prop_assert_eq!(requested(&lower), requested(&upper));
        }

        #[test]
        fn different_bytes_of_a_name_stay_different(a in "[a-z%/?. é]{0,5}", b in "[a-z%/?. é]{0,5}") {
            let encoded = |name: &str| name.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
            let path = |name: &str| requested(&format!("/x{}", encoded(name)));
            prop_assert_eq!(path(&a) == path(&b), a == b);
        }
    }
}
