//! Where a background refresh goes, and what is learnt of the route for it.

use std::cell::RefCell;
use std::rc::Rc;

use larder_cache_core::fields::Fields;
use larder_contract::entry;
use larder_contract::entry::RouteSeen;
use larder_filter::config::REFRESH_CLUSTER;

use crate::fake_host::Common;
use crate::stories::{Worker, envoy};

const STALE_SOON: [(&str, &str); 2] = [
    ("cache-control", "max-age=1, stale-while-revalidate=60"),
    ("etag", "\"1\""),
];

/// A worker with one stale response that may be refreshed in the background. `by_route` is what the
/// route made of its request.
fn stale(envoy: &Rc<RefCell<Common>>, config: &str, by_route: &[(&str, &str)]) -> Worker {
    let mut worker = Worker::new(envoy, 1);
    worker.config = worker.vm.on_configure(config.as_bytes()).unwrap();
    worker.request(1, "GET", "/v2/x");
    for (name, value) in by_route {
        worker
            .host
            .told
            .borrow_mut()
            .request
            .set(name.as_bytes(), value.as_bytes());
    }
    worker.respond(1, "200", &STALE_SOON, b"hello");
    worker.vm.on_log(1);
    worker.vm.on_done(1);
    envoy.borrow_mut().now += 2_000;
    worker
}

const STORELESS: &str = r#"{"store": {"enabled": false}}"#;

impl Worker {
    /// Cluster and head of each call to anything but the store, less those that only look for a
    /// cluster.
    fn refreshes(&self) -> Vec<(String, Fields)> {
        let told = self.host.told.borrow();
        let is_refresh = |cluster: &str, head: &Fields| {
            cluster != "larder-sidecar" && head.get(":method") != Some(b"OPTIONS")
        };
        told.sent
            .iter()
            .filter(|(_, cluster, head, _)| is_refresh(cluster, head))
            .map(|(_, cluster, head, _)| (cluster.clone(), head.clone()))
            .collect()
    }

    /// What a request is told about its answer.
    fn says(&mut self, id: u32) -> String {
        self.request(id, "GET", "/v2/x");
        self.vm.on_queue_ready();
        let told = self.host.told.borrow();
        told.given
            .iter()
            .find(|(stream, ..)| *stream == id)
            .map(|(.., said)| said.clone())
            .unwrap_or_default()
    }

    /// What the store was told of the routes of what was written.
    fn written(&self) -> Vec<Option<RouteSeen>> {
        let told = self.host.told.borrow();
        let writes = told
            .sent
            .iter()
            .filter(|(_, _, head, _)| head.get(":method") == Some(b"PUT"));
        writes
            .map(|(.., content)| entry::decode(content).unwrap().0.route)
            .collect()
    }

    fn log(&self) -> Vec<String> {
        self.host.told.borrow().log.clone()
    }
}

#[test]
fn a_refresh_takes_the_routes_where_envoy_has_a_cluster_for_that() {
    for config in [
        STORELESS,
        r#"{"store": {"enabled": false}, "refresh_cluster": "mine"}"#,
    ] {
        let envoy = envoy();
        let mut worker = Worker::new(&envoy, 1);
        worker.host.told.borrow_mut().has_refresh_cluster = true;
        worker.config = worker.vm.on_configure(config.as_bytes()).unwrap();
        worker.request(1, "GET", "/v2/x");
        worker.host.told.borrow_mut().request.set(b":path", b"/x");
        worker.respond(1, "200", &STALE_SOON, b"hello");
        worker.vm.on_log(1);
        envoy.borrow_mut().now += 2_000;
        assert!(worker.says(2).contains("detail=stale-while-revalidate"));
        let refreshes = worker.refreshes();
        let [(cluster, head)] = refreshes.as_slice() else {
            panic!("{refreshes:?}")
        };
        assert_eq!(
            cluster,
            if config == STORELESS {
                REFRESH_CLUSTER
            } else {
                "mine"
            }
        );
        assert_eq!(
            (head.get(":path"), head.get("x-forwarded-proto")),
            (Some(&b"/v2/x"[..]), Some(&b"http"[..]))
        );
        assert_eq!(
            head.get("x-envoy-retry-on"),
            None,
            "the routes say how often"
        );
        assert_eq!(worker.log(), Vec::<String>::new());
    }
}

#[test]
fn without_it_what_came_by_a_plain_route_is_refreshed_straight_from_the_cluster_that_the_route_picked()
 {
    let added = [
        ("x-request-id", "7"),
        ("x-envoy-expected-rq-timeout-ms", "15000"),
    ];
    let mut worker = stale(&envoy(), STORELESS, &added);
    assert!(worker.says(2).contains("detail=stale-while-revalidate"));
    let refreshes = worker.refreshes();
    assert_eq!(
        refreshes
            .iter()
            .map(|(cluster, _)| cluster.as_str())
            .collect::<Vec<_>>(),
        ["origin"]
    );
}

