//! What every question does, by single calls and by a stream.

use std::net::SocketAddr;
use std::time::Duration;

use larder_contract::entry;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::selectors::Presented;
use larder_contract::store_api::{
    Fence, Holder, Invalidate, LeaseTerms, LookUp, LookUpAnswer, Release, name_of,
};
use larder_contract::store_stream::{Answer, Question};
use larder_sidecar::serving::Patience;
use larder_sidecar::sessions::News;
use larder_sidecar::store::memory::Memory;
use larder_sidecar::{Access, Purged, Purges};
use larder_stack::eventually;
use tokio::time::{Instant, timeout};

use crate::asking::{BOTH, Envoy, Way};
use crate::common::meta_of;
use crate::reached::{on_memory, serve};
use crate::wire::LONG;

const KEY: KeyDigest = KeyDigest([7; 32]);

async fn served() -> SocketAddr {
    serve(on_memory(), Access::default(), Patience::default()).await
}

/// Two Envoys at one sidecar.
async fn two(way: Way, sidecar: SocketAddr) -> (Envoy, Envoy) {
    (
        Envoy::new(way, sidecar, 1, 0).await,
        Envoy::new(way, sidecar, 2, 0).await,
    )
}

fn encoded(body: &[u8], requested: Timestamp) -> Vec<u8> {
    entry::encode(
        &meta_of(body, requested, requested.plus_millis(60_000)),
        body,
    )
}

fn asking(key: KeyDigest, lease: Option<(u64, u64)>) -> LookUp {
    let lease = lease.map(|(lease_ms, wait_ms)| LeaseTerms {
        holder: Holder(0xa1),
        lease_ms,
        wait_ms,
    });
    LookUp {
        key,
        presented: Presented::default(),
        now_ms: Timestamp::default(),
        lease,
    }
}

impl Envoy {
    async fn leads(&self, key: KeyDigest) -> Fence {
        match self.look_up(asking(key, Some((30_000, 0)))).await.1 {
            LookUpAnswer::Lease { fence, stale: None } => fence,
            other => panic!("no lease: {other:?}"),
        }
    }

    async fn stores(&self, key: KeyDigest, fence: Option<Fence>, body: &[u8]) -> u16 {
        let entry = &encoded(body, self.now());
        self.tell(Question::Write { key, fence, entry }).await
    }

    async fn sees(&self, key: KeyDigest) -> LookUpAnswer {
        self.look_up(asking(key, None)).await.1
    }

    /// With patience for another's fetch.
    async fn waits(&self, key: KeyDigest) -> LookUpAnswer {
        self.look_up(asking(key, Some((30_000, 10_000)))).await.1
    }

    async fn makes_untrue(&self, digests: Vec<KeyDigest>, everything: bool) -> u16 {
        let now_ms = self.now();
        let invalidate = Invalidate {
            digests,
            everything,
            now_ms,
        };
        self.tell(Question::Invalidate(invalidate)).await
    }

    async fn gives_back(&self, fence: Fence, uncacheable_ms: u64) -> u16 {
        let release = Release {
            uncacheable_ms,
            ..Release::of(KEY, fence)
        };
        self.tell(Question::Release(release)).await
    }
}

fn body_of(answer: &LookUpAnswer) -> Vec<u8> {
    match answer {
        LookUpAnswer::Entry(bytes) => entry::decode(bytes).unwrap().1.to_vec(),
        other => panic!("no entry: {other:?}"),
    }
}

async fn counts(sidecar: SocketAddr, line: &str) -> bool {
    let metrics = reqwest::get(format!("http://{sidecar}/metrics")).await;
    metrics.unwrap().text().await.unwrap().contains(line)
}

/// Once so many look-ups are held back.
async fn held_back(sidecar: SocketAddr, many: u32) {
    let line = format!("larder_sidecar_waiting_lookups {many}\n");
    let held = || async { counts(sidecar, &line).await.then_some(()) };
    eventually(LONG, held).await.expect("held back");
}

