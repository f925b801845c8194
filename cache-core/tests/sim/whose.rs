//! Whose answer it is: what one client brings with it reaches nobody else, and takes nothing away
//! from anybody.

use larder_cache_core::field_names::FieldPattern;
use larder_cache_core::message::Request;
use larder_cache_core::policy::{Handling, Policy};

use crate::world::{Got, Sim};

const COOKIE: [(&str, &str); 1] = [("cookie", "_ga=1")];
const SWR: (&str, &str) = ("cache-control", "max-age=1, stale-while-revalidate=60");

fn get(path: &str) -> Request {
    Request::new("GET", "a.example", path)
}

#[test]
fn a_client_that_a_filter_has_named_is_a_client_with_credentials() {
    let mut sim = Sim::new(Policy::default());
    for (name, value) in [
        ("x-jwt-sub", "alice"),
        ("x-auth-request-email", "alice@a.example"),
        ("x-forwarded-client-cert", "By=spiffe://a"),
        ("x-api-key", "1"),
        ("x_user_id", "7"),
    ] {
        let path = format!("/{name}");
        sim.origin(200, &[("cache-control", "max-age=60")], "alice's");
        assert!(
            sim.get_with(&path, &[(name, value)])
                .says("detail=authorization-response"),
            "{name}"
        );
        sim.origin(200, &[("cache-control", "max-age=60")], "everybody's");
        assert_eq!(sim.get(&path).body, "everybody's", "{name}");
        assert!(
            sim.get_with(&path, &[(name, "bob")])
                .says("detail=authorization"),
            "{name}"
        );
    }
}

#[test]
fn a_client_that_only_the_proxy_knows_is_a_client_with_credentials() {
    let mut sim = Sim::new(Policy::default());
    let known = |path| Request {
        is_identified: true,
        ..get(path)
    };
    sim.origin(200, &[("cache-control", "max-age=60")], "alice's");
    assert!(sim.run(known("/")).says("detail=authorization-response"));
    sim.origin(200, &[("cache-control", "max-age=60, public")], "ours");
    sim.get("/");
    assert!(sim.run(known("/")).is_hit(), "explicitly for everybody");
}

#[test]
fn a_forged_field_poisons_its_own_variant_alone() {
    for (name, value) in [
        ("x-forwarded-host", "evil.example"),
        ("x_forwarded_host", "evil.example"),
        ("x-original-url", "/evil"),
        ("forwarded", "host=evil.example"),
        ("rsc", "1"),
        ("x-nextjs-data", "1"),
        ("hx-request", "true"),
        ("x-invoke-status", "500"),
    ] {
        let mut sim = Sim::new(Policy::default());
        sim.origin(200, &[("cache-control", "max-age=60")], "evil");
        sim.get_with("/", &[(name, value)]);
        assert!(sim.get_with("/", &[(name, value)]).is_hit(), "{name}");
        sim.origin(200, &[("cache-control", "max-age=60")], "good");
        assert_eq!(sim.get("/").body, "good", "{name}");
        assert_eq!(sim.get_with("/", &[(name, value)]).body, "evil", "{name}");
        assert_eq!(sim.get("/").body, "good", "{name}");
    }
}

#[test]
fn an_operator_may_strip_a_field_or_let_its_requests_pass() {
    let rule = |handling| [(FieldPattern::parse("x-forwarded-host").unwrap(), handling)];
    let policy = |handling| Policy {
        unkeyed_fields: Policy::default().unkeyed_fields.with(rule(handling)),
        ..Policy::default()
    };
    let forged = [("x-forwarded-host", "evil.example")];
    let mut sim = Sim::new(policy(Handling::Strip));
    sim.origin(
        200,
        &[
            ("cache-control", "max-age=60"),
            ("vary", "x-forwarded-host"),
        ],
        "good",
    );
    sim.get_with("/", &forged);
    assert_eq!(sim.last_request_field("x-forwarded-host"), None);
    assert!(sim.get("/").is_hit(), "judged as it was sent");
    let mut sim = Sim::new(policy(Handling::Bypass));
    sim.origin(200, &[("cache-control", "max-age=60")], "evil");
    assert!(
        sim.get_with("/", &forged)
            .says("fwd=bypass; fwd-status=200; detail=unkeyed-field")
    );
    assert!(sim.get("/").says("fwd=uri-miss"));
}

