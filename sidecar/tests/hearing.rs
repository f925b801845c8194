//! A sidecar vouches for what it gives out only while it has heard of all that was purged, whatever
//! Redis loses.

use std::time::Duration;

use larder_contract::entry::{Entry, EntryMeta};
use larder_contract::http_time::Timestamp;
use larder_contract::key::{KeyDigest, PrimaryKey};
use larder_contract::purge::{Purge, Scope};
use larder_contract::selectors::Presented;
use larder_contract::store_api::{LookUp, LookUpAnswer};
use larder_sidecar::store::redis::{Redis, Seal, Settings, follow};
use larder_sidecar::{Purged, Purges, Store, Waiting};
use larder_stack::{RedisServer, eventually};

mod common;

use common::meta_of;

const KEY: KeyDigest = KeyDigest([7; 32]);
const EMPTY_LOG: &str = "0-0";
const PATIENCE: Duration = Duration::from_secs(10);

/// Long ago.
const THEN: Timestamp = Timestamp::from_millis(1_000_000);
const FOREVER: Timestamp = Timestamp::from_millis(1 << 45);

/// Requested at some time, and fresh for ever.
fn entry(tag: &str, requested: Timestamp) -> Entry {
    let meta = EntryMeta {
        tags: vec![tag.to_owned()],
        ..meta_of(b"x", requested, FOREVER)
    };
    Entry::new(meta, b"x")
}

async fn redis(url: String) -> Redis {
    let settings = Settings {
        url,
        namespace: "t".to_owned(),
        max_variants: 4,
        timeout: Duration::from_secs(1),
        seal: Seal::default(),
        tls: larder_sidecar::store::redis::Tls::default(),
    };
    Redis::connect(settings).await.unwrap()
}

/// A sidecar that shares Redis with others, once it has heard of what they purged.
async fn sidecar(url: String) -> Purged<Redis> {
    let (store, purges) = (redis(url).await, Purges::shared());
    tokio::spawn(follow(
        store.link(),
        "t".to_owned(),
        Waiting::default(),
        purges.clone(),
    ));
    eventually(PATIENCE, || async { purges.vouches().then_some(()) })
        .await
        .expect("it hears");
    Purged::new(store, purges)
}

async fn finds(store: &impl Store) -> bool {
    let asked = LookUp {
        key: KEY,
        presented: Presented::default(),
        now_ms: THEN,
        lease: None,
    };
    matches!(
        store.look_up(&asked).await.unwrap().answer,
        LookUpAnswer::Entry(_)
    )
}

/// Of what was requested until now.
fn of_tag(tag: &str, at: &Purged<Redis>) -> Purge {
    Purge {
        scope: Scope::Tag(tag.to_owned()),
        soft: false,
        at_ms: at.purges().clock().now(),
    }
}

/// Just now, and after this sidecar began.
fn just_now(at: &Purged<Redis>) -> Timestamp {
    at.purges().clock().now().plus_millis(1)
}

#[tokio::test]
async fn before_the_marks_are_read_nothing_is_given_out() {
    let server = RedisServer::start().await.unwrap();
    let store = Purged::new(redis(server.url()).await, Purges::shared());
    store.write(KEY, None, entry("news", THEN)).await.unwrap();
    assert!(!finds(&store).await);
    store.purges().heard_everything(tokio::time::Instant::now());
    assert!(finds(&store).await);
}

#[tokio::test]
async fn where_the_marks_are_gone_a_sidecar_that_starts_trusts_nothing_older() {
    let server = RedisServer::start().await.unwrap();
    // As a Redis without this sidecar's marks: evicted, or restored without them.
    redis(server.url())
        .await
        .write(KEY, None, entry("news", THEN))
        .await
        .unwrap();
    assert!(!finds(&sidecar(server.url()).await).await);
}

#[tokio::test]
async fn marks_that_are_evicted_are_put_back_by_a_sidecar_that_runs() {
    let server = RedisServer::start().await.unwrap();
    let here = sidecar(server.url()).await;
    here.purge(of_tag("news", &here)).await.unwrap();
    server.cli(&["DEL", "t:{purges}:marks"]);
    let back = || async {
        server
            .cli(&["HGET", "t:{purges}:marks", "tnews"])
            .contains(':')
            .then_some(())
    };
    eventually(PATIENCE, back)
        .await
        .expect("the mark is there again");
    assert!(
        here.purges().vouches(),
        "nothing was lost for those who remember"
    );
}

