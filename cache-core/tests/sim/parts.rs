//! Stories about ranges: of what is stored, of what is not, and of parts (RFC 9111 §3.3, §3.4; RFC
//! 9110 §14).

use larder_cache_core::policy::{Policy, RangeOnMiss};

use crate::world::{Got, Sim};

const RANGE: [(&str, &str); 1] = [("range", "bytes=2-3")];

#[test]
fn ranges_of_a_stored_response_are_cut_from_it() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        200,
        &[("cache-control", "max-age=60"), ("etag", "\"1\"")],
        "0123456789",
    );
    sim.get("/");
    assert_eq!(
        sim.get_with("/", &RANGE),
        Got::new(206, "23", "larder; hit; ttl=60")
    );
    assert_eq!(sim.get_with("/", &[("range", "bytes=20-")]).status, 416);
    let Got { status, body, .. } = sim.get_with("/", &[("range", "bytes=0-0,5-5")]);
    assert_eq!(
        (status, body.matches("Content-Range: bytes ").count()),
        (206, 2)
    );
    assert_eq!(
        sim.get_with("/", &[("range", "bytes=2-3"), ("if-range", "\"2\"")])
            .body,
        "0123456789"
    );
    assert_eq!(sim.origin_requests(), 1);
}

#[test]
fn a_range_on_a_miss_brings_the_part_at_once_and_the_whole_behind_it() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(
        206,
        &[
            ("cache-control", "max-age=60"),
            ("content-range", "bytes 2-3/10"),
        ],
        "23",
    );
    assert_eq!(sim.get_with("/", &RANGE).body, "23");
    assert_eq!(
        sim.last_request_field("range").as_deref(),
        Some("bytes=2-3")
    );
    sim.origin(200, &[("cache-control", "max-age=60")], "0123456789");
    sim.run_refreshes();
    assert_eq!(sim.last_request_field("range"), None);
    assert_eq!(
        sim.get_with("/", &[("range", "bytes=-1")]),
        Got::new(206, "9", "larder; hit; ttl=60")
    );
    assert_eq!(sim.get("/").body, "0123456789");
    assert_eq!(sim.origin_requests(), 2);
}

#[test]
fn the_whole_of_something_large_or_private_is_not_fetched_behind_a_part() {
    let mut sim = Sim::new(Policy::default());
    for fields in [
        [
            ("cache-control", "max-age=60"),
            ("content-range", "bytes 2-3/1048577"),
        ],
        [
            ("cache-control", "max-age=60"),
            ("content-range", "bytes 2-3/*"),
        ],
        [
            ("cache-control", "private, max-age=60"),
            ("content-range", "bytes 2-3/10"),
        ],
    ] {
        sim.origin(206, &fields, "23");
        assert_eq!(sim.get_with("/", &RANGE).body, "23");
        assert_eq!(sim.refreshes(), 0, "{fields:?}");
    }
}

fn parts() -> Sim {
    Sim::new(Policy {
        range_on_miss: RangeOnMiss::Part,
        ..Policy::default()
    })
}

fn part<'a>(etag: &'a str, range: &'a str) -> [(&'static str, &'a str); 3] {
    [
        ("cache-control", "max-age=60"),
        ("etag", etag),
        ("content-range", range),
    ]
}

#[test]
fn a_part_answers_what_lies_within_it_and_nothing_else() {
    let mut sim = parts();
    sim.origin(206, &part("\"1\"", "bytes 2-5/10"), "2345");
    sim.get_with("/", &[("range", "bytes=2-5")]);
    assert_eq!(
        sim.get_with("/", &[("range", "bytes=3-4")]),
        Got::new(206, "34", "larder; hit; ttl=60")
    );
    assert!(
        sim.get_with("/", &[("range", "bytes=5-6")])
            .says("fwd=partial")
    );
    sim.origin(200, &[("cache-control", "no-store")], "0123456789");
    let Got { status, body, said } = sim.get("/");
    assert_eq!((status, body.as_str()), (200, "0123456789"), "{said}");
    assert_eq!(
        sim.last_request_field("range"),
        None,
        "a part from the middle is not completed"
    );
}

#[test]
fn a_beginning_is_completed_by_its_rest_and_then_answers_whole() {
    let mut sim = parts();
    sim.origin(206, &part("\"1\"", "bytes 0-4/10"), "01234");
    sim.get_with("/", &[("range", "bytes=0-4")]);
    sim.origin(206, &part("\"1\"", "bytes 5-9/10"), "56789");
    let Got { status, body, said } = sim.get("/");
    assert_eq!((status, body.as_str()), (200, "0123456789"));
    assert!(
        said.starts_with("larder; fwd=partial; fwd-status=206; stored"),
        "{said}"
    );
    assert_eq!(sim.last_request_field("range").as_deref(), Some("bytes=5-"));
    assert_eq!(sim.last_request_field("if-range").as_deref(), Some("\"1\""));
    assert_eq!(
        sim.last_passed_field("content-length").as_deref(),
        Some("10")
    );
    assert_eq!(
        sim.get("/"),
        Got::new(200, "0123456789", "larder; hit; ttl=60")
    );
}

