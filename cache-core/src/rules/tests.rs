use super::matching::{HostCondition, ValueCondition};
use super::path::{PathCondition, is_oddly_spelled};
use super::*;
use crate::glob::Glob;
use crate::policy::KeyRules;
use crate::policy::key::QueryKept;

fn path(condition: PathCondition) -> Match {
    Match {
        path: vec![condition],
        ..Match::default()
    }
}

fn host(text: &str) -> Match {
    Match {
        host: HostCondition::parse(text),
        ..Match::default()
    }
}

fn is_for(matches: &Match, authority: &str, path: &str) -> bool {
    matches.matches(&Request::new("GET", authority, path))
}

#[test]
fn a_host_is_one_or_all_below_a_name() {
    for (pattern, authority, expected) in [
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "A.b.EXAMPLE.com:80", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", "aexample.com", false),
        ("*.example.com", ".example.com", false),
        ("*.example.com", "a.example.com:8080", false),
        ("*.example.com:8080", "a.example.com:8080", true),
        ("Shop.example", "shop.example:80", true),
        ("shop.example", "shop.example.", false),
    ] {
        assert_eq!(
            is_for(&host(pattern), authority, "/"),
            expected,
            "{pattern} {authority}"
        );
    }
    for bad in ["*", "*example.com", "*.", "a.*", "a/b", ""] {
        assert!(HostCondition::parse(bad).is_none(), "{bad}");
    }
}

#[test]
fn a_path_fits_by_its_end_a_glob_or_an_expression_without_its_query() {
    let expression = |text| PathCondition::expression(text).unwrap();
    for (condition, asked, expected) in [
        (PathCondition::suffix(".js"), "/a.js?x=.css", true),
        (PathCondition::suffix(".css"), "/a.js?x=.css", false),
        (PathCondition::glob("/a/*/b"), "/a/x/y/b?q", true),
        (PathCondition::glob("/a/*/b"), "/a/b", false),
        (PathCondition::glob("/%c3*"), "/%C3%A9", true),
        (expression("^/p/[0-9]+$"), "/p/12?x", true),
        (expression("^/p/[0-9]+$"), "/p/12x", false),
        (PathCondition::prefix("/a?x"), "/a?x=1", true),
        (PathCondition::exact("/a"), "/a?x=1", true),
    ] {
        assert_eq!(
            is_for(&path(condition.clone()), "a", asked),
            expected,
            "{condition:?} {asked}"
        );
    }
    for bad in ["(", "a{9999}{9999}", "(?=a)"] {
        assert!(PathCondition::expression(bad).is_err(), "{bad}");
    }
}

#[test]
fn fields_parameters_and_cookies_fit_by_presence_and_by_value() {
    let like = |text| ValueCondition::Like(Glob::new(text));
    let named = |name: &str, value| vec![(name.to_owned(), value)];
    let request = Request::new("GET", "a", "/?lang=d%65&lang=en&x")
        .with("accept", "text/html")
        .with("cookie", "a=1; session=abc");
    let fields = |value| Match {
        fields: named("accept", value),
        ..Match::default()
    };
    let query = |name, value| Match {
        query: named(name, value),
        ..Match::default()
    };
    let cookies = |name, value| Match {
        cookies: named(name, value),
        ..Match::default()
    };
    for (matches, expected) in [
        (fields(like("text/*")), true),
        (fields(like("image/*")), false),
        (fields(ValueCondition::Absent), false),
        (query("lang", like("de")), true),
        (query("lang", like("fr")), false),
        (query("x", ValueCondition::Present), true),
        (query("y", ValueCondition::Absent), true),
        (cookies("session", ValueCondition::Present), true),
        (cookies("session", like("abd")), false),
        (cookies("essio", ValueCondition::Present), false),
    ] {
        assert_eq!(matches.matches(&request), expected, "{matches:?}");
    }
}

