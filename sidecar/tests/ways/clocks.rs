//! Envoys whose clocks differ: what one stores the others use, and what one makes untrue
//! nobody keeps.

use std::net::SocketAddr;
use std::time::Duration;

use larder_contract::entry::{self, EntryMeta};
use larder_contract::http_time::Timestamp;
use larder_contract::key::PrimaryKey;
use larder_contract::selectors::Presented;
use larder_contract::store_api::{
    CLOCK_FIELD, Events, INVALIDATE_PATH, Invalidate, LookUp, LookUpAnswer, PURGE_PATH,
};
use larder_contract::store_stream::Question;
use larder_sidecar::serving::Patience;
use larder_sidecar::store::redis::{Redis, Seal, Settings, Tls, follow};
use larder_sidecar::{Access, Purged, Purges, Store, Token, Waiting};
use larder_stack::{RedisServer, eventually};
use reqwest::Client;

use crate::asking::{BOTH, Envoy, Way};
use crate::common::meta_of;
use crate::reached::{on_memory, serve};

const OPERATOR: &str = "operator";

impl Envoy {
    /// As a follower does from its start on; from then on the sidecar knows this clock.
    async fn follows(&self) -> Events {
        for _ in 0..9 {
            self.follow(None, 0).await;
        }
        self.follow(None, 0).await.0
    }

    /// Stores what was requested then, on this Envoy's clock, and is fresh for a minute. Gives the
    /// status.
    async fn writes(&self, path: &str, requested: Timestamp) -> u16 {
        let (url, tags) = (format!("http://a{path}"), vec![path.to_owned()]);
        let meta = EntryMeta {
            url,
            tags,
            ..meta_of(b"x", requested, requested.plus_millis(60_000))
        };
        let write = Question::Write {
            key: key(path).digest(),
            fence: None,
            entry: &entry::encode(&meta, b"x"),
        };
        self.tell(write).await
    }

    /// When what is stored was requested, on this Envoy's clock; `None` where nothing is found.
    async fn finds(&self, path: &str) -> Option<Timestamp> {
        let asked = LookUp {
            key: key(path).digest(),
            presented: Presented::default(),
            now_ms: self.now(),
            lease: None,
        };
        let (ahead, LookUpAnswer::Entry(bytes)) = self.look_up(asked).await else {
            return None;
        };
        let (mut meta, _) = entry::decode(&bytes).ok()?;
        meta.move_times(ahead);
        Some(meta.request_time_ms)
    }

    /// Tells of what became untrue then, on this Envoy's clock.
    async fn invalidates(&self, path: &str, time: Timestamp) {
        let message = Invalidate {
            digests: vec![key(path).digest()],
            everything: false,
            now_ms: time,
        };
        assert_eq!(self.tell(Question::Invalidate(message)).await, 204);
    }
}