#[test]
fn without_it_what_a_route_changes_is_never_refreshed_in_the_background_and_the_answer_says_why() {
    for by_route in [
        (":path", "/x"),
        (":authority", "b.example"),
        ("authorization", "Bearer x"),
    ] {
        let mut worker = stale(&envoy(), STORELESS, &[by_route]);
        assert_eq!(worker.says(2), "", "it has gone to the origin");
        worker
            .host
            .told
            .borrow_mut()
            .request
            .set(by_route.0.as_bytes(), by_route.1.as_bytes());
        worker.respond(2, "304", &STALE_SOON, b"");
        worker.vm.on_log(2);
        worker.vm.on_done(2);
        let said = worker.host.told.borrow().given.last().unwrap().3.clone();
        assert_eq!(
            said,
            "larder; fwd=stale; fwd-status=304; stored; ttl=1; detail=route-changes-request"
        );
        assert_eq!(worker.refreshes(), []);
    }
}

#[test]
fn a_route_that_nobody_saw_is_asked_in_the_foreground_once() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.config = worker.vm.on_configure(STORELESS.as_bytes()).unwrap();
    worker.request(1, "GET", "/v2/x");
    worker.respond(1, "200", &STALE_SOON, b"hello");
    worker.vm.on_done(1);
    envoy.borrow_mut().now += 2_000;
    worker.request(2, "GET", "/v2/x");
    worker
        .host
        .told
        .borrow_mut()
        .request
        .set(b"if-none-match", b"\"1\"");
    worker.respond(2, "304", &STALE_SOON, b"");
    worker.vm.on_log(2);
    assert!(
        worker
            .host
            .told
            .borrow()
            .given
            .last()
            .unwrap()
            .3
            .ends_with("detail=route-unknown")
    );
    envoy.borrow_mut().now += 2_000;
    assert!(worker.says(3).contains("detail=stale-while-revalidate"));
    assert_eq!(worker.refreshes().len(), 1);
}

#[test]
fn the_store_is_told_what_was_seen_of_the_route() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.request(1, "GET", "/v2/x");
    worker.store_has_nothing();
    worker.host.told.borrow_mut().request.set(b":path", b"/x");
    worker.respond(1, "200", &STALE_SOON, b"hello");
    worker.vm.on_queue_ready();
    assert_eq!(
        worker.written().len(),
        0,
        "it waits for the end of the stream"
    );
    worker.vm.on_log(1);
    worker.vm.on_done(1);
    worker.vm.on_queue_ready();
    assert_eq!(
        worker
            .written()
            .iter()
            .map(|route| route.unwrap().changes)
            .collect::<Vec<_>>(),
        [true]
    );
}

#[test]
fn the_store_does_not_wait_for_a_slow_client() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.request(1, "GET", "/v2/x");
    worker.store_has_nothing();
    worker.respond(1, "200", &STALE_SOON, b"hello");
    worker.vm.on_tick();
    assert_eq!(worker.written().len(), 0);
    envoy.borrow_mut().now += 100;
    worker.vm.on_tick();
    assert_eq!(worker.written(), [None]);
    worker.vm.on_log(1);
    worker.vm.on_queue_ready();
    assert_eq!(worker.written().len(), 1);
}

#[test]
fn a_missing_cluster_is_told_once_and_found_when_it_comes() {
    let envoy = envoy();
    let mut worker = stale(&envoy, STORELESS, &[(":path", "/x")]);
    for id in 2..9 {
        worker.request(id, "GET", "/v2/x");
        worker.vm.on_done(id);
    }
    let log = worker.log();
    assert!(
        log.len() == 1 && log[0].contains("Envoy has no cluster larder-refresh"),
        "{log:?}"
    );
    worker.host.told.borrow_mut().has_refresh_cluster = true;
    for _ in 0..300 {
        worker.vm.on_tick();
    }
    assert!(worker.says(20).contains("detail=stale-while-revalidate"));
    assert_eq!(worker.refreshes()[0].0, REFRESH_CLUSTER);
    // And gone again, by the time of the next refresh.
    worker.host.told.borrow_mut().has_refresh_cluster = false;
    envoy.borrow_mut().now += 30_000;
    worker.says(21);
    assert_eq!(worker.log().len(), 2);
    assert_eq!(worker.says(22), "", "it has gone to the origin");
}
