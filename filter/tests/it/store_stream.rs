//! The store stream: what goes on it, and that its faults cost hits only.

use std::cell::RefCell;
use std::rc::Rc;

use larder_contract::store_api::{Events, Fence, LookUpAnswer};
use larder_contract::store_stream::{Answer, Asked, Question, Said, VERSION};
use larder_filter::stream::Action;

use crate::fake_host::Common;
use crate::stories::{Worker, envoy};

/// A worker whose stream is open and welcomed, and which follows.
fn streaming(envoy: &Rc<RefCell<Common>>) -> Worker {
    let mut worker = opening(envoy);
    said(&mut worker, &Said::Welcome { version: VERSION });
    worker
}

/// A worker whose stream is open and was not welcomed so far.
fn opening(envoy: &Rc<RefCell<Common>>) -> Worker {
    let mut worker = Worker::new(envoy, 1);
    worker.host.told.borrow_mut().has_streams = true;
    worker.vm.on_root(1);
    worker.vm.on_tick();
    worker
}

/// Something comes on the stream that was opened last.
fn said(worker: &mut Worker, said: &Said) {
    let mut frame = Vec::new();
    said.write(&mut frame);
    came(worker, &frame);
}

fn came(worker: &mut Worker, frame: &[u8]) {
    let stream = {
        let mut told = worker.host.told.borrow_mut();
        told.stream_message = frame.to_vec();
        u32::try_from(told.streams_opened.len()).unwrap()
    };
    worker.vm.on_root(1);
    worker.vm.on_stream_message(stream, frame.len());
    worker.let_answers_pass();
}

fn answered(worker: &mut Worker, number: u32, answer: Answer) {
    said(worker, &Said::Answer { number, answer });
}

/// What was asked on streams, by number; the filter's greetings left out.
fn asked(worker: &Worker) -> Vec<(u32, String)> {
    let told = worker.host.told.borrow();
    let question = |frame: &Vec<u8>| match Asked::read(frame).unwrap() {
        Asked::Hello { .. } => None,
        Asked::Question {
            number, question, ..
        } => {
            let name = match &question {
                Question::LookUp(_) => "look-up",
                Question::Write { .. } => "write",
                Question::Release(_) => "release",
                Question::Invalidate(_) => "invalidate",
                Question::Follow { .. } => "follow",
            };
            Some((number, name.to_owned()))
        }
    };
    let frames = told.frames.iter();
    frames.filter_map(|(_, frame)| question(frame)).collect()
}

fn last(worker: &Worker, name: &str) -> u32 {
    let asked = asked(worker);
    let last = asked.iter().rev().find(|(_, asked)| asked == name);
    last.unwrap_or_else(|| panic!("no {name} in {asked:?}")).0
}

fn calls(worker: &Worker) -> usize {
    worker.host.told.borrow().sent.len()
}

fn lease(fence: &str) -> Answer {
    Answer::LookUp {
        found: LookUpAnswer::Lease {
            fence: Fence(fence.to_owned()),
            stale: None,
        },
        ahead: 0,
    }
}

fn fetched(worker: &mut Worker, id: u32, path: &str, body: &[u8]) {
    assert_eq!(worker.request(id, "GET", path), Action::Pause);
    let number = last(worker, "look-up");
    answered(worker, number, lease("0a"));
    let fields = [("cache-control", "max-age=60")];
    worker.respond(id, "200", &fields, body);
}

#[test]
fn a_miss_costs_two_messages_and_no_call_and_no_message_to_oneself() {
    let mut worker = streaming(&envoy());
    let before = calls(&worker);
    fetched(&mut worker, 1, "/", b"hello");
    let names: Vec<String> = asked(&worker).into_iter().map(|(_, name)| name).collect();
    assert!(
        names.ends_with(&["look-up".to_owned(), "write".to_owned()]),
        "{names:?}"
    );
    assert_eq!(calls(&worker), before, "no call");
    let number = last(&worker, "write");
    answered(&mut worker, number, Answer::Done { status: 204 });
    worker.vm.on_done(1);
    assert!(!asked(&worker).iter().any(|(_, name)| name == "release"));
}

#[test]
fn the_first_frame_says_who_speaks_and_nothing_is_asked_before_the_welcome() {
    let mut worker = opening(&envoy());
    assert_eq!(
        worker.host.told.borrow().streams_opened,
        ["larder-sidecar larder.Store/Exchange"]
    );
    worker.request(1, "GET", "/");
    let told = worker.host.told.borrow().frames.clone();
    let greeting = Asked::read(&told[0].1).unwrap();
    assert!(matches!(greeting, Asked::Hello { version: VERSION, envoy } if envoy != 0));
    assert_eq!(told.len(), 1, "the look-up goes by a call");
    assert!(calls(&worker) > 0);
}

