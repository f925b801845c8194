use super::*;
use crate::freshness;
use larder_contract::http_time::Timestamp;

fn judge(
    policy: &Policy,
    request: &Request,
    status: u16,
    pairs: &[(&str, &str)],
) -> Result<(), NotStorable> {
    let response = ResponseHead::new(status, pairs);
    let directives = ResponseDirectives::of(&response.fields, policy);
    let (_, source) =
        freshness::freshness_lifetime(&response, &directives, Timestamp::default(), policy);
    storable(request, &response, &directives, source, policy)
}

fn get() -> Request {
    Request::new("GET", "a", "/")
}

fn by_default(pairs: &[(&str, &str)]) -> Result<(), NotStorable> {
    judge(&Policy::default(), &get(), 200, pairs)
}

#[test]
fn an_explicit_lifetime_makes_a_plain_response_storable() {
    assert_eq!(by_default(&[("cache-control", "max-age=1")]), Ok(()));
    assert_eq!(
        by_default(&[("expires", "Sun, 06 Nov 1994 08:49:37 GMT")]),
        Ok(())
    );
    assert_eq!(by_default(&[]), Err(NotStorable::NoFreshness));
    assert_eq!(
        by_default(&[("etag", "\"1\"")]),
        Err(NotStorable::NoFreshness)
    );
    assert_eq!(
        by_default(&[("etag", "\"1\""), ("cache-control", "no-cache")]),
        Ok(())
    );
}

#[test]
fn what_the_origin_forbids_is_not_stored() {
    for (value, why) in [
        ("max-age=1, no-store", NotStorable::NoStore),
        ("max-age=1, private", NotStorable::Private),
        ("max-age=1, PRIVATE", NotStorable::Private),
    ] {
        assert_eq!(by_default(&[("cache-control", value)]), Err(why), "{value}");
    }
    assert_eq!(
        by_default(&[("cache-control", "max-age=1"), ("vary", "a, *")]),
        Err(NotStorable::VaryStar)
    );
}

#[test]
fn credentials_need_a_response_that_is_explicitly_for_everybody() {
    let request = get().with("authorization", "Basic x");
    for (value, expected) in [
        ("max-age=1", Err(NotStorable::Authorization)),
        ("max-age=1, public", Ok(())),
        ("s-maxage=1", Ok(())),
    ] {
        let verdict = judge(
            &Policy::default(),
            &request,
            200,
            &[("cache-control", value)],
        );
        assert_eq!(verdict, expected, "{value}");
    }
}

#[test]
fn must_revalidate_opens_a_response_with_credentials_only_to_the_letter_of_the_rfc() {
    let request = get().with("authorization", "Basic x");
    let pairs = [("cache-control", "max-age=9, must-revalidate")];
    assert_eq!(
        judge(&Policy::default(), &request, 200, &pairs),
        Err(NotStorable::Authorization)
    );
    assert_eq!(judge(&Policy::strict(), &request, 200, &pairs), Ok(()));
}

#[test]
fn an_operator_may_give_a_lifetime_to_a_status_that_names_none() {
    use crate::policy::StatusRange;
    use larder_contract::http_time::DeltaSeconds;
    let lifetimes = [("404", 10), ("5xx", 1)];
    let status_lifetimes = lifetimes
        .map(|(name, secs)| (StatusRange::parse(name).unwrap(), DeltaSeconds::new(secs)))
        .to_vec();
    let policy = Policy {
        status_lifetimes,
        ..Policy::default()
    };
    assert_eq!(judge(&policy, &get(), 404, &[]), Ok(()));
    assert_eq!(judge(&policy, &get(), 503, &[]), Ok(()));
    assert_eq!(
        judge(&policy, &get(), 503, &[("cache-control", "no-store")]),
        Err(NotStorable::NoStore)
    );
    assert_eq!(
        judge(&policy, &get(), 403, &[("cache-control", "max-age=9")]),
        Err(NotStorable::Status)
    );
    assert_eq!(
        judge(&policy, &get(), 200, &[]),
        Err(NotStorable::NoFreshness)
    );
    assert!(
        ["4", "40", "6xx", "0xx", "4xxx", "xx", "abc", "1xx", ""]
            .iter()
            .all(|t| StatusRange::parse(t).is_none())
    );
}

#[test]
fn a_class_of_statuses_leaves_out_what_one_clients_request_brought_about() {
    use crate::policy::StatusRange;
    use larder_contract::http_time::DeltaSeconds;
    let policy = |names: &[&str]| {
        let lifetime = |name: &&str| (StatusRange::parse(name).unwrap(), DeltaSeconds::new(9));
        Policy {
            status_lifetimes: names.iter().map(lifetime).collect(),
            ..Policy::default()
        }
    };
    let own = [400, 405, 408, 421]
        .into_iter()
        .chain(411..=417)
        .chain(422..=431);
    for status in own {
        assert!(
            judge(&policy(&["4xx"]), &get(), status, &[]).is_err(),
            "{status}"
        );
        let explicit = [("cache-control", "max-age=9")];
        assert_eq!(
            judge(&policy(&["4xx"]), &get(), status, &explicit),
            Err(NotStorable::Status),
            "{status}"
        );
        assert_eq!(
            judge(&policy(&["4xx", &status.to_string()]), &get(), status, &[]),
            Ok(()),
            "{status}"
        );
    }
    for status in [401, 403, 404, 406, 409, 410, 418, 451] {
        assert_eq!(
            judge(&policy(&["4xx"]), &get(), status, &[]),
            Ok(()),
            "{status}"
        );
    }
}

