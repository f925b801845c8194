//! A stream whose other end is of another version, says rubbish, falls silent, does not read, or
//! goes: it costs this stream, and nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use larder_contract::entry;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::selectors::Presented;
use larder_contract::store_api::{Holder, LeaseTerms, LookUp, LookUpAnswer};
use larder_contract::store_stream::{Answer, Asked, Question, Said, VERSION};
use larder_sidecar::listening::{self, Listening, Peer};
use larder_sidecar::serving::{self, Patience};
use larder_sidecar::sessions::News;
use larder_sidecar::store::memory::Memory;
use larder_sidecar::{Access, Limits, Purged, Purges, Tokens, Waiting, app};
use larder_stack::eventually;
use tokio::time::timeout;

use crate::common::meta_of;
use crate::reached::{on_memory, serve};
use crate::wire::{LONG, Wire, framed, message};

async fn served() -> SocketAddr {
    serve(on_memory(), Access::default(), Patience::default()).await
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_millis(u64::try_from(since.unwrap().as_millis()).unwrap())
}

fn key(n: u32) -> KeyDigest {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    KeyDigest(key)
}

fn question(number: u32, question: Question<'_>) -> Asked<'_> {
    Asked::Question {
        number,
        sent: now(),
        question,
    }
}

fn look_up(number: u32, n: u32, lease: Option<u64>) -> Asked<'static> {
    let lease = lease.map(|wait_ms| LeaseTerms {
        holder: Holder(u64::from(number)),
        lease_ms: 30_000,
        wait_ms,
    });
    let asked = LookUp {
        key: key(n),
        presented: Presented::default(),
        now_ms: Timestamp::default(),
        lease,
    };
    question(number, Question::LookUp(asked))
}

fn nothing(number: u32) -> Said {
    let found = LookUpAnswer::Nothing { uncacheable: false };
    let answer = Answer::LookUp { found, ahead: 0 };
    Said::Answer { number, answer }
}

/// The stream goes on.
async fn answers(wire: &mut Wire, number: u32) {
    wire.out.send(&look_up(number, u32::MAX, None));
    loop {
        match wire.heard.next().await {
            Some(Said::Taken(_)) => {}
            said => return assert_eq!(said, Some(nothing(number))),
        }
    }
}