#[test]
fn a_beginning_of_something_that_changed_is_replaced() {
    let mut sim = parts();
    sim.origin(206, &part("\"1\"", "bytes 0-4/10"), "01234");
    sim.get_with("/", &[("range", "bytes=0-4")]);
    sim.origin(
        200,
        &[("cache-control", "max-age=60"), ("etag", "\"2\"")],
        "abcdefghij",
    );
    assert_eq!(sim.get("/").body, "abcdefghij");
    assert_eq!(
        sim.get_with("/", &RANGE),
        Got::new(206, "cd", "larder; hit; ttl=60")
    );
}

#[test]
fn a_rest_of_something_else_is_never_joined() {
    for wrong in [
        part("\"2\"", "bytes 5-9/10"),
        part("\"1\"", "bytes 6-9/10"),
        part("W/\"1\"", "bytes 5-9/10"),
        part("\"1\"", "bytes 5-9/11"),
        part("\"1\"", "bytes 5-8/10"),
    ] {
        let mut sim = parts();
        sim.origin(206, &part("\"1\"", "bytes 0-4/10"), "01234");
        sim.get_with("/", &[("range", "bytes=0-4")]);
        sim.origin(206, &wrong, "56789");
        let Got { status, said, .. } = sim.get("/");
        assert_eq!(status, 502, "{wrong:?}");
        assert!(said.contains("detail=origin-broken"), "{said}");
        sim.origin(200, &[("cache-control", "max-age=60")], "0123456789");
        assert_eq!(sim.get("/").body, "0123456789");
    }
}

#[test]
fn a_rest_that_breaks_its_word_breaks_the_answer_off_and_is_not_kept() {
    for rest in ["5678", "56789a", "56789abcdefghijk"] {
        let mut sim = parts();
        sim.origin(206, &part("\"1\"", "bytes 0-4/10"), "01234");
        sim.get_with("/", &[("range", "bytes=0-4")]);
        sim.origin(206, &part("\"1\"", "bytes 5-9/10"), rest);
        assert_eq!(sim.get("/").status, 0, "{rest}");
        sim.origin(200, &[("cache-control", "max-age=60")], "0123456789");
        assert_eq!(sim.get("/").body, "0123456789");
    }
}

#[test]
fn a_rest_that_may_not_be_stored_goes_to_its_client_alone() {
    let mut sim = parts();
    sim.origin(206, &part("\"1\"", "bytes 0-4/10"), "01234");
    sim.get_with("/", &[("range", "bytes=0-4")]);
    let mut fields = part("\"1\"", "bytes 5-9/10");
    fields[0].1 = "private";
    sim.origin(206, &fields, "56789");
    let Got { status, body, said } = sim.get("/");
    assert_eq!((status, body.as_str()), (200, "0123456789"));
    assert!(said.ends_with("detail=private"), "{said}");
    assert!(sim.stored().is_empty());
}

#[test]
fn neighbouring_parts_of_one_representation_become_one() {
    let mut sim = parts();
    sim.origin(206, &part("\"1\"", "bytes 0-4/10"), "01234");
    sim.get_with("/", &[("range", "bytes=0-4")]);
    sim.origin(206, &part("\"1\"", "bytes 5-9/10"), "56789");
    sim.get_with("/", &[("range", "bytes=5-9")]);
    assert_eq!(
        sim.get("/"),
        Got::new(200, "0123456789", "larder; hit; ttl=60")
    );
    assert_eq!(sim.origin_requests(), 2);
}

#[test]
fn a_part_does_not_take_the_place_of_a_whole() {
    let mut sim = parts();
    sim.origin(
        200,
        &[("cache-control", "max-age=5"), ("etag", "\"1\"")],
        "0123456789",
    );
    sim.get("/");
    sim.pass_secs(6);
    sim.origin(206, &part("\"1\"", "bytes 2-3/10"), "23");
    sim.get_with("/", &RANGE);
    sim.origin(
        304,
        &[("cache-control", "max-age=5"), ("etag", "\"1\"")],
        "",
    );
    assert_eq!(sim.get("/").body, "0123456789");
}

#[test]
fn a_multipart_answer_of_the_origin_passes_and_is_not_kept() {
    let mut sim = parts();
    sim.origin(
        206,
        &[
            ("cache-control", "max-age=60"),
            ("content-type", "multipart/byteranges; boundary=x"),
        ],
        "--x",
    );
    assert_eq!(sim.get_with("/", &[("range", "bytes=0-0,5-5")]).body, "--x");
    assert!(sim.get_with("/", &RANGE).says("fwd=uri-miss"));
}