#[tokio::test]
async fn where_redis_loses_what_it_had_told_nothing_older_is_given_out() {
    let server = RedisServer::start().await.unwrap();
    let (here, there) = (sidecar(server.url()).await, sidecar(server.url()).await);
    here.write(KEY, None, entry("other", just_now(&here)))
        .await
        .unwrap();
    here.purge(of_tag("news", &here)).await.unwrap();
    assert!(finds(&there).await);
    // As after a failover to a replica that was behind: the log ends before what was told.
    server.cli(&["DEL", "t:{purges}:log"]);
    eventually(PATIENCE, || async { (!finds(&there).await).then_some(()) })
        .await
        .expect("it is distrusted");
    let late = sidecar(server.url()).await;
    assert!(!finds(&late).await, "one that starts later knows of it too");
}

#[tokio::test]
async fn not_even_the_first_look_up_on_a_new_connection_finds_what_a_snapshot_brought_back() {
    let mut server = RedisServer::start().await.unwrap();
    let here = std::sync::Arc::new(sidecar(server.url()).await);
    let key = PrimaryKey::new(b"n", b"http", b"a", b"/");
    let of_key = |at: &Purged<Redis>| Purge {
        scope: Scope::Key(key.digest()),
        soft: false,
        at_ms: at.purges().clock().now(),
    };
    here.purge(of_tag("other", &here)).await.unwrap();
    let asked = LookUp {
        key: key.digest(),
        presented: Presented::default(),
        now_ms: THEN,
        lease: None,
    };
    for round in 0..3 {
        here.write(key.digest(), None, entry("news", just_now(&here)))
            .await
            .unwrap();
        assert!(matches!(
            here.look_up(&asked).await.unwrap().answer,
            LookUpAnswer::Entry(_)
        ));
        assert!(server.cli(&["SAVE"]).contains("OK"));
        here.purge(of_key(&here)).await.unwrap();
        let asking = tokio::spawn({
            let (here, asked, until) = (
                here.clone(),
                asked.clone(),
                tokio::time::Instant::now() + PATIENCE / 5,
            );
            async move {
                let mut found = 0;
                while tokio::time::Instant::now() < until {
                    let answer = here.look_up(&asked).await;
                    found += usize::from(
                        answer.is_ok_and(|found| matches!(found.answer, LookUpAnswer::Entry(_))),
                    );
                }
                found
            }
        });
        server.restart().await.unwrap();
        assert_eq!(asking.await.unwrap(), 0, "round {round}");
        eventually(PATIENCE, || async { here.purges().vouches().then_some(()) })
            .await
            .expect("it hears again");
    }
}

#[tokio::test]
async fn a_purge_that_is_not_understood_is_distrusted_and_not_passed_over() {
    let server = RedisServer::start().await.unwrap();
    let here = sidecar(server.url()).await;
    here.purge(of_tag("other", &here)).await.unwrap();
    let cursor = || async { Some(here.purges().cursor()).filter(|cursor| *cursor != EMPTY_LOG) };
    let cursor = eventually(PATIENCE, cursor)
        .await
        .expect("it is in the log");
    // As from a sidecar of a later version.
    server.cli(&[
        "XADD",
        "t:{purges}:log",
        "*",
        "purge",
        r#"{"scope": {"path": "/x"}, "soft": false, "at_ms": 5}"#,
    ]);
    let reset = || async {
        here.purges()
            .since(Some(&cursor), Duration::ZERO)
            .await
            .reset
            .then_some(())
    };
    eventually(PATIENCE, reset)
        .await
        .expect("level 1 is emptied");
    here.write(KEY, None, entry("news", just_now(&here)))
        .await
        .unwrap();
    assert!(finds(&here).await);
    server.cli(&["HSET", "t:{purges}:marks", "n/x", "5:0"]);
    assert!(
        !finds(&sidecar(server.url()).await).await,
        "one that starts cannot know what the mark concerns"
    );
}

#[tokio::test]
async fn a_purge_that_a_full_redis_has_taken_holds() {
    let server = RedisServer::start().await.unwrap();
    let here = sidecar(server.url()).await;
    here.write(KEY, None, entry("news", just_now(&here)))
        .await
        .unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(
        here.write(KeyDigest([8; 32]), None, entry("news", just_now(&here)))
            .await
            .is_err(),
        "it is full"
    );
    for tag in ["a", "b", "news"] {
        here.purge(of_tag(tag, &here)).await.unwrap();
    }
    here.invalidate(&[KeyDigest([9; 32])], just_now(&here), false)
        .await
        .unwrap();
    assert!(
        !finds(&sidecar(server.url()).await).await,
        "one that starts later knows of it"
    );
}

