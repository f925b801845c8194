//! Several Envoys, one cache: purges reach all, one fetch serves all, and the loss of one is borne.

use std::time::Duration;

use larder_stack::{RedisCluster, RedisServer, Settings, Sidecars, Stack, StoreKind, eventually};
use reqwest::Client;

use crate::mock_origin::MockOrigin;
use crate::support::{Answer, patient, with_level_1, with_stop_iteration};

const TOKEN: &str = "operator";

/// Envoys with two workers each, on one Redis: each with a sidecar of its own, or all with the
/// first one's.
struct Fleet {
    envoys: Vec<Stack>,
    client: Client,
    _redis: Option<RedisServer>,
}

impl Fleet {
    async fn of(count: usize, sidecars: Sidecars, settings: Settings) -> Self {
        let redis = match sidecars {
            Sidecars::Each => Some(RedisServer::start().await.unwrap()),
            Sidecars::One => None,
        };
        let store = redis
            .as_ref()
            .map_or(StoreKind::Memory, |redis| StoreKind::Redis(redis.url()));
        Self {
            _redis: redis,
            ..Self::on(store, count, sidecars, settings).await
        }
    }

    async fn on(store: StoreKind, count: usize, sidecars: Sidecars, settings: Settings) -> Self {
        let sidecar_env = vec![("LARDER_PURGE_TOKEN".to_owned(), TOKEN.to_owned())];
        let settings = Settings {
            store,
            sidecar_env,
            ..settings
        };
        let settings = with_stop_iteration(with_level_1(settings));
        let envoys = larder_stack::Fleet::start(count, sidecars, settings)
            .await
            .unwrap()
            .envoys;
        let client = Client::builder()
            .pool_max_idle_per_host(1000)
            .build()
            .unwrap();
        Self {
            envoys,
            client,
            _redis: None,
        }
    }

    async fn get(&self, envoy: usize, path: &str) -> Answer {
        let url = format!("{}{path}", self.envoys[envoy].url());
        Answer::from_shop(self.client.get(url)).await
    }

    /// Every worker of every Envoy has it in level 1: it hits many times without the store being
    /// asked.
    async fn warm(&self, path: &str) {
        for envoy in 0..self.envoys.len() {
            // What is requested in the very millisecond of a purge counts as requested before it,
            // and is not kept.
            let warm = || async {
                let answers =
                    futures_util::future::join_all((0..60).map(|_| self.get(envoy, path))).await;
                answers.iter().all(Answer::is_hit).then_some(())
            };
            assert!(
                eventually(Duration::from_secs(10), warm).await.is_some(),
                "{:?}",
                self.get(envoy, path).await
            );
        }
    }

    async fn fetches(&self, path: &str) -> usize {
        let mut count = 0;
        for origin in self.origins() {
            count += origin.journal(path).await.unwrap().len();
        }
        count
    }

    fn origins(&self) -> [MockOrigin<'_>; 2] {
        [0, 1].map(|index| MockOrigin {
            client: &self.client,
            url: self.envoys[0].origin_url(index),
        })
    }

    async fn purge(&self, envoy: usize, json: &str, token: &str) -> Answer {
        let url = format!(
            "http://{}/v1/purge",
            self.envoys[envoy].sidecar_address().unwrap()
        );
        let request = self
            .client
            .post(url)
            .bearer_auth(token)
            .body(json.to_owned());
        Answer::of(request.send().await.unwrap()).await
    }

    /// No worker of any Envoy serves it any more: many requests to each, and none is answered with
    /// the old content.
    async fn nobody_serves(&self, path: &str, old: &str) {
        for envoy in 0..self.envoys.len() {
            let gone = || async {
                let answers =
                    futures_util::future::join_all((0..20).map(|_| self.get(envoy, path))).await;
                answers
                    .iter()
                    .all(|answer| !answer.body.contains(old))
                    .then_some(())
            };
            eventually(Duration::from_secs(5), gone)
                .await
                .unwrap_or_else(|| panic!("Envoy {envoy} still serves {old}"));
        }
    }

    /// What both origins answer under a path from now on.
    async fn becomes(&self, path: &str, json: &str) {
        for origin in self.origins() {
            origin.becomes(path, json).await;
        }
    }
}

