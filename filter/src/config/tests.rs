use larder_cache_core::policy::Handling;

use super::*;
use larder_cache_core::policy::Tell;

#[test]
fn an_empty_document_is_the_safe_default_for_every_path() {
    for text in ["", "{}", " \n"] {
        let config = Config::parse(text.as_bytes()).unwrap();
        assert_eq!(
            **config.policy_for(&Request::new("GET", "a", "/x")).unwrap(),
            Policy::default()
        );
    }
}

#[test]
fn every_mistake_is_in_the_one_message_with_its_path() {
    let text = br#"{"stor": 1, "store": {"timeout_ms": 0}, "limits": [],
        "rules": [{"match": {"path": 3}, "policy": {"cache": "yes", "keep_s": -1, "profile": "x", "bogus": 1}}]}"#;
    let message = Config::parse(text).unwrap_err();
    for part in [
        "stor ",
        "store.timeout_ms",
        "limits must",
        "rules[0].match.path",
        "rules[0].policy.cache",
        "rules[0].policy.keep_s",
        "rules[0].policy.profile",
        "rules[0].policy.bogus",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn without_a_store_no_rule_shares_and_none_may_ask_for_it() {
    let config = Config::parse(br#"{"store": {"enabled": false}}"#).unwrap();
    let policy = config.policy_for(&Request::new("GET", "a", "/")).unwrap();
    assert_eq!((config.store_enabled, policy.shared_store), (false, false));
    let text = br#"{"store": {"enabled": false}, "rules": [{"policy": {"shared_store": true}}]}"#;
    assert!(
        Config::parse(text)
            .unwrap_err()
            .contains("rules[0].policy.shared_store")
    );
}

#[test]
fn who_is_trusted_needs_a_token_that_cannot_be_guessed() {
    let rules = r#""rules": [{"policy": {"tell": "trusted"}}]"#;
    let parse = |top: &str| Config::parse(format!("{{{top}{rules}}}").as_bytes());
    let config = parse(r#""debug_token": "0123456789abcdef","#).unwrap();
    let policy = config.policy_for(&Request::new("GET", "a", "/")).unwrap();
    assert_eq!(
        (policy.tell, policy.debug_token.as_deref()),
        (Tell::Trusted, Some(&b"0123456789abcdef"[..]))
    );
    assert!(parse("").unwrap_err().contains("rules[0].policy.tell"));
    for short in ["0123456789abcde", "0123456789 abcdef"] {
        assert!(
            parse(&format!("\"debug_token\": \"{short}\","))
                .unwrap_err()
                .contains("debug_token"),
            "{short}"
        );
    }
    let unknown = Config::parse(br#"{"rules": [{"policy": {"tell": "some"}}]}"#).unwrap_err();
    assert!(unknown.contains("rules[0].policy.tell"));
}

#[test]
fn the_first_rule_that_matches_counts() {
    let text = br#"{"rules": [
        {"match": {"path_prefix": "/private"}, "policy": {"cache": false}},
        {"match": {"path": "/data"}, "policy": {"query_override": true}}]}"#;
    let config = Config::parse(text).unwrap();
    let policy = |path: &str| config.policy_for(&Request::new("GET", "a", path)).cloned();
    assert!(!policy("/private/x").unwrap().cache);
    assert!(policy("/data?x=1").unwrap().query_override);
    assert!(policy("/data2").is_none());
}

#[test]
fn a_host_matches_in_every_spelling_and_with_its_own_port_alone() {
    let text = br#"{"rules": [{"match": {"host": "Shop.example"}, "policy": {"allow_purge": true}},
        {"match": {"host": "shop.example:8080"}, "policy": {"store_post": true}}]}"#;
    let config = Config::parse(text).unwrap();
    let policy = |host: &str| config.policy_for(&Request::new("GET", host, "/")).cloned();
    for host in ["shop.example", "SHOP.EXAMPLE", "shop.example:80"] {
        assert!(policy(host).unwrap().allow_purge, "{host}");
    }
    assert!(policy("Shop.Example:8080").unwrap().store_post);
    assert!(policy("shop.example:81").is_none() && policy("shop.example.").is_none());
}

