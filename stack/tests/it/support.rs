//! What every scenario needs: a stack on one of the stores, a client, and what the origins saw.

use std::time::Duration;

use larder_stack::{RedisServer, Settings, Stack, StoreKind, eventually};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;

use crate::mock_origin::MockOrigin;

/// A running system with the store it lives on.
pub(crate) struct World {
    pub(crate) stack: Stack,
    pub(crate) redis: Option<RedisServer>,
    pub(crate) client: Client,
}

/// The demo's configuration with a store budget that a busy test machine keeps.
pub(crate) fn patient() -> Settings {
    let demo = Settings::default();
    Settings {
        filter_config: patient_with(&demo.filter_config),
        ..demo
    }
}

/// The RFC to the letter, as the conformance suite runs it, with the same patience.
pub(crate) fn strict() -> Settings {
    let config = include_str!("../../../envoy/filters/rfc9111.json");
    Settings {
        filter_config: patient_with(config),
        ..patient()
    }
}

/// The same configuration with a store budget that a busy test machine keeps.
pub(crate) fn patient_with(config: &str) -> String {
    config.replacen('{', "{ \"store\": { \"timeout_ms\": 3000 },", 1)
}

/// The program for people, which is behind `make run` too.
pub(crate) fn larder_program() -> std::path::PathBuf {
    let root = larder_stack::stack::project_root();
    larder_stack::stack::built(&root, "target/release/larder", "make build").unwrap()
}

/// `LARDER_L1_BYTES` bounds level 1 in every scenario: 0 is off. What clients see has to be the
/// same.
pub(crate) fn with_level_1(settings: Settings) -> Settings {
    with_transport(with_bounded_level_1(settings))
}

/// `LARDER_TRANSPORT=calls` has every scenario ask the sidecar by calls.
pub(crate) fn calls_only() -> bool {
    std::env::var("LARDER_TRANSPORT").is_ok_and(|value| value == "calls")
}

fn with_transport(settings: Settings) -> Settings {
    let mut config: Value = serde_json::from_str(&settings.filter_config).unwrap();
    if !calls_only() || !config["store"]["transport"].is_null() {
        return settings;
    }
    config["store"]["transport"] = Value::from("calls");
    Settings {
        filter_config: config.to_string(),
        ..settings
    }
}

fn with_bounded_level_1(settings: Settings) -> Settings {
    let Ok(bytes) = std::env::var("LARDER_L1_BYTES") else {
        return settings;
    };
    let mut config: Value = serde_json::from_str(&settings.filter_config).unwrap();
    if !config["limits"]["l1_bytes"].is_null() {
        return settings; // what the scenario is about
    }
    config["limits"]["l1_bytes"] = Value::from(bytes.parse::<u64>().unwrap());
    Settings {
        filter_config: config.to_string(),
        ..settings
    }
}

/// `LARDER_STOP_ITERATION=0` leaves `allow_on_headers_stop_iteration` out of every scenario, as
/// Istio and Envoy Gateway do.
pub(crate) fn with_stop_iteration(settings: Settings) -> Settings {
    let off = std::env::var("LARDER_STOP_ITERATION").is_ok_and(|value| value == "0");
    Settings {
        stop_iteration: settings.stop_iteration && !off,
        ..settings
    }
}

/// Which store a scenario runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Memory,
    Redis,
}

impl World {
    pub(crate) async fn on(on: On) -> Self {
        Self::with(on, patient()).await
    }