fn page(word: &str) -> String {
    format!(
        r#"{{"headers": [["cache-control", "max-age=600"], ["cache-tag", "news, front"], ["x-word", "{word}"]], "vary": "x-word-{word}"}}"#
    )
}

async fn purges_reach_every_level_1(sidecars: Sidecars) {
    let fleet = Fleet::of(2, sidecars, patient()).await;
    let path = "/anything/page";
    for (round, order) in [
        r#"{"url": "http://shop.example/anything/page"}"#,
        r#"{"tag": "front"}"#,
        r#"{"prefix": "http://shop.example/anything/"}"#,
        r#"{"everything": true}"#,
    ]
    .iter()
    .enumerate()
    {
        let (old, new) = (format!("old{round}"), format!("new{round}"));
        fleet.becomes(path, &page(&old)).await;
        let everything = fleet.purge(0, r#"{"everything": true}"#, TOKEN).await;
        assert_eq!(everything.status, 200, "{everything:?}");
        fleet.warm(path).await;
        fleet.becomes(path, &page(&new)).await;
        assert!(fleet.get(1, path).await.body.contains(&old), "it is cached");
        let told = fleet.purge(0, order, TOKEN).await;
        assert!(
            told.status == 200 && told.body.contains("is not served any more"),
            "{told:?}"
        );
        fleet.nobody_serves(path, &old).await;
    }
}

#[tokio::test]
async fn a_purge_reaches_every_worker_of_every_envoy_through_one_sidecar() {
    purges_reach_every_level_1(Sidecars::One).await;
}

#[tokio::test]
async fn a_purge_reaches_every_worker_of_every_envoy_through_two_sidecars() {
    purges_reach_every_level_1(Sidecars::Each).await;
}

#[tokio::test]
async fn a_change_at_one_envoy_is_seen_at_the_other() {
    let fleet = Fleet::of(2, Sidecars::Each, patient()).await;
    let path = "/data?id=1&cache-control=max-age=600";
    fleet.warm(path).await;
    let before = fleet.get(1, path).await;
    let put = fleet
        .client
        .put(format!("{}/data?id=1", fleet.envoys[0].url()))
        .header("host", "shop.example");
    assert!(put.send().await.unwrap().status().is_success());
    let seen = eventually(Duration::from_secs(5), || async {
        (!fleet.get(1, path).await.is_hit()).then_some(())
    });
    assert!(seen.await.is_some(), "still served: {before:?}");
}

#[tokio::test]
async fn a_soft_purge_makes_stale_and_the_origin_is_asked_whether_it_still_holds() {
    let fleet = Fleet::of(2, Sidecars::Each, patient()).await;
    let path = "/data?id=1&cache-control=max-age=600";
    fleet.warm(path).await;
    let told = fleet
        .purge(
            1,
            r#"{"prefix": "http://shop.example/data", "soft": true}"#,
            TOKEN,
        )
        .await;
    assert!(told.body.contains("is stale from now on"), "{told:?}");
    let asked = || async {
        let answer = fleet.get(0, path).await;
        answer.says("fwd=stale; fwd-status=304").then_some(())
    };
    assert!(eventually(Duration::from_secs(5), asked).await.is_some());
    let fresh = || async { fleet.get(0, path).await.is_hit().then_some(()) };
    assert!(
        eventually(Duration::from_secs(5), fresh).await.is_some(),
        "confirmed, and fresh again"
    );
}

#[tokio::test]
async fn only_the_operator_purges() {
    let fleet = Fleet::of(1, Sidecars::One, patient()).await;
    let refused = fleet.purge(0, r#"{"everything": true}"#, "guess").await;
    assert!(
        refused.status == 401 && refused.body.contains("Bearer"),
        "{refused:?}"
    );
    let malformed = fleet.purge(0, r#"{"tag": "a b"}"#, TOKEN).await;
    assert!(
        malformed.status == 400 && malformed.body.contains("no tag"),
        "{malformed:?}"
    );
    let larder = crate::support::larder_program();
    let sidecar = format!("http://{}", fleet.envoys[0].sidecar_address().unwrap());
    let run = |args: &[&str]| {
        std::process::Command::new(&larder)
            .args(args)
            .args(["--sidecar", &sidecar])
            .output()
            .unwrap()
    };
    let done = run(&["purge", "--tag", "news", "--soft", "--token", TOKEN]);
    assert!(
        done.status.success()
            && String::from_utf8_lossy(&done.stdout).contains("every response with the tag news")
    );
    let refused = run(&["purge", "--everything", "--token", "guess"]);
    assert!(
        !refused.status.success()
            && String::from_utf8_lossy(&refused.stderr).contains("present the token")
    );
    let off = Fleet::of(1, Sidecars::One, patient()).await;
    drop(off);
}

#[tokio::test]
async fn a_thousand_clients_of_five_envoys_make_one_fetch() {
    let fleet = Fleet::of(5, Sidecars::Each, patient()).await;
    let path = "/data?id=7&cache-control=max-age=600";
    fleet.becomes("/data", r#"{"delay_ms": 300}"#).await;
    let requests = (0..1000).map(|n| fleet.get(n % 5, path));
    let answers = futures_util::future::join_all(requests).await;
    let body = &answers[0].body;
    assert!(body.contains("item 7"), "{:?}", answers[0]);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == *body)
    );
    assert_eq!(fleet.fetches("/data").await, 1);
}

#[tokio::test]
async fn a_leader_killed_with_its_envoy_is_replaced_when_its_lease_lapses() {
    let settings = patient();
    let config = settings
        .filter_config
        .replacen('{', r#"{ "limits": { "lease_ms": 1500 },"#, 1);
    let mut fleet = Fleet::of(
        2,
        Sidecars::Each,
        Settings {
            filter_config: config,
            ..settings
        },
    )
    .await;
    let path = "/data?id=8&cache-control=max-age=600";
    fleet
        .becomes("/data", r#"{"delay_ms": 20000, "times": 1}"#)
        .await;
    let url = format!("{}{path}", fleet.envoys[0].url());
    let leading = tokio::spawn(fleet.client.get(url).header("host", "shop.example").send());
    let fetched = || async { (fleet.fetches("/data").await == 1).then_some(()) };
    eventually(Duration::from_secs(5), fetched)
        .await
        .expect("the leader asks the origin");
    fleet.becomes("/data", "{}").await;
    fleet.envoys[0].kill_envoy();
    assert!(leading.await.unwrap().is_err());
    let answer = fleet.get(1, path).await;
    assert!(
        answer.status == 200 && answer.body.contains("item 8"),
        "{answer:?}"
    );
    assert_eq!(fleet.fetches("/data").await, 2);
}

#[tokio::test]
async fn a_restarted_sidecar_is_followed_again_and_nothing_purged_meanwhile_is_served() {
    let mut fleet = Fleet::of(2, Sidecars::Each, patient()).await;
    let path = "/anything/page";
    fleet.becomes(path, &page("old")).await;
    fleet.warm(path).await;
    fleet.becomes(path, &page("new")).await;
    fleet.envoys[1].kill_sidecar();
    assert_eq!(
        fleet.purge(0, r#"{"tag": "news"}"#, TOKEN).await.status,
        200
    );
    fleet.envoys[1].restart_sidecar().await.unwrap();
    fleet.nobody_serves(path, "old").await;
}

#[tokio::test]
async fn the_loss_of_a_cluster_master_costs_no_client_an_error() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let fleet = Fleet::on(
        StoreKind::Redis(cluster.url()),
        2,
        Sidecars::Each,
        patient(),
    )
    .await;
    let path = |n: usize| format!("/data?id={n}&cache-control=max-age=600");
    for n in 0..30 {
        assert_eq!(fleet.get(n % 2, &path(n)).await.status, 200);
    }
    assert!(cluster.keys().len() >= 30, "the entries lie in the cluster");
    let some_key = cluster.keys().swap_remove(0);
    cluster.kill_master_of(&some_key);
    let begun = std::time::Instant::now();
    let mut n = 30;
    // Under load until the replica has taken over, and a little longer.
    while begun.elapsed() < Duration::from_secs(6) {
        let paths: Vec<String> = (0..20).map(|i| path((n + i) % 200)).collect();
        let answers = paths
            .iter()
            .enumerate()
            .map(|(i, path)| fleet.get(i % 2, path));
        let answers = futures_util::future::join_all(answers);
        for answer in answers.await.into_iter().zip(0..) {
            assert_eq!(answer.0.status, 200, "{answer:?}");
            assert!(
                answer
                    .0
                    .body
                    .contains(&format!("item {}.", (n + answer.1) % 200)),
                "{answer:?}"
            );
        }
        n += 20;
    }
    cluster.is_whole().await.unwrap();
    let mut round = 0;
    let shared = eventually(Duration::from_secs(20), || {
        round += 1;
        let (fleet, path) = (
            &fleet,
            format!("/data?id=after-{round}&cache-control=max-age=600"),
        );
        async move {
            fleet.get(0, &path).await;
            fleet.get(1, &path).await.is_hit().then_some(())
        }
    });
    assert!(
        shared.await.is_some(),
        "what one Envoy fetches the other finds again"
    );
}

#[tokio::test]
async fn a_sidecar_killed_and_restarted_under_load_costs_no_client_an_error() {
    let mut fleet = Fleet::of(2, Sidecars::Each, patient()).await;
    let path = |n: usize| format!("/data?id={n}&cache-control=max-age=1");
    let mut n = 0;
    for phase in 0..3 {
        match phase {
            1 => fleet.envoys[1].kill_sidecar(),
            2 => fleet.envoys[1].restart_sidecar().await.unwrap(),
            _ => {}
        }
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            let paths: Vec<String> = (0..20).map(|i| path((n + i) % 60)).collect();
            let answers = paths
                .iter()
                .enumerate()
                .map(|(i, path)| fleet.get(i % 2, path));
            for (i, answer) in futures_util::future::join_all(answers)
                .await
                .into_iter()
                .enumerate()
            {
                assert_eq!(answer.status, 200, "phase {phase}: {answer:?}");
                assert!(
                    answer.body.contains(&format!("item {}.", (n + i) % 60)),
                    "{answer:?}"
                );
            }
            n += 20;
        }
    }
}

#[tokio::test]
async fn one_background_refresh_serves_two_envoys() {
    let fleet = Fleet::of(2, Sidecars::Each, patient()).await;
    let path = "/data?id=5&cache-control=stale-while-revalidate=600,max-age=3";
    fleet.warm(path).await;
    let before = fleet.fetches("/data").await;
    let stale = || async {
        fleet
            .get(0, path)
            .await
            .says("detail=stale-while-revalidate")
            .then_some(())
    };
    eventually(Duration::from_secs(10), stale)
        .await
        .expect("it becomes stale");
    let herd = (0..200).map(|n| fleet.get(n % 2, path));
    for answer in futures_util::future::join_all(herd).await {
        assert!(answer.is_hit(), "answered at once: {answer:?}");
    }
    let refreshed = || async { (fleet.fetches("/data").await > before).then_some(()) };
    eventually(Duration::from_secs(5), refreshed)
        .await
        .expect("a refresh");
    assert_eq!(fleet.fetches("/data").await, before + 1);
}

#[tokio::test]
async fn a_purge_through_envoy_is_carried_out_only_by_a_rule() {
    let rules = r#"{"rules": [{"match": {"header": "x-operator"}, "policy": {"allow_purge": true}}, {"policy": {"query_override": true}}]}"#;
    let fleet = Fleet::of(
        2,
        Sidecars::Each,
        Settings {
            filter_config: rules.to_owned(),
            ..patient()
        },
    )
    .await;
    let path = "/data?id=6&cache-control=max-age=600";
    fleet.warm(path).await;
    let purge = |operator: bool| {
        let url = format!("{}/data?id=6", fleet.envoys[0].url());
        let request = fleet
            .client
            .request("PURGE".parse().unwrap(), url)
            .header("host", "shop.example");
        if operator {
            request.header("x-operator", "1")
        } else {
            request
        }
    };
    let refused = Answer::of(purge(false).send().await.unwrap()).await;
    assert_eq!(refused.status, 405, "the origin's answer: {refused:?}");
    assert!(fleet.get(1, path).await.is_hit());
    let done = Answer::of(purge(true).send().await.unwrap()).await;
    assert!(
        done.status == 200 && done.body.contains("shop.example/data?id=6"),
        "{done:?}"
    );
    let gone = || async { (!fleet.get(1, path).await.is_hit()).then_some(()) };
    assert!(eventually(Duration::from_secs(5), gone).await.is_some());
}