#[test]
fn a_stream_without_a_declared_length_is_not_stored_whatever_its_lifetime() {
    let policy = Policy {
        default_lifetime: Some(larder_contract::http_time::DeltaSeconds::new(60)),
        ..Policy::default()
    };
    for name in [
        "text/event-stream",
        "Text/Event-Stream; charset=utf-8",
        "application/x-ndjson ;a=b",
        "multipart/x-mixed-replace; boundary=x",
        "application/json-seq",
        "application/stream+json",
        "application/grpc-web+proto",
    ] {
        let fields = [("content-type", name), ("cache-control", "max-age=9")];
        assert_eq!(
            judge(&policy, &get(), 200, &fields[..1]),
            Err(NotStorable::EventStream),
            "{name}"
        );
        assert_eq!(by_default(&fields), Err(NotStorable::EventStream), "{name}");
        assert_eq!(
            by_default(&[fields[0], fields[1], ("content-length", "9")]),
            Ok(()),
            "{name} has an end"
        );
    }
    for name in [
        "application/json",
        "text/event-stream-not",
        "multipart/mixed",
    ] {
        assert_eq!(
            by_default(&[("content-type", name), ("cache-control", "max-age=9")]),
            Ok(()),
            "{name}"
        );
    }
}

#[test]
fn cookies_are_not_shared_by_default() {
    let fresh = ("cache-control", "max-age=1");
    assert_eq!(
        by_default(&[fresh, ("set-cookie", "a=b")]),
        Err(NotStorable::SetCookie)
    );
    let request = get().with("cookie", "a=b");
    assert_eq!(
        judge(&Policy::default(), &request, 200, &[fresh]),
        Err(NotStorable::Cookie)
    );
    assert_eq!(
        judge(
            &Policy::strict(),
            &request,
            200,
            &[fresh, ("set-cookie", "a=b")]
        ),
        Ok(())
    );
}

#[test]
fn errors_need_an_operator_who_wants_them() {
    let fresh = [("cache-control", "max-age=1")];
    for status in [400, 403, 405, 414, 431, 500, 503] {
        assert_eq!(
            judge(&Policy::default(), &get(), status, &fresh),
            Err(NotStorable::Status),
            "{status}"
        );
        assert_eq!(
            judge(&Policy::strict(), &get(), status, &fresh),
            Ok(()),
            "{status}"
        );
    }
    for status in [100, 101, 206, 304, 600, 999] {
        assert_eq!(
            judge(&Policy::strict(), &get(), status, &fresh),
            Err(NotStorable::Status),
            "{status}"
        );
    }
}

#[test]
fn without_a_lifetime_only_statuses_that_may_be_guessed_at_are_stored() {
    let validator = ("etag", "\"1\"");
    for (status, expected) in [
        (200, Ok(())),
        (404, Ok(())),
        (302, Err(NotStorable::NoFreshness)),
        (503, Err(NotStorable::NoFreshness)),
    ] {
        assert_eq!(
            judge(&Policy::strict(), &get(), status, &[validator]),
            expected,
            "{status}"
        );
        assert_eq!(
            judge(
                &Policy::strict(),
                &get(),
                status,
                &[validator, ("cache-control", "no-cache")]
            ),
            expected
        );
        assert_eq!(
            judge(
                &Policy::strict(),
                &get(),
                status,
                &[validator, ("cache-control", "public")]
            ),
            Ok(())
        );
    }
}

#[test]
fn a_content_range_outside_a_206_is_not_stored() {
    let fresh = ("cache-control", "max-age=1");
    for status in [200, 203, 404, 410, 416] {
        for partial in [
            ("content-range", "bytes 0-1/5"),
            ("content-range", "bytes */5"),
            ("content-range", "x 1/2"),
        ] {
            let verdict = judge(&Policy::strict(), &get(), status, &[fresh, partial]);
            assert_eq!(verdict, Err(NotStorable::Partial), "{status} {partial:?}");
        }
    }
    assert_eq!(by_default(&[fresh, ("content-range", "rubbish")]), Ok(()));
    let parts = ("content-type", "Multipart/byteranges; boundary=x");
    assert_eq!(
        judge(&Policy::default(), &get(), 200, &[fresh, parts]),
        Err(NotStorable::Partial)
    );
}

#[test]
fn only_get_is_stored() {
    for method in ["HEAD", "POST", "get", ""] {
        let verdict = judge(
            &Policy::strict(),
            &Request::new(method, "a", "/"),
            200,
            &[("cache-control", "max-age=1")],
        );
        assert_eq!(verdict, Err(NotStorable::Method), "{method}");
    }
}

#[test]
fn must_understand_overrules_no_store_where_the_status_is_understood() {
    let pairs = [("cache-control", "max-age=1, no-store, must-understand")];
    assert_eq!(judge(&Policy::strict(), &get(), 200, &pairs), Ok(()));
    assert_eq!(
        judge(&Policy::strict(), &get(), 599, &pairs),
        Err(NotStorable::MustUnderstand)
    );
}

#[test]
fn fields_of_one_connection_or_one_recipient_are_left_out() {
    let response = ResponseHead::new(
        200,
        &[
            ("connection", "x-hop, ETag"),
            ("x-hop", "1"),
            ("etag", "\"1\""),
            ("keep-alive", "1"),
            ("x-mine", "1"),
            ("age", "1"),
            ("x-envoy-upstream-service-time", "3"),
            ("x-envoy-attempt-count", "2"),
            ("x-envoy-degraded", "1"),
            ("x-kept", "1"),
            ("cache-control", "private=\"x-mine\", max-age=1"),
        ],
    );
    let directives = ResponseDirectives::of(&response.fields, &Policy::default());
    let kept = storable_fields(&response, &directives);
    let names: Vec<_> = kept
        .iter()
        .map(|(name, _)| std::str::from_utf8(name).unwrap())
        .collect();
    assert_eq!(names, ["etag", "x-kept", "cache-control"]);
}
