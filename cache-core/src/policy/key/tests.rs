use proptest::prelude::*;

use super::*;

fn globs(texts: &[&str]) -> Vec<Glob> {
    texts.iter().map(|text| Glob::new(text)).collect()
}

fn path(rules: &KeyRules, path: &str) -> String {
    String::from_utf8(rules.named_path(path.as_bytes()).into_owned()).unwrap()
}

fn named(rules: &KeyRules, scheme: &str, authority: &str) -> String {
    let named = rules.name(scheme.as_bytes(), authority.as_bytes(), b"/");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!("{}://{}", text(&named.scheme), text(&named.authority))
}

#[test]
fn parameters_are_left_out_by_name_however_it_is_encoded() {
    let rules = KeyRules {
        query: QueryKept::Without(globs(&["utm_*", "fbclid"])),
        ..KeyRules::default()
    };
    for (asked, expected) in [
        ("/a?utm_source=x&id=1&fbclid=2", "/a?id=1"),
        ("/a?utm%5Fsource=x&id=1", "/a?id=1"),
        ("/a?utm_source", "/a"),
        ("/a?utm_source=x&&", "/a"),
        ("/a?xutm_a=1&UTM_a=2", "/a?xutm_a=1&UTM_a=2"),
        ("/utm_source=1", "/utm_source=1"),
        ("/a?id=%c3", "/a?id=%C3"),
    ] {
        assert_eq!(path(&rules, asked), expected, "{asked}");
    }
}

#[test]
fn parameters_are_kept_by_name_and_sorted() {
    let rules = KeyRules {
        query: QueryKept::Only(globs(&["id", "page"])),
        sort_query: true,
        ..KeyRules::default()
    };
    for (asked, expected) in [
        ("/a?page=2&x=1&id=7", "/a?id=7&page=2"),
        ("/a?id=2&id=1", "/a?id=2&id=1"),
        ("/a?i%64=2", "/a?i%64=2"),
        ("/a?x", "/a"),
    ] {
        assert_eq!(path(&rules, asked), expected, "{asked}");
    }
}

#[test]
fn what_an_origin_may_read_as_two_parameters_is_not_left_out_where_it_gets_it() {
    let rules = |origin_sees_all| KeyRules {
        query: QueryKept::Without(globs(&["utm_*"])),
        origin_sees_all,
        ..KeyRules::default()
    };
    assert_eq!(path(&rules(true), "/?utm_a=1;id=2"), "/?utm_a=1;id=2");
    assert_eq!(path(&rules(false), "/?utm_a=1;id=2"), "/");
}

#[test]
fn scheme_port_and_host_are_one_where_the_rule_says_so() {
    let scheme = KeyRules {
        ignore_scheme: true,
        ..KeyRules::default()
    };
    assert_eq!(named(&scheme, "http", "A.example:80"), "https://a.example");
    assert_eq!(named(&scheme, "https", "a.example"), "https://a.example");
    assert_eq!(named(&scheme, "http", "a.example:443"), "https://a.example");
    let port = KeyRules {
        ignore_port: true,
        ..KeyRules::default()
    };
    for (authority, expected) in [
        ("a.example:8080", "http://a.example"),
        ("[::1]:8080", "http://[::1]"),
        ("[::1]", "http://[::1]"),
    ] {
        assert_eq!(named(&port, "http", authority), expected, "{authority}");
    }
    let host = KeyRules {
        host: Some(b"shop.example".as_slice().into()),
        ..KeyRules::default()
    };
    assert_eq!(named(&host, "http", "x.example:81"), "http://shop.example");
}

fn rules() -> impl Strategy<Value = KeyRules> {
    let query = prop_oneof![
        Just(QueryKept::All),
        Just(QueryKept::Without(globs(&["a*"]))),
        Just(QueryKept::Only(globs(&["b", "a"])))
    ];
    (query, any::<[bool; 5]>()).prop_map(|(query, [sort, scheme, port, host, all])| KeyRules {
        query,
        sort_query: sort,
        ignore_scheme: scheme,
        ignore_port: port,
        host: host.then(|| b"h".as_slice().into()),
        origin_sees_all: all,
        ..KeyRules::default()
    })
}

proptest! {
    /// So a purge of the URL that a key names, and one of any URL that it was made from, meet it.
    #[test]
    fn what_a_key_names_is_named_by_its_own_key(
        rules in rules(), scheme in "https?", authority in "[aA](:(80|443|81))?", path in "/(\\?[ab%62=&;]{0,9})?",
    ) {
        let once = rules.name(scheme.as_bytes(), authority.as_bytes(), path.as_bytes());
        prop_assert_eq!(&rules.name(&once.scheme, &once.authority, &once.path), &once);
    }

    #[test]
    fn without_rules_a_key_is_the_key_of_the_request(scheme in "https?", authority in "[aA](:(80|443|81))?", path in "/(\\?[ab%62=&;]{0,9})?") {
        let rules = KeyRules::default();
        let named = rules.name(scheme.as_bytes(), authority.as_bytes(), path.as_bytes());
        prop_assert_eq!(named.key(b"n"), PrimaryKey::new(b"n", scheme.as_bytes(), authority.as_bytes(), path.as_bytes()));
    }
}
