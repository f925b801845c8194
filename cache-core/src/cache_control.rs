//! `Cache-Control`, its targeted relatives, and `Pragma` (RFC 9111 §5.2, §5.4; RFC 9213; RFC 5861).
//!
//! What this decides: how directives are read: names without case, arguments as tokens or quoted
//! strings, repeats and contradictions resolved towards less caching. What it leaves out: what a
//! directive entails.

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
    /// Read from a targeted field, which speaks instead of `Cache-Control` and `Expires` (RFC 9213
    /// §2.1).
    pub targeted: bool,
}

impl ResponseDirectives {
    /// Reads the first valid targeted field of the policy's list, else `Cache-Control`.
    pub fn of(fields: &Fields, policy: &Policy) -> Self {
        let targeted = policy
            .targeted_fields
            .iter()
            .find_map(|name| Self::of_targeted(fields, name));
        targeted.unwrap_or_else(|| {
            let mut directives = Self::default();
            for (name, argument) in fields.list("cache-control").map(split_directive) {
                directives.add(&name, argument.as_deref());
            }
            directives
        })
    }

    /// RFC 9213 §2.1: a structured dictionary. One that does not parse, is empty, or has only
    /// members of the wrong type is ignored, and the next field speaks.
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
        let mut directives = Self {
            targeted: true,
            ..Self::default()
        };
        let mut heeded = false;
        for (key, member) in &dictionary {
            let name = key.as_str().as_bytes();
            let item = if let ListEntry::Item(item) = member {
                Some(&item.bare_item)
            } else {
                None
            };
            let argument = match item {
                Some(BareItem::Boolean(false)) => continue,
                Some(BareItem::Integer(number)) => Some(i64::from(*number).to_string()),
                // A lifetime that is no number says nothing; a prohibition holds whatever stands
                // behind it.
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

    /// Whether the response is for everybody in so many words, even where its request carried
    /// credentials: `public` or `s-maxage` (RFC 9111 §5.2.2.9, §5.2.2.10).
    pub fn is_explicitly_public(&self) -> bool {
        self.public || self.s_maxage.is_some()
    }

    /// Whether it may be stored although its request carried credentials (RFC 9111 §3.5). The RFC
    /// takes `must-revalidate` for a permission too; where a policy asks for explicit words, it is
    /// none: frameworks send it with personal pages.
    pub fn allows_authorization(&self, policy: &Policy) -> bool {
        self.is_explicitly_public() || (policy.reuse_with_authorization && self.must_revalidate)
    }
}

fn is_lifetime(name: &[u8]) -> bool {
    matches!(
        name,
        b"max-age" | b"s-maxage" | b"stale-while-revalidate" | b"stale-if-error"
    )
}

impl FieldScope {
    /// Unqualified wins over qualified: it forbids more.
    fn widen(&mut self, argument: Option<&[u8]>) {
        let names: Vec<Vec<u8>> = argument
            .map(|list| list_members(list).map(<[u8]>::to_ascii_lowercase).collect())
            .unwrap_or_default();
        match self {
            Self::Whole => {}
            _ if names.is_empty() => *self = Self::Whole,
            Self::Absent => *self = Self::Fields(names),
            Self::Fields(known) => known.extend(names),
        }
    }

    /// The fields it is restricted to.
    pub fn fields(&self) -> &[Vec<u8>] {
        if let Self::Fields(names) = self {
            names
        } else {
            &[]
        }
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
    /// Reads `Cache-Control`; `Pragma: no-cache` counts only where there is none (RFC 9111 §5.4).
    /// Only directives among `honoured` count.
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
            directives.no_cache = fields
                .list("pragma")
                .any(|member| member.eq_ignore_ascii_case(b"no-cache"));
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
    // RFC 9111 §5.2: no white space around "="; where there is some, the argument is not a number
    // and counts as invalid.
    (name, parts.next().map(unquote))
}

fn unquote(argument: &[u8]) -> Vec<u8> {
    let Some(inner) = argument
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
    else {
        return argument.to_vec();
    };
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        let literal = if byte == b'\\' {
            bytes.next().copied()
        } else {
            Some(byte)
        };
        text.extend(literal);
    }
    text
}

#[cfg(test)]
mod tests;
