//! Single requirements that show only in a whole exchange; `docs/rfc-coverage.md` names them.

use larder_cache_core::policy::Policy;

use crate::world::Sim;

#[test]
fn a_changed_response_replaces_the_stored_one_too() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[("cache-control", "max-age=5"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], "one");
    sim.get("/");
    sim.pass_secs(6);
    sim.origin(200, &[("cache-control", "max-age=5")], "two");
    sim.get("/");
    assert_eq!(sim.last_request_field("if-modified-since").as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    sim.pass_secs(6);
    sim.get("/");
    assert_eq!(sim.last_request_field("if-modified-since"), None, "nothing of the old one is left");
}

#[test]
fn a_response_without_a_date_is_stored_with_the_time_it_came() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[("cache-control", "max-age=60")], "one");
    sim.get("/");
    sim.pass_secs(9);
    sim.get("/");
    assert_eq!(sim.last_reply_field("date").as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(sim.last_reply_field("age").as_deref(), Some("9"));
}

#[test]
fn a_cache_before_this_one_keeps_its_member() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[("cache-control", "max-age=60"), ("cache-status", "edge; hit; ttl=3")], "one");
    assert_eq!(sim.get("/").2, "edge; hit; ttl=3, larder; fwd=uri-miss; fwd-status=200; stored; ttl=60");
    assert_eq!(sim.get("/").2, "larder; hit; ttl=60", "that one has not seen this request");
}

#[test]
fn a_304_may_change_what_a_response_varies_by() {
    let mut sim = Sim::new(Policy::default());
    sim.origin(200, &[("cache-control", "max-age=5"), ("etag", "\"1\"")], "one");
    sim.get_with("/", &[("x-a", "1")]);
    sim.pass_secs(6);
    sim.origin(304, &[("cache-control", "max-age=60"), ("etag", "\"1\""), ("vary", "x-a")], "");
    sim.get_with("/", &[("x-a", "1")]);
    assert!(sim.get_with("/", &[("x-a", "1")]).2.contains("hit"));
    sim.origin(200, &[("cache-control", "max-age=60"), ("vary", "x-a")], "two");
    assert_eq!(sim.get_with("/", &[("x-a", "2")]).1, "two");
}