#[test]
fn a_refresh_carries_what_selects_and_nothing_else_of_the_client() {
    let mut sim = Sim::new(Policy::default());
    let fields = [
        ("x-a", "1"),
        ("x-b", "2"),
        ("cookie", "_ga=1"),
        ("x-jwt-sub", "alice"),
        ("user-agent", "evil"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    sim.origin(
        200,
        &[
            (
                "cache-control",
                "public, max-age=1, stale-while-revalidate=60",
            ),
            ("vary", "x-a"),
        ],
        "one",
    );
    sim.get_with("/", &fields);
    sim.pass_secs(2);
    sim.get_with("/", &fields);
    sim.run_refreshes();
    for (name, expected) in [
        (":method", Some("GET")),
        (":path", Some("/")),
        ("x-a", Some("1")),
        ("x-forwarded-host", Some("shop.example")),
        ("x-forwarded-proto", Some("http")),
        ("x-b", None),
        ("cookie", None),
        ("x-jwt-sub", None),
        ("user-agent", None),
        ("x-forwarded-for", None),
        (":unkeyed", None),
        (":override", None),
    ] {
        assert_eq!(sim.last_request_field(name).as_deref(), expected, "{name}");
    }
}

#[test]
fn a_refresh_found_by_a_client_with_a_cookie_renews_the_entry_for_all() {
    for (status, body, expected) in [(200, "two", "two"), (304, "", "one")] {
        let mut sim = Sim::new(Policy::default());
        sim.origin(200, &[SWR, ("etag", "\"1\"")], "one");
        sim.get("/");
        sim.pass_secs(2);
        assert!(sim.get_with("/", &COOKIE).is_hit());
        sim.origin(
            status,
            &[SWR, ("etag", if status == 200 { "\"2\"" } else { "\"1\"" })],
            body,
        );
        sim.run_refreshes();
        assert_eq!(
            (sim.get("/").body.as_str(), sim.get("/").says("hit; ttl=1")),
            (expected, true),
            "{status}"
        );
    }
}

#[test]
fn a_variant_of_one_client_is_validated_before_it_answers() {
    let mut sim = Sim::new(Policy::default());
    let response = [
        (
            "cache-control",
            "public, max-age=1, stale-while-revalidate=60",
        ),
        ("vary", "cookie"),
    ];
    sim.origin(200, &response, "dark");
    sim.get_with("/", &[("cookie", "dark")]);
    sim.pass_secs(2);
    let Got { said, .. } = sim.get_with("/", &[("cookie", "dark")]);
    assert!(
        said.contains("fwd=stale") && said.contains("detail=not-refreshed"),
        "{said}"
    );
    assert_eq!(sim.refreshes(), 0);
    assert_eq!(sim.last_request_field("cookie").as_deref(), Some("dark"));
    sim.origin(200, &response, "plain");
    sim.get("/");
    sim.pass_secs(2);
    assert!(
        sim.get("/").is_hit(),
        "without a cookie nothing is left out"
    );
    assert_eq!(sim.refreshes(), 1);
}

#[test]
fn one_clients_cookie_takes_nothing_away() {
    let stored = [
        ("cache-control", "max-age=5, stale-if-error=60"),
        ("etag", "\"1\""),
    ];
    let changed = [
        ("GET", 200, &[("cache-control", "max-age=5")][..]),
        ("GET", 200, &[("cache-control", "private")]),
        ("GET", 200, &[("cache-control", "no-store")]),
        (
            "GET",
            304,
            &[("cache-control", "no-store"), ("etag", "\"1\"")],
        ),
        ("GET", 304, &[("etag", "\"2\"")]),
        (
            "HEAD",
            200,
            &[("etag", "\"2\""), ("cache-control", "max-age=5")],
        ),
    ];
    for (method, status, fields) in changed {
        let mut sim = Sim::new(Policy::default());
        sim.origin(200, &stored, "ours");
        sim.get("/");
        sim.pass_secs(6);
        sim.origin(status, fields, "");
        sim.run(Request::new(method, "a.example", "/").with("cookie", "_ga=1"));
        sim.origin(503, &[], "down");
        assert_eq!(sim.get("/").body, "ours", "{method} {status} {fields:?}");
    }
}

#[test]
fn a_refresh_takes_an_entry_away_only_where_its_answer_says_so() {
    let answers: [(&[(&str, &str)], bool); 4] = [
        (&[("cache-control", "private")], true),
        (&[("cache-control", "no-store")], true),
        (&[("cache-control", "max-age=60"), ("vary", "*")], true),
        (
            &[("cache-control", "max-age=60"), ("set-cookie", "sid=1")],
            false,
        ),
    ];
    for (fields, goes) in answers {
        let mut sim = Sim::new(Policy::default());
        sim.origin(200, &[SWR], "one");
        sim.get("/");
        sim.pass_secs(2);
        sim.get("/");
        sim.origin(200, fields, "two");
        sim.run_refreshes();
        assert_eq!(sim.stored().is_empty(), goes, "{fields:?}");
    }
}

#[test]
fn a_client_that_asks_for_no_store_takes_nothing_away() {
    let mut sim = Sim::new(Policy::strict());
    sim.origin(
        200,
        &[("cache-control", "max-age=5, stale-if-error=60")],
        "one",
    );
    sim.get("/");
    sim.pass_secs(6);
    sim.origin(200, &[("cache-control", "max-age=5")], "two");
    let Got { said, .. } = sim.get_with("/", &[("cache-control", "no-store")]);
    assert!(said.contains("detail=request-no-store"), "{said}");
    sim.origin(503, &[], "down");
    assert_eq!(sim.get("/").body, "one");
}

#[test]
fn every_spelling_of_a_host_is_one_entry_and_the_origin_is_asked_for_the_canonical_one() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[("cache-control", "max-age=60")], "one");
    sim.run(Request::new("GET", "A.Example:80", "/"));
    assert_eq!(
        sim.last_request_field(":authority").as_deref(),
        Some("a.example")
    );
    assert!(sim.get("/").is_hit());
    assert_eq!(sim.stored()[0].url, "http://a.example/");
    sim.origin(204, &[], "");
    sim.run(Request::new("PUT", "a.example:80", "/"));
    assert!(sim.stored().is_empty());
}

