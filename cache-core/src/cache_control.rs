//! `Cache-Control`, its targeted relatives, and `Pragma` (RFC 9111 §5.2, §5.4; RFC 9213; RFC 5861).
//!
//! What this decides: how directives are read: names without case, arguments as tokens or quoted strings, repeats and
//! contradictions resolved towards less caching. What it leaves out: what a directive entails.

use larder_contract::http_time::DeltaSeconds;
use larder_contract::ows::trim;

use crate::fields::{Fields, list_members};
use crate::policy::Policy;

/// How far `no-cache` or `private` reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FieldScope {
    /// Not said.
    #[default]
    Absent,
    /// The whole response.
    Whole,
    /// Only these fields, in lower case (RFC 9111 §5.2.2.4, §5.2.2.7).
    Fields(Vec<Vec<u8>>),
}

/// A response's directives (RFC 9111 §5.2.2), those that the cache heeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the directive of its name")]
pub struct ResponseDirectives {
    pub no_store: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub no_cache: FieldScope,
    pub private: FieldScope,
    pub max_age: Option<DeltaSeconds>,
    pub s_maxage: Option<DeltaSeconds>,
    pub stale_while_revalidate: Option<DeltaSeconds>,
    pub stale_if_error: Option<DeltaSeconds>,
    /// Read from a targeted field, which speaks instead of `Cache-Control` and `Expires` (RFC 9213 §2.1).
    pub targeted: bool,
}

impl ResponseDirectives {
    /// Reads the first valid targeted field of the policy's list, else `Cache-Control`.
    pub fn of(fields: &Fields, policy: &Policy) -> Self {
        let targeted = policy.targeted_fields.iter().find_map(|name| Self::of_targeted(fields, name));
        targeted.unwrap_or_else(|| {
            let mut directives = Self::default();
            for (name, argument) in fields.list("cache-control").map(split_directive) {
                directives.add(&name, argument.as_deref());
            }
            directives
        })
    }

    /// RFC 9213 §2.1: a structured dictionary. One that does not parse, is empty, or has only members of the wrong type
    /// is ignored, and the next field speaks.
    fn of_targeted(fields: &Fields, name: &str) -> Option<Self> {
        use sfv::{BareItem, Dictionary, ListEntry, Parser};
        let mut value = fields.combined(name)?;
        if !name.ends_with("cache-control") {
            // Surrogate-Control is older than RFC 9213, and its names have no case.
            value.make_ascii_lowercase();
        }
        let dictionary: Dictionary = Parser::new(&value).parse().ok()?;
        if dictionary.is_empty() {
            return None;
        }
        let mut directives = Self { targeted: true, ..Self::default() };
        let mut heeded = false;
        for (key, member) in &dictionary {
            let name = key.as_str().as_bytes();
            let item = if let ListEntry::Item(item) = member { Some(&item.bare_item) } else { None };
            let argument = match item {
                Some(BareItem::Boolean(false)) => continue,
                Some(BareItem::Integer(number)) => Some(i64::from(*number).to_string()),
                // A lifetime that is no number says nothing; a prohibition holds whatever stands behind it.
                _ if is_lifetime(name) => continue,
                Some(BareItem::String(text)) => Some(text.as_str().to_owned()),
                Some(BareItem::Token(text)) => Some(text.as_str().to_owned()),
                _ => None,
            };
            directives.add(name, argument.as_deref().map(str::as_bytes));
            heeded = true;
        }
        heeded.then_some(directives)
    }

    fn add(&mut self, name: &[u8], argument: Option<&[u8]>) {
        match name {
            b"no-store" => self.no_store = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"no-cache" => self.no_cache.widen(argument),
            b"private" => self.private.widen(argument),
            b"max-age" => shorten(&mut self.max_age, argument),
            b"s-maxage" => shorten(&mut self.s_maxage, argument),
            b"stale-while-revalidate" => shorten(&mut self.stale_while_revalidate, argument),
            b"stale-if-error" => shorten(&mut self.stale_if_error, argument),
            _ => {}
        }
    }

    /// Whether the response is for everybody in so many words, even where its request carried credentials: `public` or
    /// `s-maxage` (RFC 9111 §5.2.2.9, §5.2.2.10).
    pub fn is_explicitly_public(&self) -> bool {
        self.public || self.s_maxage.is_some()
    }

    /// Whether it may be stored although its request carried credentials (RFC 9111 §3.5). The RFC takes
    /// `must-revalidate` for a permission too; where a policy asks for explicit words, it is none: frameworks send it
    /// with personal pages.
    pub fn allows_authorization(&self, policy: &Policy) -> bool {
        self.is_explicitly_public() || (policy.reuse_with_authorization && self.must_revalidate)
    }
}