async fn purges(sidecar: SocketAddr, json: &str) {
    let request = Client::new()
        .post(format!("http://{sidecar}{PURGE_PATH}"))
        .bearer_auth(OPERATOR);
    let answer = request.body(json.to_owned()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

fn key(path: &str) -> PrimaryKey {
    PrimaryKey::new(b"default", b"http", b"a", path.as_bytes())
}

async fn served<S: Store>(store: Purged<S>) -> SocketAddr {
    let access = Access {
        purge: Some(Token::new(OPERATOR)),
        ..Access::default()
    };
    serve(store, access, Patience::default()).await
}

async fn on_redis(server: &RedisServer) -> SocketAddr {
    let settings = Settings {
        url: server.url(),
        namespace: "t".to_owned(),
        max_variants: 4,
        timeout: Duration::from_secs(2),
        seal: Seal::default(),
        tls: Tls::default(),
    };
    let (store, purges) = (Redis::connect(settings).await.unwrap(), Purges::shared());
    tokio::spawn(follow(
        store.link(),
        "t".to_owned(),
        Waiting::default(),
        purges.clone(),
    ));
    eventually(Duration::from_secs(10), || async {
        purges.vouches().then_some(())
    })
    .await
    .expect("it hears");
    // What was stored until now is not used, for there were no marks.
    let begun = purges.clock().now();
    let later = || async { (purges.clock().now() > begun.plus_millis(50)).then_some(()) };
    eventually(Duration::from_secs(1), later)
        .await
        .expect("time passes");
    served(Purged::new(store, purges)).await
}

/// Two Envoys at two sidecars, or at the same.
async fn agree(way: Way, sidecars: [SocketAddr; 2], n: u64, ahead: i64) {
    let case = format!("{way:?}: {ahead} ms and 0 ms ahead");
    let one = &Envoy::new(way, sidecars[0], n, ahead).await;
    let other = &Envoy::new(way, sidecars[1], 100 + n, 0).await;
    for envoy in [one, other] {
        envoy.follows().await;
    }
    for (n, (here, there)) in [(one, other), (other, one)].into_iter().enumerate() {
        let path = format!("/{}-{}-{n}", one.id, other.id);
        let requested = here.now();
        assert_eq!(here.writes(&path, requested).await, 204, "{case}: stored");
        for (envoy, who) in [(here, "who stored it"), (there, "the other")] {
            let seen = envoy
                .finds(&path)
                .await
                .unwrap_or_else(|| panic!("{case}: found by {who}"));
            let expected = requested.moved(envoy.ahead_ms - here.ahead_ms);
            let apart = seen.millis_since(expected).max(expected.millis_since(seen));
            assert!(
                apart <= 100,
                "{case}: {who} knows when it was requested, but for {apart} ms"
            );
        }
        // Both have fetched since: one fetch began before the other's change, one after it.
        let (before, changed) = (here.now(), there.now().plus_millis(30));
        let passed = || async { (there.now() > changed).then_some(()) };
        eventually(Duration::from_secs(1), passed)
            .await
            .expect("time passes");
        there.invalidates(&path, changed).await;
        assert_eq!(here.finds(&path).await, None, "{case}: dropped");
        assert_eq!(
            here.writes(&path, before).await,
            409,
            "{case}: requested before the change"
        );
        assert_eq!(
            there.writes(&path, changed.moved(-20)).await,
            409,
            "{case}: its own, too"
        );
        let after = || async { (here.now().millis_since(before) > 60).then_some(()) };
        eventually(Duration::from_secs(1), after)
            .await
            .expect("time passes");
        assert_eq!(
            here.writes(&path, here.now()).await,
            204,
            "{case}: requested after the change"
        );
        purges(sidecars[1 - n], &format!(r#"{{"tag": "{path}"}}"#)).await;
        let gone = || async { here.finds(&path).await.is_none().then_some(()) };
        assert!(
            eventually(Duration::from_secs(5), gone).await.is_some(),
            "{case}: purged"
        );
    }
}

const LEADS_MS: [i64; 6] = [0, 300, 2_000, 9_000, -300, -9_000];

#[tokio::test]
async fn envoys_whose_clocks_differ_share_and_make_untrue_on_memory() {
    for way in BOTH {
        let sidecar = served(on_memory()).await;
        for (n, ahead) in (1..).zip(LEADS_MS) {
            agree(way, [sidecar; 2], n, ahead).await;
        }
    }
}

#[tokio::test]
async fn envoys_whose_clocks_differ_share_and_make_untrue_on_redis() {
    for way in BOTH {
        let server = RedisServer::start().await.unwrap();
        let sidecars = [on_redis(&server).await, on_redis(&server).await];
        for (n, ahead) in (1..).zip(LEADS_MS) {
            agree(way, sidecars, n, ahead).await;
        }
    }
}

#[tokio::test]
async fn an_envoy_hears_of_a_purge_on_its_own_clock() {
    for way in BOTH {
        let sidecar = served(on_memory()).await;
        let ahead = Envoy::new(way, sidecar, 1, 5_000).await;
        let begin = ahead.follows().await;
        let before = ahead.now();
        purges(sidecar, r#"{"everything": true}"#).await;
        let (heard, _) = ahead.follow(Some(&begin.cursor), 5_000).await;
        let at = heard.events[0].at_ms;
        assert!(
            at.plus_millis(50) > before && at <= ahead.now(),
            "{at:?} is about {before:?}"
        );
    }
}

#[tokio::test]
async fn a_write_that_was_held_up_does_not_come_back_as_newer_than_what_replaced_it() {
    for way in BOTH {
        let sidecar = served(on_memory()).await;
        let held_up = Envoy::new(way, sidecar, 1, 0).await;
        let other = Envoy::new(way, sidecar, 2, 0).await;
        held_up.follows().await;
        other.follows().await;
        let requested = held_up.now().moved(-2_400);
        other.invalidates("/", held_up.now().moved(-1_000)).await;
        // As from a process that was frozen: the write says what time it was when it was sent.
        let late = Envoy::new(way, sidecar, 1, -2_400).await;
        assert_eq!(late.writes("/", requested).await, 409, "{way:?}");
        assert_eq!(other.finds("/").await, None);
        assert_eq!(held_up.writes("/", held_up.now()).await, 204);
    }
}

#[tokio::test]
async fn who_says_nothing_of_his_clock_is_believed_to_be_in_step() {
    let sidecar = served(on_memory()).await;
    let (silent, envoy) = (Client::new(), Envoy::new(Way::Calls, sidecar, 1, 0).await);
    envoy.follows().await;
    let message = Invalidate {
        digests: vec![key("/").digest()],
        everything: false,
        now_ms: envoy.now(),
    };
    assert_eq!(envoy.writes("/", message.now_ms).await, 204);
    let url = format!("http://{sidecar}{INVALIDATE_PATH}");
    for clock in [None, Some("rubbish"), Some("00000000000000a1:-5")] {
        let request = silent.post(&url).json(&message);
        let request = clock
            .into_iter()
            .fold(request, |request, clock| request.header(CLOCK_FIELD, clock));
        assert_eq!(request.send().await.unwrap().status(), 204);
    }
    assert_eq!(envoy.finds("/").await, None);
}