#[test]
fn what_is_shared_at_the_second_request_is_not_written_at_the_first() {
    let envoy = envoy();
    let mut worker = streaming(&envoy);
    let rule = br#"{"rules": [{"policy": {"share_after": 2}}]}"#;
    worker.config = worker.vm.on_configure(rule).unwrap();
    fetched(&mut worker, 1, "/", b"hello");
    worker.vm.on_done(1);
    let writes = |worker: &Worker| {
        let asked = asked(worker);
        asked.iter().filter(|(_, name)| name == "write").count()
    };
    assert_eq!(writes(&worker), 0);
    last(&worker, "release");
    for (id, written) in [(2, 1), (3, 1)] {
        worker.request(id, "GET", "/");
        assert_eq!(writes(&worker), written, "request {id}");
    }
    // What takes its place was asked for before.
    for _ in 0..7 {
        envoy.borrow_mut().now += 9_000;
        (0..10).for_each(|_| worker.vm.on_tick());
    }
    fetched(&mut worker, 4, "/", b"hello again");
    assert_eq!(writes(&worker), 2, "{:?}", asked(&worker));
}

#[test]
fn a_large_entry_goes_by_a_call() {
    let mut worker = streaming(&envoy());
    let before = calls(&worker);
    fetched(&mut worker, 1, "/", &[b'x'; 20_000]);
    assert_eq!(calls(&worker), before + 1);
    assert!(!asked(&worker).iter().any(|(_, name)| name == "write"));
}

#[test]
fn where_the_host_opens_no_stream_calls_take_its_place() {
    let envoy = envoy();
    let mut worker = Worker::new(&envoy, 1);
    worker.vm.on_root(1);
    worker.vm.on_tick();
    worker.request(1, "GET", "/");
    worker.store_has_nothing();
    assert_eq!(worker.host.told.borrow().resumed, [1]);
    // It is tried again all the time.
    worker.host.told.borrow_mut().has_streams = true;
    envoy.borrow_mut().now += 1_000;
    worker.vm.on_tick();
    assert_eq!(worker.host.told.borrow().streams_opened.len(), 1);
}

