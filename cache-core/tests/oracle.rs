//! The core against an independent implementation, the `http-cache-semantics` crate, over random
//! responses, requests and clocks: may this response be stored, and may it answer that request
//! without validation?
//!
//! The oracle follows RFC 7234 and simplifies; [`knowingly_differ`] lists where, with the RFC's
//! word for it. What is generated avoids what it cannot read at all: names in upper case, commas in
//! quoted strings, repeated directives, dates other than IMF-fixdate, `Set-Cookie`,
//! `proxy-revalidate`, field-name forms.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};
use larder_cache_core::cache_control::RequestDirectives;
use larder_cache_core::message::{Request, ResponseHead};
use larder_cache_core::policy::Policy;
use larder_cache_core::reuse::{self, Reuse};
use larder_cache_core::storing::{self, Fetched};
use larder_contract::http_time::Timestamp;
use proptest::prelude::*;

const RECEIVED: u64 = 1_800_000_000;

/// One response, the request that brought it, and a later one.
#[derive(Clone, Debug)]
struct Case {
    status: u16,
    /// `Cache-Control` of the response.
    directives: Vec<String>,
    /// `Expires` less `Date`, in seconds.
    expires: Option<i64>,
    /// `Date` less `Last-Modified`.
    unmodified_for: Option<u64>,
    age: Option<u64>,
    vary: bool,
    first: Asking,
    later: Asking,
    /// Seconds between receipt and the later request.
    after: u64,
}

#[derive(Clone, Debug)]
struct Asking {
    directives: Vec<String>,
    authorization: bool,
    selecting: Option<u8>,
}

impl Asking {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        if !self.directives.is_empty() {
            fields.push(("cache-control", self.directives.join(", ")));
        }
        if self.authorization {
            fields.push(("authorization", "Basic x".to_owned()));
        }
        fields.extend(self.selecting.map(|value| ("x-select", value.to_string())));
        fields
    }

    fn as_request(&self) -> Request {
        let request = Request::new("GET", "a.example", "/");
        self.fields()
            .into_iter()
            .fold(request, |request, (name, value)| request.with(name, &value))
    }

    fn as_oracles(&self) -> http::Request<()> {
        let mut request = http::Request::builder().uri("http://a.example/");
        for (name, value) in self.fields() {
            request = request.header(name, value);
        }
        request.body(()).unwrap()
    }

    fn says(&self, name: &str) -> bool {
        self.directives
            .iter()
            .any(|directive| directive.split('=').next() == Some(name))
    }
}

impl Case {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let date = |secs: u64| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(secs));
        let mut fields = vec![("date", date(RECEIVED))];
        if !self.directives.is_empty() {
            fields.push(("cache-control", self.directives.join(", ")));
        }
        fields.extend(
            self.expires
                .map(|offset| ("expires", date(RECEIVED.saturating_add_signed(offset)))),
        );
        fields.extend(
            self.unmodified_for
                .map(|secs| ("last-modified", date(RECEIVED - secs))),
        );
        fields.extend(self.age.map(|age| ("age", age.to_string())));
        if self.vary {
            fields.push(("vary", "x-select".to_owned()));
        }
        fields
    }

    fn says(&self, name: &str) -> bool {
        self.directives
            .iter()
            .any(|directive| directive.split('=').next() == Some(name))
    }

    /// Stored, and fresh enough for the later request.
    fn ours(&self) -> (bool, bool) {
        let policy = Policy::strict();
        let fields = self.fields();
        let pairs: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let received = Timestamp::from_millis(RECEIVED * 1000);
        let fetched = Fetched {
            request: &self.first.as_request(),
            overriding: None,
            response: &ResponseHead::new(self.status, &pairs),
            request_time: received,
            response_time: received,
        };
        let Ok(stored) = storing::judge(&fetched, String::new, &policy) else {
            return (false, false);
        };
        let later = self.later.as_request();
        let asked = RequestDirectives::of(&later.fields, &policy.request_directives);
        let now = received.plus_millis(self.after * 1000);
        let decision = reuse::decide(&stored, Some(&asked), &policy, now);
        (
            true,
            stored.selecting.matches(&later) && matches!(decision, Reuse::Fresh | Reuse::MaxStale),
        )
    }

    fn oracles(&self) -> (bool, bool) {
        let mut response = http::Response::builder().status(self.status);
        for (name, value) in self.fields() {
            response = response.header(name, value);
        }
        let received = UNIX_EPOCH + Duration::from_secs(RECEIVED);
        let options = CacheOptions::default();
        let response = response.body(()).unwrap();
        let policy =
            CachePolicy::new_options(&self.first.as_oracles(), &response, received, options);
        let now: SystemTime = received + Duration::from_secs(self.after);
        let fresh = matches!(
            policy.before_request(&self.later.as_oracles(), now),
            BeforeRequest::Fresh(_)
        );
        (policy.is_storable(), policy.is_storable() && fresh)
    }
}

