//! What the filter asks of its host, callback by callback.

use std::cell::RefCell;
use std::rc::Rc;

use larder_cache_core::fields::Fields;
use larder_contract::store_api::ClockReading;
use larder_filter::answer::DEFERRED_FROM;
use larder_filter::config::Config;
use larder_filter::stream::Action;
use larder_filter::vm::{BATCH, Vm};
use proptest::prelude::*;

use crate::fake_host::{Common, Fake};

/// One worker VM and its host.
pub(crate) struct Worker {
    pub(crate) vm: Vm<Fake>,
    pub(crate) host: Fake,
    pub(crate) config: Rc<Config>,
    /// How many of the answers given have passed our response callbacks.
    passed: usize,
}

pub(crate) fn envoy() -> Rc<RefCell<Common>> {
    let common = Rc::new(RefCell::new(Common::default()));
    common.borrow_mut().now = 1_000_000_000;
    common
}

impl Worker {
    pub(crate) fn new(envoy: &Rc<RefCell<Common>>, seed: u64) -> Self {
        let host = Fake::new(envoy, seed);
        let mut vm = Vm::new(host.clone());
        let config = vm.on_configure(b"{}").unwrap();
        Self {
            vm,
            host,
            config,
            passed: 0,
        }
    }

    /// Time passes, and the worker's heart beats.
    fn lives_on(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(30_000) {
            self.host.common.borrow_mut().now += millis / millis.div_ceil(30_000);
            for _ in 0..10 {
                self.vm.on_tick();
            }
        }
    }

    /// Level 1 is believed though no purge is heard.
    fn believes_for_ever(&mut self) {
        self.config = self
            .vm
            .on_configure(br#"{"store": {"distrust_after_ms": 0}}"#)
            .unwrap();
    }

    pub(crate) fn request(&mut self, id: u32, method: &str, path: &str) -> Action {
        self.request_with(id, method, path, &[])
    }

    fn request_with(&mut self, id: u32, method: &str, path: &str, more: &[(&str, &str)]) -> Action {
        self.send(id, method, ("a", path), more, true)
    }

    fn request_to(&mut self, id: u32, method: &str, authority: &str, path: &str) -> Action {
        self.send(id, method, (authority, path), &[], true)
    }

    /// A request whose head does not say that there is no content.
    fn open_request(&mut self, id: u32, method: &str, path: &str, more: &[(&str, &str)]) -> Action {
        self.send(id, method, ("a", path), more, false)
    }

    fn send(
        &mut self,
        id: u32,
        method: &str,
        (authority, path): (&str, &str),
        more: &[(&str, &str)],
        end: bool,
    ) -> Action {
        self.vm.on_stream(1);
        let fields = [
            (":method", method),
            (":scheme", "http"),
            (":authority", authority),
            (":path", path),
        ];
        {
            let mut told = self.host.told.borrow_mut();
            told.request = Fields::from_pairs(fields.iter().chain(more).copied());
            told.effective = id;
        }
        let action = self.vm.on_request_headers(id, &self.config, end);
        self.let_answers_pass();
        action
    }

    /// Our queue is told, as Envoy does after a message; what is answered passes.
    fn go_on(&mut self) {
        self.vm.on_queue_ready();
        self.let_answers_pass();
    }

    /// As Envoy does with an answer given to a request: what stands in becomes what the client
    /// gets.
    pub(crate) fn let_answers_pass(&mut self) {
        let given = self.host.told.borrow().given.clone();
        for (id, status, body, said) in given.into_iter().skip(self.passed) {
            self.passed += 1;
            if !said.is_empty() {
                continue;
            }
            let mut stand_in = Fields::from_pairs([(":status", &*status.to_string())]);
            if !body.is_empty() {
                stand_in.append(b"content-length", body.len().to_string().as_bytes());
                stand_in.append(b"content-type", b"text/plain");
            }
            {
                let mut told = self.host.told.borrow_mut();
                for (name, value) in told.added_by_route.iter() {
                    stand_in.append(name, value);
                }
                told.response = stand_in;
            }
            assert_eq!(
                self.vm.on_response_headers(id, body.is_empty()),
                Action::Continue
            );
            if !body.is_empty() {
                assert_eq!(
                    self.vm.on_response_body(id, body.len(), true),
                    Action::Continue
                );
            }
            let mut told = self.host.told.borrow_mut();
            let said = String::from_utf8(told.replaced_head.get("cache-status").unwrap().to_vec())
                .unwrap();
            let body = told.replaced_body.last().cloned().unwrap_or_default();
            told.given[self.passed - 1] = (id, status, body, said);
        }
    }

    /// The store has nothing: answers the look-up that was sent last.
    pub(crate) fn store_has_nothing(&mut self) {
        let token = {
            let mut told = self.host.told.borrow_mut();
            told.call_response =
                Fields::from_pairs([(":status", "204"), ("x-envoy-upstream-service-time", "1")]);
            told.sent.last().unwrap().0
        };
        self.vm.on_call_response(token, 2, 0);
    }

    pub(crate) fn respond(
        &mut self,
        id: u32,
        status: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Action {
        {
            let mut told = self.host.told.borrow_mut();
            told.response =
                Fields::from_pairs([(":status", status), ("x-envoy-upstream-service-time", "1")]);
            for (name, value) in fields {
                told.response.append(name.as_bytes(), value.as_bytes());
            }
            told.chunk = body.to_vec();
            told.effective = id;
        }
        let action = self.vm.on_response_headers(id, body.is_empty());
        if !body.is_empty() {
            self.vm.on_response_body(id, body.len(), true);
        }
        action
    }

    /// Envoy answers in place of the origin.
    fn fail(&mut self, id: u32, status: &str) {
        {
            let mut told = self.host.told.borrow_mut();
            told.response = Fields::from_pairs([(":status", status)]);
            told.effective = id;
        }
        self.vm.on_response_headers(id, true);
    }

    pub(crate) fn fetch(&mut self, id: u32, path: &str) {
        assert_eq!(self.request(id, "GET", path), Action::Pause);
        self.store_has_nothing();
        self.respond(
            id,
            "200",
            &[
                ("cache-control", "max-age=60, stale-while-revalidate=60"),
                ("content-type", "text/plain"),
            ],
            b"hello",
        );
        self.vm.on_log(id);
        self.vm.on_done(id);
        self.vm.on_queue_ready();
    }

    /// What the long polls sent so far ask for.
    pub(crate) fn polls(&self) -> Vec<String> {
        let told = self.host.told.borrow();
        let path = |head: &Fields| String::from_utf8(head.get(":path").unwrap().to_vec()).unwrap();
        let polls = told
            .sent
            .iter()
            .map(|(_, _, head, _)| path(head))
            .filter(|path| path.starts_with("/v1/events"));
        // What is asked for, behind who asks.
        polls
            .map(|path| path.split('&').skip(1).collect::<Vec<_>>().join("&"))
            .collect()
    }

    /// The sidecar answers the poll that was sent last.
    pub(crate) fn hear(&mut self, events: &str) {
        let fields = [(":status", "200"), ("x-envoy-upstream-service-time", "1")];
        self.answer_last("/v1/events", &fields, events.as_bytes());
    }

    /// The last call to a path that begins so is answered.
    fn answer_last(&mut self, path: &str, fields: &[(&str, &str)], body: &[u8]) {
        let token = {
            let mut told = self.host.told.borrow_mut();
            told.call_response = Fields::from_pairs(fields.iter().copied());
            told.call_body = body.to_vec();
            let is_meant = |head: &Fields| head.get(":path").unwrap().starts_with(path.as_bytes());
            told.sent
                .iter()
                .rev()
                .find(|(_, _, head, _)| is_meant(head))
                .unwrap()
                .0
        };
        self.vm.on_call_response(token, fields.len(), body.len());
    }

    /// A PUT to its end; the store is told of it.
    fn change(&mut self, id: u32, path: &str) {
        self.request(id, "PUT", path);
        self.respond(id, "204", &[], b"");
        self.vm.on_done(id);
        self.vm.on_queue_ready();
    }

    /// Something fresh, an answer from which has been seen to pass.
    pub(crate) fn warm(&mut self, path: &str) {
        self.fetch(1, path);
        assert!(self.is_hit(2, path));
        self.vm.on_done(2);
    }

    pub(crate) fn is_hit(&mut self, id: u32, path: &str) -> bool {
        self.request(id, "GET", path);
        self.host
            .told
            .borrow()
            .given
            .last()
            .is_some_and(|(stream, .., said)| *stream == id && said.contains("hit"))
    }

    fn answers(&self) -> usize {
        self.host.told.borrow().given.len()
    }
}

#[test]
fn a_level_1_hit_whose_like_has_passed_costs_one_header_read_one_clock_one_drain_and_one_reply() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.warm("/");
    let before = worker.host.told.borrow().calls_made;
    assert_eq!(worker.request(3, "GET", "/"), Action::Pause);
    let told = worker.host.told.borrow();
    assert_eq!(told.calls_made - before, 4);
    assert_eq!(
        told.given[1],
        (3, 200, "hello".to_owned(), "larder; hit; ttl=60".to_owned())
    );
}

#[test]
fn a_first_hit_stands_in_until_the_host_is_seen_to_change_nothing() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.fetch(1, "/");
    worker.host.told.borrow_mut().added_by_route = Fields::from_pairs([("x-route", "1")]);
    for id in 2..4 {
        assert!(worker.is_hit(id, "/"));
        let told = worker.host.told.borrow();
        assert_eq!(told.replaced_body.len(), id as usize - 1, "it stood in");
        assert_eq!(told.replaced_head.get("x-route"), None);
        assert_eq!(told.replaced_head.get("content-length"), Some(&b"5"[..]));
    }
}

