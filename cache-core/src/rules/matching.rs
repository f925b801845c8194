//! Which requests a rule is for.
//!
//! What this decides: when each condition holds, and that all of them must; whether two conditions,
//! or two rules, leave nothing to match. What it leaves out: their names in a configuration.

use larder_contract::key::{canonical_authority, canonical_scheme};
use larder_contract::path::canonical_path;

use super::path::PathCondition;
use crate::glob::Glob;
use crate::invalidation::Target;
use crate::message::Request;
use crate::policy::key::{cookies, decoded};

/// The conditions of one rule. `Match::default()` has none and matches every request.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// The host.
    pub host: Option<HostCondition>,
    /// Conditions on the path.
    pub path: Vec<PathCondition>,
    /// The methods, case-sensitive; none stands for all.
    pub methods: Vec<String>,
    /// Fields by name, in lower case.
    pub fields: Vec<(String, ValueCondition)>,
    /// Query parameters by name. Names and values are decoded before they are compared.
    pub query: Vec<(String, ValueCondition)>,
    /// Cookies by name.
    pub cookies: Vec<(String, ValueCondition)>,
}

/// Which hosts. A port counts where it is not the scheme's default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostCondition {
    /// This one, in any spelling.
    Exact(String),
    /// All below a name: what is behind the star of `*.example.com`.
    Below(String),
}

/// What a value has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueCondition {
    /// There is one.
    Present,
    /// There is none.
    Absent,
    /// One of them fits.
    Like(Glob),
}

impl HostCondition {
    /// Reads `shop.example`, `shop.example:8080` or `*.example`. `None` for what no host is.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let is_plain = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"*/?#@".contains(&byte))
        };
        match lower.strip_prefix('*') {
            Some(below) => (below.starts_with('.') && is_plain(below.get(1..)?))
                .then(|| Self::Below(below.to_owned())),
            None => is_plain(&lower).then_some(Self::Exact(lower)),
        }
    }

    fn matches(&self, scheme: &[u8], authority: &[u8]) -> bool {
        match self {
            Self::Exact(host) if host.as_bytes() == authority => true,
            Self::Exact(host) => {
                let scheme = canonical_scheme(scheme);
                canonical_authority(&scheme, host.as_bytes())
                    == canonical_authority(&scheme, authority)
            }
            Self::Below(end) => {
                let scheme = canonical_scheme(scheme);
                let authority = canonical_authority(&scheme, authority);
                let end = canonical_authority(&scheme, end.as_bytes());
                authority.len() > end.len() && authority.ends_with(&end)
            }
        }
    }

    /// Whether every host that fits `other` fits this too.
    fn follows_from(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Below(end), Self::Below(longer) | Self::Exact(longer)) => {
                longer.ends_with(end.as_str())
            }
            _ => self == other,
        }
    }
}

impl ValueCondition {
    fn holds<'a>(&self, mut values: impl Iterator<Item = std::borrow::Cow<'a, [u8]>>) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Like(glob) => values.any(|value| glob.matches(&value)),
        }
    }

    /// Whether whatever satisfies `other` satisfies this too.
    fn follows_from(&self, other: &Self) -> bool {
        self == other || matches!((self, other), (Self::Present, Self::Like(_)))
    }
}

impl Match {
    /// Whether the rule is for this request.
    pub fn matches(&self, request: &Request) -> bool {
        self.matches_url(request.scheme(), request.authority(), request.path())
            && self.matches_method(request.method())
            && self.fields.iter().all(|(name, value)| {
                value.holds(request.fields.all(name).map(std::borrow::Cow::Borrowed))
            })
            && self.cookies.iter().all(|(name, value)| {
                let values =
                    cookies::pairs(&request.fields).filter(|(known, _)| *known == name.as_bytes());
                value.holds(values.map(|(_, value)| std::borrow::Cow::Borrowed(value)))
            })
    }

    /// Whether a GET or HEAD for this URL may match, whatever else it has.
    pub fn may_match(&self, target: &Target) -> bool {
        let Target {
            scheme,
            authority,
            path,
        } = target;
        self.matches_url(scheme, authority, path)
            && (self.matches_method(b"GET") || self.matches_method(b"HEAD"))
    }

    /// Whether anything at this host may match.
    pub fn may_match_host(&self, scheme: &[u8], authority: &[u8]) -> bool {
        self.host
            .as_ref()
            .is_none_or(|host| host.matches(scheme, authority))
    }

    /// Whether every GET and HEAD for a URL that may match does.
    pub fn needs_no_more_than_a_url(&self) -> bool {
        self.fields.is_empty()
            && self.cookies.is_empty()
            && self.matches_method(b"GET")
            && self.matches_method(b"HEAD")
    }

    /// Whether the path, or a part of it, decides.
    pub fn is_by_path(&self) -> bool {
        !self.path.is_empty()
    }

    fn matches_method(&self, method: &[u8]) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|known| known.as_bytes() == method)
    }

    fn matches_url(&self, scheme: &[u8], authority: &[u8], path: &[u8]) -> bool {
        self.may_match_host(scheme, authority)
            && (self.path.is_empty() || self.matches_path(path))
            && (self.query.is_empty() || self.matches_query(path))
    }

    fn matches_path(&self, path: &[u8]) -> bool {
        let path = canonical_path(path);
        let without_query = path.split(|&byte| byte == b'?').next().unwrap_or_default();
        self.path
            .iter()
            .all(|condition| condition.matches(&path, without_query))
    }

    fn matches_query(&self, path: &[u8]) -> bool {
        let query = path.iter().position(|&byte| byte == b'?');
        let query = query.and_then(|at| path.get(at + 1..)).unwrap_or_default();
        self.query.iter().all(|(name, value)| {
            let parameters = query
                .split(|&byte| byte == b'&')
                .filter(|parameter| !parameter.is_empty())
                .map(|parameter| {
                    let at = parameter.iter().position(|&byte| byte == b'=');
                    let (name, value) = parameter.split_at(at.unwrap_or(parameter.len()));
                    (decoded(name), decoded(value.get(1..).unwrap_or_default()))
                });
            value.holds(
                parameters
                    .filter(|(known, _)| **known == *name.as_bytes())
                    .map(|(_, value)| value),
            )
        })
    }

    /// Why no request can match, if so.
    pub fn contradiction(&self) -> Option<&'static str> {
        let mut rest = self.path.as_slice();
        while let Some((one, others)) = rest.split_first() {
            if others.iter().any(|other| one.excludes(other)) {
                return Some("no path fits all its conditions");
            }
            rest = others;
        }
        None
    }

    /// Whether every request that matches `later` matches this, as far as can be seen: behind such
    /// a rule another can never match.
    pub fn covers(&self, later: &Self) -> bool {
        let host = self.host.as_ref().is_none_or(|host| {
            later
                .host
                .as_ref()
                .is_some_and(|other| host.follows_from(other))
        });
        let path = self
            .path
            .iter()
            .all(|condition| later.path.iter().any(|other| condition.follows_from(other)));
        let methods = self.methods.is_empty()
            || (!later.methods.is_empty()
                && later
                    .methods
                    .iter()
                    .all(|method| self.methods.contains(method)));
        host && path
            && methods
            && follow(&self.fields, &later.fields)
            && follow(&self.query, &later.query)
            && follow(&self.cookies, &later.cookies)
    }
}

fn follow(conditions: &[(String, ValueCondition)], later: &[(String, ValueCondition)]) -> bool {
    conditions.iter().all(|(name, value)| {
        later
            .iter()
            .any(|(known, other)| known == name && value.follows_from(other))
    })
}
