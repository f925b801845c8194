//! The environment's mistakes, all at once: a deployment is mended in one edit, not one restart for each.

use larder_sidecar::Tokens;
use larder_sidecar::store::redis::{Place, Seal};

/// Settings that are whole numbers.
const NUMBERS: [&str; 5] = [
    "LARDER_MEMORY_BYTES",
    "LARDER_MAX_ENTRY_BYTES",
    "LARDER_MAX_VARIANTS",
    "LARDER_MAX_WAITERS",
    "LARDER_REDIS_TIMEOUT_MS",
];

/// One line for each mistake. `get` gives a variable's value.
pub(crate) fn mistakes(get: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let given = |name: &str| get(name).filter(|value| !value.is_empty());
    let mut mistakes = Vec::new();
    for name in NUMBERS {
        if let Some(value) = given(name).filter(|value| value.parse::<u64>().is_err()) {
            mistakes.push(format!("{name}: {value:?} is not a whole number"));
        }
    }
    if let Some(value) = given("LARDER_LOG_FORMAT").filter(|value| value != "text" && value != "json") {
        mistakes.push(format!("LARDER_LOG_FORMAT: {value:?} is neither text nor json"));
    }
    if let Some(Err(problem)) = given("REDIS_URL").map(|url| Place::parse(&url)) {
        mistakes.push(problem);
    }
    if let Some(Err(problem)) = given("LARDER_STORE_SECRET").map(|secret| Seal::new(&secret)) {
        mistakes.push(problem);
    }
    if let Some(Err(problem)) = given("LARDER_TOKEN").map(|token| Tokens::parse("LARDER_TOKEN", &token)) {
        mistakes.push(problem);
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_named_at_once_and_no_secret_shown() {
        let get = |name: &str| {
            let value = match name {
                "LARDER_MEMORY_BYTES" => "lots",
                "LARDER_MAX_WAITERS" => "-1",
                "LARDER_LOG_FORMAT" => "xml",
                "REDIS_URL" => "http://h",
                "LARDER_STORE_SECRET" | "LARDER_TOKEN" => "short",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let mistakes = mistakes(get);
        assert_eq!(mistakes.len(), 6, "{mistakes:?}");
        assert!(!mistakes.join(" ").contains("short"));
        assert!(super::mistakes(|_| None).is_empty());
        assert!(super::mistakes(|_| Some(String::new())).is_empty());
    }
}