#[test]
fn an_answer_that_does_not_pass_as_it_was_given_is_put_right_and_none_is_given_so_again() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.warm("/");
    assert!(worker.is_hit(3, "/"));
    let expected = worker.vm.expected_passage(3).unwrap();
    assert_eq!((expected.lines, expected.length), (8, 5));
    // The host shows one line more.
    worker.vm.correct_passage(3);
    worker.vm.on_response_headers(3, false);
    worker.vm.on_response_body(3, 5, true);
    {
        let told = worker.host.told.borrow();
        assert_eq!(told.replaced_head.len(), expected.lines as usize);
        assert_eq!(told.replaced_body, ["hello", "hello"]);
    }
    assert!(worker.is_hit(4, "/"));
    assert_eq!(worker.vm.expected_passage(4), None);
}

#[test]
fn a_stale_copy_goes_out_at_once_in_place_of_an_error_and_its_content() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    let fields = [
        ("cache-control", "max-age=1, stale-if-error=60"),
        ("content-type", "text/html"),
    ];
    worker.request(1, "GET", "/");
    worker.store_has_nothing();
    worker.respond(1, "200", &fields, b"hello");
    envoy.borrow_mut().now += 2_000;
    worker.request(2, "GET", "/");
    worker.store_has_nothing();
    assert_eq!(
        worker.respond(
            2,
            "500",
            &[("x-error", "1"), ("content-length", "9")],
            b"an "
        ),
        Action::Continue
    );
    worker.vm.on_response_body(2, 3, false);
    worker.vm.on_response_body(2, 0, true);
    let told = worker.host.told.borrow();
    let field = |name| {
        told.replaced_head
            .get(name)
            .map(|value| std::str::from_utf8(value).unwrap())
    };
    assert_eq!(
        (field(":status"), field("content-length")),
        (Some("200"), Some("5"))
    );
    assert_eq!(
        (field("content-type"), field("x-error")),
        (Some("text/html"), None)
    );
    assert_eq!(told.replaced_body, ["hello", ""]);
    assert_eq!(told.given, [], "nothing that the route would add to");
}

#[test]
fn where_the_host_is_seen_to_change_an_answer_the_origin_is_asked_for_the_whole() {
    let fields = [
        ("cache-control", "no-cache"),
        ("content-type", "text/html"),
        ("etag", "\"1\""),
    ];
    for (sent, conditional) in [
        ((200u64, 5u64), true),
        ((200, 28), false),
        ((418, 5), false),
    ] {
        let mut worker = Worker::new(&envoy(), 1);
        worker.request(1, "GET", "/");
        worker.store_has_nothing();
        worker.respond(1, "200", &fields, b"hello");
        worker.vm.on_done(1);
        worker.vm.on_queue_ready();
        worker.request(2, "GET", "/");
        assert_eq!(worker.respond(2, "304", &fields, b""), Action::Pause);
        worker.host.told.borrow_mut().sent_response = sent;
        worker.vm.on_done(2);
        worker.host.told.borrow_mut().set.clear();
        worker.request(3, "GET", "/");
        let set = worker.host.told.borrow().set.clone();
        assert_eq!(
            set.iter().any(|(name, _)| name == "if-none-match"),
            conditional,
            "{sent:?}: {set:?}"
        );
    }
}

#[test]
fn an_answer_past_the_filters_goes_without_what_the_route_adds_to_it() {
    let etag = ("etag", "\"1\"");
    let service_time = ("x-envoy-upstream-service-time", "1");
    for (behind, expected) in [
        (vec![("x-route", "1"), ("x-route", "2")], vec!["a"]),
        // The origin is an Envoy: that field of its own says nothing of our route.
        (vec![("x-route", "1"), ("date", "today")], vec!["a", "1"]),
    ] {
        let mut worker = Worker::new(&envoy(), 1);
        let fields = [
            ("cache-control", "no-cache"),
            ("content-type", "text/html"),
            etag,
        ];
        let stored: Vec<_> = fields
            .into_iter()
            .chain([("x-route", "a"), ("x-route", "1"), ("x-route", "2")])
            .collect();
        worker.request(1, "GET", "/");
        worker.store_has_nothing();
        worker.respond(1, "200", &stored, b"hello");
        worker.vm.on_queue_ready();
        worker.request(2, "GET", "/");
        worker.host.told.borrow_mut().response = Fields::from_pairs(
            [(":status", "304"), etag, ("x-route", "a"), service_time]
                .into_iter()
                .chain(behind.clone()),
        );
        worker.vm.on_response_headers(2, true);
        let told = worker.host.told.borrow();
        let given: Vec<_> = told
            .given_head
            .all("x-route")
            .map(|value| std::str::from_utf8(value).unwrap())
            .collect();
        assert_eq!(given, expected, "{behind:?}");
    }
}

#[test]
fn what_envoy_would_type_and_what_a_filter_has_to_allow_is_asked_for_whole() {
    let (typed, allowed) = (
        ("content-type", "text/html"),
        ("access-control-allow-origin", "*"),
    );
    for (fields, request, conditional) in [
        (vec![typed], vec![], true),
        (vec![], vec![], false),
        (vec![typed], vec![("origin", "http://b")], false),
        (vec![typed, allowed], vec![("origin", "http://b")], true),
    ] {
        let mut worker = Worker::new(&envoy(), 1);
        worker.request(1, "GET", "/");
        worker.store_has_nothing();
        let stored: Vec<_> = [("cache-control", "no-cache"), ("etag", "\"1\"")]
            .into_iter()
            .chain(fields)
            .collect();
        worker.respond(1, "200", &stored, b"hello");
        worker.vm.on_queue_ready();
        worker.request_with(2, "GET", "/", &request);
        let set = worker.host.told.borrow().set.clone();
        assert_eq!(
            set.iter().any(|(name, _)| name == "if-none-match"),
            conditional,
            "{stored:?} {request:?}"
        );
    }
}

#[test]
fn an_answer_without_content_takes_the_place_of_a_304() {
    let mut worker = Worker::new(&envoy(), 1);
    let fields = [
        ("cache-control", "no-cache"),
        ("content-type", "text/html"),
        ("etag", "\"1\""),
    ];
    worker.request(1, "GET", "/");
    worker.store_has_nothing();
    worker.respond(1, "200", &fields, b"hello");
    worker.vm.on_queue_ready();
    worker.request_with(2, "GET", "/", &[("if-none-match", "\"1\"")]);
    assert_eq!(worker.respond(2, "304", &fields, b""), Action::Continue);
    let told = worker.host.told.borrow();
    assert_eq!(
        (told.replaced_head.get(":status"), &*told.given),
        (Some(&b"304"[..]), &[][..])
    );
}

