//! How long a response stays fresh (RFC 9111 §4.2.1–4.2.2), and what it says about its use
//! afterwards.
//!
//! What this decides: the lifetime and where it comes from. What it leaves out: how old the
//! response is (`age`) and whether it may be used (`reuse`).

use larder_contract::http_time::{DeltaSeconds, Timestamp};

use crate::cache_control::{FieldScope, ResponseDirectives};
use crate::message::ResponseHead;
use crate::policy::Policy;
use crate::stored_response::ReuseTerms;

/// Where a lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// The query override.
    Override,
    /// `s-maxage` (RFC 9111 §5.2.2.10).
    SMaxage,
    /// `max-age` (RFC 9111 §5.2.2.1).
    MaxAge,
    /// `Expires` (RFC 9111 §5.3).
    Expires,
    /// A guess from `Last-Modified` (RFC 9111 §4.2.2).
    Heuristic,
    /// The operator's word.
    PolicyDefault,
    /// Nowhere: the lifetime is 0.
    None,
}

/// RFC 9110 §15.1: statuses that may be reused on a guess.
pub fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(
        status,
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// A guess never exceeds a day.
const MAX_HEURISTIC: DeltaSeconds = DeltaSeconds::new(86_400);

/// freshness_lifetime for a shared cache, and its source; the first that applies counts (RFC 9111
/// §4.2.1).
pub fn freshness_lifetime(
    response: &ResponseHead,
    directives: &ResponseDirectives,
    response_time: Timestamp,
    policy: &Policy,
) -> (DeltaSeconds, LifetimeSource) {
    if let Some(lifetime) = directives.s_maxage {
        return (lifetime, LifetimeSource::SMaxage);
    }
    if let Some(lifetime) = directives.max_age {
        return (lifetime, LifetimeSource::MaxAge);
    }
    // RFC 9213 §2.1: a targeted field speaks for all caching directives, Expires included.
    if !directives.targeted
        && let Some(lifetime) = expires_lifetime(response, response_time)
    {
        return (lifetime, LifetimeSource::Expires);
    }
    if let Some(lifetime) = heuristic_lifetime(response, directives, response_time, policy) {
        return (lifetime, LifetimeSource::Heuristic);
    }
    match policy.lifetime_of_status(response.status) {
        Some(lifetime) => (lifetime, LifetimeSource::PolicyDefault),
        None => (DeltaSeconds::ZERO, LifetimeSource::None),
    }
}

/// Whether the response itself names its lifetime: nobody guesses and no operator gives one (RFC
/// 9111 §4.2.1).
pub fn is_explicit(response: &ResponseHead, policy: &Policy) -> bool {
    let directives = ResponseDirectives::of(&response.fields, policy);
    let (_, source) = freshness_lifetime(response, &directives, Timestamp::default(), policy);
    matches!(
        source,
        LifetimeSource::SMaxage | LifetimeSource::MaxAge | LifetimeSource::Expires
    )
}

/// `Expires` less `Date`. An invalid or repeated, differing value means "already expired" (RFC 9111
/// §5.3, §4.2.1).
fn expires_lifetime(response: &ResponseHead, response_time: Timestamp) -> Option<DeltaSeconds> {
    let mut lines = response.fields.all("expires");
    let first = lines.next()?;
    if lines.any(|line| line != first) {
        return Some(DeltaSeconds::ZERO);
    }
    let date = response
        .fields
        .get("date")
        .and_then(Timestamp::parse_http_date)
        .unwrap_or(response_time);
    Some(
        Timestamp::parse_http_date(first).map_or(DeltaSeconds::ZERO, |expires| expires.since(date)),
    )
}

fn heuristic_lifetime(
    response: &ResponseHead,
    directives: &ResponseDirectives,
    response_time: Timestamp,
    policy: &Policy,
) -> Option<DeltaSeconds> {
    let allowed = is_heuristically_cacheable(response.status) || directives.public;
    if !policy.heuristic_freshness || !allowed {
        return None;
    }
    let modified = response
        .fields
        .get("last-modified")
        .and_then(Timestamp::parse_http_date)?;
    let date = response
        .fields
        .get("date")
        .and_then(Timestamp::parse_http_date)
        .unwrap_or(response_time);
    // RFC 9111 §4.2.2: a typical setting is 10 % of the time since it was modified.
    Some(DeltaSeconds::new(date.since(modified).as_secs() / 10).min(MAX_HEURISTIC))
}

/// What the response says about its own reuse, and where its lifetime comes from.
pub fn reuse_terms(
    response: &ResponseHead,
    directives: &ResponseDirectives,
    response_time: Timestamp,
    policy: &Policy,
) -> (ReuseTerms, LifetimeSource) {
    let (lifetime, source) = freshness_lifetime(response, directives, response_time, policy);
    let names_stale_use =
        directives.stale_while_revalidate.is_some() || directives.stale_if_error.is_some();
    let terms = ReuseTerms {
        lifetime,
        stale_while_revalidate: directives.stale_while_revalidate.unwrap_or_default(),
        stale_if_error: directives.stale_if_error.unwrap_or_default(),
        // RFC 9111 §5.2.2.8, §5.2.2.10: for a shared cache these two say the same as
        // must-revalidate.
        must_revalidate: directives.must_revalidate
            || directives.proxy_revalidate
            || (directives.s_maxage.is_some() && !(policy.stale_with_s_maxage && names_stale_use)),
        no_cache: directives.no_cache == FieldScope::Whole,
    };
    (terms, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
    const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

    fn lifetime_under(
        policy: &Policy,
        status: u16,
        pairs: &[(&str, &str)],
    ) -> (u64, LifetimeSource) {
        let response = ResponseHead::new(status, pairs);
        let directives = ResponseDirectives::of(&response.fields, policy);
        let (lifetime, source) = freshness_lifetime(&response, &directives, NOW, policy);
        (lifetime.as_secs(), source)
    }

    fn lifetime(pairs: &[(&str, &str)]) -> (u64, LifetimeSource) {
        lifetime_under(&Policy::default(), 200, pairs)
    }

    #[test]
    fn s_maxage_comes_before_max_age_before_expires() {
        let expires = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(
            lifetime(&[("cache-control", "max-age=1, s-maxage=2"), expires]),
            (2, LifetimeSource::SMaxage)
        );
        assert_eq!(
            lifetime(&[("cache-control", "max-age=1"), expires]),
            (1, LifetimeSource::MaxAge)
        );
        assert_eq!(lifetime(&[DATE, expires]), (60, LifetimeSource::Expires));
        assert_eq!(lifetime(&[expires]), (60, LifetimeSource::Expires));
        assert_eq!(lifetime(&[]), (0, LifetimeSource::None));
    }

    #[test]
    fn an_invalid_expires_is_in_the_past() {
        for value in ["0", "-1", "soon", "", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(
                lifetime(&[DATE, ("expires", value)]),
                (0, LifetimeSource::Expires),
                "{value}"
            );
        }
        let two = [
            DATE,
            ("expires", "Sun, 06 Nov 1994 08:50:37 GMT"),
            ("expires", "Sun, 06 Nov 1994 08:51:37 GMT"),
        ];
        assert_eq!(lifetime(&two), (0, LifetimeSource::Expires));
    }

    #[test]
    fn a_lifetime_is_guessed_only_where_the_policy_says_so() {
        let modified = ("last-modified", "Sun, 06 Nov 1994 08:32:57 GMT"); // 1000 s before
        assert_eq!(lifetime(&[DATE, modified]), (0, LifetimeSource::None));
        let policy = Policy {
            heuristic_freshness: true,
            ..Policy::default()
        };
        assert_eq!(
            lifetime_under(&policy, 200, &[DATE, modified]),
            (100, LifetimeSource::Heuristic)
        );
        assert_eq!(
            lifetime_under(&policy, 500, &[DATE, modified]),
            (0, LifetimeSource::None)
        );
        let public = ("cache-control", "public");
        assert_eq!(
            lifetime_under(&policy, 599, &[DATE, modified, public]),
            (100, LifetimeSource::Heuristic)
        );
    }

    #[test]
    fn a_targeted_field_silences_expires() {
        let expires = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(
            lifetime(&[("cdn-cache-control", "max-age=9"), expires]),
            (9, LifetimeSource::MaxAge)
        );
        assert_eq!(
            lifetime(&[("cdn-cache-control", "public"), expires]),
            (0, LifetimeSource::None)
        );
    }

    #[test]
    fn for_a_shared_cache_s_maxage_and_proxy_revalidate_forbid_staleness() {
        for value in [
            "s-maxage=1",
            "proxy-revalidate, max-age=1",
            "must-revalidate, max-age=1",
        ] {
            let response = ResponseHead::new(200, &[("cache-control", value)]);
            let directives = ResponseDirectives::of(&response.fields, &Policy::default());
            assert!(
                reuse_terms(&response, &directives, NOW, &Policy::default())
                    .0
                    .must_revalidate,
                "{value}"
            );
        }
    }

    #[test]
    fn stale_use_beside_s_maxage_takes_the_operators_word_and_the_origins() {
        let lenient = Policy {
            stale_with_s_maxage: true,
            ..Policy::default()
        };
        for (value, policy, forbidden) in [
            ("s-maxage=1, stale-while-revalidate=9", &lenient, false),
            ("s-maxage=1, stale-if-error=9", &lenient, false),
            ("s-maxage=1", &lenient, true),
            (
                "s-maxage=1, stale-if-error=9, proxy-revalidate",
                &lenient,
                true,
            ),
            ("s-maxage=1, stale-if-error=9", &Policy::default(), true),
        ] {
            let response = ResponseHead::new(200, &[("cache-control", value)]);
            let directives = ResponseDirectives::of(&response.fields, policy);
            let (terms, _) = reuse_terms(&response, &directives, NOW, policy);
            assert_eq!(terms.must_revalidate, forbidden, "{value}");
        }
    }
}