    pub(crate) async fn with(on: On, settings: Settings) -> Self {
        let redis = match on {
            On::Memory => None,
            On::Redis => Some(RedisServer::start().await.unwrap()),
        };
        let store = redis
            .as_ref()
            .map_or(StoreKind::Memory, |redis| StoreKind::Redis(redis.url()));
        let settings = Settings {
            store,
            health_interval: "1s".to_owned(),
            ..settings
        };
        let stack = Stack::start(with_stop_iteration(with_level_1(settings)), |_| {})
            .await
            .unwrap();
        Self {
            stack,
            redis,
            client: Client::builder()
                .pool_max_idle_per_host(1000)
                .build()
                .unwrap(),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.stack.url())
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    /// Waits for a request that is stored, and until the store has what it brought: no client waits
    /// for that, and without level 1 the next request looks there.
    pub(crate) async fn stored<T>(&self, request: impl Future<Output = T>) -> T {
        let before = self.writes().await;
        let answer = request.await;
        let written = eventually(Duration::from_secs(10), || async {
            (self.writes().await > before).then_some(())
        });
        if written.await.is_none() {
            panic!(
                "nothing was written; {}",
                self.stack.admin_get("/stats?usedonly&filter=larder").await
            );
        }
        answer
    }

    /// How many writes the sidecar has carried out.
    async fn writes(&self) -> u64 {
        let url = format!("http://{}/metrics", self.stack.sidecar_address().unwrap());
        let text = self
            .client
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let counts = text
            .lines()
            .filter(|line| line.starts_with("larder_sidecar_writes_total"));
        counts
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum()
    }

    /// A request with some fields.
    pub(crate) async fn send(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = fields.iter().fold(
            self.client.request(method, self.url(path)),
            |request, (name, value)| request.header(*name, *value),
        );
        Answer::of(request.send().await.unwrap()).await
    }

    fn origins(&self) -> [MockOrigin<'_>; 2] {
        [0, 1].map(|index| MockOrigin {
            client: &self.client,
            url: self.stack.origin_url(index),
        })
    }

    /// What both origins saw under a path, together.
    pub(crate) async fn journal(&self, path: &str) -> Vec<Value> {
        let mut requests = Vec::new();
        for origin in self.origins() {
            requests.extend(origin.journal(path).await.unwrap_or_default());
        }
        requests
    }

    pub(crate) async fn fetches(&self, path: &str) -> usize {
        self.journal(path).await.len()
    }

    /// Polls until the origins have seen so many requests under a path.
    pub(crate) async fn sees(&self, path: &str, count: usize) {
        let seen = eventually(Duration::from_secs(5), || async {
            (self.fetches(path).await == count).then_some(())
        });
        assert!(
            seen.await.is_some(),
            "{path}: {} requests instead of {count}",
            self.fetches(path).await
        );
    }

    /// Polls until the origins have seen a request with this method under a path.
    pub(crate) async fn sees_method(&self, path: &str, method: &str) {
        let seen = eventually(Duration::from_secs(5), || async {
            self.journal(path)
                .await
                .iter()
                .any(|request| request["method"] == method)
                .then_some(())
        });
        assert!(
            seen.await.is_some(),
            "no {method} {path}: {:?}",
            self.journal(path).await
        );
    }

    /// Has both origins behave so under a path.
    pub(crate) async fn behave(&self, path: &str, json: &str) {
        for origin in self.origins() {
            origin.behave(path, json).await;
        }
    }

    /// Has both origins behave so under a path, in place of all that was asked of them before.
    pub(crate) async fn becomes(&self, path: &str, json: &str) {
        for origin in self.origins() {
            origin.becomes(path, json).await;
        }
    }

    pub(crate) async fn behave_plainly(&self) {
        for origin in self.origins() {
            origin.behave_plainly().await;
        }
    }

    /// Polls a path until its answer is as wanted, and gives that answer.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let answer = eventually(Duration::from_secs(30), || async {
            let answer = self.get(path).await;
            wanted(&answer).then_some(answer)
        });
        match answer.await {
            Some(answer) => answer,
            None => panic!(
                "{path} never answered as wanted; last {:?}",
                self.get(path).await
            ),
        }
    }

    /// So many requests at once.
    pub(crate) async fn herd(&self, path: &str, count: usize) -> Vec<Answer> {
        let requests = (0..count).map(|_| self.get(path));
        futures_util::future::join_all(requests).await
    }
}

/// The sum of an Envoy's metrics whose names fit this regular expression.
pub(crate) async fn metric(stack: &Stack, name: &str) -> u64 {
    let text = stack.admin_get(&format!("/stats?filter={name}")).await;
    let values = text.lines().filter_map(|line| line.rsplit_once(": "));
    values
        .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
        .sum()
}

/// One answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// To a request that counts as sent to one host, whichever Envoy gets it: as behind one name.
    pub(crate) async fn from_shop(request: RequestBuilder) -> Self {
        let response = request.header("host", "shop.example").send().await;
        Self::of(response.unwrap()).await
    }

    pub(crate) async fn of(response: Response) -> Self {
        let text = |value: &reqwest::header::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect();
        Self {
            status: response.status().as_u16(),
            headers,
            body: response.text().await.unwrap_or_default(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.header("x-cache-status") == "HIT"
    }

    pub(crate) fn says(&self, words: &str) -> bool {
        self.header("cache-status").contains(words)
    }
}