fn is_lifetime(name: &[u8]) -> bool {
    matches!(name, b"max-age" | b"s-maxage" | b"stale-while-revalidate" | b"stale-if-error")
}

impl FieldScope {
    /// Unqualified wins over qualified: it forbids more.
    fn widen(&mut self, argument: Option<&[u8]>) {
        let names: Vec<Vec<u8>> =
            argument.map(|list| list_members(list).map(<[u8]>::to_ascii_lowercase).collect()).unwrap_or_default();
        match self {
            Self::Whole => {}
            _ if names.is_empty() => *self = Self::Whole,
            Self::Absent => *self = Self::Fields(names),
            Self::Fields(known) => known.extend(names),
        }
    }

    /// The fields it is restricted to.
    pub fn fields(&self) -> &[Vec<u8>] {
        if let Self::Fields(names) = self { names } else { &[] }
    }
}

/// A request's directives (RFC 9111 §5.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the directive of its name")]
pub struct RequestDirectives {
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
    pub max_age: Option<DeltaSeconds>,
    pub min_fresh: Option<DeltaSeconds>,
    /// `Some(None)`: any staleness will do.
    pub max_stale: Option<Option<DeltaSeconds>>,
    pub stale_if_error: Option<DeltaSeconds>,
}

impl RequestDirectives {
    /// Reads `Cache-Control`; `Pragma: no-cache` counts only where there is none (RFC 9111 §5.4). Only directives among
    /// `honoured` count.
    pub fn of(fields: &Fields, honoured: &[String]) -> Self {
        let counts = |name: &[u8]| honoured.iter().any(|known| known.as_bytes() == name);
        let mut directives = Self::default();
        for (name, argument) in fields.list("cache-control").map(split_directive) {
            let argument = argument.as_deref();
            match name.as_slice() {
                _ if !counts(&name) => {}
                b"no-cache" => directives.no_cache = true,
                b"no-store" => directives.no_store = true,
                b"only-if-cached" => directives.only_if_cached = true,
                b"max-age" => shorten(&mut directives.max_age, argument),
                b"min-fresh" => directives.min_fresh = argument.and_then(DeltaSeconds::parse),
                b"max-stale" => directives.max_stale = Some(argument.and_then(DeltaSeconds::parse)),
                b"stale-if-error" => shorten(&mut directives.stale_if_error, argument),
                _ => {}
            }
        }
        if counts(b"pragma") && !fields.contains("cache-control") {
            directives.no_cache = fields.list("pragma").any(|member| member.eq_ignore_ascii_case(b"no-cache"));
        }
        directives
    }
}

/// RFC 9111 §4.2.1: an invalid lifetime means stale; of several the shortest counts.
fn shorten(slot: &mut Option<DeltaSeconds>, argument: Option<&[u8]>) {
    let secs = argument.and_then(DeltaSeconds::parse).unwrap_or_default();
    *slot = Some(slot.map_or(secs, |known| known.min(secs)));
}

/// Name in lower case, and the argument with its quotes taken off.
fn split_directive(directive: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut parts = directive.splitn(2, |&byte| byte == b'=');
    let name = trim(parts.next().unwrap_or_default()).to_ascii_lowercase();
    // RFC 9111 §5.2: no white space around "="; where there is some, the argument is not a number and counts as invalid.
    (name, parts.next().map(unquote))
}