#[test]
fn a_get_that_an_empty_piece_ends_is_answered_like_one_without() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.warm("/");
    assert_eq!(
        worker.open_request(3, "GET", "/", &[]),
        Action::Pause,
        "it may have content"
    );
    assert_eq!(worker.answers(), 1);
    assert_eq!(worker.vm.on_request_body(3, 0, false), Action::Pause);
    assert_eq!(
        worker.vm.on_request_body(3, 0, true),
        Action::Pause,
        "answered"
    );
    assert_eq!(worker.host.told.borrow().given[1].1, 200);
    assert_eq!(worker.open_request(4, "GET", "/other", &[]), Action::Pause);
    assert_eq!(
        worker.vm.on_request_body(4, 0, true),
        Action::Pause,
        "it asks the store"
    );
    worker.store_has_nothing();
    assert_eq!(worker.host.told.borrow().resumed, [1, 4]);
}

#[test]
fn content_of_a_get_is_never_taken_for_none() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.warm("/");
    let mut id = 3;
    for length in ["content-length", "content-type", "upgrade", "expect"] {
        assert_eq!(
            worker.open_request(id, "GET", "/", &[(length, "5")]),
            Action::Continue,
            "{length}"
        );
        id += 1;
    }
    assert_eq!(worker.open_request(id, "GET", "/", &[]), Action::Pause);
    assert_eq!(worker.vm.on_request_body(id, 5, false), Action::Continue);
    assert_eq!(worker.vm.on_request_body(id, 0, true), Action::Continue);
    id += 1;
    assert_eq!(worker.open_request(id, "GET", "/", &[]), Action::Pause);
    assert_eq!(worker.vm.on_request_trailers(id), Action::Continue);
    id += 1;
    assert_eq!(worker.open_request(id, "GET", "/", &[]), Action::Pause);
    envoy.borrow_mut().now += 100;
    worker.vm.on_tick();
    assert_eq!(
        worker.host.told.borrow().resumed,
        [1, id],
        "it may still come"
    );
    assert_eq!(worker.answers(), 1);
}

#[test]
fn where_envoy_hides_the_content_of_what_is_held_nobody_waits_for_it() {
    for (received, waits) in [(0u64, 4), (5, 1)] {
        let envoy = envoy();
        let mut worker = Worker::new(&envoy, 1);
        worker.host.told.borrow_mut().request_size = received;
        for id in 1..10 {
            let held = worker.open_request(id, "GET", "/", &[]) == Action::Pause;
            assert_eq!(held, id <= waits, "{id}");
            envoy.borrow_mut().now += 100;
            worker.vm.on_tick();
        }
    }
}

#[test]
fn trailers_in_the_place_of_the_content_that_was_promised_break_the_answer_off() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.request(1, "GET", "/");
    worker.store_has_nothing();
    worker.respond(
        1,
        "200",
        &[("cache-control", "max-age=1, stale-if-error=60")],
        b"hello",
    );
    envoy.borrow_mut().now += 2_000;
    worker.request(2, "GET", "/");
    worker.store_has_nothing();
    worker.host.told.borrow_mut().response =
        Fields::from_pairs([(":status", "500"), ("x-envoy-upstream-service-time", "1")]);
    assert_eq!(worker.vm.on_response_headers(2, false), Action::Continue);
    assert_eq!(
        worker.vm.on_response_trailers(2),
        Action::Pause,
        "Envoy's stream is gone"
    );
    assert_eq!(worker.host.told.borrow().broken_off, 1);
}

#[test]
fn what_is_held_of_a_representation_goes_before_its_rest() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.config = worker
        .vm
        .on_configure(br#"{"rules": [{"policy": {"range_on_miss": "part"}}]}"#)
        .unwrap();
    let fields = |range| {
        [
            ("cache-control", "max-age=60"),
            ("etag", "\"1\""),
            ("content-range", range),
        ]
    };
    worker.request_with(1, "GET", "/", &[("range", "bytes=0-4")]);
    worker.store_has_nothing();
    worker.respond(1, "206", &fields("bytes 0-4/10"), b"01234");
    worker.request(2, "GET", "/");
    worker.store_has_nothing();
    assert_eq!(
        worker.respond(2, "206", &fields("bytes 5-9/10"), b"56789"),
        Action::Continue
    );
    assert_eq!(worker.host.told.borrow().prepended_body, "01234");
    let set = worker.host.told.borrow().set.clone();
    for line in [
        (":status", "200"),
        ("content-length", "10"),
        ("content-range", ""),
    ] {
        assert!(
            set.contains(&(line.0.to_owned(), line.1.to_owned())),
            "{line:?} in {set:?}"
        );
    }
    assert!(worker.is_hit(3, "/"));
    assert_eq!(worker.host.told.borrow().given[0].2, "0123456789");
}

const JWT: &str = "envoy.filters.http.jwt_authn";

#[test]
fn a_client_that_only_metadata_names_shares_no_answer() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.host.told.borrow_mut().metadata = Some(JWT);
    worker.request(1, "GET", "/");
    worker.store_has_nothing();
    worker.respond(1, "200", &[("cache-control", "max-age=60")], b"alice's");
    worker.vm.on_done(1);
    assert!(!worker.is_hit(2, "/"), "the next client is not alice");
    worker.vm.on_done(2);
    worker.host.told.borrow_mut().metadata = None;
    worker.fetch(3, "/");
    assert!(worker.is_hit(4, "/"), "nobody's page");
    worker.host.told.borrow_mut().metadata = Some(JWT);
    assert!(!worker.is_hit(5, "/"), "which alice does not get");
}

#[test]
fn a_worker_learns_from_the_others_that_metadata_names_clients() {
    let envoy = envoy();
    let (mut one, mut other) = (Worker::new(&envoy, 1), Worker::new(&envoy, 2));
    other.fetch(1, "/");
    one.host.told.borrow_mut().metadata = Some(JWT);
    one.request(2, "GET", "/");
    other.host.told.borrow_mut().metadata = Some(JWT);
    assert!(other.is_hit(3, "/"), "not known yet");
    other.vm.on_tick();
    for id in 4..7 {
        assert!(!other.is_hit(id, "/"));
    }
}

#[test]
fn where_every_request_hits_the_first_after_a_tick_is_asked_about() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.fetch(1, "/");
    assert!(
        worker.is_hit(9, "/"),
        "from now on it is known how Envoy lets it pass"
    );
    let before = worker.host.told.borrow().calls_made;
    assert!(worker.is_hit(2, "/"));
    assert_eq!(worker.host.told.borrow().calls_made - before, 4);
    worker.host.told.borrow_mut().metadata = Some(JWT);
    worker.vm.on_tick();
    assert!(!worker.is_hit(3, "/"));
    assert!(!worker.is_hit(4, "/"), "from now on every hit is");
}

#[test]
fn the_origin_gets_the_host_that_the_key_names() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.request_to(1, "GET", "A:80", "/");
    worker.store_has_nothing();
    let set = worker.host.told.borrow().set.clone();
    assert!(
        set.contains(&(":authority".to_owned(), "a".to_owned())),
        "{set:?}"
    );
    worker.respond(1, "200", &[("cache-control", "max-age=60")], b"hello");
    worker.vm.on_done(1);
    assert!(worker.is_hit(2, "/"));
}

#[test]
fn what_is_not_storable_asks_neither_slot_nor_store_until_its_mark_ends() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.believes_for_ever();
    worker.request(1, "GET", "/");
    worker.store_has_nothing();
    worker.respond(1, "200", &[("cache-control", "no-store")], b"hello");
    worker.vm.on_done(1);
    worker.vm.on_queue_ready();
    let calls = |worker: &Worker| worker.host.told.borrow().calls_made;
    let before = calls(&worker);
    assert_eq!(worker.request(2, "GET", "/"), Action::Continue);
    let asked = calls(&worker) - before;
    assert_eq!(asked, 3, "the inbox, the request, the clock");
    worker.host.told.borrow_mut().set.clear();
    let storable = [("cache-control", "max-age=60")];
    let before = calls(&worker);
    assert_eq!(
        worker.respond(2, "200", &storable, b"hello"),
        Action::Continue
    );
    worker.vm.on_log(2);
    worker.vm.on_done(2);
    let asked = calls(&worker) - before;
    assert_eq!(asked, 3, "its status, and the two fields");
    assert_eq!(
        worker.host.told.borrow().set,
        [
            (
                "+cache-status".to_owned(),
                "larder; fwd=uri-miss; fwd-status=200; detail=uncacheable".to_owned()
            ),
            ("x-cache-status".to_owned(), "MISS".to_owned())
        ]
    );
    // That it is storable by now is noticed when the mark ends.
    assert!(!worker.is_hit(3, "/"));
    worker.vm.on_done(3);
    worker.lives_on(61_000);
    assert_eq!(
        worker.request(4, "GET", "/"),
        Action::Pause,
        "it leads, and asks the store"
    );
    worker.store_has_nothing();
    worker.respond(4, "200", &storable, b"hello");
    assert!(worker.is_hit(5, "/"));
}

