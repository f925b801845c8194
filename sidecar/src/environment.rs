//! The environment's mistakes, all at once: a deployment is mended in one edit, not one restart for
//! each.

use larder_sidecar::Tokens;
use larder_sidecar::store::redis::{Address, Seal};

/// Settings that are whole numbers, each with its least.
const NUMBERS: [(&str, u64); 5] = [
    ("LARDER_MEMORY_BYTES", 0),
    ("LARDER_MAX_ENTRY_BYTES", 0),
    ("LARDER_MAX_VARIANTS", 1),
    ("LARDER_MAX_WAITERS", 0),
    ("LARDER_REDIS_TIMEOUT_MS", 1),
];

/// One line for each mistake. `get` gives a variable's value.
pub(crate) fn mistakes(get: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let given = |name: &str| get(name).filter(|value| !value.is_empty());
    let mut mistakes = Vec::new();
    for (name, least) in NUMBERS {
        match given(name).map(|value| (value.parse::<u64>(), value)) {
            Some((Err(_), value)) => {
                mistakes.push(format!("{name}: {value:?} is not a whole number"))
            }
            Some((Ok(number), _)) if number < least => {
                mistakes.push(format!("{name}: must be at least {least}"))
            }
            _ => {}
        }
    }
    let separates =
        |byte: char| byte.is_whitespace() || byte.is_control() || matches!(byte, '{' | '}');
    if let Some(value) = given("LARDER_NAMESPACE").filter(|value| value.contains(separates)) {
        mistakes.push(format!(
            "LARDER_NAMESPACE: {value:?} has spaces or braces; a cluster tells keys apart by braces"
        ));
    }
    if let Some(value) =
        given("LARDER_LOG_FORMAT").filter(|value| value != "text" && value != "json")
    {
        mistakes.push(format!(
            "LARDER_LOG_FORMAT: {value:?} is neither text nor json"
        ));
    }
    if let Some(value) =
        given("LARDER_CLOSED_ENVOY").filter(|value| value != "missing" && value != "left")
    {
        mistakes.push(format!(
            "LARDER_CLOSED_ENVOY: {value:?} is neither missing nor left"
        ));
    }
    if let Some(Err(problem)) = given("REDIS_URL").map(|url| Address::parse(&url)) {
        mistakes.push(problem);
    }
    if let Some(Err(problem)) = given("LARDER_STORE_SECRET").map(|secret| Seal::new(&secret)) {
        mistakes.push(problem);
    }
    if let Some(Err(problem)) =
        given("LARDER_TOKEN").map(|token| Tokens::parse("LARDER_TOKEN", &token))
    {
        mistakes.push(problem);
    }
    mistakes
}

/// Variables that look like settings and are none: most likely misspelt. They are told and not
/// refused, for a platform may set some of its own (Kubernetes those of a service that is called
/// larder-…).
pub(crate) fn unknown(names: impl Iterator<Item = String>, known: &[&str]) -> Vec<String> {
    let is_platforms = |name: &str| name.contains("_SERVICE_") || name.contains("_PORT");
    let seems_ours = |name: &str| name.starts_with("LARDER_") || name == "REDIS_URI";
    let mut unknown: Vec<String> = names
        .filter(|name| seems_ours(name) && !is_platforms(name) && !known.contains(&name.as_str()))
        .collect();
    unknown.sort();
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_variable_is_told() {
        let names = [
            "LARDER_TOKN",
            "LARDER_TOKEN",
            "REDIS_URI",
            "PATH",
            "LARDER_SIDECAR_SERVICE_HOST",
            "LARDER_SIDECAR_PORT",
        ];
        assert_eq!(
            unknown(names.map(str::to_owned).into_iter(), &["LARDER_TOKEN"]),
            ["LARDER_TOKN", "REDIS_URI"]
        );
    }

    #[test]
    fn every_mistake_is_named_at_once_and_no_secret_shown() {
        let get = |name: &str| {
            let value = match name {
                "LARDER_MEMORY_BYTES" => "lots",
                "LARDER_MAX_WAITERS" => "-1",
                "LARDER_REDIS_TIMEOUT_MS" | "LARDER_MAX_VARIANTS" => "0",
                "LARDER_NAMESPACE" => "a{b}",
                "LARDER_LOG_FORMAT" => "xml",
                "LARDER_CLOSED_ENVOY" => "dead",
                "REDIS_URL" => "http://h",
                "LARDER_STORE_SECRET" | "LARDER_TOKEN" => "short",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let mistakes = mistakes(get);
        assert_eq!(mistakes.len(), 10, "{mistakes:?}");
        assert!(!mistakes.join(" ").contains("short"));
        assert!(super::mistakes(|_| None).is_empty());
        assert!(super::mistakes(|_| Some(String::new())).is_empty());
    }
}
