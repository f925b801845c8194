//! A request and a response head, as the rules look at them.
//!
//! What this decides: nothing. Pseudo-fields (`:method`, `:path` …) stay among the fields, as Envoy
//! hands them over, so that a request is read without copying it.

use larder_contract::key::{canonical_authority, canonical_scheme};

use crate::fields::Fields;
use crate::policy::Policy;
use crate::policy::key::cookies;

/// The scheme by which a proxy in front was asked.
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The head of a presented request (RFC 9111 §4): its fields, pseudo-fields among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// All fields, `:method`, `:scheme`, `:authority` and `:path` included.
    pub fields: Fields,
    /// Whether content may follow the head.
    pub has_content: bool,
    /// Whether the proxy knows who asks by other means than a field (`Policy::identity_metadata`).
    pub is_identified: bool,
    /// The fields whose values here are not the client's, for the rule leaves something of them out
    /// (`exchange::reduction`).
    pub reduced: Vec<&'static str>,
}

impl Request {
    /// A request for `path` at `authority`, for tests and tools.
    pub fn new(method: &str, authority: &str, path: &str) -> Self {
        let fields = Fields::from_pairs([
            (":method", method),
            (":scheme", "http"),
            (":authority", authority),
            (":path", path),
        ]);
        Self {
            fields,
            ..Self::default()
        }
    }

    /// The request with one more field line.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.append(name.as_bytes(), value.as_bytes());
        self
    }

    /// The method, case-sensitive (RFC 9110 §9.1).
    pub fn method(&self) -> &[u8] {
        self.pseudo(":method")
    }

    /// `http` or `https`, as the client came. `X-Forwarded-Proto` says so where a proxy in front
    /// ended TLS; Envoy takes it away from whom it does not trust. What it says else does not
    /// count.
    pub fn scheme(&self) -> &[u8] {
        let is_scheme = |value: &&[u8]| {
            value.eq_ignore_ascii_case(b"http") || value.eq_ignore_ascii_case(b"https")
        };
        self.fields
            .get(FORWARDED_PROTO)
            .filter(is_scheme)
            .unwrap_or_else(|| self.pseudo(":scheme"))
    }

    /// Host and port (RFC 9110 §7.2).
    pub fn authority(&self) -> &[u8] {
        self.pseudo(":authority")
    }

    /// Path and query, as Envoy has normalised them.
    pub fn path(&self) -> &[u8] {
        self.pseudo(":path")
    }

    /// The fields to change so that the origin is asked for exactly what the key names: scheme and
    /// authority in their canonical spelling, and no other scheme beside it. The path is changed
    /// apart from them (`Presented`).
    pub fn canonical_changes(&self) -> Fields {
        let scheme = canonical_scheme(self.scheme());
        let authority = canonical_authority(&scheme, self.authority());
        self.changes_to(&scheme, &authority)
    }

    /// The fields to change so that the origin is asked under this scheme and authority, and no
    /// other scheme beside it.
    pub fn changes_to(&self, scheme: &[u8], authority: &[u8]) -> Fields {
        let mut changes = Fields::default();
        if authority != self.authority() {
            changes.append(b":authority", authority);
        }
        if self.pseudo(":scheme") != scheme {
            changes.append(b":scheme", scheme);
        }
        let mut forwarded = self.fields.all(FORWARDED_PROTO);
        if forwarded.next().is_some_and(|value| value != scheme) || forwarded.next().is_some() {
            changes.append(FORWARDED_PROTO.as_bytes(), scheme);
        }
        changes
    }

    /// Whether the request carries credentials: `Authorization`, a field that says who asks, or an
    /// identity that the proxy knows. What is answered to one of them is for nobody else unless it
    /// says so (RFC 9111 §3.5).
    pub fn is_credentialed(&self, policy: &Policy) -> bool {
        self.is_identified
            || self.fields.contains("authorization")
            || policy.identity_fields.any_in(&self.fields)
    }

    /// Whether what is answered may be for this client alone: it has credentials, or a cookie that
    /// the policy heeds.
    pub fn is_one_clients(&self, policy: &Policy) -> bool {
        self.is_credentialed(policy) || (!policy.store_with_cookie && self.has_own_cookie(policy))
    }

    /// Whether the request carries a cookie that the rule does not make part of the key: what is
    /// answered to it may be for this client alone.
    pub fn has_own_cookie(&self, policy: &Policy) -> bool {
        let keyed = policy.key_cookies();
        self.fields.contains(cookies::FIELD)
            && (keyed.is_empty()
                || cookies::pairs(&self.fields).any(|(name, _)| !cookies::is_among(keyed, name)))
    }

    fn pseudo(&self, name: &str) -> &[u8] {
        self.fields.get(name).unwrap_or_default()
    }
}