#[test]
fn a_configuration_that_asks_for_calls_opens_no_stream_and_ends_an_open_one() {
    let envoy = envoy();
    let mut worker = streaming(&envoy);
    worker
        .vm
        .on_configure(br#"{"store": {"transport": "calls"}}"#)
        .unwrap();
    envoy.borrow_mut().now += 1_000;
    worker.vm.on_tick();
    assert_eq!(worker.host.told.borrow().streams_closed, [1]);
    worker.vm.on_tick();
    assert_eq!(worker.host.told.borrow().streams_opened.len(), 1);
}

#[test]
fn a_look_up_without_an_answer_ends_with_its_budget_and_gives_back_what_it_was_granted() {
    let envoy = envoy();
    let mut worker = streaming(&envoy);
    worker.request(1, "GET", "/");
    assert!(
        worker.host.told.borrow().tick_period < 50,
        "ticks are quick"
    );
    envoy.borrow_mut().now += 20;
    worker.vm.on_tick();
    assert!(worker.host.told.borrow().resumed.is_empty());
    envoy.borrow_mut().now += 40;
    worker.vm.on_tick();
    assert_eq!(worker.host.told.borrow().resumed, [1]);
    last(&worker, "release");
    // What comes late is for nobody.
    let late = last(&worker, "look-up");
    answered(&mut worker, late, lease("0a"));
    assert_eq!(worker.host.told.borrow().resumed, [1]);
}

#[test]
fn ticks_are_slow_again_when_nobody_has_asked_for_a_while() {
    let envoy = envoy();
    let mut worker = streaming(&envoy);
    fetched(&mut worker, 1, "/", b"hello");
    for _ in 0..60 {
        envoy.borrow_mut().now += 20;
        worker.vm.on_tick();
    }
    assert_eq!(worker.host.told.borrow().tick_period, 100);
}

#[test]
fn a_stream_that_ends_fails_what_was_asked_on_it_and_is_opened_again() {
    let envoy = envoy();
    let mut worker = streaming(&envoy);
    worker.request(1, "GET", "/");
    worker.vm.on_root(1);
    worker.vm.on_stream_closed(1, 14);
    assert_eq!(
        worker.host.told.borrow().resumed,
        [1],
        "goes on without the store"
    );
    assert_eq!(worker.host.told.borrow().metrics["larder.store_streams"], 0);
    let before = calls(&worker);
    worker.request(2, "GET", "/other");
    assert_eq!(calls(&worker), before + 1, "calls take its place");
    envoy.borrow_mut().now += 1_000;
    worker.vm.on_tick();
    said(&mut worker, &Said::Welcome { version: VERSION });
    worker.request(3, "GET", "/third");
    last(&worker, "look-up");
    assert_eq!(worker.host.told.borrow().metrics["larder.store_streams"], 1);
}

#[test]
fn a_stream_goes_with_its_root_and_is_opened_by_the_next() {
    let envoy = envoy();
    let mut worker = streaming(&envoy);
    worker.request(1, "GET", "/");
    worker.vm.on_root_gone(1);
    worker.vm.on_root(2);
    worker.vm.on_queue_ready();
    assert_eq!(worker.host.told.borrow().resumed, [1]);
    envoy.borrow_mut().now += 1_000;
    worker.vm.on_tick();
    assert_eq!(worker.host.told.borrow().streams_opened.len(), 2);
}

#[test]
fn a_sidecar_of_another_version_is_named_once_and_calls_take_its_place() {
    for first in [
        vec![0x82, 9],
        vec![0x81, 9],
        b"rubbish".to_vec(),
        Vec::new(),
    ] {
        let envoy = envoy();
        let mut worker = opening(&envoy);
        came(&mut worker, &first);
        for _ in 0..31 {
            envoy.borrow_mut().now += 1_000;
            worker.vm.on_tick();
        }
        let told = worker.host.told.borrow();
        let lines = told.log.iter().filter(|line| line.contains("version"));
        assert_eq!(lines.count(), 1, "{first:?}: {:?}", told.log);
        assert_eq!(told.streams_opened.len(), 2, "tried now and then");
    }
}

#[test]
fn rubbish_on_an_open_stream_fails_what_was_asked_on_it() {
    let mut worker = streaming(&envoy());
    worker.request(1, "GET", "/");
    came(&mut worker, b"\x84rubbish");
    assert_eq!(worker.host.told.borrow().resumed, [1]);
    assert_eq!(worker.host.told.borrow().streams_closed, [1]);
}

#[test]
fn a_sidecar_that_does_not_read_is_sent_a_bounded_number_of_bytes() {
    let envoy = envoy();
    let mut worker = streaming(&envoy);
    for id in 1..200 {
        worker.request(id, "GET", &format!("/{id}"));
        let asked = last(&worker, "look-up");
        answered(&mut worker, asked, lease("0a"));
        let fields = [("cache-control", "max-age=60")];
        worker.respond(id, "200", &fields, &[b'x'; 12_000]);
        worker.vm.on_done(id);
    }
    let sent = |worker: &Worker| -> usize {
        let told = worker.host.told.borrow();
        told.frames.iter().map(|(_, frame)| frame.len()).sum()
    };
    let unread = sent(&worker);
    assert!((1 << 20..(1 << 20) + 100_000).contains(&unread), "{unread}");
    // It reads again: what is written now goes out.
    said(&mut worker, &Said::Taken(u64::try_from(unread).unwrap()));
    fetched(&mut worker, 1_000, "/again", &[b'x'; 12_000]);
    assert!(sent(&worker) > unread + 12_000);
}

#[test]
fn a_purge_is_heard_on_the_stream_and_the_next_question_says_so() {
    let envoy = envoy();
    let mut worker = streaming(&envoy);
    // The poll that went by a call before the stream was open.
    let first = r#"{"cursor":"1","reset":false,"events":[]}"#;
    worker.hear(first);
    let follow = last(&worker, "follow");
    let events = Events {
        cursor: "2-0".to_owned(),
        reset: true,
        events: Vec::new(),
    };
    answered(
        &mut worker,
        follow,
        Answer::Purges {
            events,
            unheard_ms: 0,
        },
    );
    assert!(last(&worker, "follow") > follow);
    let told = worker.host.told.borrow();
    let Asked::Question { question, .. } = Asked::read(&told.frames.last().unwrap().1).unwrap()
    else {
        panic!("no question");
    };
    assert!(
        matches!(&question, Question::Follow { after: Some(after), .. } if after == "2-0"),
        "{question:?}"
    );
    assert!(told.log.iter().any(|line| line.contains("emptied")));
}

#[test]
fn who_followed_on_a_stream_that_went_with_its_root_follows_again_at_the_next_tick() {
    let envoy = envoy();
    let mut worker = streaming(&envoy);
    worker.hear(r#"{"cursor":"1","reset":false,"events":[]}"#);
    last(&worker, "follow");
    let polls = worker.polls().len();
    worker.vm.on_root_gone(1);
    worker.vm.on_root(2);
    worker.vm.on_queue_ready();
    envoy.borrow_mut().now += 100;
    worker.vm.on_tick();
    assert_eq!(
        worker.polls().len(),
        polls + 1,
        "by a call, for no stream is open yet"
    );
}

#[test]
fn an_invalidation_is_told_on_the_stream_until_it_is_accepted() {
    let envoy = envoy();
    let mut worker = streaming(&envoy);
    worker.request(1, "PUT", "/");
    worker.respond(1, "204", &[], b"");
    let first = last(&worker, "invalidate");
    answered(&mut worker, first, Answer::Done { status: 503 });
    envoy.borrow_mut().now += 200;
    worker.vm.on_tick();
    let second = last(&worker, "invalidate");
    assert!(second > first);
    answered(&mut worker, second, Answer::Done { status: 204 });
    envoy.borrow_mut().now += 5_000;
    worker.vm.on_tick();
    assert_eq!(last(&worker, "invalidate"), second);
}