#[tokio::test]
async fn one_leads_and_what_it_writes_is_found() {
    for way in BOTH {
        let (one, other) = two(way, served().await).await;
        let nothing = LookUpAnswer::Nothing { uncacheable: false };
        assert_eq!(one.sees(KEY).await, nothing);
        let fence = one.leads(KEY).await;
        let held = other.look_up(asking(KEY, Some((30_000, 0)))).await.1;
        assert_eq!(held, LookUpAnswer::Held { stale: None });
        let wrong = Fence("0".repeat(32));
        assert_eq!(other.stores(KEY, Some(wrong), b"x").await, 409);
        assert_eq!(one.stores(KEY, Some(fence), b"content").await, 204);
        assert_eq!(body_of(&other.sees(KEY).await), b"content");
        let fresh = other.look_up(asking(KEY, Some((30_000, 0)))).await.1;
        assert_eq!(body_of(&fresh), b"content");
    }
}

#[tokio::test]
async fn who_waits_is_answered_when_the_leader_writes_or_gives_up() {
    for way in BOTH {
        let sidecar = served().await;
        let (one, other) = two(way, sidecar).await;
        let fence = one.leads(KEY).await;
        let published = async {
            held_back(sidecar, 1).await;
            one.stores(KEY, Some(fence), b"content").await
        };
        let (found, status) = tokio::join!(other.waits(KEY), published);
        assert_eq!((body_of(&found), status), (b"content".to_vec(), 204));
        assert_eq!(one.makes_untrue(vec![KEY], false).await, 204);
        let fence = one.leads(KEY).await;
        let given_up = async {
            held_back(sidecar, 1).await;
            one.gives_back(fence, 0).await
        };
        let (found, status) = tokio::join!(other.waits(KEY), given_up);
        assert!(matches!(found, LookUpAnswer::Lease { .. }), "{found:?}");
        assert_eq!(status, 204);
        let own = Holder(0xa1).as_fence();
        assert_eq!(other.gives_back(own, 60_000).await, 204);
        let marked = one.waits(KEY).await;
        assert_eq!(marked, LookUpAnswer::Nothing { uncacheable: true });
    }
}

#[tokio::test]
async fn a_look_up_that_is_held_leaves_its_place_when_its_asker_dies() {
    for way in BOTH {
        let sidecar = served().await;
        let (one, other) = two(way, sidecar).await;
        let _fence = one.leads(KEY).await;
        {
            let waits = other.waits(KEY);
            tokio::pin!(waits);
            tokio::select! {
                answer = &mut waits => panic!("{answer:?}"),
                () = held_back(sidecar, 1) => {},
            }
        }
        other.dies();
        held_back(sidecar, 0).await;
    }
}