#[test]
fn what_envoy_answers_under_a_marked_key_is_told_from_what_the_origin_does() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.request(1, "GET", "/");
    worker.store_has_nothing();
    worker.respond(1, "200", &[("cache-control", "no-store")], b"hello");
    worker.vm.on_done(1);
    worker.vm.on_queue_ready();
    let said = |worker: &Worker| {
        let told = worker.host.told.borrow();
        let said: Vec<_> = told
            .set
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        said.join(" ")
    };
    for (id, status, details, expected) in [
        (
            2,
            "503",
            "no_healthy_upstream",
            ":status=502 +cache-status=larder; fwd=uri-miss; detail=no-origin",
        ),
        (
            3,
            "504",
            "response_timeout",
            "+cache-status=larder; fwd=uri-miss; detail=origin-timeout",
        ),
        (
            4,
            "301",
            "direct_response",
            "+cache-status=larder; fwd=uri-miss; detail=uncacheable",
        ),
    ] {
        assert_eq!(worker.request(id, "GET", "/"), Action::Continue);
        worker.host.told.borrow_mut().set.clear();
        worker.host.told.borrow_mut().details = details.to_owned();
        worker.fail(id, status);
        assert_eq!(said(&worker), format!("{expected} x-cache-status=MISS"));
    }
    worker.request(5, "GET", "/");
    worker.host.told.borrow_mut().set.clear();
    worker.respond(5, "404", &[], b"");
    let expected = "+cache-status=larder; fwd=uri-miss; fwd-status=404; detail=uncacheable";
    assert_eq!(said(&worker), format!("{expected} x-cache-status=MISS"));
}

#[test]
fn what_must_be_validated_each_time_is_not_looked_for_in_the_store() {
    let mut worker = Worker::new(&envoy(), 1);
    let fields = [
        ("cache-control", "no-cache"),
        ("content-type", "text/html"),
        ("etag", "\"1\""),
    ];
    worker.request(1, "GET", "/");
    worker.store_has_nothing();
    worker.respond(1, "200", &fields, b"hello");
    worker.vm.on_queue_ready();
    assert_eq!(worker.request(2, "GET", "/"), Action::Continue, "at once");
    assert_eq!(
        worker.request(3, "GET", "/"),
        Action::Pause,
        "one asks for all"
    );
    let set = worker.host.told.borrow().set.clone();
    assert!(
        set.contains(&("if-none-match".to_owned(), "\"1\"".to_owned())),
        "{set:?}"
    );
    worker.respond(2, "304", &fields, b"");
    worker.go_on();
    let given = worker.host.told.borrow().given.clone();
    assert_eq!(
        given
            .iter()
            .map(|(id, status, body, _)| (*id, *status, body.as_str()))
            .collect::<Vec<_>>(),
        [(2, 200, "hello"), (3, 200, "hello")]
    );
}

#[test]
fn what_must_be_validated_each_time_is_written_anew_when_it_changes_or_would_be_forgotten() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    let writes = |worker: &mut Worker, id: u32, status: &str, language: &str, body: &[u8]| {
        worker.vm.on_queue_ready();
        let is_write =
            |sent: &&(u32, String, Fields, Vec<u8>)| sent.2.get(":method") == Some(b"PUT");
        let before = worker
            .host
            .told
            .borrow()
            .sent
            .iter()
            .filter(is_write)
            .count();
        let date = id.to_string();
        let fields = [
            ("cache-control", "no-cache"),
            ("content-type", "text/html"),
            ("etag", "\"1\""),
            ("x-kept", language),
            ("date", &date),
        ];
        worker.respond(id, status, &fields, body);
        worker.vm.on_done(id);
        worker.vm.on_queue_ready();
        worker
            .host
            .told
            .borrow()
            .sent
            .iter()
            .filter(is_write)
            .count()
            - before
    };
    worker.request(1, "GET", "/");
    worker.store_has_nothing();
    assert_eq!(writes(&mut worker, 1, "200", "a", b"hello"), 1);
    worker.request(2, "GET", "/");
    assert_eq!(writes(&mut worker, 2, "304", "a", b""), 0);
    worker.request(3, "GET", "/");
    assert_eq!(
        writes(&mut worker, 3, "304", "b", b""),
        1,
        "a field has changed"
    );
    worker.lives_on(150_000);
    worker.request(4, "GET", "/");
    assert_eq!(
        writes(&mut worker, 4, "304", "b", b""),
        1,
        "half of keep is over"
    );
    assert_eq!(worker.answers(), 3);
}

#[test]
fn without_a_store_a_miss_goes_on_at_once_and_nobody_is_called() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.config = worker
        .vm
        .on_configure(br#"{"store": {"enabled": false}}"#)
        .unwrap();
    assert_eq!(worker.request(1, "GET", "/"), Action::Continue);
    assert_eq!(
        worker.request(2, "GET", "/"),
        Action::Pause,
        "it waits for the first"
    );
    worker.respond(
        1,
        "200",
        &[
            ("cache-control", "max-age=60, stale-while-revalidate=9"),
            ("etag", "\"1\""),
        ],
        b"hello",
    );
    worker.vm.on_queue_ready();
    assert!(worker.is_hit(3, "/"));
    worker.request(4, "PUT", "/");
    worker.respond(4, "204", &[], b"");
    worker.vm.on_tick();
    assert_eq!(worker.host.told.borrow().sent, []);
    assert_eq!(worker.answers(), 2);
}

#[test]
fn without_a_store_a_refresh_goes_straight_to_the_origin() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.config = worker
        .vm
        .on_configure(br#"{"store": {"enabled": false}}"#)
        .unwrap();
    worker.request(1, "GET", "/");
    worker.respond(
        1,
        "200",
        &[("cache-control", "max-age=1, stale-while-revalidate=9")],
        b"hello",
    );
    worker.vm.on_log(1);
    envoy.borrow_mut().now += 2_000;
    assert!(worker.is_hit(2, "/"));
    worker.vm.on_queue_ready();
    let sent = worker.host.told.borrow().sent.clone();
    assert_eq!(
        sent.iter()
            .map(|(_, cluster, ..)| cluster.as_str())
            .collect::<Vec<_>>(),
        ["origin"]
    );
}

#[test]
fn a_large_hit_goes_out_as_a_stand_in_whose_head_and_content_are_replaced_in_passing() {
    let mut worker = Worker::new(&envoy(), 1);
    let content = "x".repeat(DEFERRED_FROM);
    worker.request(1, "GET", "/");
    worker.store_has_nothing();
    let fields = [
        ("cache-control", "max-age=60"),
        ("content-type", "text/html"),
        ("x-kept", "yes"),
    ];
    worker.respond(1, "200", &fields, content.as_bytes());
    for id in 2..4 {
        assert!(worker.is_hit(id, "/"));
        let told = worker.host.told.borrow();
        let field = |name| {
            told.replaced_head
                .get(name)
                .map(|value| std::str::from_utf8(value).unwrap())
        };
        assert_eq!(field(":status"), Some("200"));
        assert_eq!(field("content-length"), Some("4096"));
        assert_eq!(field("cache-status"), Some("larder; hit; ttl=60"));
        assert_eq!(field("x-kept"), Some("yes"));
        assert_eq!(told.replaced_body.len(), id as usize - 1);
        assert_eq!(told.replaced_body.last(), Some(&content));
    }
}

#[test]
fn a_request_waits_while_another_worker_fetches_and_is_answered_from_the_handoff() {
    let envoy = envoy();
    let (mut one, mut two) = (Worker::new(&envoy, 1), Worker::new(&envoy, 2));
    assert_eq!(one.request(1, "GET", "/"), Action::Pause);
    assert_eq!(two.request(1, "GET", "/"), Action::Pause);
    assert_eq!(two.host.told.borrow().sent.len(), 0, "it waits");
    one.store_has_nothing();
    one.respond(1, "200", &[("cache-control", "max-age=60")], b"hello");
    two.go_on();
    let given = two.host.told.borrow().given.clone();
    assert_eq!(
        given,
        [(
            1,
            200,
            "hello".to_owned(),
            "larder; fwd=uri-miss; fwd-status=200; collapsed; ttl=60".to_owned()
        )]
    );
}