#[tokio::test]
async fn where_subscribing_is_not_allowed_purges_are_heard_all_the_same() {
    let server = RedisServer::start().await.unwrap();
    server.cli(&[
        "ACL",
        "SETUSER",
        "deaf",
        "on",
        ">p",
        "~*",
        "&*",
        "+@all",
        "-subscribe",
        "-psubscribe",
    ]);
    let here = sidecar(server.url()).await;
    let deaf = sidecar(server.url().replacen("redis://", "redis://deaf:p@", 1)).await;
    here.write(KEY, None, entry("news", just_now(&here)))
        .await
        .unwrap();
    assert!(finds(&deaf).await);
    here.purge(of_tag("news", &here)).await.unwrap();
    eventually(PATIENCE, || async { (!finds(&deaf).await).then_some(()) })
        .await
        .expect("it hears");
}

async fn finds_key(store: &Purged<Redis>, key: KeyDigest) -> bool {
    let asked = LookUp {
        key,
        presented: Presented::default(),
        now_ms: THEN,
        lease: None,
    };
    matches!(
        store.look_up(&asked).await.unwrap().answer,
        LookUpAnswer::Entry(_)
    )
}

#[tokio::test]
async fn where_publishing_is_not_allowed_all_is_carried_out_and_heard_all_the_same() {
    let server = RedisServer::start().await.unwrap();
    server.cli(&[
        "ACL", "SETUSER", "mute", "on", ">p", "~*", "&*", "+@all", "-publish",
    ]);
    server.cli(&[
        "ACL",
        "SETUSER",
        "apart",
        "on",
        ">p",
        "~*",
        "resetchannels",
        "+@all",
    ]);
    let there = sidecar(server.url()).await;
    for (n, user) in (1..).zip(["mute", "apart"]) {
        let here = sidecar(
            server
                .url()
                .replacen("redis://", &format!("redis://{user}:p@"), 1),
        )
        .await;
        let key = KeyDigest([n; 32]);
        let finds = async |store| finds_key(store, key).await;
        here.write(key, None, entry("news", just_now(&here)))
            .await
            .unwrap();
        assert!(finds(&here).await && finds(&there).await, "{user}: stored");
        let cursor = here.purges().cursor();
        here.purge(of_tag("news", &here)).await.unwrap();
        assert!(!finds(&here).await, "{user}: at once where it was purged");
        let own = here
            .purges()
            .since(Some(&cursor), Duration::from_millis(500))
            .await;
        assert_eq!(
            own.events.len(),
            1,
            "{user}: and heard there without being told by the store"
        );
        eventually(PATIENCE, || async { (!finds(&there).await).then_some(()) })
            .await
            .expect("it hears");
        here.write(key, None, entry("other", just_now(&here)))
            .await
            .unwrap();
        here.invalidate(&[key], just_now(&here), false)
            .await
            .unwrap();
        assert!(!finds(&there).await, "{user}: invalidated");
    }
}

#[tokio::test]
async fn who_cannot_reach_redis_vouches_for_nothing_after_a_while() {
    let server = RedisServer::start().await.unwrap();
    let here = sidecar(server.url()).await;
    drop(server);
    eventually(PATIENCE, || async {
        (!here.purges().vouches()).then_some(())
    })
    .await
    .expect("deaf");
    assert!(!finds(&here).await, "and is no fault: nothing is found");
}

#[tokio::test]
async fn where_an_envoy_is_lost_nothing_older_is_given_out() {
    let server = RedisServer::start().await.unwrap();
    let (here, there) = (sidecar(server.url()).await, sidecar(server.url()).await);
    let wait = Duration::from_secs(1);
    let lost = || async { (!finds(&there).await).then_some(()) };
    drop(here.purges().sessions().poll("leaver", wait));
    here.purges().sessions().end();
    there
        .write(KEY, None, entry("news", just_now(&there)))
        .await
        .unwrap();
    assert!(
        eventually(Duration::from_secs(7), lost).await.is_none(),
        "nothing is lost with one that leaves in peace"
    );
    here.purges().sessions().poll("envoy", wait).answered();
    eventually(PATIENCE, lost)
        .await
        .expect("nobody knows what it would have told");
    // It may only be cut off, and go on answering.
    there
        .write(KEY, None, entry("news", just_now(&there)))
        .await
        .unwrap();
    assert!(finds(&there).await);
    eventually(PATIENCE, lost)
        .await
        .expect("nor what it would tell now");
}

#[tokio::test]
async fn an_envoy_that_has_just_come_is_missed_when_it_is_lost_together_with_its_sidecar() {
    let server = RedisServer::start().await.unwrap();
    let here = sidecar(server.url()).await;
    here.purges()
        .sessions()
        .poll("envoy", Duration::from_secs(1))
        .answered();
    here.purges().ask_now();
    let known = || async {
        (server
            .cli(&["HEXISTS", "t:{purges}:envoys", "envoy"])
            .trim()
            == "1")
            .then_some(())
    };
    eventually(Duration::from_millis(500), known)
        .await
        .expect("before the next second");
}
