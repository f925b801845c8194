use super::*;
use proptest::prelude::*;

fn response(value: &str) -> ResponseDirectives {
    ResponseDirectives::of(
        &Fields::from_pairs([("cache-control", value)]),
        &Policy::default(),
    )
}

fn secs(secs: u64) -> Option<DeltaSeconds> {
    Some(DeltaSeconds::new(secs))
}

fn all() -> Vec<String> {
    Policy::REQUEST_DIRECTIVES.map(str::to_owned).to_vec()
}

#[test]
fn a_targeted_member_of_the_wrong_type_says_nothing_unless_it_forbids() {
    let of = |value: &str| {
        let fields =
            Fields::from_pairs([("cdn-cache-control", value), ("cache-control", "max-age=1")]);
        let directives = ResponseDirectives::of(&fields, &Policy::default());
        (
            directives.targeted,
            directives.max_age.map(DeltaSeconds::as_secs),
            directives.no_store,
        )
    };
    for (value, expected) in [
        ("max-age=60", (true, Some(60), false)),
        ("max-age=60;a=b, foo", (true, Some(60), false)),
        ("max-age=\"60\"", (false, Some(1), false)),
        ("max-age=1.5", (false, Some(1), false)),
        ("max-age", (false, Some(1), false)),
        ("max-age=\"60\", no-store", (true, None, true)),
        ("no-store=(a b)", (true, None, true)),
        ("no-store=?0", (false, Some(1), false)),
        ("max-age=60, , no-store", (false, Some(1), false)),
        ("MAX-AGE=60", (false, Some(1), false)),
    ] {
        assert_eq!(of(value), expected, "{value}");
    }
}

#[test]
fn a_request_directive_counts_only_where_the_policy_honours_it() {
    let fields = Fields::from_pairs([("cache-control", "no-cache, only-if-cached, max-age=3")]);
    let directives = RequestDirectives::of(&fields, &["only-if-cached".to_owned()]);
    assert_eq!(
        directives,
        RequestDirectives {
            only_if_cached: true,
            ..RequestDirectives::default()
        }
    );
    let pragma = Fields::from_pairs([("pragma", "no-cache")]);
    assert!(!RequestDirectives::of(&pragma, &["no-cache".to_owned()]).no_cache);
}

#[test]
fn names_have_no_case_and_arguments_may_be_quoted() {
    for value in [
        "max-age=60",
        "Max-Age=60",
        "MAX-AGE=\"60\"",
        "foo, max-age=60,",
        "max-age=060",
    ] {
        assert_eq!(response(value).max_age, secs(60), "{value}");
    }
}

#[test]
fn a_directive_inside_a_quoted_string_is_none() {
    let directives = response(r#"ext="x, no-store, y", max-age=60"#);
    assert_eq!((directives.no_store, directives.max_age), (false, secs(60)));
}

#[test]
fn an_invalid_lifetime_means_stale() {
    for value in [
        "max-age",
        "max-age=",
        "max-age=-1",
        "max-age=x",
        "max-age=1.5",
        "max-age = 60",
        "max-age=60 s",
    ] {
        assert_eq!(response(value).max_age, secs(0), "{value}");
    }
}

#[test]
fn of_contradicting_lifetimes_the_shorter_counts() {
    assert_eq!(response("max-age=60, max-age=5").max_age, secs(5));
    assert_eq!(response("max-age=5, max-age=60").max_age, secs(5));
}

#[test]
fn unqualified_no_cache_wins_over_field_names() {
    assert_eq!(
        response("no-cache=\"Set-Cookie, x-a\"").no_cache.fields(),
        [b"set-cookie".to_vec(), b"x-a".to_vec()]
    );
    assert_eq!(
        response("no-cache=\"x\", no-cache").no_cache,
        FieldScope::Whole
    );
    assert_eq!(
        response("no-cache, no-cache=\"x\"").no_cache,
        FieldScope::Whole
    );
    assert_eq!(response("private=\"\"").private, FieldScope::Whole);
}

#[test]
fn a_valid_targeted_field_speaks_instead_of_cache_control() {
    let of = |value: &str| {
        let fields =
            Fields::from_pairs([("cache-control", "no-store"), ("cdn-cache-control", value)]);
        ResponseDirectives::of(&fields, &Policy::default())
    };
    let directives = of("max-age=60, private=?0");
    assert_eq!(
        (directives.no_store, directives.max_age, directives.targeted),
        (false, secs(60), true)
    );
    assert_eq!(directives.private, FieldScope::Absent);
    for invalid in ["", "max-age=", "&&&", "max-age=60 no-store"] {
        assert!(of(invalid).no_store, "{invalid}");
    }
}

#[test]
fn pragma_counts_only_without_cache_control() {
    let of = |pairs: &[(&str, &str)]| {
        RequestDirectives::of(&Fields::from_pairs(pairs.iter().copied()), &all()).no_cache
    };
    assert!(of(&[("pragma", "No-Cache")]));
    assert!(!of(&[
        ("pragma", "no-cache"),
        ("cache-control", "max-age=1")
    ]));
    assert!(!of(&[("pragma", "foo")]));
}

#[test]
fn request_directives_are_read() {
    let of = |value: &str| {
        RequestDirectives::of(&Fields::from_pairs([("cache-control", value)]), &all())
    };
    assert_eq!(of("max-stale").max_stale, Some(None));
    assert_eq!(of("max-stale=5").max_stale, Some(secs(5)));
    assert_eq!(of("min-fresh=5").min_fresh, secs(5));
    assert!(of("only-if-cached").only_if_cached);
    assert_eq!(of("nothing-to-see-here"), RequestDirectives::default());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(value in proptest::collection::vec(any::<u8>(), 0..64)) {
        let fields = Fields::from_pairs([(&b"cache-control"[..], &value), (b"cdn-cache-control", &value)]);
        let _ = ResponseDirectives::of(&fields, &Policy::default());
        let _ = RequestDirectives::of(&fields, &all());
    }
}