#[test]
fn a_path_matches_in_every_case_of_its_percent_encodings() {
    let text =
        br#"{"rules": [{"match": {"path_prefix": "/caf%c3%a9/"}, "policy": {"allow_purge": true}},
        {"match": {"path": "/%C3%A9"}, "policy": {"store_post": true}}]}"#;
    let config = Config::parse(text).unwrap();
    let policy = |path: &str| config.policy_for(&Request::new("GET", "a", path)).cloned();
    assert!(
        policy("/caf%C3%A9/x").unwrap().allow_purge && policy("/caf%c3%a9/x").unwrap().allow_purge
    );
    assert!(policy("/%c3%a9?x").unwrap().store_post);
}

#[test]
fn unkeyed_fields_are_a_list_that_selects_or_changes_to_the_default() {
    let read = |json: &str| {
        let text = format!(r#"{{"rules": [{{"policy": {{"unkeyed_fields": {json}}}}}]}}"#);
        Config::parse(text.as_bytes()).map(|config| {
            config
                .policy_for(&Request::new("GET", "a", "/"))
                .unwrap()
                .clone()
        })
    };
    let handling =
        |json: &str, name: &str| read(json).unwrap().unkeyed_fields.handling(name.as_bytes());
    assert_eq!(
        handling(r#"["X-Mine", "x-our-*"]"#, "x-our-own"),
        Handling::Select
    );
    assert_eq!(
        handling(r#"["x-mine"]"#, "rsc"),
        Handling::Ignore,
        "a list stands in place of the default"
    );
    let changed =
        r#"{"rsc": "ignore", "x-host": "strip", "x-original-url": "bypass", "x-mine": "select"}"#;
    for (name, expected) in [
        ("rsc", Handling::Ignore),
        ("x-host", Handling::Strip),
        ("x-original-url", Handling::Bypass),
        ("x-mine", Handling::Select),
        ("forwarded", Handling::Select),
    ] {
        assert_eq!(handling(changed, name), expected, "{name}");
    }
    for bad in [
        "1",
        r#"["a b"]"#,
        r#"["*"]"#,
        r#"{"rsc": "drop"}"#,
        r#"{"a b": "strip"}"#,
    ] {
        assert!(
            read(bad)
                .unwrap_err()
                .contains("rules[0].policy.unkeyed_fields"),
            "{bad}"
        );
    }
}

#[test]
fn the_identity_of_a_client_may_be_read_from_other_fields() {
    let text =
        br#"{"rules": [{"policy": {"identity_fields": ["X-Who", "x-am-*"], "identity_metadata": ["my.filter"]}}]}"#;
    let config = Config::parse(text).unwrap();
    let policy = config.policy_for(&Request::new("GET", "a", "/")).unwrap();
    assert!(
        policy.identity_fields.contains(b"x-who") && policy.identity_fields.contains(b"x-am-i")
    );
    assert!(!policy.identity_fields.contains(b"x-api-key"));
    assert_eq!(policy.identity_metadata, ["my.filter"]);
    let strict = Config::parse(br#"{"rules": [{"policy": {"profile": "rfc9111"}}]}"#).unwrap();
    assert!(
        strict
            .policy_for(&Request::new("GET", "a", "/"))
            .unwrap()
            .identity_fields
            .is_empty()
    );
    for bad in [
        r#""identity_fields": ["x*"]"#,
        r#""identity_metadata": [""]"#,
        r#""identity_metadata": "a""#,
    ] {
        let message =
            Config::parse(format!(r#"{{"rules": [{{"policy": {{{bad}}}}}]}}"#).as_bytes())
                .unwrap_err();
        assert!(message.contains("rules[0].policy.identity_"), "{message}");
    }
}

#[test]
fn the_token_comes_from_the_document_or_the_environment_and_is_never_shown() {
    let config = |token: &str| {
        Config::parse(format!("{{\"store\": {{\"token\": \"{token}\"}}}}").as_bytes())
    };
    let given = config("a-token-of-some-length").unwrap();
    assert_eq!(
        given.store_token.as_ref().unwrap().authorization(),
        "Bearer a-token-of-some-length"
    );
    assert!(!format!("{given:?}").contains("a-token"));
    let kept = given.with_token(Some("another-token-of-length")).unwrap();
    assert_eq!(kept.store_token, Secret::new("a-token-of-some-length"));
    let plain = || Config::parse(b"").unwrap();
    assert_eq!(plain().with_token(None).unwrap().store_token, None);
    assert_eq!(plain().with_token(Some(" \n")).unwrap().store_token, None);
    let read = plain()
        .with_token(Some("another-token-of-length\n"))
        .unwrap();
    assert_eq!(read.store_token, Secret::new("another-token-of-length"));
    for wrong in [
        "short",
        "one-of-two-tokens,another-of-them",
        "a token with spaces in it",
    ] {
        for problem in [
            config(wrong).unwrap_err(),
            plain().with_token(Some(wrong)).unwrap_err(),
        ] {
            assert!(
                problem.contains("16") && !problem.contains(wrong),
                "{problem}"
            );
        }
    }
}

#[test]
fn what_is_not_json_is_refused_without_a_panic() {
    for text in ["{", "[]", "1", "\"x\"", "{\"rules\": {}}", "\u{0}"] {
        assert!(Config::parse(text.as_bytes()).is_err(), "{text}");
    }
}

fn mistakes(rules: &str) -> Vec<String> {
    match Config::read(format!("{{\"rules\": {rules}}}").as_bytes()) {
        Ok(_) => Vec::new(),
        Err(Refused::Mistakes(mistakes)) => mistakes.into_iter().map(|one| one.path).collect(),
        Err(refused) => panic!("{refused}"),
    }
}

#[test]
fn a_rule_that_can_never_match_is_a_mistake() {
    let shadowed = r#"[{"match": {"path_prefix": "/a"}}, {}, {"match": {"host": "x"}}, {"match": {"path": "/a/b"}}]"#;
    assert_eq!(mistakes(shadowed), ["rules[2]", "rules[3]"]);
    let contradictory = r#"[{"match": {"path": "/a.js", "path_suffix": ".css"}}]"#;
    assert_eq!(mistakes(contradictory), ["rules[0].match"]);
    let several = r#"[{"match": {"host": "a"}}, {"match": {"host": "a", "method": "GET"}}, {}]"#;
    assert_eq!(mistakes(several), ["rules[1]"]);
    let distinct = r#"[{"match": {"method": "GET"}}, {"match": {"methods": ["GET", "HEAD"]}}, {}]"#;
    assert!(mistakes(distinct).is_empty());
}

#[test]
fn a_condition_that_cannot_be_read_is_named() {
    for (condition, name) in [
        (r#""host": "*""#, "host"),
        (r#""path_regex": "(""#, "path_regex"),
        (r#""path_regex": "(a{999}){999}""#, "path_regex"),
        (r#""methods": []"#, "methods"),
        (r#""methods": ["G ET"]"#, "methods"),
        (r#""method": "GET", "methods": ["HEAD"]"#, "methods"),
        (r#""fields": {"a b": true}"#, "fields.a b"),
        (r#""query": {"a": 1}"#, "query.a"),
        (r#""cookies": []"#, "cookies"),
    ] {
        let found = mistakes(&format!("[{{\"match\": {{{condition}}}}}]"));
        assert_eq!(found, [format!("rules[0].match.{name}")], "{condition}");
    }
}

#[test]
fn every_kind_of_condition_is_read() {
    let text = br#"{"rules": [{"match": {"host": "*.shop.example", "path_suffix": ".js", "path_glob": "/a/*", "path_regex": "[0-9]",
        "methods": ["GET", "HEAD"], "fields": {"X-A": "1*"}, "query": {"v": true, "w": false}, "cookies": {"c": "2"}}}]}"#;
    let config = Config::parse(text).unwrap();
    let request = |method, host, path| {
        Request::new(method, host, path)
            .with("x-a", "12")
            .with("cookie", "b=1; c=2")
    };
    let is_met = |request: &Request| config.policy_for(request).is_some();
    assert!(is_met(&request("HEAD", "a.shop.example", "/a/1.js?v")));
    for other in [
        request("POST", "a.shop.example", "/a/1.js?v"),
        request("GET", "shop.example", "/a/1.js?v"),
        request("GET", "a.shop.example", "/a/1.css?v"),
        request("GET", "a.shop.example", "/a/x.js?v"),
        request("GET", "a.shop.example", "/a/1.js"),
        request("GET", "a.shop.example", "/a/1.js?v&w=1"),
        Request::new("GET", "a.shop.example", "/a/1.js?v").with("cookie", "c=2"),
        Request::new("GET", "a.shop.example", "/a/1.js?v").with("x-a", "1"),
    ] {
        assert!(!is_met(&other), "{other:?}");
    }
}

#[test]
fn what_counts_in_a_key_is_read_and_nothing_costs_where_nothing_is_left_out() {
    let read = |key: &str| {
        let text = format!(r#"{{"rules": [{{"policy": {{"key": {key}}}}}]}}"#);
        Config::read(text.as_bytes())
    };
    for plain in [
        "{}",
        r#"{"fields": ["x-country"]}"#,
        r#"{"sort_query": false}"#,
    ] {
        let config = read(plain).unwrap();
        assert!(config.key_rules().is_none(), "{plain}");
    }
    let config = read(
        r#"{"query_ignore": ["utm_*"], "ignore_scheme": true, "host": "Shop.example:80",
        "cookies": ["currency"], "fields": ["x-country"], "buckets": {"accept": ["image/webp"]}}"#,
    )
    .unwrap();
    assert!(config.key_rules().is_some());
    let policy = config.policy_for(&Request::new("GET", "a", "/")).unwrap();
    assert_eq!(
        policy.unkeyed_fields.handling(b"x-country"),
        Handling::Select
    );
    assert_eq!(policy.unkeyed_fields.handling(b"x-host"), Handling::Select);
    let named = policy
        .key
        .as_ref()
        .unwrap()
        .name(b"http", b"b", b"/?utm_a=1&b=2");
    assert_eq!(
        (&*named.scheme, &*named.path),
        (&b"https"[..], &b"/?b=2"[..])
    );
    for (bad, name) in [
        (r#"{"query_ignore": "utm_*"}"#, "query_ignore"),
        (
            r#"{"query_ignore": ["a"], "query_only": ["b"]}"#,
            "query_only",
        ),
        (r#"{"host": "*.example"}"#, "host"),
        (r#"{"fields": ["a b"]}"#, "fields"),
        (r#"{"cookies": [""]}"#, "cookies"),
        (
            r#"{"buckets": {"user-agent": ["x"]}}"#,
            "buckets.user-agent",
        ),
        (r#"{"buckets": {"accept": []}}"#, "buckets.accept"),
        (r#"{"origin_sees": "nothing"}"#, "origin_sees"),
        (r#"{"querry_only": []}"#, "querry_only"),
    ] {
        let message = read(bad).unwrap_err().to_string();
        assert!(
            message.contains(&format!("rules[0].policy.key.{name} ")),
            "{bad}: {message}"
        );
    }
}

#[test]
fn what_operators_ask_for_is_off_until_it_is_asked_for() {
    let read = |policy: &str| {
        let text =
            format!(r#"{{"rules": [{{"match": {{"path_prefix": "/"}}, "policy": {policy}}}]}}"#);
        let config = Config::parse(text.as_bytes())?;
        Ok::<_, String>(
            config
                .policy_for(&Request::new("GET", "a", "/"))
                .unwrap()
                .clone(),
        )
    };
    assert_eq!(
        *read("{}").unwrap(),
        Policy {
            is_by_path: true,
            ..Policy::default()
        }
    );
    let policy = read(r#"{"ignore_cookies": ["_ga*"], "strip_set_cookie": true, "stale_with_s_maxage": true,
        "error_statuses": [429, "52x"], "error_cooldown_s": 5, "keep_on_304": ["content-security-policy"],
        "lifetime_jitter_percent": 10, "lifetime_types": ["image/*"]}"#)
        .unwrap();
    assert!(policy.strip_set_cookie && policy.stale_with_s_maxage);
    assert!(policy.is_error(429) && policy.is_error(521) && !policy.is_error(503));
    assert_eq!(
        (policy.error_cooldown.as_secs(), policy.lifetime_jitter),
        (5, 10)
    );
    assert!(policy.keep_on_304.contains(b"content-security-policy"));
    for (bad, name) in [
        (r#"{"ignore_cookies": [1]}"#, "ignore_cookies"),
        (r#"{"error_statuses": [200]}"#, "error_statuses"),
        (r#"{"error_statuses": ["5x"]}"#, "error_statuses"),
        (r#"{"error_cooldown_s": 3601}"#, "error_cooldown_s"),
        (r#"{"keep_on_304": ["a b"]}"#, "keep_on_304"),
        (
            r#"{"lifetime_jitter_percent": 51}"#,
            "lifetime_jitter_percent",
        ),
        (r#"{"lifetime_types": ["css"]}"#, "lifetime_types"),
        (r#"{"lifetime_types": ["*/*"]}"#, "lifetime_types"),
    ] {
        let message = read(bad).unwrap_err();
        assert!(
            message.contains(&format!("rules[0].policy.{name} ")),
            "{bad}: {message}"
        );
    }
}

#[test]
fn a_purged_url_is_looked_for_under_every_name_that_a_rule_may_give_it() {
    let config = Config::parse(
        br#"{"rules": [
        {"match": {"host": "one.example"}, "policy": {"key": {"host": "shop.example", "query_ignore": ["utm_*"]}}},
        {"match": {"cookies": {"beta": true}}, "policy": {"key": {"query_only": ["id"]}}},
        {"policy": {"key": {"ignore_scheme": true}}}]}"#,
    )
    .unwrap();
    let urls = |url| config.urls_of(url).unwrap();
    assert_eq!(
        urls("http://one.example/p?utm_source=x&b=1"),
        [
            "http://one.example/p?utm_source=x&b=1",
            "https://shop.example/p?b=1",
            "http://shop.example/p?b=1",
        ]
    );
    assert_eq!(
        urls("http://Two.example:80/a/../p?b=1&id=2"),
        [
            "http://Two.example:80/a/../p?b=1&id=2",
            "https://two.example/p?id=2",
            "https://two.example/p?b=1&id=2",
            "http://two.example/p?id=2",
        ]
    );
    assert!(
        config
            .urls_of("two.example/p")
            .unwrap_err()
            .contains("is no URL")
    );
}

#[test]
fn what_is_legal_and_dangerous_is_warned_of() {
    let warned = |rule: &str| {
        let text = format!(r#"{{"rules": [{rule}]}}"#);
        let config = Config::parse(text.as_bytes()).unwrap();
        let warnings = config.warnings(text.as_bytes());
        warnings.into_iter().map(|one| one.path).collect::<Vec<_>>()
    };
    let policy = |member: &str| format!("rules[0].policy.{member}");
    for (rule, member) in [
        (
            r#"{"match": {"path_prefix": "/a/"}, "policy": {"default_lifetime_s": 9}}"#,
            "default_lifetime_s",
        ),
        (
            r#"{"match": {"path_suffix": ".css"}, "policy": {"status_lifetimes_s": {"2xx": 9}}}"#,
            "status_lifetimes_s",
        ),
        (r#"{"policy": {"allow_purge": true}}"#, "allow_purge"),
        (
            r#"{"match": {"header": "x-secret"}, "policy": {"allow_purge": true}}"#,
            "allow_purge",
        ),
        (r#"{"policy": {"query_override": true}}"#, "query_override"),
        (
            r#"{"policy": {"key": {"query_ignore": ["a"], "origin_sees": "all"}}}"#,
            "key.origin_sees",
        ),
        (
            r#"{"policy": {"store_set_cookie": true}}"#,
            "store_set_cookie",
        ),
        (
            r#"{"policy": {"store_with_cookie": true}}"#,
            "store_with_cookie",
        ),
        (
            r#"{"policy": {"reuse_with_authorization": true}}"#,
            "reuse_with_authorization",
        ),
    ] {
        assert_eq!(warned(rule), [policy(member)], "{rule}");
    }
    for rule in [
        "{}",
        r#"{"policy": {"default_lifetime_s": 9}}"#,
        r#"{"match": {"path_prefix": "/a/"}, "policy": {"status_lifetimes_s": {"404": 9}}}"#,
        r#"{"match": {"path_prefix": "/a/"}, "policy": {"default_lifetime_s": 9, "lifetime_types": ["image/*"]}}"#,
        r#"{"match": {"fields": {"x-secret": "s3cret"}}, "policy": {"allow_purge": true}}"#,
    ] {
        assert!(warned(rule).is_empty(), "{rule}");
    }
    let token = br#"{"store": {"token": "0123456789abcdef"}}"#;
    let config = Config::parse(token).unwrap();
    assert_eq!(config.warnings(token).len(), 1);
}
