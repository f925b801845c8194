//! A configuration's rules: which policy holds for a request, and which keys a URL may have.
//!
//! What this decides: the first rule that matches counts. What it leaves out: when a rule matches
//! (`rules::matching`), and how rules are written down.

use std::sync::Arc;

use crate::invalidation::Target;
use crate::message::Request;
use crate::policy::Policy;
use crate::policy::key::Named;

pub mod matching;
pub mod path;

use matching::Match;

/// One rule.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Which requests it is for.
    pub matches: Match,
    /// What holds for them.
    pub policy: Arc<Policy>,
}

/// All rules of a configuration, in order.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    make_keys: bool,
}

impl Rules {
    /// Rules in their order.
    pub fn new(rules: Vec<Rule>) -> Self {
        let make_keys = rules.iter().any(|rule| rule.policy.key.is_some());
        Self { rules, make_keys }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The policy of the first rule that matches; without one the request is left alone.
    pub fn policy_for(&self, request: &Request) -> Option<&Arc<Policy>> {
        self.rules
            .iter()
            .find(|rule| rule.matches.matches(request))
            .map(|rule| &rule.policy)
    }

    /// Whether any rule leaves something out of its keys.
    pub fn make_keys(&self) -> bool {
        self.make_keys
    }

    /// What the keys name under which something may be stored for a URL, by rules that leave
    /// something out. A rule may look at what only a request has, so there may be several.
    pub fn names_of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = Named<'a>> {
        let Target {
            scheme,
            authority,
            path,
        } = target;
        let mut is_decided = false;
        self.rules
            .iter()
            .filter(|rule| rule.matches.may_match(target))
            .take_while(move |rule| {
                let goes_on = !is_decided;
                is_decided = rule.matches.needs_no_more_than_a_url();
                goes_on
            })
            .filter_map(|rule| rule.policy.key.as_ref())
            .map(|rules| rules.name(scheme, authority, path))
    }

    /// What keys may name for whatever lies at a host; the path is `/`.
    pub fn names_of_host<'a>(
        &'a self,
        scheme: &'a [u8],
        authority: &'a [u8],
    ) -> impl Iterator<Item = Named<'a>> {
        self.rules
            .iter()
            .filter(|rule| rule.matches.may_match_host(scheme, authority))
            .filter_map(|rule| rule.policy.key.as_ref())
            .map(|rules| rules.name(scheme, authority, b"/"))
    }
}

#[cfg(test)]
mod tests;
