//! Policies that routes pick by name.

use larder_cache_core::fields::Fields;
use larder_filter::config::Config;
use larder_filter::stream::Action;

use crate::stories::{Worker, envoy};

const CONFIG: &[u8] =
    br#"{"route_policies": {"never": {"cache": false}, "minute": {"default_lifetime_s": 60}},
    "rules": [{"match": {"path_prefix": "/ruled"}}]}"#;

fn worker(config: &[u8]) -> Worker {
    let mut worker = Worker::new(&envoy(), 1);
    worker.config = worker.vm.on_configure(config).unwrap();
    worker
}

impl Worker {
    /// From now on the route of every request says this to the cache.
    fn is_routed(&mut self, said: &[(&str, &str)]) {
        let said = Fields::from_pairs(said.iter().copied());
        self.host.told.borrow_mut().route_metadata = Some(said);
    }

    fn calls(&self) -> usize {
        self.host.told.borrow().calls_made
    }
}

#[test]
fn a_request_has_the_policy_that_its_route_names_whatever_the_rules_say() {
    let mut worker = worker(CONFIG);
    assert_eq!(
        worker.request(1, "GET", "/other"),
        Action::Continue,
        "no rule, and no route that picks one"
    );
    worker.is_routed(&[("policy", "minute")]);
    worker.warm("/other");
    worker.is_routed(&[("policy", "never")]);
    assert_eq!(worker.request(3, "GET", "/other"), Action::Continue);
    assert_eq!(worker.request(4, "GET", "/ruled"), Action::Continue);
}

#[test]
fn a_lifetime_that_a_route_gives_is_for_no_oddly_encoded_path() {
    let mut worker = worker(CONFIG);
    worker.is_routed(&[("policy", "minute")]);
    for (id, path, is_stored) in [(1, "/a.css", true), (3, "/me%3Ba.css", false)] {
        worker.request(id, "GET", path);
        worker.store_has_nothing();
        worker.respond(id, "200", &[("content-type", "text/css")], b"hello");
        worker.vm.on_done(id);
        assert_eq!(worker.is_hit(id + 1, path), is_stored, "{path}");
    }
}

#[test]
fn a_route_that_picks_nothing_leaves_the_rules_in_force() {
    let mut worker = worker(CONFIG);
    worker.warm("/ruled");
}

#[test]
fn what_a_route_says_wrongly_passes_untouched_and_is_told_once() {
    for said in [
        &[("policy", "nevre")][..],
        &[("polcy", "never")],
        &[("policy", "minute"), ("rule", "x")],
        &[],
    ] {
        let mut worker = worker(CONFIG);
        worker.is_routed(said);
        for id in 1..4 {
            assert_eq!(
                worker.request(id, "GET", "/ruled"),
                Action::Continue,
                "{said:?}"
            );
        }
        let log = worker.host.told.borrow().log.clone();
        let lines: Vec<_> = log
            .iter()
            .filter(|line| line.contains("one of minute, never"))
            .collect();
        assert_eq!(lines.len(), 1, "{said:?}: {log:?}");
    }
}

#[test]
fn the_route_is_asked_for_only_where_it_may_pick_and_with_one_call() {
    for (config, picks, cost) in [
        (&b"{}"[..], false, 4),
        (CONFIG, false, 5),
        (CONFIG, true, 5),
    ] {
        let mut worker = worker(config);
        if picks {
            worker.is_routed(&[("policy", "minute")]);
        }
        worker.warm("/ruled");
        let before = worker.calls();
        assert!(worker.is_hit(3, "/ruled"));
        assert_eq!(worker.calls() - before, cost);
    }
}

#[test]
fn policies_for_routes_are_read_as_those_of_rules_are() {
    for (text, part) in [
        (
            r#"{"route_policies": []}"#,
            "route_policies must be an object",
        ),
        (
            r#"{"route_policies": {"a": 1}}"#,
            "route_policies.a must be an object",
        ),
        (
            r#"{"route_policies": {"a": {"keep_s": -1}}}"#,
            "route_policies.a.keep_s must be",
        ),
        (
            r#"{"route_policies": {"": {}}}"#,
            "route_policies must not have an empty name",
        ),
        (
            r#"{"route_policies": {"a": {"key": {}}}}"#,
            "a purge of a URL knows no route",
        ),
        (
            r#"{"store": {"enabled": false}, "route_policies": {"a": {"shared_store": true}}}"#,
            "route_policies.a.shared_store cannot be true",
        ),
    ] {
        let message = Config::parse(text.as_bytes()).unwrap_err();
        assert!(message.contains(part), "{text}: {message}");
    }
}
