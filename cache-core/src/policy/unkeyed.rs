//! Fields that origins look at although nobody names them in `Vary`: what forwarding proxies write
//! and frameworks read.
//!
//! What this decides: what becomes of each. A forged one that the origin reflects would otherwise
//! stand in what everybody gets ("web cache poisoning"). What it leaves out: how they select; that
//! is `vary::unkeyed`.

use crate::field_names::{FieldNames, FieldPattern};
use crate::fields::Fields;

/// Fields that select by default.
///
/// Not among them are those that differ with every client or request (`x-forwarded-for`,
/// `x-real-ip`, `x-request-id`, trace fields): each response would have one reader.
/// `x-forwarded-proto` is the scheme, which is part of the key.
pub const UNKEYED_FIELDS: [&str; 109] = [
    // The host, port, scheme or path that the client asked for, as a proxy in front tells it.
    "base-url",
    "cdn-forwarded-proto",
    "cloudfront-forwarded-proto",
    "forwarded",
    "forwarded-host",
    "forwarded-proto",
    "front-end-https",
    "host",
    "proxy-host",
    "proxy-url",
    "request-uri",
    "true-host",
    "x-arr-ssl",
    "x-base-url",
    "x-context-path",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-forward-host",
    "x-forward-proto",
    "x-forwarded",
    "x-forwarded-base-url",
    "x-forwarded-context",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-protocol",
    "x-forwarded-query",
    "x-forwarded-root",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-front-end-https",
    "x-gateway-host",
    "x-host",
    "x-host-override",
    "x-http-destinationurl",
    "x-http-host",
    "x-http-host-override",
    "x-http-path-override",
    "x-ms-original-url",
    "x-orig-host",
    "x-original-host",
    "x-original-method",
    "x-original-path",
    "x-original-proto",
    "x-original-scheme",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-path-prefix",
    "x-port",
    "x-proto",
    "x-proxy-host",
    "x-proxy-url",
    "x-real-host",
    "x-request-path",
    "x-request-uri",
    "x-rewrite-uri",
    "x-rewrite-url",
    "x-root-path",
    "x-scheme",
    "x-script-name",
    "x-server-name",
    "x-ssl",
    "x-url",
    "x-url-scheme",
    "x-waws-unencoded-url",
    // What frameworks tell a page, a part of it and its data apart by.
    "datastar-request",
    "hx-*",
    "next-*",
    "rsc",
    "turbo-frame",
    "x-ajax",
    "x-alpine-*",
    "x-astro-*",
    "x-barba",
    "x-fresh-*",
    "x-inertia",
    "x-inertia-*",
    "x-invoke-*",
    "x-livewire",
    "x-livewire-*",
    "x-matched-path",
    "x-middleware-*",
    "x-nextjs-*",
    "x-now-route-matches",
    "x-nuxt-*",
    "x-pjax",
    "x-pjax-*",
    "x-prerender-*",
    "x-qwik-*",
    "x-react-router-*",
    "x-remix-*",
    "x-requested-with",
    "x-rsc-*",
    "x-sveltekit-*",
    "x-swup-*",
    "x-tsr-*",
    "x-up-*",
    // What browsers say of the purpose of a request.
    "purpose",
    "save-data",
    "sec-purpose",
    "x-moz",
    "x-preview",
    "x-purpose",
];

/// What becomes of a field that nobody names in `Vary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// It selects a variant, as if `Vary` named it.
    Select,
    /// The origin does not see it.
    Strip,
    /// A request that has it passes without the cache.
    Bypass,
    /// Nothing: it reaches the origin and selects nothing.
    Ignore,
}

/// What becomes of which field. Of several patterns that match, the most exact counts; of equal
/// ones the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnkeyedFields {
    rules: Vec<(FieldPattern, Handling)>,
    /// Every pattern that is not ignored.
    watched: FieldNames,
    /// Whether any field is stripped or makes its request pass.
    may_change: bool,
}

impl UnkeyedFields {
    /// The given patterns with what becomes of each.
    pub fn new(rules: impl IntoIterator<Item = (FieldPattern, Handling)>) -> Self {
        let rules: Vec<_> = rules.into_iter().collect();
        let watched = rules
            .iter()
            .filter(|(_, handling)| *handling != Handling::Ignore);
        let watched = FieldNames::new(watched.map(|(pattern, _)| pattern.clone()));
        let may_change = rules
            .iter()
            .any(|(_, handling)| matches!(handling, Handling::Strip | Handling::Bypass));
        Self {
            rules,
            watched,
            may_change,
        }
    }

    /// The given patterns, all of which select.
    pub fn selecting(patterns: &[&str]) -> Self {
        Self::new(
            patterns
                .iter()
                .filter_map(|text| Some((FieldPattern::parse(text)?, Handling::Select))),
        )
    }

    /// The same with some patterns handled otherwise.
    #[must_use]
    pub fn with(&self, rules: impl IntoIterator<Item = (FieldPattern, Handling)>) -> Self {
        Self::new(self.rules.iter().cloned().chain(rules))
    }

    /// What becomes of the field `name`, in lower case.
    pub fn handling(&self, name: &[u8]) -> Handling {
        if !self.watched.contains(name) {
            return Handling::Ignore;
        }
        let matching = self
            .rules
            .iter()
            .filter(|(pattern, _)| pattern.matches(name));
        matching
            .max_by_key(|(pattern, _)| pattern.rank())
            .map_or(Handling::Ignore, |(_, handling)| *handling)
    }

    /// The lines of `fields` that are handled so.
    pub fn lines<'a>(
        &'a self,
        fields: &'a Fields,
        handling: Handling,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.watched
            .lines(fields)
            .filter(move |(name, _)| self.handling(name) == handling)
    }

    /// Whether `fields` has any that is stripped or makes its request pass.
    pub fn change(&self, fields: &Fields) -> bool {
        let changes =
            |name: &[u8]| matches!(self.handling(name), Handling::Strip | Handling::Bypass);
        self.may_change && self.watched.lines(fields).any(|(name, _)| changes(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_pattern_counts_and_of_equal_ones_the_last() {
        let pattern = |text| FieldPattern::parse(text).unwrap();
        let fields = UnkeyedFields::selecting(&["hx-*", "x-host"]);
        let fields = fields.with([
            (pattern("hx-request"), Handling::Ignore),
            (pattern("x-host"), Handling::Strip),
        ]);
        for (name, handling) in [
            ("hx-target", Handling::Select),
            ("hx-request", Handling::Ignore),
            ("x-host", Handling::Strip),
            ("x_host", Handling::Strip),
            ("accept", Handling::Ignore),
        ] {
            assert_eq!(fields.handling(name.as_bytes()), handling, "{name}");
        }
    }

    #[test]
    fn every_default_is_a_pattern() {
        for text in UNKEYED_FIELDS.iter().chain(&super::super::IDENTITY_FIELDS) {
            assert!(FieldPattern::parse(text).is_some(), "{text}");
        }
    }
}