/// Which of a worker's slots lie in shared data.
fn shared_slots(envoy: &Rc<RefCell<Common>>) -> usize {
    let common = envoy.borrow();
    common
        .shared
        .keys()
        .filter(|name| name.starts_with("larder/s/"))
        .count()
}

#[test]
fn a_worker_that_has_been_alone_for_a_while_keeps_its_slots_to_itself() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.believes_for_ever();
    worker.fetch(1, "/first");
    let of_the_beginning = shared_slots(&envoy);
    assert!(of_the_beginning > 0, "who comes with others sees theirs");
    for _ in 0..3 {
        worker.lives_on(1_000);
    }
    assert_eq!(worker.request(2, "GET", "/"), Action::Pause);
    assert_eq!(worker.request(3, "GET", "/"), Action::Pause);
    worker.store_has_nothing();
    let storable = [
        ("cache-control", "max-age=60"),
        ("content-type", "text/plain"),
    ];
    worker.respond(2, "200", &storable, b"hello");
    worker.go_on();
    let answered = worker.host.told.borrow().given.clone();
    assert!(
        matches!(answered.last(), Some((3, 200, ..))),
        "{answered:?}"
    );
    assert_eq!(shared_slots(&envoy), of_the_beginning);
}

#[test]
fn a_miss_of_a_worker_that_is_alone_asks_nothing_of_shared_data() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.believes_for_ever();
    let calls_of_a_miss = |worker: &mut Worker, id, path| {
        let before = worker.host.told.borrow().calls_made;
        worker.fetch(id, path);
        worker.host.told.borrow().calls_made - before
    };
    worker.fetch(1, "/first");
    let among_others = calls_of_a_miss(&mut worker, 2, "/second");
    for _ in 0..3 {
        worker.lives_on(1_000);
    }
    let alone = calls_of_a_miss(&mut worker, 3, "/third");
    let spared = among_others - alone;
    assert_eq!(
        spared, 7,
        "four slots read, one of them again, and two writes"
    );
}

#[test]
fn what_a_worker_leads_goes_on_to_count_when_another_one_comes() {
    let envoy = envoy();
    let mut a = Worker::new(&envoy, 1);
    a.believes_for_ever();
    a.fetch(1, "/first");
    for _ in 0..3 {
        a.lives_on(1_000);
    }
    assert_eq!(a.request(2, "GET", "/"), Action::Pause);
    a.store_has_nothing();
    let (before, mut b) = (shared_slots(&envoy), Worker::new(&envoy, 2));
    b.believes_for_ever();
    assert_eq!(
        b.request(1, "GET", "/"),
        Action::Pause,
        "one more fetch at most"
    );
    b.store_has_nothing();
    assert_eq!(b.host.told.borrow().resumed, [1]);
    assert!(shared_slots(&envoy) > before);
    // What was begun alone is waited for where it was begun.
    assert_eq!(a.request(3, "GET", "/"), Action::Pause);
    let storable = [
        ("cache-control", "max-age=60"),
        ("content-type", "text/plain"),
    ];
    a.respond(2, "200", &storable, b"of a");
    a.go_on();
    let (stream, _, content, _) = a.host.told.borrow().given.last().cloned().unwrap();
    assert_eq!((stream, content.as_str()), (3, "of a"));
    b.respond(1, "200", &storable, b"of b");
    // From now on both go to the same slots.
    assert_eq!(a.request(4, "GET", "/next"), Action::Pause);
    let asked = b.host.told.borrow().sent.len();
    assert_eq!(b.request(2, "GET", "/next"), Action::Pause);
    assert_eq!(
        b.host.told.borrow().sent.len(),
        asked,
        "it waits for the other"
    );
}

#[test]
fn what_a_worker_leads_ends_where_it_was_begun_when_it_is_alone_by_then() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.believes_for_ever();
    assert_eq!(worker.request(1, "GET", "/"), Action::Pause);
    assert_eq!(worker.request(2, "GET", "/"), Action::Pause);
    worker.store_has_nothing();
    for _ in 0..3 {
        worker.lives_on(1_000);
    }
    let storable = [
        ("cache-control", "max-age=60"),
        ("content-type", "text/plain"),
    ];
    worker.respond(1, "200", &storable, b"hello");
    worker.go_on();
    let answered = worker.host.told.borrow().given.clone();
    assert!(
        matches!(answered.last(), Some((2, 200, ..))),
        "{answered:?}"
    );
}

#[test]
fn waiters_are_answered_in_batches_and_never_from_a_streams_callback() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.request(1, "GET", "/");
    let herd = u32::try_from(BATCH).unwrap() * 2 + 1;
    for id in 2..2 + herd {
        assert_eq!(worker.request(id, "GET", "/"), Action::Pause);
    }
    worker.store_has_nothing();
    worker.respond(1, "200", &[("cache-control", "max-age=60")], b"hello");
    assert_eq!(worker.answers(), 0);
    for expected in [BATCH, 2 * BATCH, herd as usize] {
        worker.vm.on_queue_ready();
        assert_eq!(worker.answers(), expected);
    }
}

#[test]
fn a_waiter_whose_client_has_left_is_passed_over() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.request(1, "GET", "/");
    worker.request(2, "GET", "/");
    worker.request(3, "GET", "/");
    worker.vm.on_done(2);
    worker.host.told.borrow_mut().gone.push(2);
    worker.store_has_nothing();
    worker.respond(1, "200", &[("cache-control", "max-age=60")], b"hello");
    worker.vm.on_queue_ready();
    assert_eq!(
        worker
            .host
            .told
            .borrow()
            .given
            .iter()
            .map(|given| given.0)
            .collect::<Vec<_>>(),
        [3]
    );
}

#[test]
fn the_next_waiter_leads_when_the_leader_is_gone() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.request(1, "GET", "/");
    worker.request(2, "GET", "/");
    worker.vm.on_done(1);
    worker.vm.on_queue_ready();
    worker.store_has_nothing();
    assert_eq!(worker.host.told.borrow().resumed, [2]);
}

#[test]
fn a_waiter_goes_alone_when_its_time_is_up() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.request(1, "GET", "/");
    worker.request(2, "GET", "/");
    envoy.borrow_mut().now += 10_001;
    worker.vm.on_tick();
    assert_eq!(worker.host.told.borrow().resumed, [2]);
}

#[test]
fn a_waiter_takes_the_place_of_a_leader_that_hangs_in_another_worker() {
    let envoy = envoy();
    let (mut one, mut two) = (Worker::new(&envoy, 1), Worker::new(&envoy, 2));
    one.request(1, "GET", "/");
    one.store_has_nothing();
    one.request(2, "GET", "/");
    for id in 1..4 {
        two.request(id, "GET", "/");
    }
    envoy.borrow_mut().now += 10_001;
    two.vm.on_tick();
    assert_eq!(
        two.host.told.borrow().resumed,
        [1],
        "one of those who wait there"
    );
    one.vm.on_tick();
    assert_eq!(
        one.host.told.borrow().resumed,
        [1],
        "only the leader, long ago"
    );
    two.respond(1, "200", &[("cache-control", "max-age=60")], b"hello");
    one.vm.on_queue_ready();
    two.vm.on_queue_ready();
    assert_eq!((one.answers(), two.answers()), (1, 2));
    // The old leader's answer comes after all: nobody is answered twice.
    one.respond(1, "200", &[("cache-control", "max-age=60")], b"late");
    one.vm.on_queue_ready();
    two.vm.on_queue_ready();
    assert_eq!((one.answers(), two.answers()), (1, 2));
}

#[test]
fn slow_requests_to_hundreds_of_urls_leave_every_other_key_a_slot() {
    let mut worker = Worker::new(&envoy(), 1);
    for id in 1..801 {
        worker.request(id, "GET", &format!("/slow/{id}"));
    }
    for id in 1001..1051 {
        let path = format!("/victim/{id}");
        worker.request(id, "GET", &path);
        let sent = worker.host.told.borrow().sent.len();
        worker.request(id + 1000, "GET", &path);
        assert_eq!(
            worker.host.told.borrow().sent.len(),
            sent,
            "{path}: it waits"
        );
    }
}

