//! An operator's order to purge, as it reads.

use larder_cache_core::http_time::Timestamp;
use larder_cache_core::key::PrimaryKey;
use larder_cache_core::purge::{MAX_TAG_BYTES, Purge, Scope};
use serde::Deserialize;
use serde_json::{Value, json};

/// `{"url": …}`, `{"tag": …}`, `{"tags": […]}`, `{"prefix": …}` or `{"everything": true}`, each with `"soft": true` if so
/// wished.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Order {
    url: Option<String>,
    /// The filter configuration's `namespace`; it is part of a URL's key.
    namespace: Option<String>,
    tag: Option<String>,
    tags: Vec<String>,
    prefix: Option<String>,
    everything: bool,
    pub(super) soft: bool,
}

impl Order {
    /// The purges it asks for. The error says what is wrong.
    pub(super) fn purges(self, at_ms: Timestamp) -> Result<Vec<Purge>, String> {
        let mut scopes = Vec::new();
        if let Some(url) = &self.url {
            scopes.push(Scope::Key(key_of(url, self.namespace.as_deref().unwrap_or("default"))?));
        }
        for tag in self.tag.iter().chain(&self.tags) {
            let separates = |byte: char| byte == ',' || byte.is_whitespace();
            if tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.contains(separates) {
                return Err(format!("{tag:?} is no tag: 1 to {MAX_TAG_BYTES} bytes without commas and spaces"));
            }
            scopes.push(Scope::Tag(tag.clone()));
        }
        if let Some(prefix) = self.prefix {
            if !prefix.contains("://") || prefix.len() > 2048 {
                return Err(format!("{prefix:?} is no prefix: it begins as URLs do, with http:// or https://"));
            }
            scopes.push(Scope::Prefix(prefix));
        }
        if self.everything {
            scopes.push(Scope::Everything);
        }
        if scopes.is_empty() {
            return Err("nothing to purge: give url, tag, tags, prefix, or everything".to_owned());
        }
        Ok(scopes.into_iter().map(|scope| Purge { scope, soft: self.soft, at_ms }).collect())
    }
}

/// The key of a URL as clients ask for it.
fn key_of(url: &str, namespace: &str) -> Result<PrimaryKey, String> {
    let wrong = || format!("{url:?} is no URL: scheme://host[:port]/path?query, as clients ask for it");
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    if !matches!(scheme, "http" | "https") || authority.is_empty() {
        return Err(wrong());
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(PrimaryKey::new(namespace.as_bytes(), scheme.as_bytes(), authority.as_bytes(), path.as_bytes()))
}

/// What the operator is told.
pub(super) fn told(purges: &[Purge]) -> Value {
    let one = |purge: &Purge| {
        let what = match &purge.scope {
            Scope::Key(_) => "every variant of the URL".to_owned(),
            Scope::Tag(tag) => format!("every response with the tag {tag}"),
            Scope::Prefix(prefix) => format!("every response whose URL begins with {prefix}"),
            Scope::Everything => "every response".to_owned(),
        };
        let then = if purge.soft { "is stale from now on" } else { "is not served any more" };
        let until = purge.at_ms.to_http_date();
        json!({ "scope": purge.scope, "soft": purge.soft, "effect": format!("{what}, requested until {until}, {then}") })
    };
    json!({ "purged": purges.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purges(json: &str) -> Result<Vec<Scope>, String> {
        let order: Order = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok(order.purges(Timestamp::from_millis(1))?.into_iter().map(|purge| purge.scope).collect())
    }

    #[test]
    fn orders_are_read() {
        assert_eq!(purges(r#"{"tags": ["a", "b"], "soft": true}"#).unwrap().len(), 2);
        assert_eq!(purges(r#"{"everything": true}"#).unwrap(), [Scope::Everything]);
        let key = PrimaryKey::new(b"default", b"http", b"a:1", b"/x?y");
        assert_eq!(purges(r#"{"url": "http://a:1/x?y"}"#).unwrap(), [Scope::Key(key)]);
        assert_eq!(purges(r#"{"url": "http://a"}"#), purges(r#"{"url": "http://a/"}"#));
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
