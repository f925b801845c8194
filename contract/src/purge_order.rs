//! `POST /v1/purge`: an operator's order, and what the sidecar answers.
//!
//! What this decides: which orders are well-formed, and which purges one asks for. What it leaves
//! out: who may give one.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http_time::Timestamp;
use crate::key::{PrimaryKey, canonical_authority, canonical_scheme};
use crate::path::path_as_requested;
use crate::purge::{MAX_TAG_BYTES, Purge, Scope};

/// A prefix longer than this, in bytes, is refused.
pub const MAX_PREFIX_BYTES: usize = 2048;
/// The namespace of a URL's key where the order names none; the filter configuration's default.
pub const DEFAULT_NAMESPACE: &str = "default";

/// `{"url": …}`, `{"tag": …}`, `{"tags": […]}`, `{"prefix": …}` or `{"everything": true}`; `"soft":
/// true` marks stale instead of removing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// All variants of one URL, as clients ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The filter configuration's `namespace`; it is part of a URL's key. [`DEFAULT_NAMESPACE`]
    /// when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Every response with this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Every response with one of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Every response whose URL begins so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Every response.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub everything: bool,
    /// Mark stale instead of removing.
    pub soft: bool,
}

impl Order {
    /// The purges it asks for. The error says what is wrong.
    pub fn purges(self, at_ms: Timestamp) -> Result<Vec<Purge>, String> {
        let mut scopes = Vec::new();
        if let Some(url) = &self.url {
            let keys = keys_of(url, self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE))?;
            scopes.extend(keys.map(|key| Scope::Key(key.digest())));
        }
        for tag in self.tag.iter().chain(&self.tags) {
            let separates = |byte: char| byte == ',' || byte.is_whitespace();
            if tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.contains(separates) {
                return Err(format!(
                    "{tag:?} is no tag: 1 to {MAX_TAG_BYTES} bytes without commas and spaces"
                ));
            }
            scopes.push(Scope::Tag(tag.clone()));
        }
        if let Some(prefix) = self.prefix {
            if !prefix.contains("://") || prefix.len() > MAX_PREFIX_BYTES {
                return Err(format!(
                    "{prefix:?} is no prefix: it begins as URLs do, with http:// or https://"
                ));
            }
            scopes.push(Scope::Prefix(canonical_prefix(&prefix)));
        }
        if self.everything {
            scopes.push(Scope::Everything);
        }
        if scopes.is_empty() {
            return Err("nothing to purge: give url, tag, tags, prefix, or everything".to_owned());
        }
        Ok(scopes
            .into_iter()
            .map(|scope| Purge {
                scope,
                soft: self.soft,
                at_ms,
            })
            .collect())
    }
}

/// The keys of a URL as clients ask for it, however it is spelled: under the scheme it names, and
/// under the other, for only who runs the proxy in front knows which of the two a request came by.
fn keys_of(url: &str, namespace: &str) -> Result<[PrimaryKey; 2], String> {
    let url = RequestedUrl::read(url)?;
    let other = if url.scheme == "http" {
        "https"
    } else {
        "http"
    };
    // A port that this scheme leaves out is left out for the other, too.
    let key = |scheme: &str| {
        PrimaryKey::new(
            namespace.as_bytes(),
            scheme.as_bytes(),
            url.authority.as_bytes(),
            &url.path,
        )
    };
    Ok([key(&url.scheme), key(other)])
}

/// A URL of HTTP as a request for it is keyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedUrl {
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port, in their canonical spelling.
    pub authority: String,
    /// Path and query, as Envoy makes a request for them.
    pub path: Vec<u8>,
}

impl RequestedUrl {
    /// Reads a URL in any spelling. The error says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let url = Url::read(text)
            .filter(|url| matches!(url.scheme.as_str(), "http" | "https"))
            .filter(|url| !url.authority.is_empty());
        let url = url.ok_or_else(|| {
            format!("{text:?} is no URL: scheme://host[:port]/path?query, as clients ask for it")
        })?;
        Ok(Self {
            path: path_as_requested(url.rest.as_bytes()),
            scheme: url.scheme,
            authority: url.authority,
        })
    }
}