#[test]
fn a_request_after_an_unsafe_one_does_not_join_a_fetch_from_before_it_in_another_worker() {
    let envoy = envoy();
    let (mut one, mut two) = (Worker::new(&envoy, 1), Worker::new(&envoy, 2));
    one.request(1, "GET", "/");
    one.store_has_nothing();
    two.request(1, "GET", "/");
    envoy.borrow_mut().now += 10;
    two.request(2, "PUT", "/");
    two.respond(2, "204", &[], b"");
    envoy.borrow_mut().now += 10;
    two.request(3, "GET", "/");
    two.request(4, "GET", "/");
    assert_eq!(two.host.told.borrow().resumed, [] as [u32; 0]);
    envoy.borrow_mut().now += 10;
    one.respond(1, "200", &[("cache-control", "max-age=60")], b"old");
    two.go_on();
    let given = two.host.told.borrow().given.clone();
    assert_eq!(
        given
            .iter()
            .map(|(id, _, body, _)| (*id, &**body))
            .collect::<Vec<_>>(),
        [(1, "old")],
        "it came before"
    );
    two.respond(3, "200", &[("cache-control", "max-age=60")], b"new");
    two.go_on();
    let given = two.host.told.borrow().given.clone();
    assert_eq!(
        given
            .iter()
            .map(|(id, _, body, _)| (*id, &**body))
            .collect::<Vec<_>>(),
        [(1, "old"), (4, "new")]
    );
}

#[test]
fn no_worker_tries_a_refresh_again_right_after_another_ones_failed() {
    let envoy = envoy();
    let (mut one, mut two) = (Worker::new(&envoy, 1), Worker::new(&envoy, 2));
    let fetches = |worker: &Worker| {
        let is_refresh = |head: &Fields| head.get(":path") == Some(b"/".as_slice());
        worker
            .host
            .told
            .borrow()
            .sent
            .iter()
            .filter(|(_, _, head, _)| is_refresh(head))
            .count()
    };
    for worker in [&mut one, &mut two] {
        worker.host.told.borrow_mut().has_refresh_cluster = true;
        worker.config = worker
            .vm
            .on_configure(br#"{"store": {"enabled": false}}"#)
            .unwrap();
    }
    one.request(1, "GET", "/");
    one.respond(
        1,
        "200",
        &[("cache-control", "max-age=1, stale-while-revalidate=60")],
        b"hello",
    );
    two.request(1, "GET", "/");
    two.respond(
        1,
        "200",
        &[("cache-control", "max-age=1, stale-while-revalidate=60")],
        b"hello",
    );
    envoy.borrow_mut().now += 2_000;
    assert!(one.is_hit(2, "/"));
    one.vm.on_queue_ready();
    assert_eq!(fetches(&one), 1);
    let token = one.host.told.borrow().sent.last().unwrap().0;
    one.vm.on_call_response(token, 0, 0);
    for (id, wait, expected) in [(3, 0, 0), (4, 999, 0), (5, 1, 1)] {
        envoy.borrow_mut().now += wait;
        assert!(two.is_hit(id, "/"));
        two.vm.on_queue_ready();
        assert_eq!(fetches(&two), expected, "{wait}");
    }
}

#[test]
fn a_store_that_cannot_be_called_costs_nothing_but_the_hit() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.host.told.borrow_mut().cluster_down = true;
    for id in 1..20 {
        let path = format!("/{id}");
        assert_eq!(
            worker.request(id, "GET", &path),
            Action::Continue,
            "it goes on at once"
        );
        worker.respond(id, "200", &[("cache-control", "max-age=60")], b"x");
        worker.vm.on_done(id);
        worker.vm.on_queue_ready();
    }
    let told = worker.host.told.borrow();
    assert_eq!(
        told.log
            .iter()
            .filter(|line| line.contains("left alone"))
            .count(),
        1,
        "said once: {:?}",
        told.log
    );
}

#[test]
fn an_unsafe_request_reaches_level_1_of_another_worker_before_its_next_look_up() {
    let envoy = envoy();
    let (mut one, mut two) = (Worker::new(&envoy, 1), Worker::new(&envoy, 2));
    two.fetch(1, "/");
    assert_eq!(one.request(1, "PUT", "/"), Action::Continue);
    one.respond(1, "204", &[], b"");
    assert_eq!(two.request(2, "GET", "/"), Action::Pause);
    assert_eq!(two.answers(), 0, "the old copy is not served");
}

#[test]
fn what_a_put_may_yet_change_is_dropped_when_its_client_leaves_and_twice_again() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.believes_for_ever();
    worker.fetch(1, "/");
    worker.request(2, "PUT", "/");
    worker.vm.on_done(2);
    assert!(!worker.is_hit(3, "/"));
    worker.vm.on_done(3);
    // Fetched before the origin has carried the request out.
    for (id, wait) in [(10, 1_000), (20, 14_000)] {
        envoy.borrow_mut().now += 1;
        worker.fetch(id, "/");
        assert!(worker.is_hit(id + 1, "/"), "{wait}");
        envoy.borrow_mut().now += wait;
        for _ in 0..10 {
            worker.vm.on_tick();
        }
        assert!(!worker.is_hit(id + 2, "/"), "{wait}");
        worker.vm.on_done(id + 2);
    }
    envoy.borrow_mut().now += 1;
    worker.fetch(30, "/");
    envoy.borrow_mut().now += 30_000;
    for _ in 0..10 {
        worker.vm.on_tick();
    }
    assert!(worker.is_hit(31, "/"), "the doubt is settled");
}

#[test]
fn a_request_that_never_reached_an_origin_leaves_nothing_in_doubt() {
    let mut worker = Worker::new(&envoy(), 1);
    for (id, details, doubtful) in [
        (
            10,
            "upstream_reset_before_response_started{remote_connection_failure}",
            false,
        ),
        (
            20,
            "upstream_reset_before_response_started{overflow}",
            false,
        ),
        (30, "no_healthy_upstream", false),
        (
            40,
            "upstream_reset_before_response_started{connection_termination}",
            true,
        ),
        (
            50,
            "upstream_reset_before_response_started{remote_reset}",
            true,
        ),
    ] {
        let path = format!("/{id}");
        worker.fetch(id, &path);
        worker.request(id + 1, "PUT", &path);
        worker.host.told.borrow_mut().details = details.to_owned();
        worker.fail(id + 1, "503");
        worker.vm.on_done(id + 1);
        assert_eq!(worker.is_hit(id + 2, &path), !doubtful, "{details}");
        worker.host.told.borrow_mut().details.clear();
    }
}

#[test]
fn a_stale_hit_begins_one_refresh_and_no_second_one() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.believes_for_ever();
    worker.fetch(1, "/");
    worker.lives_on(61_000);
    for id in 2..5 {
        worker.request(id, "GET", "/");
        worker.vm.on_queue_ready();
    }
    assert_eq!(worker.answers(), 3);
    let look_ups = |worker: &Worker| {
        let told = worker.host.told.borrow();
        told.sent
            .iter()
            .filter(|(_, _, head, _)| head.get(":path") == Some(b"/v1/look-up"))
            .count()
    };
    assert_eq!(
        look_ups(&worker),
        2,
        "one for the fetch, one for the refresh"
    );
    worker.store_has_nothing();
    let sent = worker.host.told.borrow().sent.last().cloned().unwrap();
    assert_eq!(
        (sent.1.as_str(), sent.2.get(":path")),
        ("origin", Some(&b"/"[..]))
    );
}

