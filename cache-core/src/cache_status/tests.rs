use super::*;
use std::collections::HashSet;

#[test]
fn the_field_reads_as_rfc_9211_writes_it() {
    let hit = CacheStatus {
        hit: true,
        ttl: Some(4),
        ..CacheStatus::default()
    };
    let validated = CacheStatus {
        forward_status: Some(304),
        stored: true,
        ttl: Some(60),
        ..CacheStatus::forwarded(Forward::Stale)
    };
    let collapsed = CacheStatus {
        collapsed: true,
        ..CacheStatus::forwarded(Forward::UriMiss)
    };
    for (status, text, word) in [
        (hit, "larder; hit; ttl=4", "HIT"),
        (
            validated,
            "larder; fwd=stale; fwd-status=304; stored; ttl=60",
            "MISS",
        ),
        (collapsed, "larder; fwd=uri-miss; collapsed", "MISS"),
    ] {
        assert_eq!(status.to_string(), text);
        assert_eq!(status.hit_or_miss(), word);
    }
}

#[test]
fn a_stale_copy_in_place_of_a_failure_is_a_hit_that_was_forwarded() {
    let status = CacheStatus {
        forward_status: Some(503),
        stale_on_error: true,
        ..CacheStatus::forwarded(Forward::Stale)
    }
    .with_detail(Detail::StaleIfError);
    assert_eq!(
        status.to_string(),
        "larder; fwd=stale; fwd-status=503; detail=stale-if-error"
    );
    assert_eq!(status.hit_or_miss(), "HIT");
}

#[test]
fn only_who_presents_the_token_is_told_where_the_policy_says_trusted() {
    let policy = |tell, token: Option<&[u8]>| Policy {
        tell,
        debug_token: token.map(Into::into),
        ..Policy::default()
    };
    let presenting = |value: &str| Request::new("GET", "a", "/").with(DEBUG_FIELD, value);
    let trusted = policy(Tell::Trusted, Some(b"0123456789abcdef"));
    assert!(is_told(&presenting("0123456789abcdef"), &trusted));
    for other in [
        "",
        "0123456789abcde",
        "0123456789abcdeF",
        "0123456789abcdef0",
    ] {
        assert!(!is_told(&presenting(other), &trusted), "{other}");
    }
    assert!(!is_told(&Request::new("GET", "a", "/"), &trusted));
    assert!(!is_told(&presenting(""), &policy(Tell::Trusted, Some(b""))));
    assert!(!is_told(&presenting("x"), &policy(Tell::Trusted, None)));
    assert!(!is_told(
        &presenting("0123456789abcdef"),
        &policy(Tell::None, Some(b"0123456789abcdef"))
    ));
    assert!(is_told(
        &Request::new("GET", "a", "/"),
        &policy(Tell::All, None)
    ));
}

#[test]
fn every_detail_has_a_token_of_its_own() {
    let all: Vec<_> = Detail::all().collect();
    let tokens: HashSet<_> = all
        .iter()
        .filter(|d| !matches!(d, Detail::NotStored(_)))
        .map(|d| d.token())
        .collect();
    assert_eq!(
        tokens.len(),
        all.iter()
            .filter(|d| !matches!(d, Detail::NotStored(_)))
            .count()
    );
    for token in all.iter().map(|detail| detail.token()) {
        assert!(crate::fields::is_token(token.as_bytes()), "{token}");
    }
}
