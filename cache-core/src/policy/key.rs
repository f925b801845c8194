//! What an operator leaves out of the key, and puts into it.
//!
//! What this decides: the URL that a request's key names. That is a URL like any other, so a purge
//! or an invalidation of it meets the key. What it leaves out: fields and cookies that are put into
//! the key; those select variants (`vary::unkeyed`), so that whatever concerns the URL takes all of
//! them.

use std::borrow::Cow;

use larder_contract::key::{PrimaryKey, canonical_authority, canonical_scheme, host_and_port};
use larder_contract::path::canonical_path;
use percent_encoding::percent_decode;

use crate::glob::Glob;

pub mod bucket;
pub mod cookies;

use bucket::Buckets;

/// The scheme that counts where both are one. Under `http` many origins answer with a redirect to
/// `https`, which would lead everybody to itself.
const ONE_SCHEME: &[u8] = b"https";

/// How one rule makes keys. `KeyRules::default()` leaves nothing out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRules {
    /// Which parameters of a query count.
    pub query: QueryKept,
    /// Whether parameters count in any order: they are sorted by name, and those of one name keep
    /// their order.
    pub sort_query: bool,
    /// Whether `http` and `https` are one.
    pub ignore_scheme: bool,
    /// Whether all ports are one.
    pub ignore_port: bool,
    /// The host, with its port if that is not the default one, that all hosts count as.
    pub host: Option<Box<[u8]>>,
    /// Cookies whose values are part of the key.
    pub cookies: Vec<Glob>,
    /// Request fields that count by the bucket they fall into.
    pub buckets: Vec<Buckets>,
    /// Whether the origin gets what the client sent, and not what the key names.
    pub origin_sees_all: bool,
}

/// Which parameters of a query count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryKept {
    /// All of them.
    #[default]
    All,
    /// All but these.
    Without(Vec<Glob>),
    /// These alone.
    Only(Vec<Glob>),
}

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// Scheme, in its canonical spelling.
    pub scheme: Cow<'a, [u8]>,
    /// Host and port, in their canonical spelling.
    pub authority: Cow<'a, [u8]>,
    /// Path and query, in their canonical spelling.
    pub path: Cow<'a, [u8]>,
}

impl Named<'_> {
    /// The same for longer.
    pub fn into_owned(self) -> Named<'static> {
        let owned = |text: Cow<'_, [u8]>| Cow::Owned(text.into_owned());
        Named {
            scheme: owned(self.scheme),
            authority: owned(self.authority),
            path: owned(self.path),
        }
    }

    /// The key of what it names.
    pub fn key(&self, namespace: &[u8]) -> PrimaryKey {
        PrimaryKey::new(namespace, &self.scheme, &self.authority, &self.path)
    }
}

impl KeyRules {
    /// What the key of this URL names. What it names of that again is the same.
    pub fn name<'a>(&'a self, scheme: &'a [u8], authority: &'a [u8], path: &'a [u8]) -> Named<'a> {
        let asked_by = canonical_scheme(scheme);
        let authority = canonical_authority(&asked_by, authority);
        let authority = match &self.host {
            Some(host) => Cow::Borrowed(&**host),
            None if self.ignore_port => without_port(authority),
            None => authority,
        };
        let scheme = if self.ignore_scheme && matches!(&*asked_by, b"http" | b"https") {
            Cow::Borrowed(ONE_SCHEME)
        } else {
            asked_by
        };
        // Under another scheme another port is the default one.
        let spelled = canonical_authority(&scheme, &authority);
        let authority = if spelled == authority {
            authority
        } else {
            Cow::Owned(spelled.into_owned())
        };
        Named {
            scheme,
            authority,
            path: self.named_path(path),
        }
    }

    fn named_path<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        let path = canonical_path(path);
        let question_mark = path.iter().position(|&byte| byte == b'?');
        let leaves_all = self.query == QueryKept::All && !self.sort_query;
        let Some(question_mark) = question_mark.filter(|_| !leaves_all) else {
            return path;
        };
        let (before, query) = path.split_at(question_mark);
        let query = query.get(1..).unwrap_or_default();
        let mut kept: Vec<&[u8]> = query
            .split(|&byte| byte == b'&')
            .filter(|parameter| !parameter.is_empty() && self.keeps(parameter))
            .collect();
        if self.sort_query {
            kept.sort_by_key(|parameter| name_of(parameter));
        }
        let kept = kept.join(&b'&');
        if kept == query {
            return path;
        }
        let separator: &[u8] = if kept.is_empty() { b"" } else { b"?" };
        Cow::Owned([before, separator, &kept].concat())
    }

    fn keeps(&self, parameter: &[u8]) -> bool {
        if self.origin_sees_all && parameter.contains(&b';') {
            // Some origins read `;` as a separator: what stands behind it would reach them without
            // being part of the key.
            return true;
        }
        let name = decoded(name_of(parameter));
        let is_named = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(&name));
        match &self.query {
            QueryKept::All => true,
            QueryKept::Without(globs) => !is_named(globs),
            QueryKept::Only(globs) => is_named(globs),
        }
    }
}

/// A parameter's name as it is written.
fn name_of(parameter: &[u8]) -> &[u8] {
    parameter
        .split(|&byte| byte == b'=')
        .next()
        .unwrap_or_default()
}

/// A part of a query as origins read it. What is no percent-encoding stays as it is.
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let space = |&byte: &u8| if byte == b'+' { b' ' } else { byte };
    let spaced: Vec<u8> = text.iter().map(space).collect();
    percent_decode(&spaced).collect()
}

/// A canonical authority without its port.
fn without_port(authority: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match authority {
        Cow::Borrowed(text) => host_and_port(text).map_or(text, |(host, _)| host).into(),
        Cow::Owned(mut text) => {
            let end = host_and_port(&text).map_or(text.len(), |(host, _)| host.len());
            text.truncate(end);
            text.into()
        }
    }
}

#[cfg(test)]
mod tests;
