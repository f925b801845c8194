//! What was answered as invalidated or purged is never served again by the Envoy that answered, nor
//! by any other beyond the promised time, whatever breaks in between. Two Envoys with two workers
//! each, a sidecar for each, one Redis.

use std::time::Duration;

use larder_contract::store_api::UNHEARD_FIELD;
use larder_stack::link::{Link, Mode};
use larder_stack::{Origins, RedisServer, Settings, Stack, StoreKind, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Client;

use crate::mock_origin::MockOrigin;
use crate::support::{Answer, with_level_1, with_stop_iteration};

const TOKEN: &str = "operator";
/// `store.distrust_after_ms` of these Envoys.
const DISTRUST: Duration = Duration::from_millis(2_000);
/// While both reach the store it is milliseconds; what a busy test machine needs on top.
const AT_ONCE: Duration = Duration::from_millis(1_500);
/// Beyond the promised time: a look-up that is not answered, and a busy machine.
const SLACK: Duration = Duration::from_millis(2_500);
const PATIENCE: Duration = Duration::from_secs(15);
/// A sidecar that hears the others asks for what it may have missed every second.
const HEARD_LATELY_MS: u64 = 1_500;

struct Pair {
    envoys: Vec<Stack>,
    /// From each sidecar to Redis.
    links: Vec<Link>,
    redis: RedisServer,
    client: Client,
}

/// The demo's configuration, with another part in front.
fn config(more: &str) -> String {
    let store = format!(
        r#"{{ "store": {{ "timeout_ms": 1000, "distrust_after_ms": {} }}, {more}"#,
        DISTRUST.as_millis()
    );
    Settings::default().filter_config.replacen('{', &store, 1)
}

/// Without level 1 every answer comes from the store or from the origin.
fn without_level_1() -> String {
    config(r#""limits": { "l1_bytes": 0 },"#)
}

impl Pair {
    async fn start(filter_config: String) -> Self {
        let redis = RedisServer::start().await.unwrap();
        let links = vec![
            Link::to(&redis.address()).await.unwrap(),
            Link::to(&redis.address()).await.unwrap(),
        ];
        let mut pair = Self {
            envoys: Vec::new(),
            links,
            redis,
            client: Client::new(),
        };
        for index in 0..2 {
            let settings = Settings {
                store: StoreKind::Redis(format!("redis://{}", pair.links[index].address())),
                filter_config: filter_config.clone(),
                ..pair.settings()
            };
            pair.envoys.push(
                Stack::start(with_stop_iteration(with_level_1(settings)), |_| {})
                    .await
                    .unwrap(),
            );
        }
        for envoy in 0..2 {
            pair.is_heard(envoy).await;
        }
        pair
    }

    /// In front of the origins of the first.
    fn settings(&self) -> Settings {
        let sidecar_env = vec![("LARDER_PURGE_TOKEN".to_owned(), TOKEN.to_owned())];
        let origins = self
            .envoys
            .first()
            .map(|first| Origins::Addresses(first.origin_addresses()));
        Settings {
            sidecar_env,
            origins: origins.unwrap_or(Origins::Mock(2)),
            ..Settings::default()
        }
    }

    /// The Envoy's sidecar hears at present what is purged, and the store takes what it writes.
    async fn is_heard(&self, envoy: usize) {
        let url = format!(
            "http://{}/v1/events",
            self.envoys[envoy].sidecar_address().unwrap()
        );
        let heard = || async {
            let answer = self.client.get(&url).send().await.ok()?;
            let unheard = answer
                .headers()
                .get(UNHEARD_FIELD)
                .map_or("0", |ms| ms.to_str().unwrap())
                .parse::<u64>();
            (answer.status().is_success() && unheard.unwrap() < HEARD_LATELY_MS).then_some(())
        };
        assert!(
            eventually(PATIENCE, heard).await.is_some(),
            "sidecar {envoy} hears nothing"
        );
    }

    /// After a silence only new connections of a sidecar reach Redis.
    fn reconnects(&self, sidecar: usize) {
        self.links[sidecar].half_open();
        self.links[sidecar].become_(Mode::Open);
    }

    async fn get(&self, envoy: usize, path: &str) -> Answer {
        let url = format!("{}{path}", self.envoys[envoy].url());
        Answer::from_shop(self.client.get(url)).await
    }

    async fn some(&self, envoy: usize, path: &str) -> Vec<Answer> {
        let answers = futures_util::future::join_all((0..12).map(|_| self.get(envoy, path))).await;
        assert!(
            answers.iter().all(|answer| answer.status == 200),
            "{answers:?}"
        );
        answers
    }

    /// Both origins answer with this word from now on.
    async fn becomes(&self, path: &str, word: &str) {
        let behaviour = format!(
            r#"{{"headers": [["cache-control", "max-age=600"], ["cache-tag", "{word}"], ["x-word", "{word}"]]}}"#
        );
        for index in 0..2 {
            let origin = MockOrigin {
                client: &self.client,
                url: self.envoys[0].origin_url(index),
            };
            origin.becomes(path, &behaviour).await;
        }
    }

    /// Both Envoys, and all their workers, hit with this word.
    async fn agree(&self, path: &str, word: &str) {
        for envoy in 0..2 {
            let all_hit = || async {
                let answers = self.some(envoy, path).await;
                answers
                    .iter()
                    .all(|answer| answer.is_hit() && answer.header("x-word") == word)
                    .then_some(())
            };
            let agreed = eventually(PATIENCE, all_hit).await;
            assert!(
                agreed.is_some(),
                "Envoy {envoy} {path} {word}: {:?}",
                self.get(envoy, path).await
            );
        }
    }

    /// The content of a path changes by a request to an Envoy.
    async fn put(&self, envoy: usize, path: &str, word: &str) {
        self.becomes(path, word).await;
        let url = format!("{}{path}", self.envoys[envoy].url());
        let answer = Answer::from_shop(self.client.put(url)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    async fn purge(&self, envoy: usize, json: &str) {
        let url = format!(
            "http://{}/v1/purge",
            self.envoys[envoy].sidecar_address().unwrap()
        );
        let answer = Answer::of(
            self.client
                .post(url)
                .bearer_auth(TOKEN)
                .body(json.to_owned())
                .send()
                .await
                .unwrap(),
        );
        let answer = answer.await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The Envoy does not serve the old word any more within some time, and for as long as it is
    /// watched after that.
    async fn stops(&self, envoy: usize, path: &str, old: &str, within: Duration) {
        let is_old = |answer: &Answer| answer.header("x-word") == old;
        let stopped = || async { (!self.some(envoy, path).await.iter().any(is_old)).then_some(()) };
        assert!(
            eventually(within, stopped).await.is_some(),
            "Envoy {envoy} still serves {path} {old}"
        );
        let again = || async { self.some(envoy, path).await.into_iter().find(is_old) };
        let again = eventually(within.min(Duration::from_millis(150)), again).await;
        assert!(
            again.is_none(),
            "Envoy {envoy} serves {path} {old} again: {again:?}"
        );
    }

    /// A change at the first Envoy during a fault. While that lasts the second stops serving the
    /// old content within `while_broken`, if it can know; once it is over both agree.
    async fn survives(
        &mut self,
        name: &str,
        while_broken: Option<Duration>,
        break_it: impl AsyncFnOnce(&mut Self),
        mend_it: impl AsyncFnOnce(&mut Self),
    ) {
        let (path, old, new) = (
            format!("/anything/{name}"),
            format!("{name}-old"),
            format!("{name}-new"),
        );
        // What was broken before is whole: an Envoy may answer before its sidecar hears the others
        // again.
        for envoy in 0..2 {
            self.is_heard(envoy).await;
        }
        self.becomes(&path, &old).await;
        self.agree(&path, &old).await;
        break_it(self).await;
        self.put(0, &path, &new).await;
        self.stops(0, &path, &old, Duration::ZERO).await;
        if let Some(within) = while_broken {
            self.stops(1, &path, &old, within).await;
        }
        mend_it(self).await;
        self.stops(1, &path, &old, PATIENCE).await;
        self.stops(0, &path, &old, Duration::ZERO).await;
        self.agree(&path, &new).await;
    }

    fn signal_envoy(&self, envoy: usize, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.envoys[envoy].envoy_id()).unwrap()),
            signal,
        )
        .unwrap();
    }
}

/// Lets time pass: nothing is asked meanwhile.
async fn pass(time: Duration) {
    eventually(time, || async { None::<()> }).await;
}

#[tokio::test]
async fn a_change_while_the_store_is_in_trouble_is_gone_everywhere() {
    let mut pair = Pair::start(config("")).await;
    pair.survives("calm", Some(AT_ONCE), async |_| {}, async |_| {})
        .await;
    // The other cannot know of it before the sidecar is there again.
    pair.survives(
        "sidecar-dead",
        None,
        async |pair| pair.envoys[0].kill_sidecar(),
        async |pair| pair.envoys[0].restart_sidecar().await.unwrap(),
    )
    .await;
    pair.survives(
        "its-sidecar-dead",
        Some(DISTRUST + SLACK),
        async |pair| pair.envoys[1].kill_sidecar(),
        async |pair| pair.envoys[1].restart_sidecar().await.unwrap(),
    )
    .await;
    pair.survives(
        "redis-stopped",
        Some(DISTRUST + SLACK),
        async |pair| pair.redis.kill(),
        async |pair| pair.redis.restart().await.unwrap(),
    )
    .await;
    let set = |pair: &Pair, bytes: &str| {
        assert!(
            pair.redis
                .cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
                .contains("OK")
        );
        assert!(
            pair.redis
                .cli(&["CONFIG", "SET", "maxmemory", bytes])
                .contains("OK")
        );
    };
    pair.survives(
        "redis-full",
        Some(AT_ONCE),
        async |pair| set(pair, "1"),
        async |pair| set(pair, "0"),
    )
    .await;
    pair.survives(
        "unreachable-for-the-first",
        None,
        async |pair| pair.links[0].become_(Mode::Silent),
        async |pair| pair.reconnects(0),
    )
    .await;
    pair.survives(
        "unreachable-for-the-other",
        Some(DISTRUST + SLACK),
        async |pair| pair.links[1].become_(Mode::Silent),
        async |pair| pair.reconnects(1),
    )
    .await;
}

#[tokio::test]
async fn what_is_frozen_for_longer_than_the_promise_serves_nothing_old() {
    let mut pair = Pair::start(config("")).await;
    pair.survives(
        "sidecar-frozen",
        None,
        async |pair| pair.envoys[0].pause_sidecar(),
        async |pair| pair.envoys[0].resume_sidecar(),
    )
    .await;
    pair.survives(
        "its-sidecar-frozen",
        Some(DISTRUST + SLACK),
        async |pair| pair.envoys[1].pause_sidecar(),
        async |pair| pair.envoys[1].resume_sidecar(),
    )
    .await;
    for (name, frozen, within) in [
        ("frozen-briefly", Duration::from_millis(500), AT_ONCE),
        ("frozen", DISTRUST * 2, Duration::ZERO),
    ] {
        let path = format!("/anything/{name}");
        pair.becomes(&path, "old").await;
        pair.agree(&path, "old").await;
        pair.signal_envoy(1, Signal::SIGSTOP);
        pair.put(0, &path, "new").await;
        pass(frozen).await;
        pair.signal_envoy(1, Signal::SIGCONT);
        pair.stops(1, &path, "old", within).await;
        pair.agree(&path, "new").await;
    }
}

#[tokio::test]
async fn after_a_configuration_swap_changes_and_purges_are_heard() {
    let mut pair = Pair::start(config("")).await;
    for round in 0..2 {
        for envoy in 0..2 {
            let changed = config(&format!(
                r#""limits": {{ "lease_ms": {} }},"#,
                9_000 + round
            ));
            pair.envoys[envoy]
                .swap_filter_config(&changed)
                .await
                .unwrap();
        }
        pair.survives(
            &format!("swapped-{round}"),
            Some(AT_ONCE),
            async |_| {},
            async |_| {},
        )
        .await;
        let path = format!("/anything/purged-{round}");
        pair.becomes(&path, "old").await;
        pair.agree(&path, "old").await;
        pair.becomes(&path, "new").await;
        pair.purge(0, r#"{"everything": true}"#).await;
        for envoy in 0..2 {
            pair.stops(envoy, &path, "old", AT_ONCE).await;
        }
    }
}

#[tokio::test]
async fn an_envoy_killed_with_something_untold_takes_the_trust_in_what_was_stored_with_it() {
    let mut pair = Pair::start(config("")).await;
    // Both are known to the fleet. The first has told nothing so far.
    let known = || async {
        (pair
            .redis
            .cli(&["HLEN", "larder:{purges}:envoys"])
            .trim()
            .ends_with('2'))
        .then_some(())
    };
    assert!(eventually(PATIENCE, known).await.is_some(), "both follow");
    pair.becomes("/anything/page", "old").await;
    pair.agree("/anything/page", "old").await;
    pair.envoys[0].kill_sidecar();
    pair.put(0, "/anything/page", "new").await;
    pair.envoys[0].kill_envoy();
    // After 5 s it counts as lost.
    pair.stops(1, "/anything/page", "old", Duration::from_secs(5) + SLACK)
        .await;
}

#[tokio::test]
async fn an_envoy_whose_sidecar_comes_late_serves_nothing_that_was_purged_before() {
    let mut pair = Pair::start(config("")).await;
    let nowhere = Link::to_nowhere().await.unwrap();
    let settings = Settings {
        sidecar: Some(nowhere.address()),
        filter_config: config(""),
        ..pair.settings()
    };
    let late = Stack::start(with_stop_iteration(with_level_1(settings)), |_| {})
        .await
        .unwrap();
    std::mem::replace(&mut pair.envoys[1], late).stop().await;
    let path = "/anything/late";
    pair.becomes(path, "old").await;
    assert_eq!(pair.get(1, path).await.header("x-word"), "old");
    pair.put(0, path, "new").await;
    pair.stops(1, path, "old", DISTRUST + SLACK).await;
    nowhere.lead_to(pair.envoys[0].sidecar_address().unwrap());
    pair.agree(path, "new").await;
    pair.survives("then", Some(AT_ONCE), async |_| {}, async |_| {})
        .await;
}

/// The first Envoy is asked without a pause while its sidecar is started again, and serves nothing
/// old.
async fn restart_gives_out_nothing(pair: &mut Pair, path: &str, old: &str) {
    let url = format!("{}{path}", pair.envoys[0].url());
    let client = pair.client.clone();
    let (tell, mut told) = tokio::sync::watch::channel(false);
    let asking = tokio::spawn(async move {
        let mut answers = Vec::new();
        while !*told.borrow_and_update() {
            answers.push(
                Answer::of(
                    client
                        .get(&url)
                        .header("host", "shop.example")
                        .send()
                        .await
                        .unwrap(),
                )
                .await,
            );
        }
        answers
    });
    pair.envoys[0].restart_sidecar().await.unwrap();
    pair.is_heard(0).await;
    let _ = tell.send(true);
    let answers = asking.await.unwrap();
    let wrong = answers
        .iter()
        .rfind(|answer| answer.header("x-word") == old);
    assert!(
        !answers.is_empty() && wrong.is_none(),
        "{path}, among {} answers: {wrong:?}",
        answers.len()
    );
    for envoy in 0..2 {
        pair.stops(envoy, path, old, Duration::ZERO).await;
    }
}

#[tokio::test]
async fn a_sidecar_that_starts_gives_out_nothing_purged_whatever_redis_has_lost() {
    let mut pair = Pair::start(without_level_1()).await;
    let purged =
        ["slow", "full", "marks"].map(|name| (format!("/anything/{name}"), format!("{name}-old")));
    for (path, old) in &purged {
        pair.becomes(path, old).await;
        pair.agree(path, old).await;
    }
    let tag = |old: &str| format!(r#"{{"tag": "{old}"}}"#);
    pair.becomes("/anything", "new").await;
    // What the workers handed over to each other when it was fetched is forgotten.
    pass(Duration::from_millis(2_100)).await;

    let [(path, old), ..] = &purged;
    pair.envoys[0].kill_sidecar();
    pair.purge(1, &tag(old)).await;
    pair.links[0].become_(Mode::Slow(Duration::from_millis(60)));
    restart_gives_out_nothing(&mut pair, path, old).await;
    pair.links[0].become_(Mode::Open);

    // A full Redis takes the purge all the same.
    let [_, (path, old), _] = &purged;
    assert!(
        pair.redis
            .cli(&["CONFIG", "SET", "maxmemory", "1"])
            .contains("OK")
    );
    pair.purge(1, &tag("other")).await;
    pair.purge(1, &tag(old)).await;
    pair.envoys[0].kill_sidecar();
    restart_gives_out_nothing(&mut pair, path, old).await;
    assert!(
        pair.redis
            .cli(&["CONFIG", "SET", "maxmemory", "0"])
            .contains("OK")
    );

    // The marks are gone, and nobody is there who remembers them.
    let [.., (path, old)] = &purged;
    pair.purge(1, &tag(old)).await;
    for envoy in 0..2 {
        pair.envoys[envoy].kill_sidecar();
    }
    assert_eq!(
        pair.redis.cli(&["DEL", "larder:{purges}:marks"]).trim(),
        "1"
    );
    pair.envoys[1].restart_sidecar().await.unwrap();
    restart_gives_out_nothing(&mut pair, path, old).await;
}

#[tokio::test]
async fn a_snapshot_without_the_last_changes_brings_nothing_old_back() {
    let mut pair = Pair::start(without_level_1()).await;
    for path in ["/anything/changed", "/anything/purged"] {
        pair.becomes(path, "old").await;
        pair.agree(path, "old").await;
    }
    assert!(pair.redis.cli(&["SAVE"]).contains("OK"));
    pair.purge(1, r#"{"url": "http://shop.example/anything/purged"}"#)
        .await;
    pair.put(0, "/anything/changed", "new").await;
    pair.agree("/anything/changed", "new").await;
    // What the workers handed over to each other is forgotten.
    pass(Duration::from_millis(2_100)).await;
    let asked: Vec<String> = (0..2)
        .map(|envoy| format!("{}/anything/changed", pair.envoys[envoy].url()))
        .collect();
    let (client, (tell, told)) = (pair.client.clone(), tokio::sync::watch::channel(false));
    let asking = tokio::spawn(async move {
        let mut words = Vec::new();
        while !*told.borrow() {
            for url in &asked {
                let answer = client
                    .get(url)
                    .header("host", "shop.example")
                    .send()
                    .await
                    .unwrap();
                words.push(Answer::of(answer).await.header("x-word").to_owned());
            }
        }
        words
    });
    pair.redis.restart().await.unwrap();
    pass(Duration::from_secs(2)).await;
    let _ = tell.send(true);
    let words = asking.await.unwrap();
    assert!(
        words.len() > 20 && !words.contains(&"old".to_owned()),
        "{:?}",
        words.iter().position(|word| word == "old")
    );
    pair.becomes("/anything/purged", "new").await;
    for envoy in 0..2 {
        pair.stops(envoy, "/anything/purged", "old", Duration::ZERO)
            .await;
    }
}