proptest! {
    #[test]
    fn no_request_and_no_response_panics(
        request in proptest::collection::vec(("[a-z:-]{1,16}", proptest::collection::vec(any::<u8>(), 0..24)), 0..8),
        response in proptest::collection::vec(("[a-z:-]{1,16}", proptest::collection::vec(any::<u8>(), 0..24)), 0..8),
        path in proptest::collection::vec(any::<u8>(), 0..40),
        body in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut worker = Worker::new(&envoy(), 1);
        worker.config = worker.vm.on_configure(include_bytes!("../../../envoy/filters/demo.json")).unwrap();
        worker.vm.on_stream(1);
        let mut fields = Fields::from_pairs(request);
        fields.append(b":method", b"GET");
        fields.append(b":path", &[b"/?cache-control=", path.as_slice()].concat());
        worker.host.told.borrow_mut().request = fields;
        worker.vm.on_request_headers(1, &worker.config.clone(), true);
        worker.vm.on_call_response(1, 3, 0);
        let mut fields = Fields::from_pairs(response);
        fields.append(b":status", b"200");
        fields.append(b"x-envoy-upstream-service-time", b"1");
        worker.host.told.borrow_mut().response = fields;
        worker.host.told.borrow_mut().chunk = body.clone();
        worker.vm.on_response_headers(1, false);
        worker.vm.on_response_body(1, body.len(), true);
        worker.vm.on_done(1);
        worker.vm.on_tick();
    }

    #[test]
    fn no_configuration_panics(text in proptest::collection::vec(any::<u8>(), 0..80), json in "[{}\\[\\]\":,a-z0-9]{0,80}") {
        let _ = Config::parse(&text);
        let _ = Config::parse(json.as_bytes());
        let _ = Config::parse(format!("{{\"rules\": [{{\"policy\": {json}}}]}}").as_bytes());
    }

    #[test]
    fn no_answer_of_the_store_panics(
        status in "[0-9]{0,3}", fence in proptest::collection::vec(any::<u8>(), 0..40),
        body in proptest::collection::vec(any::<u8>(), 0..80), framed: bool,
    ) {
        let mut worker = Worker::new(&envoy(), 1);
        worker.request(1, "GET", "/");
        {
            let mut told = worker.host.told.borrow_mut();
            told.call_response = Fields::from_pairs([(":status", &status)]);
            told.call_response.append(b"x-larder-fence", &fence);
            told.call_response.append(b"x-envoy-upstream-service-time", b"1");
            told.call_body = if framed { [b"LRD\x01\0\0\0\x02".as_slice(), &body].concat() } else { body };
        }
        let length = worker.host.told.borrow().call_body.len();
        worker.vm.on_call_response(1, 3, length);
        let told = worker.host.told.borrow();
        prop_assert!(!told.resumed.is_empty() || !told.given.is_empty() || told.sent.len() > 1);
    }
}