/// A prefix as stored URLs begin: scheme, host, port and path are spelled as theirs. A prefix that
/// ends within the host stays one; one that ends within a percent-encoding, too.
fn canonical_prefix(prefix: &str) -> String {
    match Url::read(prefix) {
        Some(Url {
            scheme,
            authority,
            rest,
        }) if !rest.is_empty() => {
            let mut path = path_as_requested(rest.as_bytes());
            let tail = path.len().saturating_sub(2);
            if let Some([b'%', digit]) = path.get_mut(tail..)
                && digit.is_ascii_hexdigit()
            {
                digit.make_ascii_uppercase();
            }
            format!("{scheme}://{authority}{}", String::from_utf8_lossy(&path))
        }
        // With the default port it has named its host whole.
        Some(Url {
            scheme, authority, ..
        }) if prefix.len() > scheme.len() + "://".len() + authority.len() => {
            format!("{scheme}://{authority}/")
        }
        Some(Url {
            scheme, authority, ..
        }) => format!("{scheme}://{authority}"),
        None => prefix.to_owned(),
    }
}

/// A URL, or the beginning of one, with its scheme and authority in their canonical spelling.
struct Url<'a> {
    scheme: String,
    authority: String,
    /// From the path on, without a fragment: no client sends one.
    rest: &'a str,
}

impl<'a> Url<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let scheme = utf8(&canonical_scheme(scheme.as_bytes()));
        let authority = utf8(&canonical_authority(
            scheme.as_bytes(),
            authority.as_bytes(),
        ));
        Some(Self {
            scheme,
            authority,
            rest,
        })
    }
}

