//! What an operator gives and takes of lifetimes.
//!
//! What this decides: which responses a rule's own lifetimes are for. An address such as
//! `/account/x.css` may bring somebody's account ("web cache deception"): that it ends in `.css`
//! says less than what the response says of itself.

use larder_contract::http_time::DeltaSeconds;
use larder_contract::ows::trim;
use xxhash_rust::xxh3::xxh3_64;

use crate::message::{Request, ResponseHead};
use crate::policy::Policy;
use crate::query_override::QueryOverride;
use crate::rules::path::is_oddly_spelled;

/// Whether the lifetimes that the rule gives are for this response.
pub(super) fn is_given(request: &Request, response: &ResponseHead, policy: &Policy) -> bool {
    if policy.is_by_path && is_oddly_spelled(request.path()) {
        return false;
    }
    if policy.lifetime_types.is_empty() {
        return true;
    }
    let content_type = response.fields.get("content-type").unwrap_or_default();
    let essence = content_type.split(|&byte| byte == b';').next();
    let essence = trim(essence.unwrap_or_default()).to_ascii_lowercase();
    policy
        .lifetime_types
        .iter()
        .any(|known| known.matches(&essence))
}

/// A lifetime, shorter by what follows from the URL. A client's own word is not changed.
pub(super) fn shortened(
    lifetime: DeltaSeconds,
    url: &str,
    overriding: Option<&QueryOverride>,
    policy: &Policy,
) -> DeltaSeconds {
    const STEPS: u64 = 1_000;
    if policy.lifetime_jitter == 0 || overriding.is_some() {
        return lifetime;
    }
    let share = xxh3_64(url.as_bytes()) % (STEPS + 1);
    let most = lifetime.as_secs().saturating_mul(policy.lifetime_jitter) / 100;
    DeltaSeconds::new(lifetime.as_secs() - most.saturating_mul(share) / STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glob::Glob;

    #[test]
    fn a_rules_lifetimes_are_for_its_types_and_for_paths_that_mean_one_thing() {
        let policy = Policy {
            lifetime_types: vec![Glob::new("text/css"), Glob::new("image/*")],
            is_by_path: true,
            ..Policy::default()
        };
        let is_given = |path, content_type: &str| {
            let response = ResponseHead::new(200, &[("content-type", content_type)]);
            is_given(&Request::new("GET", "a", path), &response, &policy)
        };
        for (path, content_type, expected) in [
            ("/a.css", "text/css", true),
            ("/a.css", "Text/CSS ; charset=utf-8", true),
            ("/a.png", "image/png", true),
            ("/account/x.css", "text/html", false),
            ("/account/x.css", "", false),
            ("/account%2Fx.css", "text/css", false),
            ("/account;x.css", "text/css", false),
        ] {
            assert_eq!(
                is_given(path, content_type),
                expected,
                "{path} {content_type}"
            );
        }
    }

    #[test]
    fn lifetimes_differ_by_url_within_the_bound_and_always_alike() {
        let policy = Policy {
            lifetime_jitter: 20,
            ..Policy::default()
        };
        let of = |page: u32| {
            let url = format!("http://a/{page}");
            shortened(DeltaSeconds::new(1_000), &url, None, &policy).as_secs()
        };
        let all: Vec<u64> = (0..200).map(of).collect();
        assert!(all.iter().all(|lifetime| (800..=1_000).contains(lifetime)));
        assert!(all.iter().min() < Some(&830) && all.iter().max() > Some(&970));
        assert_eq!(of(7), of(7));
        let own = QueryOverride::default();
        let kept = shortened(DeltaSeconds::new(9), "http://a/", Some(&own), &policy);
        assert_eq!(kept.as_secs(), 9);
    }
}