/// Where the oracle is known to say something else, and why ours is right.
fn knowingly_differ(case: &Case) -> Option<&'static str> {
    let accepts_stale = case.later.says("max-stale");
    if accepts_stale && (case.says("s-maxage") || case.says("no-cache")) {
        return Some(
            "RFC 9111 §4.2.4: s-maxage and no-cache forbid stale answers too; the oracle heeds must-revalidate alone",
        );
    }
    if accepts_stale && case.later.says("max-age") {
        return Some(
            "RFC 9111 §5.2.1.1: max-stale loosens the request's own max-age; the oracle lets max-age win",
        );
    }
    if accepts_stale
        && case
            .later
            .directives
            .iter()
            .any(|directive| directive.starts_with("max-stale="))
    {
        return Some(
            "RFC 9111 §5.2.1.2: stale by no more than the number given; the oracle wants less",
        );
    }
    None
}

fn directive(name: &'static str) -> impl Strategy<Value = String> {
    (0u64..200).prop_map(move |secs| format!("{name}={secs}"))
}

fn some_of(words: Vec<BoxedStrategy<String>>) -> impl Strategy<Value = Vec<String>> {
    let each: Vec<_> = words
        .into_iter()
        .map(|word| proptest::option::weighted(0.2, word))
        .collect();
    each.prop_map(|words| words.into_iter().flatten().collect())
}

fn word(word: &'static str) -> BoxedStrategy<String> {
    Just(word.to_owned()).boxed()
}

fn asking() -> impl Strategy<Value = Asking> {
    let directives = some_of(vec![
        directive("max-age").boxed(),
        directive("min-fresh").boxed(),
        directive("max-stale").boxed(),
        word("no-cache"),
    ]);
    (
        directives,
        proptest::bool::weighted(0.2),
        proptest::option::of(0u8..2),
    )
        .prop_map(|(directives, authorization, selecting)| Asking {
            directives,
            authorization,
            selecting,
        })
}

fn case() -> impl Strategy<Value = Case> {
    let status = proptest::sample::select(vec![
        200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501,
    ]);
    let directives = some_of(vec![
        directive("max-age").boxed(),
        directive("s-maxage").boxed(),
        word("no-cache"),
        word("no-store"),
        word("private"),
        word("public"),
        word("must-revalidate"),
        word("unknown=1"),
    ]);
    let times = (
        proptest::option::of(-100i64..300),
        proptest::option::of(0u64..5_000),
        proptest::option::of(0u64..150),
    );
    (
        status,
        directives,
        times,
        any::<bool>(),
        asking(),
        asking(),
        0u64..300,
    )
        .prop_map(
            |(
                status,
                directives,
                (expires, unmodified_for, age),
                vary,
                mut first,
                later,
                after,
            )| {
                first.directives.retain(|directive| directive == "no-store");
                Case {
                    status,
                    directives,
                    expires,
                    unmodified_for,
                    age,
                    vary,
                    first,
                    later,
                    after,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_independent_implementation_decides_alike(case in case()) {
        if knowingly_differ(&case).is_some() {
            return Ok(());
        }
        let (ours, oracles) = (case.ours(), case.oracles());
        // Storing what can neither be fresh nor be validated is allowed and useless; what counts is
        // the answer.
        prop_assert_eq!(ours.1, oracles.1, "reuse");
        prop_assert!(!ours.0 || oracles.0, "stored against the oracle's word");
    }
}

#[test]
fn the_cases_reach_both_answers() {
    let case = |secs| Case {
        status: 200,
        directives: vec!["max-age=10".to_owned()],
        expires: None,
        unmodified_for: None,
        age: None,
        vary: false,
        first: Asking {
            directives: Vec::new(),
            authorization: false,
            selecting: None,
        },
        later: Asking {
            directives: Vec::new(),
            authorization: false,
            selecting: None,
        },
        after: secs,
    };
    assert_eq!(
        (case(9).ours(), case(9).oracles()),
        ((true, true), (true, true))
    );
    assert_eq!(
        (case(10).ours(), case(10).oracles()),
        ((true, false), (true, false))
    );
}
