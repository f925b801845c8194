//! The URLs under which a purge by URL has to look, for `larder purge --config`.

use std::borrow::Cow;

use larder_cache_core::invalidation::Target;
use larder_cache_core::policy::key::Named;
use larder_contract::purge_order::RequestedUrl;

use super::Config;

impl Config {
    /// What the keys name under which something may be stored for this URL, as URLs: the one as it
    /// stands first, and then each that a rule names in its place. The error says what is wrong
    /// with it.
    pub fn urls_of(&self, url: &str) -> Result<Vec<String>, String> {
        let mut urls = vec![url.to_owned()];
        let RequestedUrl {
            authority, path, ..
        } = RequestedUrl::read(url)?;
        // Only who runs the proxy in front knows by which scheme a request came.
        for scheme in ["https", "http"] {
            let target = Target {
                scheme: scheme.as_bytes().to_vec(),
                authority: authority.clone().into_bytes(),
                path: path.clone(),
            };
            for named in self.rules.names_of(&target) {
                let named = url_of(&named, &text(&named.path));
                if !urls.contains(&named) {
                    urls.push(named);
                }
            }
        }
        Ok(urls)
    }

    /// The same for the beginning of URLs, as far as rules give scheme and host another name. One
    /// that ends within the host is left as it is.
    pub fn prefixes_of(&self, prefix: &str) -> Vec<String> {
        let mut prefixes = vec![prefix.to_owned()];
        let rest = prefix.split_once("://").and_then(|(scheme, rest)| {
            let end = rest.find(['/', '?'])?;
            let (authority, path) = rest.split_at_checked(end)?;
            Some((scheme, authority, path))
        });
        let Some((scheme, authority, path)) = rest else {
            return prefixes;
        };
        for named in self
            .rules
            .names_of_host(scheme.as_bytes(), authority.as_bytes())
        {
            let named = url_of(&named, path);
            if !prefixes.contains(&named) {
                prefixes.push(named);
            }
        }
        prefixes
    }
}

/// What is named, with this in place of its path.
fn url_of(named: &Named<'_>, path: &str) -> String {
    format!("{}://{}{path}", text(&named.scheme), text(&named.authority))
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
