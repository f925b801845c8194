//! Envoys whose clocks differ, over HTTP: what one stores the others use, and what one makes untrue
//! nobody keeps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder_contract::entry::{self, EntryMeta};
use larder_contract::http_time::Timestamp;
use larder_contract::key::PrimaryKey;
use larder_contract::selectors::Presented;
use larder_contract::store_api::{
    AHEAD_FIELD, CLOCK_FIELD, ClockReading, ENTRIES_PATH, EVENTS_PATH, Events, INVALIDATE_PATH,
    Invalidate, LOOK_UP_PATH, LookUp, PURGE_PATH,
};
use larder_sidecar::serving::Patience;
use larder_sidecar::store::redis::{Redis, Seal, Settings, Tls, follow};
use larder_sidecar::{Access, Purged, Purges, Store, Token, Waiting};
use larder_stack::{RedisServer, eventually};
use reqwest::{Client, RequestBuilder, Response};

mod common;
#[path = "common/served.rs"]
mod reached;

use common::meta_of;
use reached::{on_memory, serve};

const OPERATOR: &str = "operator";

/// An Envoy that asks a sidecar, with a clock that is ahead of this machine's, or behind where that
/// is negative.
struct Envoy {
    id: u64,
    ahead_ms: i64,
    sidecar: String,
    client: Client,
}

impl Envoy {
    fn new(sidecar: &str, id: u64, ahead_ms: i64) -> Self {
        Self {
            id,
            ahead_ms,
            sidecar: sidecar.to_owned(),
            client: Client::new(),
        }
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap()).moved(self.ahead_ms)
    }

    async fn send(&self, request: RequestBuilder) -> Response {
        let reading = ClockReading {
            envoy: self.id,
            now: self.now(),
        };
        request
            .header(CLOCK_FIELD, reading.to_string())
            .send()
            .await
            .unwrap()
    }

    /// As a follower does from its start on; from then on the sidecar knows this clock.
    async fn follows(&self) -> Events {
        for _ in 0..9 {
            self.events("").await;
        }
        self.events("").await
    }

    async fn events(&self, query: &str) -> Events {
        let response = self
            .send(
                self.client
                    .get(format!("{}{EVENTS_PATH}{query}", self.sidecar)),
            )
            .await;
        response.json().await.unwrap()
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
        let url = format!("{}{ENTRIES_PATH}{}", self.sidecar, key(path).digest());
        self.send(self.client.put(url).body(entry::encode(&meta, b"x")))
            .await
            .status()
            .as_u16()
    }

    /// When what is stored was requested, on this Envoy's clock; `None` where nothing is found.
    async fn finds(&self, path: &str) -> Option<Timestamp> {
        let asked = LookUp {
            key: key(path).digest(),
            presented: Presented::default(),
            now_ms: self.now(),
            lease: None,
        };
        let answer = self
            .send(
                self.client
                    .post(format!("{}{LOOK_UP_PATH}", self.sidecar))
                    .json(&asked),
            )
            .await;
        let ahead = answer
            .headers()
            .get(AHEAD_FIELD)
            .map_or(0, |value| value.to_str().unwrap().parse().unwrap());
        let found = answer.status() == 200;
        let bytes = answer.bytes().await.unwrap();
        let (mut meta, _) = found.then(|| entry::decode(&bytes).ok()).flatten()?;
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
        let answer = self
            .send(
                self.client
                    .post(format!("{}{INVALIDATE_PATH}", self.sidecar))
                    .json(&message),
            )
            .await;
        assert_eq!(answer.status(), 204);
    }

    async fn purges(&self, json: &str) {
        let request = self
            .client
            .post(format!("{}{PURGE_PATH}", self.sidecar))
            .bearer_auth(OPERATOR);
        assert_eq!(
            request.body(json.to_owned()).send().await.unwrap().status(),
            200
        );
    }
}

fn key(path: &str) -> PrimaryKey {
    PrimaryKey::new(b"default", b"http", b"a", path.as_bytes())
}

async fn served<S: Store>(store: Purged<S>) -> String {
    let access = Access {
        purge: Some(Token::new(OPERATOR)),
        ..Access::default()
    };
    let address = serve(store, access, Patience::default()).await;
    format!("http://{address}")
}

async fn on_redis(server: &RedisServer) -> String {
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
async fn agree(one: &Envoy, other: &Envoy) {
    let case = format!("{} ms and {} ms ahead", one.ahead_ms, other.ahead_ms);
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
        there.purges(&format!(r#"{{"tag": "{path}"}}"#)).await;
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
    let sidecar = served(on_memory()).await;
    for (n, ahead) in (1..).zip(LEADS_MS) {
        agree(
            &Envoy::new(&sidecar, n, ahead),
            &Envoy::new(&sidecar, 100 + n, 0),
        )
        .await;
    }
}

#[tokio::test]
async fn envoys_whose_clocks_differ_share_and_make_untrue_on_redis() {
    let server = RedisServer::start().await.unwrap();
    let sidecars = [on_redis(&server).await, on_redis(&server).await];
    for (n, ahead) in (1..).zip(LEADS_MS) {
        agree(
            &Envoy::new(&sidecars[0], n, ahead),
            &Envoy::new(&sidecars[1], 100 + n, 0),
        )
        .await;
    }
}

#[tokio::test]
async fn an_envoy_hears_of_a_purge_on_its_own_clock() {
    let sidecar = served(on_memory()).await;
    let ahead = Envoy::new(&sidecar, 1, 5_000);
    let begin = ahead.follows().await;
    let before = ahead.now();
    ahead.purges(r#"{"everything": true}"#).await;
    let heard = ahead
        .events(&format!("?after={}&wait_ms=5000", begin.cursor))
        .await;
    let at = heard.events[0].at_ms;
    assert!(
        at.plus_millis(50) > before && at <= ahead.now(),
        "{at:?} is about {before:?}"
    );
}

#[tokio::test]
async fn a_write_that_was_held_up_does_not_come_back_as_newer_than_what_replaced_it() {
    let sidecar = served(on_memory()).await;
    let (held_up, other) = (Envoy::new(&sidecar, 1, 0), Envoy::new(&sidecar, 2, 0));
    held_up.follows().await;
    other.follows().await;
    let requested = held_up.now().moved(-2_400);
    other.invalidates("/", held_up.now().moved(-1_000)).await;
    // As from a process that was frozen: the write says what time it was when it was sent.
    let late = Envoy::new(&sidecar, 1, -2_400);
    assert_eq!(late.writes("/", requested).await, 409);
    assert_eq!(other.finds("/").await, None);
    assert_eq!(held_up.writes("/", held_up.now()).await, 204);
}

#[tokio::test]
async fn who_says_nothing_of_his_clock_is_believed_to_be_in_step() {
    let sidecar = served(on_memory()).await;
    let (silent, envoy) = (Client::new(), Envoy::new(&sidecar, 1, 0));
    envoy.follows().await;
    let message = Invalidate {
        digests: vec![key("/").digest()],
        everything: false,
        now_ms: envoy.now(),
    };
    assert_eq!(envoy.writes("/", message.now_ms).await, 204);
    let url = format!("{sidecar}{INVALIDATE_PATH}");
    for clock in [None, Some("rubbish"), Some("00000000000000a1:-5")] {
        let request = silent.post(&url).json(&message);
        let request = clock
            .into_iter()
            .fold(request, |request, clock| request.header(CLOCK_FIELD, clock));
        assert_eq!(request.send().await.unwrap().status(), 204);
    }
    assert_eq!(envoy.finds("/").await, None);
}