#[tokio::test]
async fn there_is_a_bound_on_those_who_wait() {
    for way in BOTH {
        let sidecar = served().await;
        let (one, other) = two(way, sidecar).await;
        let _fence = one.leads(KEY).await;
        let waiting = async {
            let all = (0..10).map(|_| other.waits(KEY));
            futures_util::future::join_all(all).await
        };
        let one_more = async {
            held_back(sidecar, 10).await;
            other.waits(KEY).await
        };
        tokio::select! {
            found = one_more => assert_eq!(found, LookUpAnswer::Held { stale: None }),
            found = waiting => panic!("{found:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_malformed_or_too_large_is_refused_and_harms_nothing() {
    for way in BOTH {
        let envoy = Envoy::new(way, served().await, 1, 0).await;
        for (lease_ms, wait_ms) in [(0, 0), (600_001, 0), (1, 30_001)] {
            let asked = Question::LookUp(asking(KEY, Some((lease_ms, wait_ms))));
            assert_eq!(envoy.tell(asked).await, 400, "{way:?}");
        }
        let write = |entry| Question::Write {
            key: KEY,
            fence: None,
            entry,
        };
        let mut damaged = encoded(b"content", envoy.now());
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(envoy.tell(write(&damaged)).await, 400);
        assert_eq!(envoy.tell(write(b"LRD\x01rubbish")).await, 400);
        let large = encoded(&[b'x'; 2000], envoy.now());
        assert_eq!(envoy.tell(write(&large)).await, 413);
        let long_ago = encoded(b"content", Timestamp::from_millis(1));
        assert_eq!(envoy.tell(write(&long_ago)).await, 409);
        assert_eq!(envoy.makes_untrue(vec![KEY; 65], false).await, 400);
        assert_eq!(envoy.stores(KEY, None, b"content").await, 204);
    }
}

#[tokio::test]
async fn what_is_made_untrue_is_gone_and_every_follower_hears_of_it() {
    for way in BOTH {
        let (one, other) = two(way, served().await).await;
        let (begin, unheard) = other.follow(None, 0).await;
        assert_eq!((begin.events.len(), begin.reset, unheard), (0, false, 0));
        assert_eq!(one.stores(KEY, None, b"content").await, 204);
        let before = one.now();
        let later = || async { (one.now() > before).then_some(()) };
        eventually(LONG, later).await.unwrap();
        let (heard, status) = tokio::join!(
            other.follow(Some(&begin.cursor), 20_000),
            one.makes_untrue(vec![KEY], false)
        );
        assert_eq!(status, 204);
        assert_eq!(heard.0.events.len(), 1, "{way:?}: {heard:?}");
        let nothing = LookUpAnswer::Nothing { uncacheable: false };
        assert_eq!(other.sees(KEY).await, nothing);
        let entry = &encoded(b"late", before);
        let late = Question::Write {
            key: KEY,
            fence: None,
            entry,
        };
        assert_eq!(one.tell(late).await, 409);
        assert_eq!(one.makes_untrue(Vec::new(), true).await, 204);
        let (heard, _) = other.follow(Some(&heard.0.cursor), 20_000).await;
        assert_eq!(heard.events.len(), 1);
        let (unknown, _) = other.follow(Some("of another time"), 20_000).await;
        assert!(unknown.reset);
        let begun = Instant::now();
        let (silence, _) = other.follow(Some(&heard.cursor), 300).await;
        assert!(silence.events.is_empty() && begun.elapsed() >= Duration::from_millis(300));
    }
}

#[tokio::test]
async fn a_sidecar_that_does_not_hear_says_so() {
    for way in BOTH {
        let purges = Purges::shared();
        let store = Purged::new(Memory::new(1 << 20, 4), purges.clone());
        let sidecar = serve(store, Access::default(), Patience::default()).await;
        let envoy = Envoy::new(way, sidecar, 1, 0).await;
        let follow = Question::Follow {
            after: None,
            wait_ms: 0,
        };
        assert_eq!(envoy.tell(follow).await, 503, "{way:?}: nothing was heard");
        let heard = Instant::now();
        purges.heard_everything(heard);
        let passed = || async { (heard.elapsed() > Duration::from_millis(150)).then_some(()) };
        eventually(LONG, passed).await.unwrap();
        let (_, unheard) = envoy.follow(None, 0).await;
        assert!((150..3_000).contains(&unheard), "{way:?}: {unheard}");
    }
}

#[tokio::test]
async fn an_envoy_that_dies_while_it_follows_has_gone() {
    for way in BOTH {
        let (store, purges) = (Memory::new(1 << 20, 4), Purges::default());
        purges.begin_at(store.first_cursor());
        purges.sessions().believe_closing();
        let store = Purged::new(store, purges.clone());
        let sidecar = serve(store, Access::default(), Patience::default()).await;
        // The poll may not have arrived yet when it is given up.
        let left = || async {
            let envoy = Envoy::new(way, sidecar, 1, 0).await;
            let (begin, _) = envoy.follow(None, 0).await;
            let polls = envoy.follow(Some(&begin.cursor), 20_000);
            let poll = timeout(Duration::from_millis(100), polls).await;
            assert!(poll.is_err(), "{poll:?}");
            envoy.dies();
            let news = || async {
                let news = purges.sessions().news();
                news.contains(&News::Left(name_of(1))).then_some(())
            };
            eventually(Duration::from_millis(200), news).await
        };
        assert!(eventually(LONG, left).await.is_some(), "{way:?}");
    }
}

#[tokio::test]
async fn questions_are_counted_by_their_way() {
    let sidecar = served().await;
    for (way, name) in [(Way::Calls, "http"), (Way::Stream, "stream")] {
        let envoy = Envoy::new(way, sidecar, 1, 0).await;
        for _ in 0..3 {
            envoy.ask(Question::LookUp(asking(KEY, None))).await;
        }
        let line = format!("larder_sidecar_questions_total{{way=\"{name}\"}} 3\n");
        assert!(counts(sidecar, &line).await, "{way:?}");
        let open = u32::from(way == Way::Stream);
        assert!(counts(sidecar, &format!("larder_sidecar_streams {open}\n")).await);
        assert!(matches!(
            envoy.ask(Question::LookUp(asking(KEY, None))).await,
            Answer::LookUp { ahead: 0, .. }
        ));
        envoy.dies();
    }
    let closed = || async {
        counts(sidecar, "larder_sidecar_streams 0\n")
            .await
            .then_some(())
    };
    eventually(LONG, closed)
        .await
        .expect("the stream is closed");
}