#[test]
fn one_vm_follows_the_fleets_purges_and_tells_the_others() {
    let envoy = envoy();
    let (mut one, mut two) = (Worker::new(&envoy, 1), Worker::new(&envoy, 2));
    one.vm.on_tick();
    two.vm.on_tick();
    assert_eq!(
        (one.polls(), two.polls()),
        (vec!["".to_owned()], Vec::new()),
        "one poll for each Envoy"
    );
    one.hear(r#"{"cursor": "7-0", "reset": false, "events": []}"#);
    assert_eq!(
        one.polls()[1],
        "wait_ms=1250&after=7-0",
        "and the next at once"
    );
    envoy.borrow_mut().now += 1;
    one.fetch(1, "/");
    two.fetch(1, "/other");
    assert!(one.is_hit(9, "/") && two.is_hit(9, "/other"));
    one.hear(
        r#"{"cursor": "8-0", "reset": false, "events": [{"scope": "everything", "soft": false, "at_ms": 1000000001}]}"#,
    );
    assert!(!one.is_hit(2, "/"));
    assert!(!two.is_hit(2, "/other"), "told before its next look-up");
}

#[test]
fn a_worker_without_a_request_so_far_is_handed_nothing_that_was_made_untrue_before() {
    let everything = r#"{"scope": "everything", "soft": false, "at_ms": 1000000001}"#;
    let purged = format!(r#"{{"cursor": "8-0", "reset": false, "events": [{everything}]}}"#);
    for made_untrue in [true, false] {
        let envoy = envoy();
        let (mut one, mut two, mut three) = (
            Worker::new(&envoy, 1),
            Worker::new(&envoy, 2),
            Worker::new(&envoy, 3),
        );
        one.vm.on_tick();
        one.hear(r#"{"cursor": "7-0", "reset": false, "events": []}"#);
        envoy.borrow_mut().now += 1;
        // Envoy tells a worker's inbox only once the worker has had a request: the second has, the
        // third has not.
        two.request(1, "GET", "/elsewhere");
        one.fetch(1, "/");
        if made_untrue {
            one.hear(&purged);
        }
        envoy.borrow_mut().now += 1;
        assert_ne!(two.is_hit(2, "/"), made_untrue);
        assert_ne!(
            three.is_hit(1, "/"),
            made_untrue,
            "from what its leader left"
        );
    }
    for changes in [true, false] {
        let envoy = envoy();
        let (mut one, mut two, mut three) = (
            Worker::new(&envoy, 1),
            Worker::new(&envoy, 2),
            Worker::new(&envoy, 3),
        );
        two.request(1, "GET", "/elsewhere");
        one.fetch(1, "/");
        if changes {
            one.change(2, "/");
        }
        envoy.borrow_mut().now += 1;
        assert_ne!(three.is_hit(1, "/"), changes);
    }
}

#[test]
fn who_takes_over_following_goes_on_where_the_other_stopped() {
    let envoy = envoy();
    let (mut one, mut two) = (Worker::new(&envoy, 1), Worker::new(&envoy, 2));
    one.vm.on_tick();
    one.hear(r#"{"cursor": "7-0", "reset": false, "events": []}"#);
    envoy.borrow_mut().now += 10_000;
    two.vm.on_tick();
    assert_eq!(two.polls(), ["wait_ms=1250&after=7-0"]);
    one.hear(r#"{"cursor": "9-0", "reset": false, "events": []}"#);
    assert_eq!(
        one.polls().len(),
        2,
        "it has lost its place and asks no more"
    );
}

#[test]
fn a_follower_that_is_too_far_behind_empties_level_1() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.vm.on_tick();
    worker.hear(r#"{"cursor": "7-0", "reset": false, "events": []}"#);
    envoy.borrow_mut().now += 1;
    worker.fetch(1, "/");
    assert!(worker.is_hit(2, "/"));
    worker.hear(r#"{"cursor": "9-0", "reset": true, "events": []}"#);
    assert!(!worker.is_hit(3, "/"));
}

#[test]
fn a_clock_that_is_put_back_empties_level_1() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.believes_for_ever();
    worker.vm.on_tick();
    worker.fetch(1, "/");
    worker.vm.on_tick();
    assert!(worker.is_hit(2, "/"));
    envoy.borrow_mut().now -= 10_000;
    worker.vm.on_tick();
    assert!(
        !worker.is_hit(3, "/"),
        "a change from now on would seem to be older than it"
    );
}

#[test]
fn a_poll_that_fails_is_tried_again_later_from_the_same_place() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.vm.on_tick();
    worker.hear(r#"{"cursor": "7-0", "reset": false, "events": []}"#);
    worker.hear("rubbish");
    assert_eq!(worker.polls().len(), 2);
    worker.vm.on_tick();
    assert_eq!(worker.polls().len(), 2, "not at once");
    envoy.borrow_mut().now += 600;
    worker.vm.on_tick();
    assert_eq!(worker.polls()[2], "wait_ms=1250&after=7-0");
}

/// Paths and contents of what was sent to the store beside look-ups and polls.
fn told(worker: &Worker, path: &str) -> Vec<String> {
    let told = worker.host.told.borrow();
    let sent = told
        .sent
        .iter()
        .filter(|(_, _, head, _)| head.get(":path") == Some(path.as_bytes()));
    sent.map(|(.., body)| String::from_utf8_lossy(body).into_owned())
        .collect()
}

#[test]
fn what_was_stored_before_the_first_purge_was_heard_is_not_used() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.fetch(1, "/");
    worker.vm.on_tick();
    worker.hear(r#"{"cursor": "7-0", "reset": false, "events": []}"#);
    assert!(
        !worker.is_hit(2, "/"),
        "what was purged before is not known"
    );
}

#[test]
fn a_poll_that_went_with_its_root_is_made_again_by_another() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.vm.on_root(1);
    worker.vm.on_tick();
    worker.hear(r#"{"cursor": "7-0", "reset": false, "events": []}"#);
    assert_eq!(worker.polls().len(), 2);
    // The configuration is swapped: Envoy deletes the old root and answers none of its calls.
    worker.vm.on_root_gone(1);
    worker.vm.on_root(2);
    worker.vm.on_tick();
    assert_eq!(
        worker.polls().len(),
        3,
        "at once: nothing is wrong with the store"
    );
    assert_eq!(worker.polls()[2], "wait_ms=1250&after=7-0");
}

#[test]
fn a_poll_that_envoy_never_answers_is_given_up() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.vm.on_tick();
    for _ in 0..2 {
        worker.host.common.borrow_mut().now += 10_000;
        worker.vm.on_tick();
    }
    assert_eq!(worker.polls().len(), 2);
}

#[test]
fn who_hears_nothing_for_a_while_validates_what_is_older_than_that() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.vm.on_tick();
    worker.hear(r#"{"cursor": "7-0", "reset": false, "events": []}"#);
    envoy.borrow_mut().now += 1;
    worker.fetch(1, "/");
    envoy.borrow_mut().now += 4_990;
    assert!(worker.is_hit(2, "/"), "within the time it is believed");
    envoy.borrow_mut().now += 9_000;
    assert!(!worker.is_hit(3, "/"), "it may have been purged since");
    worker.vm.on_done(3);
    // What is fetched now answers for as long again: the origin was asked.
    worker.fetch(4, "/other");
    assert!(worker.is_hit(5, "/other"));
    worker.hear(r#"{"cursor": "7-0", "reset": false, "events": []}"#);
    worker.vm.on_tick();
    assert!(
        !worker.is_hit(6, "/"),
        "heard up to when the poll was sent, not to now"
    );
    worker.hear(r#"{"cursor": "7-0", "reset": false, "events": []}"#);
    assert!(
        worker.is_hit(7, "/"),
        "all is heard again, and nothing had been purged"
    );
}

#[test]
fn the_store_is_told_of_a_change_before_the_client_has_its_answer_and_by_the_root() {
    let mut worker = Worker::new(&envoy(), 1);
    worker.request(7, "PUT", "/a");
    worker.respond(7, "204", &[], b"");
    assert_eq!(
        told(&worker, "/v1/invalidate").len(),
        1,
        "within the callback for the response's head"
    );
    let (effective, made_by) = (
        worker.host.told.borrow().effective,
        worker.host.told.borrow().made_by.clone(),
    );
    assert_eq!(effective, 7, "what follows concerns the stream again");
    assert_eq!(
        made_by.last(),
        Some(&1),
        "a call that a stream makes ends with the stream"
    );
}

#[test]
fn an_invalidation_is_told_to_the_store_until_it_accepts_it() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.change(1, "/a");
    let sent = told(&worker, "/v1/invalidate");
    assert_eq!(sent.len(), 1);
    worker.answer_last("/v1/invalidate", &[(":status", "503")], b"");
    worker.vm.on_tick();
    assert_eq!(told(&worker, "/v1/invalidate").len(), 1, "not at once");
    envoy.borrow_mut().now += 150;
    worker.vm.on_tick();
    assert_eq!(
        told(&worker, "/v1/invalidate"),
        [sent[0].clone(), sent[0].clone()]
    );
    // Envoy answers nothing that a root sent that is gone.
    worker.vm.on_root_gone(1);
    worker.vm.on_tick();
    envoy.borrow_mut().now += 300;
    worker.vm.on_tick();
    assert_eq!(told(&worker, "/v1/invalidate").len(), 3);
    let token = worker.host.told.borrow().sent.last().unwrap().0;
    worker.host.told.borrow_mut().call_response =
        Fields::from_pairs([(":status", "204"), ("x-envoy-upstream-service-time", "1")]);
    worker.vm.on_call_response(token, 2, 0);
    envoy.borrow_mut().now += 60_000;
    worker.vm.on_tick();
    assert_eq!(
        told(&worker, "/v1/invalidate").len(),
        3,
        "accepted: never again"
    );
}

#[test]
fn a_worker_that_was_stopped_for_a_while_knows_what_was_invalidated_meanwhile() {
    for stopped_ms in [10_000, 70_000] {
        let envoy = envoy();
        let (mut one, mut two) = (Worker::new(&envoy, 1), Worker::new(&envoy, 2));
        one.believes_for_ever();
        two.believes_for_ever();
        two.fetch(1, "/");
        one.request(1, "GET", "/elsewhere");
        // The first thing that happens is a PUT at the one; the other's heart has not beaten for as
        // long.
        one.lives_on(stopped_ms);
        one.request(2, "PUT", "/");
        one.respond(2, "204", &[], b"");
        assert!(!two.is_hit(2, "/"), "stopped for {stopped_ms} ms");
    }
}

#[test]
fn a_write_that_the_store_refuses_gives_its_lease_back() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.request(1, "GET", "/");
    let token = {
        let mut told = worker.host.told.borrow_mut();
        told.call_response = Fields::from_pairs([
            (":status", "201"),
            ("x-larder-fence", "0a"),
            ("x-envoy-upstream-service-time", "1"),
        ]);
        told.sent.last().unwrap().0
    };
    worker.vm.on_call_response(token, 3, 0);
    worker.respond(1, "200", &[("cache-control", "max-age=60")], b"hello");
    worker.vm.on_done(1);
    worker.vm.on_queue_ready();
    let answer = |worker: &mut Worker, status: &str| {
        let token = {
            let mut told = worker.host.told.borrow_mut();
            told.call_response =
                Fields::from_pairs([(":status", status), ("x-envoy-upstream-service-time", "1")]);
            let writes = |head: &Fields| {
                head.get(":path")
                    .is_some_and(|path| !path.starts_with(b"/v1/events"))
            };
            told.sent
                .iter()
                .rev()
                .find(|(_, _, head, _)| writes(head))
                .unwrap()
                .0
        };
        worker.vm.on_call_response(token, 2, 0);
    };
    answer(&mut worker, "413");
    assert!(
        worker
            .host
            .told
            .borrow()
            .log
            .iter()
            .any(|line| line.contains("LARDER_MAX_ENTRY_BYTES"))
    );
    worker.vm.on_tick();
    worker.vm.on_queue_ready();
    assert!(
        told(&worker, "/v1/release")
            .concat()
            .contains(r#""fence":"0a""#)
    );
    // A release that fails is tried again, until the lease has lapsed.
    answer(&mut worker, "503");
    envoy.borrow_mut().now += 600;
    worker.vm.on_tick();
    worker.vm.on_tick();
    assert_eq!(told(&worker, "/v1/release").len(), 2);
}

#[test]
fn an_invalidation_that_the_sidecar_does_not_understand_becomes_one_of_everything() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.change(1, "/a");
    worker.answer_last(
        "/v1/invalidate",
        &[(":status", "413"), ("x-envoy-upstream-service-time", "1")],
        b"",
    );
    envoy.borrow_mut().now += 150;
    worker.vm.on_tick();
    let sent = told(&worker, "/v1/invalidate");
    assert!(
        sent.len() == 2
            && sent[1].contains(r#""everything":true"#)
            && sent[1].contains(r#""digests":[]"#),
        "{sent:?}"
    );
}

#[test]
fn every_call_says_which_envoy_makes_it_and_what_time_it_is_there() {
    let envoy = envoy();
    let (mut one, mut two) = (Worker::new(&envoy, 1), Worker::new(&envoy, 2));
    let now = envoy.borrow().now;
    one.vm.on_tick();
    one.fetch(1, "/");
    two.request(1, "PUT", "/");
    two.respond(1, "204", &[], b"");
    two.vm.on_queue_ready();
    let clocks = |worker: &Worker| -> Vec<Option<ClockReading>> {
        let told = worker.host.told.borrow();
        told.sent
            .iter()
            .map(|(_, _, head, _)| ClockReading::parse(head.get("x-larder-clock")?))
            .collect()
    };
    let all: Vec<ClockReading> = clocks(&one)
        .into_iter()
        .chain(clocks(&two))
        .map(Option::unwrap)
        .collect();
    assert!(all.len() >= 4, "{all:?}");
    assert!(
        all.iter()
            .all(|reading| reading.envoy == all[0].envoy && reading.now.as_millis() == now),
        "{all:?}"
    );
}

#[test]
fn what_the_store_has_is_put_on_our_clock() {
    for (ahead, age) in [("", "0"), ("-5000", "5"), ("3000", "0")] {
        let mut worker = Worker::new(&envoy(), 1);
        worker.fetch(1, "/");
        let entry = {
            let told = worker.host.told.borrow();
            told.sent
                .iter()
                .find(|(_, _, head, _)| head.get(":method") == Some(b"PUT"))
                .unwrap()
                .3
                .clone()
        };
        let mut other = Worker::new(&envoy(), 2);
        other.request(1, "GET", "/");
        let token = {
            let mut told = other.host.told.borrow_mut();
            told.call_response = Fields::from_pairs([
                (":status", "200"),
                ("x-envoy-upstream-service-time", "1"),
                ("x-larder-ahead", ahead),
            ]);
            told.call_body = entry.clone();
            told.sent.last().unwrap().0
        };
        other.vm.on_call_response(token, 3, entry.len());
        other.let_answers_pass();
        assert_eq!(
            other.host.told.borrow().replaced_head.get("age"),
            Some(age.as_bytes()),
            "{ahead}"
        );
    }
}