/// The sidecar's answer: each scope, and in words what happened to it.
pub fn answer(purges: &[Purge]) -> Value {
    let one = |purge: &Purge| {
        let what = match &purge.scope {
            Scope::Key(_) => "every variant of the URL, by http and by https".to_owned(),
            Scope::Tag(tag) => format!("every response with the tag {tag}"),
            Scope::Prefix(prefix) => format!("every response whose URL begins with {prefix}"),
            Scope::Everything => "every response".to_owned(),
        };
        let then = if purge.soft {
            "is stale from now on"
        } else {
            "is not served any more"
        };
        let until = purge.at_ms.to_http_date();
        json!({ "scope": purge.scope, "soft": purge.soft, "effect": format!("{what}, requested until {until}, {then}") })
    };
    let mut told: Vec<Value> = purges.iter().map(one).collect();
    // Both schemes of a URL are one order.
    told.dedup_by(|next, known| next.get("effect") == known.get("effect"));
    json!({ "purged": told })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn purges(json: &str) -> Result<Vec<Scope>, String> {
        let order: Order = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok(order
            .purges(Timestamp::from_millis(1))?
            .into_iter()
            .map(|purge| purge.scope)
            .collect())
    }

    #[test]
    fn orders_are_read() {
        assert_eq!(
            purges(r#"{"tags": ["a", "b"], "soft": true}"#)
                .unwrap()
                .len(),
            2
        );
        assert_eq!(
            purges(r#"{"everything": true}"#).unwrap(),
            [Scope::Everything]
        );
        let key =
            |scheme| Scope::Key(PrimaryKey::new(b"default", scheme, b"a:1", b"/x?y").digest());
        assert_eq!(
            purges(r#"{"url": "http://a:1/x?y"}"#).unwrap(),
            [key(b"http"), key(b"https")]
        );
        assert_eq!(
            purges(r#"{"url": "http://a"}"#),
            purges(r#"{"url": "http://a/"}"#)
        );
    }

    #[test]
    fn an_order_survives_its_message() {
        for order in [
            Order {
                url: Some("http://a/".into()),
                namespace: Some("n".into()),
                soft: true,
                ..Order::default()
            },
            Order {
                tags: vec!["a".into()],
                ..Order::default()
            },
            Order {
                everything: true,
                ..Order::default()
            },
        ] {
            assert_eq!(
                serde_json::from_str::<Order>(&serde_json::to_string(&order).unwrap()).unwrap(),
                order
            );
        }
        assert_eq!(
            serde_json::to_string(&Order::default()).unwrap(),
            r#"{"soft":false}"#
        );
    }

    #[test]
    fn a_url_is_met_in_every_spelling() {
        let canonical = purges(r#"{"url": "http://shop.example/X?y"}"#).unwrap();
        for spelled in [
            "HTTP://Shop.EXAMPLE/X?y",
            "http://shop.example:80/X?y",
            "http://shop.example:/X?y#z",
        ] {
            assert_eq!(
                purges(&format!(r#"{{"url": "{spelled}"}}"#)).unwrap(),
                canonical,
                "{spelled}"
            );
        }
        assert_ne!(
            purges(r#"{"url": "http://shop.example/x?y"}"#).unwrap(),
            canonical
        );
    }

    #[test]
    fn a_url_is_met_in_every_spelling_of_its_path() {
        let same = |one: &str, other: &str| {
            let keys = |url: &str| purges(&format!(r#"{{"url": "http://{url}"}}"#)).unwrap();
            keys(one) == keys(other)
        };
        for (spelled, requested) in [
            ("a/x/../%61/%c3%a9?%e2", "a/a/%C3%A9?%E2"),
            ("a?x", "a/?x"),
            ("[::1]:80", "[::1]/"),
            ("a/\u{e9}", "a/%C3%A9"),
        ] {
            assert!(same(spelled, requested), "{spelled}");
        }
        for (one, other) in [
            ("a/x%2Fy", "a/x/y"),
            ("a/x//y", "a/x/y"),
            ("a/%2561", "a/a"),
            ("a/?%61", "a/?a"),
        ] {
            assert!(!same(one, other), "{one}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_meets_what_it_is_the_beginning_of(path in "/([a2fc3./;\u{e9}]|%2e|%c3%a9|%25){0,9}", cut in 0usize..40) {
            let url = String::from_utf8(path_as_requested(path.as_bytes())).unwrap();
            let url = format!("http://a{url}");
            let prefix = url.get(..cut.max(8)).unwrap_or(&url);
            let canonical = canonical_prefix(prefix);
            prop_assert!(url.starts_with(&canonical), "{} {} {}", url, prefix, canonical);
            prop_assert_eq!(canonical_prefix(&canonical), canonical);
        }
    }

    #[test]
    fn a_prefix_has_its_scheme_and_host_as_urls_have_them() {
        for (prefix, expected) in [
            ("HTTP://Shop.Example/A", "http://shop.example/A"),
            ("http://shop.example:80/a", "http://shop.example/a"),
            ("https://shop.example:443", "https://shop.example/"),
            ("http://Shop.exa", "http://shop.exa"),
            ("http://a/x/%2e%2e/%61//b", "http://a/a//b"),
            ("http://a/%c3%a", "http://a/%C3%A"),
            ("http://a/\u{e9}?q=%e2", "http://a/%C3%A9?q=%E2"),
            ("http://a?x", "http://a/?x"),
            ("http://[::1]:80/a/../b", "http://[::1]/b"),
            ("http://a/shop/#top", "http://a/shop/"),
            ("http://", "http://"),
        ] {
            assert_eq!(canonical_prefix(prefix), expected, "{prefix}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (json, part) in [
            ("{}", "nothing to purge"),
            (r#"{"everything": false}"#, "nothing to purge"),
            (r#"{"tag": ""}"#, "no tag"),
            (r#"{"tag": "a b"}"#, "no tag"),
            (r#"{"prefix": "/x"}"#, "no prefix"),
            (r#"{"url": "/x"}"#, "no URL"),
            (r#"{"uri": "http://a/"}"#, "unknown field"),
        ] {
            assert!(purges(json).unwrap_err().contains(part), "{json}");
        }
    }
}