/// Status code and fields of a response. `:status` is not among the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// HTTP status code, 100 to 999.
    pub status: u16,
    /// The fields as received, hop-by-hop ones included.
    pub fields: Fields,
}

impl ResponseHead {
    /// A response head from `(name, value)` pairs, for tests and tools.
    pub fn new(status: u16, pairs: &[(&str, &str)]) -> Self {
        Self {
            status,
            fields: Fields::from_pairs(pairs.iter().copied()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(pairs: &[(&str, &str)]) -> String {
        let request = Request {
            fields: Fields::from_pairs(pairs.iter().copied()),
            ..Request::default()
        };
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        let changes = request.canonical_changes();
        changes
            .iter()
            .map(|(name, value)| format!("{}={} ", text(name), text(value)))
            .collect()
    }

    #[test]
    fn the_origin_is_asked_for_what_the_key_names() {
        for (scheme, authority, forwarded, expected) in [
            ("http", "a.example", &[][..], ""),
            ("http", "a.example", &["http"], ""),
            ("http", "A.example", &["http"], ":authority=a.example "),
            ("http", "a.example:80", &[], ":authority=a.example "),
            (
                "http",
                "a.example:443",
                &["https"],
                ":authority=a.example :scheme=https ",
            ),
            ("https", "a.example", &["http"], ":scheme=http "),
            (
                "http",
                "a.example",
                &["HTTPS"],
                ":scheme=https x-forwarded-proto=https ",
            ),
            (
                "http",
                "a.example",
                &["nothttps"],
                "x-forwarded-proto=http ",
            ),
            (
                "http",
                "a.example",
                &["http", "evil"],
                "x-forwarded-proto=http ",
            ),
            (
                "http",
                "a.example",
                &["https,http"],
                "x-forwarded-proto=http ",
            ),
        ] {
            let mut pairs = vec![(":scheme", scheme), (":authority", authority)];
            pairs.extend(forwarded.iter().map(|value| ("x-forwarded-proto", *value)));
            assert_eq!(changes(&pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn every_way_to_say_who_asks_counts_as_credentials() {
        let plain = Request::new("GET", "a", "/").with("cookie", "a=b");
        assert!(!plain.is_credentialed(&Policy::default()));
        assert!(plain.is_one_clients(&Policy::default()));
        for name in [
            "authorization",
            "x-jwt-sub",
            "x_jwt_sub",
            "x-forwarded-user",
            "x-auth-request-email",
            "x-api-key",
        ] {
            assert!(
                plain
                    .clone()
                    .with(name, "a")
                    .is_credentialed(&Policy::default()),
                "{name}"
            );
        }
        assert!(
            Request {
                is_identified: true,
                ..plain.clone()
            }
            .is_credentialed(&Policy::default())
        );
        let strict = Policy::strict();
        assert!(
            !plain
                .clone()
                .with("x-jwt-sub", "a")
                .is_credentialed(&strict)
                && !plain.is_one_clients(&strict)
        );
    }
}
