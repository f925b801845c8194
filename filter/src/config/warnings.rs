//! What is legal in a configuration and dangerous.
//!
//! What this decides: which choices let one client reach what others get, or anybody empty the
//! cache, unless the operator knows more than the document says. What it leaves out: what is
//! refused (`reading`).

use larder_cache_core::rules::Rule;
use larder_cache_core::rules::matching::{Match, ValueCondition};
use serde_json::Value;

use super::{Config, Mistake};

/// Switches that take a protection away, and what follows.
const OPENED: [(&str, &str); 3] = [
    (
        "store_set_cookie",
        "gives everybody the cookie that one client got; strip_set_cookie stores the response without it",
    ),
    (
        "store_with_cookie",
        "stores for all what was answered to one client's cookies, unless the origin says Vary: Cookie; ignore_cookies and key.cookies say which do not matter",
    ),
    (
        "reuse_with_authorization",
        "gives a client with credentials what was stored for others, and needs an origin that answers all of them alike",
    ),
];

impl Config {
    /// What is dangerous in the document that this was read from, each with its path.
    pub fn warnings(&self, document: &[u8]) -> Vec<Mistake> {
        let document: Value = serde_json::from_slice(document).unwrap_or_default();
        let mut warnings = Vec::new();
        let mut warn = |path: String, problem: &str| {
            warnings.push(Mistake {
                path,
                problem: problem.to_owned(),
            });
        };
        if document
            .pointer("/store/token")
            .is_some_and(Value::is_string)
        {
            let problem = "can be read by whoever sees Envoy's configuration; LARDER_TOKEN in Envoy's environment cannot";
            warn("store.token".to_owned(), problem);
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let written = document.pointer(&format!("/rules/{index}/policy"));
            let is_there = |name: &str| written.is_some_and(|policy| policy.get(name).is_some());
            let path = |name: &str| format!("rules[{index}].policy.{name}");
            for (name, problem) in of_rule(rule) {
                // A member that the document leaves out has no place in it.
                let at = if is_there(name.split('.').next().unwrap_or(name)) {
                    path(name)
                } else {
                    format!("rules[{index}]")
                };
                warn(at, problem);
            }
            for (name, problem) in OPENED {
                let is_on = written.and_then(|policy| policy.get(name)) == Some(&Value::Bool(true));
                if is_on {
                    warn(path(name), problem);
                }
            }
        }
        warnings
    }
}

/// What a rule's conditions and its policy together make dangerous.
fn of_rule(rule: &Rule) -> Vec<(&'static str, &'static str)> {
    let (matches, policy) = (&rule.matches, &rule.policy);
    let mut found = Vec::new();
    let gives_lifetimes = policy.lifetime_of_status(200).is_some();
    if policy.cache && gives_lifetimes && matches.is_by_path() && policy.lifetime_types.is_empty() {
        let name = if policy.default_lifetime.is_some() {
            "default_lifetime_s"
        } else {
            "status_lifetimes_s"
        };
        found.push((
            name,
            "is given by path alone: under such a path somebody's own page may be stored for all (web cache deception); name the types with lifetime_types",
        ));
    }
    if policy.allow_purge && !asks_for_a_value(matches) {
        found.push((
            "allow_purge",
            "lets everybody who meets the rule empty the cache; match a field by a secret value",
        ));
    }
    if policy.query_override && !asks_for_a_value(matches) {
        found.push((
            "query_override",
            "lets every client choose how long what it asks for is stored",
        ));
    }
    if policy.origin_sees_all() {
        found.push((
            "key.origin_sees",
            "lets the first client decide by what is not in the key what everybody gets, where the origin looks at it",
        ));
    }
    found
}

/// Whether a client has to know something to meet the rule.
fn asks_for_a_value(matches: &Match) -> bool {
    let is_value =
        |(_, condition): &(String, ValueCondition)| matches!(condition, ValueCondition::Like(_));
    matches.fields.iter().chain(&matches.cookies).any(is_value)
}