#[test]
fn a_rule_behind_one_that_covers_it_is_seen() {
    let methods = |names: &[&str]| Match {
        methods: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Match::default()
    };
    for (earlier, later, covers) in [
        (Match::default(), host("a"), true),
        (host("*.b"), host("a.b"), true),
        (host("*.b"), host("*.a.b"), true),
        (host("*.a.b"), host("*.b"), false),
        (host("a"), Match::default(), false),
        (
            path(PathCondition::prefix("/a")),
            path(PathCondition::exact("/a/b")),
            true,
        ),
        (
            path(PathCondition::prefix("/a/b")),
            path(PathCondition::prefix("/a")),
            false,
        ),
        (
            path(PathCondition::glob("*.js")),
            path(PathCondition::exact("/a.js")),
            true,
        ),
        (methods(&["GET", "HEAD"]), methods(&["GET"]), true),
        (methods(&["GET"]), Match::default(), false),
    ] {
        assert_eq!(earlier.covers(&later), covers, "{earlier:?} {later:?}");
    }
}

#[test]
fn conditions_that_exclude_each_other_are_seen() {
    let both = |one, other| Match {
        path: vec![one, other],
        ..Match::default()
    };
    let exact = || PathCondition::exact("/a.js");
    for matches in [
        both(exact(), PathCondition::prefix("/b")),
        both(exact(), PathCondition::suffix(".css")),
        both(PathCondition::glob("/b*"), exact()),
        both(PathCondition::prefix("/a/"), PathCondition::prefix("/b/")),
    ] {
        assert!(matches.contradiction().is_some(), "{matches:?}");
    }
    for matches in [
        both(exact(), PathCondition::prefix("/a")),
        both(exact(), PathCondition::prefix("/a.js?x=")),
        both(PathCondition::prefix("/a/"), PathCondition::suffix(".js")),
    ] {
        assert!(matches.contradiction().is_none(), "{matches:?}");
    }
}

#[test]
fn paths_that_origins_may_read_otherwise_are_odd() {
    for odd in [
        "/account;x.css",
        "/account%3Bx.css",
        "/account%2Fx.css",
        "/account%00.css",
        "/account%0A.css",
        "/a/%2E%2E/account.css",
        "/account%23.css",
        "/account%3F.css",
        "/account%2500.css",
        "/account%5C.css",
    ] {
        assert!(is_oddly_spelled(odd.as_bytes()), "{odd}");
    }
    for plain in ["/a.css?x=;%00", "/caf%C3%A9.css", "/a%20b", "/a%zz"] {
        assert!(!is_oddly_spelled(plain.as_bytes()), "{plain}");
    }
}

#[test]
fn a_url_has_the_keys_of_every_rule_that_may_be_for_it() {
    let without = |name: &str| {
        Arc::new(Policy {
            key: Some(Arc::new(KeyRules {
                query: QueryKept::Without(vec![Glob::new(name)]),
                ..KeyRules::default()
            })),
            ..Policy::default()
        })
    };
    let rule = |matches, name| Rule {
        matches,
        policy: without(name),
    };
    let by_cookie = Match {
        cookies: vec![("a".to_owned(), ValueCondition::Present)],
        ..Match::default()
    };
    let by_method = Match {
        methods: vec!["POST".to_owned()],
        ..Match::default()
    };
    let rules = Rules::new(vec![
        rule(host("other"), "x"),
        rule(by_method, "x"),
        rule(by_cookie, "a"),
        rule(path(PathCondition::prefix("/")), "b"),
        rule(Match::default(), "c"),
    ]);
    let target = Target {
        scheme: b"http".to_vec(),
        authority: b"h".to_vec(),
        path: b"/?a=1&b=2&c=3".to_vec(),
    };
    let paths: Vec<_> = rules
        .names_of(&target)
        .map(|named| String::from_utf8(named.path.into_owned()).unwrap())
        .collect();
    assert_eq!(paths, ["/?b=2&c=3", "/?a=1&c=3"]);
}