#[test]
fn every_spelling_of_a_path_is_one_entry_and_the_origin_is_asked_for_the_canonical_one() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[SWR], "one");
    sim.get("/%c3%a9?q=%e2");
    assert_eq!(
        sim.last_request_field(":path").as_deref(),
        Some("/%C3%A9?q=%E2")
    );
    assert!(sim.get("/%C3%A9?q=%E2").is_hit());
    assert_eq!(sim.stored()[0].url, "http://a.example/%C3%A9?q=%E2");
    sim.pass_secs(2);
    let got = sim.get("/%c3%A9?q=%e2");
    assert!(
        got.says("detail=not-refreshed"),
        "a route may have sent it elsewhere: {}",
        got.said
    );
    sim.origin(204, &[], "");
    sim.run(Request::new("PUT", "a.example", "/%C3%a9?q=%e2"));
    assert!(sim.stored().is_empty());
}

#[test]
fn a_forged_scheme_reaches_no_origin_and_makes_no_key() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[("cache-control", "max-age=60")], "one");
    sim.get_with("/", &[("x-forwarded-proto", "nothttps")]);
    assert_eq!(
        sim.last_request_field("x-forwarded-proto").as_deref(),
        Some("http")
    );
    assert!(sim.get("/").is_hit());
    assert!(
        sim.get_with("/", &[("x-forwarded-proto", "https")])
            .says("fwd=uri-miss"),
        "another URL"
    );
}

#[test]
fn a_stale_hit_under_another_spelling_starts_no_refresh() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[SWR], "one");
    sim.get("/");
    sim.pass_secs(2);
    let Got { said, .. } = sim.run(Request::new("GET", "A.EXAMPLE", "/"));
    assert!(
        said.contains("detail=not-refreshed"),
        "a route may have sent it elsewhere: {said}"
    );
    assert_eq!(sim.refreshes(), 0);
}

#[test]
fn a_coding_that_another_client_cannot_read_is_another_variant() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[
            ("cache-control", "max-age=60"),
            ("content-encoding", "dcb"),
            ("vary", "accept-encoding"),
        ],
        "dcb",
    );
    sim.get_with("/", &[("accept-encoding", "gzip, dcb")]);
    assert!(
        sim.get_with("/", &[("accept-encoding", "DCB , x-gzip;q=1.0")])
            .is_hit()
    );
    for other in ["gzip", "", "gzip;q=0, *"] {
        assert!(
            sim.get_with("/", &[("accept-encoding", other)])
                .says("fwd=vary-miss"),
            "{other}"
        );
    }
}

#[test]
fn an_origin_that_is_named_back_selects_though_no_vary_says_so() {
    let mut sim = Sim::new(Policy::default());
    let allows = |origin| [SWR, ("access-control-allow-origin", origin)];
    sim.origin(200, &allows("https://one.example"), "one's");
    sim.get_with("/", &[("origin", "https://one.example")]);
    sim.origin(200, &allows("https://two.example"), "two's");
    assert_eq!(
        sim.get_with("/", &[("origin", "https://two.example")]).body,
        "two's"
    );
    assert_eq!(
        sim.get_with("/", &[("origin", "https://one.example")]).body,
        "one's"
    );
    sim.pass_secs(3);
    sim.origin(200, &allows("https://one.example"), "one's anew");
    sim.get_with("/", &[("origin", "https://one.example")]);
    sim.run_refreshes();
    assert_eq!(
        sim.last_request_field("origin").as_deref(),
        Some("https://one.example")
    );
    assert_eq!(
        sim.get_with("/", &[("origin", "https://one.example")]).body,
        "one's anew"
    );
    sim.origin(200, &[SWR], "nobody's");
    assert_eq!(sim.get("/").body, "nobody's");
}

#[test]
fn a_permission_for_all_or_for_one_site_alone_is_one_variant() {
    for allowed in ["*", "https://app.example"] {
        let mut sim = Sim::new(Policy::default());
        sim.origin(
            200,
            &[
                ("cache-control", "max-age=60"),
                ("access-control-allow-origin", allowed),
            ],
            "one",
        );
        sim.get_with("/", &[("origin", "https://other.example")]);
        for origin in ["https://app.example", "https://third.example"] {
            assert!(
                sim.get_with("/", &[("origin", origin)]).is_hit(),
                "{allowed} {origin}"
            );
        }
        assert!(sim.get("/").is_hit(), "{allowed}");
    }
}

#[test]
fn what_one_client_forged_marks_nothing_as_uncacheable_for_the_others() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[("cache-control", "no-store")], "mine");
    sim.get_with("/", &[("x-forwarded-host", "evil.example")]);
    assert_eq!(sim.marks(), 0);
    sim.get("/");
    assert_eq!(sim.marks(), 1);
}