async fn metric(sidecar: SocketAddr, name: &str) -> u64 {
    let metrics = reqwest::get(format!("http://{sidecar}/metrics")).await;
    let metrics = metrics.unwrap().text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_filter_of_another_version_is_told_so_and_the_stream_ends() {
    let sidecar = served().await;
    for hello in [vec![1, VERSION + 1], vec![1, 9, 1, 2, 3, 4]] {
        let mut wire = Wire::open(sidecar, None).await.unwrap();
        wire.out.send_bytes(framed(&hello));
        let said = wire.heard.next().await;
        assert_eq!(said, Some(Said::OtherVersion { version: VERSION }));
        assert_eq!(wire.heard.status().await, "9");
    }
}

#[tokio::test]
async fn what_is_no_frame_ends_the_stream_with_its_number() {
    let sidecar = served().await;
    let hello = &Asked::Hello {
        version: VERSION,
        envoy: 1,
    };
    for (bytes, status) in [
        (framed(b"rubbish"), "3"),
        (framed(b""), "3"),
        (message(&look_up(1, 1, None)), "3"),
        ([message(hello), message(hello)].concat(), "3"),
        ([message(hello), framed(b"\x77????")].concat(), "3"),
        (vec![1, 0, 0, 0, 1, 0], "12"),
        (b"PRI * HTTP/2.0".to_vec(), "12"),
        (vec![0, 0, 3, 0, 0], "8"),
        (vec![0, 255, 255, 255, 255], "8"),
    ] {
        let mut wire = Wire::open(sidecar, None).await.unwrap();
        wire.out.send_bytes(bytes.clone());
        assert_eq!(wire.heard.status().await, status, "{bytes:?}");
    }
    let mut wire = Wire::welcome(sidecar, 1).await;
    answers(&mut wire, 1).await;
}

#[tokio::test]
async fn a_question_that_cannot_be_read_is_refused_alone() {
    let mut wire = Wire::welcome(served().await, 1).await;
    let mut release = vec![4, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1];
    release.extend_from_slice(&[7; 32]);
    release.extend_from_slice(b"\0\x03no!\0\0\0\0");
    wire.out.send_bytes(framed(&release));
    let refused = Said::Answer {
        number: 9,
        answer: Answer::Done { status: 400 },
    };
    assert_eq!(wire.heard.next().await, Some(refused));
    answers(&mut wire, 10).await;
}

#[tokio::test]
async fn half_a_frame_is_waited_for_and_silence_behind_it_ends_the_stream() {
    let sidecar = served().await;
    let asked = message(&look_up(1, 1, None));
    for cut in [1, 5, 6, asked.len() - 1] {
        let mut wire = Wire::welcome(sidecar, 1).await;
        wire.out.send_bytes(asked[..cut].to_vec());
        let silence = timeout(Duration::from_millis(50), wire.heard.next()).await;
        assert!(silence.is_err(), "{cut}: {silence:?}");
        wire.out.send_bytes(asked[cut..].to_vec());
        assert_eq!(wire.heard.next().await, Some(nothing(1)));
    }
    let (mut begins, mut mute) = (
        Wire::welcome(sidecar, 1).await,
        Wire::open(sidecar, None).await.unwrap(),
    );
    begins.out.send_bytes(asked[..9].to_vec());
    let mut quiet = Wire::welcome(sidecar, 1).await;
    assert_eq!(begins.heard.status().await, "4");
    assert_eq!(mute.heard.status().await, "4");
    answers(&mut quiet, 1).await;
}

#[tokio::test]
async fn ten_thousand_questions_at_once_are_each_answered_once() {
    const MANY: u32 = 10_000;
    let mut wire = Wire::welcome(served().await, 1).await;
    let content = entry::encode(&meta_of(b"x", now(), now().plus_millis(60_000)), b"x");
    for n in 0..MANY / 2 {
        wire.out.send(&look_up(2 * n, n, Some(0)));
        let write = Question::Write {
            key: key(n),
            fence: None,
            entry: &content,
        };
        wire.out.send(&question(2 * n + 1, write));
    }
    wire.out.close();
    let mut seen = vec![0; usize::try_from(MANY).unwrap()];
    let mut taken = 0;
    while let Some(said) = wire.heard.next().await {
        match said {
            Said::Taken(bytes) => {
                assert!(bytes > taken);
                taken = bytes;
            }
            Said::Answer { number, answer } => {
                seen[usize::try_from(number).unwrap()] += 1;
                let is_right = match answer {
                    Answer::LookUp { found, .. } => matches!(found, LookUpAnswer::Lease { .. }),
                    Answer::Done { status } => status == 204 && number % 2 == 1,
                    Answer::Purges { .. } => false,
                };
                assert!(is_right, "{number}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(seen.iter().all(|count| *count == 1));
    assert!(taken > 1_000_000, "it says what it has read: {taken}");
    assert_eq!(wire.heard.status().await, "0");
}

#[tokio::test]
async fn of_one_who_does_not_read_not_much_is_read() {
    const MANY: u32 = 40_000;
    let sidecar = served().await;
    let mut wire = Wire::welcome(sidecar, 1).await;
    let body = [b'x'; 200];
    let content = &entry::encode(&meta_of(&body, now(), now().plus_millis(60_000)), &body);
    let write = Question::Write {
        key: key(1),
        fence: None,
        entry: content,
    };
    wire.out.send(&question(0, write));
    assert!(matches!(wire.heard.next().await, Some(Said::Answer { .. })));
    for number in 1..=MANY {
        wire.out.send(&look_up(number, 1, None));
    }
    let name = "larder_sidecar_questions_total{way=\"stream\"}";
    let mut before = 0;
    let rests = async || {
        let asked = metric(sidecar, name).await;
        let rests = asked > 1 && asked == before;
        before = asked;
        rests.then_some(asked)
    };
    let asked = still(rests).await;
    assert!(asked < 2_000, "{asked} are answered to nobody");
    answers(&mut Wire::welcome(sidecar, 2).await, 1).await;
    let mut answered = 0;
    while answered < MANY {
        let said = wire.heard.next().await.expect("the stream goes on");
        if let Said::Answer { number, .. } = said {
            answered += 1;
            assert_eq!(number, answered, "in order");
        }
    }
}

/// Once it is said three times on end.
async fn still(mut says: impl AsyncFnMut() -> Option<u64>) -> u64 {
    let mut times = 0;
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    loop {
        pause.tick().await;
        match says().await {
            Some(said) if times == 3 => return said,
            Some(_) => times += 1,
            None => times = 0,
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_or_cut_frees_who_waited_by_it() {
    let sidecar = served().await;
    let mut leader = Wire::welcome(sidecar, 1).await;
    leader.out.send(&look_up(1, 1, Some(0)));
    assert!(matches!(
        leader.heard.next().await,
        Some(Said::Answer { .. })
    ));
    let ends: [fn(&mut Wire); 3] = [
        |wire| wire.out.reset(),
        |wire| wire.out.cut(),
        |wire| wire.out.close(),
    ];
    for end in ends {
        let mut waits = Wire::welcome(sidecar, 2).await;
        waits.out.send(&look_up(1, 1, Some(20_000)));
        let waiting = |many| async move {
            let waiting = metric(sidecar, "larder_sidecar_waiting_lookups").await;
            (waiting == many).then_some(())
        };
        eventually(LONG, || waiting(1)).await.expect("it waits");
        end(&mut waits);
        eventually(LONG, || waiting(0)).await.expect("it has left");
    }
    answers(&mut leader, 2).await;
}

#[tokio::test]
async fn without_the_token_no_stream_is_opened() {
    const TOKEN: &str = "the-token-of-this-fleet";
    let access = Access {
        tokens: Tokens::parse("LARDER_TOKEN", TOKEN).unwrap(),
        purge: None,
    };
    let sidecar = serve(on_memory(), access, Patience::default()).await;
    for wrong in [None, Some("another-token-of-length")] {
        let refused = Wire::open(sidecar, wrong).await.err();
        assert_eq!(refused, Some(StatusCode::UNAUTHORIZED));
    }
    assert_eq!(
        metric(sidecar, "larder_sidecar_refused_attempts_total").await,
        2
    );
    let mut wire = Wire::open(sidecar, Some(TOKEN)).await.unwrap();
    wire.out.send(&Asked::Hello {
        version: VERSION,
        envoy: 1,
    });
    let said = wire.heard.next().await;
    assert_eq!(said, Some(Said::Welcome { version: VERSION }));
}

#[tokio::test]
async fn a_sidecar_that_stops_answers_who_waits_and_ends_its_streams() {
    let (store, purges, waiting) = (
        Memory::new(1 << 20, 4),
        Purges::default(),
        Waiting::default(),
    );
    purges.begin_at(store.first_cursor());
    purges.sessions().believe_closing();
    let limits = Limits {
        max_entry_bytes: 1024,
        max_waiters: 10,
    };
    let store = Purged::new(store, purges.clone());
    let app = app(store, waiting.clone(), limits, Access::default());
    let Ok(Listening::Tcp(listener, sidecar)) = listening::bind("127.0.0.1:0", false).await else {
        panic!("no port")
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let server = serving::serve(listener, Peer::at, app, Patience::default(), stopped);
    let server = tokio::spawn(server);
    let mut wire = Wire::welcome(sidecar, 1).await;
    wire.out.send(&look_up(1, 1, Some(0)));
    assert!(matches!(wire.heard.next().await, Some(Said::Answer { .. })));
    wire.out.send(&look_up(2, 1, Some(20_000)));
    let follow = |after| Question::Follow {
        after,
        wait_ms: 20_000,
    };
    wire.out.send(&question(3, follow(None)));
    let Some(Said::Answer {
        answer: Answer::Purges { events, .. },
        ..
    }) = wire.heard.next().await
    else {
        panic!("no cursor")
    };
    wire.out.send(&question(4, follow(Some(events.cursor))));
    let waits = || async { (waiting.len() == 1).then_some(()) };
    eventually(LONG, waits).await.expect("it waits");
    waiting.close();
    let _ = stop.send(());
    let mut said = Vec::new();
    while let Some(frame) = wire.heard.next().await {
        if let Said::Answer { number, .. } = frame {
            said.push(number);
        }
    }
    said.sort_unstable();
    assert_eq!(said, [2, 4]);
    assert_eq!(wire.heard.status().await, "0");
    timeout(LONG, server)
        .await
        .expect("it is not held up")
        .unwrap();
    let news = purges.sessions().news();
    assert!(
        matches!(news.as_slice(), [News::Follows(..)]),
        "that it stops says nothing of the Envoy: {news:?}"
    );
}