fn unquote(argument: &[u8]) -> Vec<u8> {
    let Some(inner) = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return argument.to_vec();
    };
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        let literal = if byte == b'\\' { bytes.next().copied() } else { Some(byte) };
        text.extend(literal);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response(value: &str) -> ResponseDirectives {
        ResponseDirectives::of(&Fields::from_pairs([("cache-control", value)]), &Policy::default())
    }

    fn secs(secs: u64) -> Option<DeltaSeconds> {
        Some(DeltaSeconds::new(secs))
    }

    fn all() -> Vec<String> {
        Policy::REQUEST_DIRECTIVES.map(str::to_owned).to_vec()
    }

    #[test]
    fn a_targeted_member_of_the_wrong_type_says_nothing_unless_it_forbids() {
        let of = |value: &str| {
            let fields = Fields::from_pairs([("cdn-cache-control", value), ("cache-control", "max-age=1")]);
            let directives = ResponseDirectives::of(&fields, &Policy::default());
            (directives.targeted, directives.max_age.map(DeltaSeconds::as_secs), directives.no_store)
        };
        for (value, expected) in [
            ("max-age=60", (true, Some(60), false)),
            ("max-age=60;a=b, foo", (true, Some(60), false)),
            ("max-age=\"60\"", (false, Some(1), false)),
            ("max-age=1.5", (false, Some(1), false)),
            ("max-age", (false, Some(1), false)),
            ("max-age=\"60\", no-store", (true, None, true)),
            ("no-store=(a b)", (true, None, true)),
            ("no-store=?0", (false, Some(1), false)),
            ("max-age=60, , no-store", (false, Some(1), false)),
            ("MAX-AGE=60", (false, Some(1), false)),
        ] {
            assert_eq!(of(value), expected, "{value}");
        }
    }

    #[test]
    fn a_request_directive_counts_only_where_the_policy_honours_it() {
        let fields = Fields::from_pairs([("cache-control", "no-cache, only-if-cached, max-age=3")]);
        let directives = RequestDirectives::of(&fields, &["only-if-cached".to_owned()]);
        assert_eq!(directives, RequestDirectives { only_if_cached: true, ..RequestDirectives::default() });
        let pragma = Fields::from_pairs([("pragma", "no-cache")]);
        assert!(!RequestDirectives::of(&pragma, &["no-cache".to_owned()]).no_cache);
    }

    #[test]
    fn names_have_no_case_and_arguments_may_be_quoted() {
        for value in ["max-age=60", "Max-Age=60", "MAX-AGE=\"60\"", "foo, max-age=60,", "max-age=060"] {
            assert_eq!(response(value).max_age, secs(60), "{value}");
        }
    }

    #[test]
    fn a_directive_inside_a_quoted_string_is_none() {
        let directives = response(r#"ext="x, no-store, y", max-age=60"#);
        assert_eq!((directives.no_store, directives.max_age), (false, secs(60)));
    }

    #[test]
    fn an_invalid_lifetime_means_stale() {
        for value in ["max-age", "max-age=", "max-age=-1", "max-age=x", "max-age=1.5", "max-age = 60", "max-age=60 s"] {
            assert_eq!(response(value).max_age, secs(0), "{value}");
        }
    }

    #[test]
    fn of_contradicting_lifetimes_the_shorter_counts() {
        assert_eq!(response("max-age=60, max-age=5").max_age, secs(5));
        assert_eq!(response("max-age=5, max-age=60").max_age, secs(5));
    }

    #[test]
    fn unqualified_no_cache_wins_over_field_names() {
        assert_eq!(
            response("no-cache=\"Set-Cookie, x-a\"").no_cache.fields(),
            [b"set-cookie".to_vec(), b"x-a".to_vec()]
        );
        assert_eq!(response("no-cache=\"x\", no-cache").no_cache, FieldScope::Whole);
        assert_eq!(response("no-cache, no-cache=\"x\"").no_cache, FieldScope::Whole);
        assert_eq!(response("private=\"\"").private, FieldScope::Whole);
    }

    #[test]
    fn a_valid_targeted_field_speaks_instead_of_cache_control() {
        let of = |value: &str| {
            let fields = Fields::from_pairs([("cache-control", "no-store"), ("cdn-cache-control", value)]);
            ResponseDirectives::of(&fields, &Policy::default())
        };
        let directives = of("max-age=60, private=?0");
        assert_eq!((directives.no_store, directives.max_age, directives.targeted), (false, secs(60), true));
        assert_eq!(directives.private, FieldScope::Absent);
        for invalid in ["", "max-age=", "&&&", "max-age=60 no-store"] {
            assert!(of(invalid).no_store, "{invalid}");
        }
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let of =
            |pairs: &[(&str, &str)]| RequestDirectives::of(&Fields::from_pairs(pairs.iter().copied()), &all()).no_cache;
        assert!(of(&[("pragma", "No-Cache")]));
        assert!(!of(&[("pragma", "no-cache"), ("cache-control", "max-age=1")]));
        assert!(!of(&[("pragma", "foo")]));
    }

    #[test]
    fn request_directives_are_read() {
        let of = |value: &str| RequestDirectives::of(&Fields::from_pairs([("cache-control", value)]), &all());
        assert_eq!(of("max-stale").max_stale, Some(None));
        assert_eq!(of("max-stale=5").max_stale, Some(secs(5)));
        assert_eq!(of("min-fresh=5").min_fresh, secs(5));
        assert!(of("only-if-cached").only_if_cached);
        assert_eq!(of("nothing-to-see-here"), RequestDirectives::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            let fields = Fields::from_pairs([(&b"cache-control"[..], &value), (b"cdn-cache-control", &value)]);
            let _ = ResponseDirectives::of(&fields, &Policy::default());
            let _ = RequestDirectives::of(&fields, &all());
        }
    }
}
