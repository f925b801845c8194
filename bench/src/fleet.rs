//! Two Envoys with two workers each, a sidecar each, one Redis: what sharing costs and brings.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use larder_contract::entry::{CacheType, EntryMeta, Headers, Selecting, digest, encode};
use larder_contract::http_time::Timestamp;
use larder_contract::key::PrimaryKey;
use larder_stack::{RedisServer, Settings, Sidecars, Stack, StoreKind, eventually};
use reqwest::Client;

use crate::figures::{millis, percentile};

const TOKEN: &str = "bench";
const ORIGIN: Duration = Duration::from_millis(100);

/// One line of the report: what, figure, remark.
pub(crate) type Row = (String, String, String);

struct Fleet {
    redis: RedisServer,
    envoys: Vec<Stack>,
    client: Client,
}

/// Measures everything; `entries` is how many lie under one tag.
pub(crate) async fn measure(entries: usize, progress: impl Fn(&str)) -> Result<Vec<Row>, String> {
    let fleet = Fleet::start().await?;
    let mut rows = Vec::new();
    progress("herd: 400 clients of two Envoys on one cold key, 20 rounds");
    rows.extend(fleet.herd(20).await?);
    progress("purge: until no worker of the other Envoy serves it, 50 rounds");
    rows.push(fleet.purge_latency(50).await?);
    progress("level 2: hits that level 1 does not have");
    rows.push(fleet.level_2(2_000).await?);
    progress(&format!("memory: {entries} entries of 1 KB in Redis"));
    rows.extend(fleet.memory_and_tag(entries).await?);
    for envoy in fleet.envoys {
        envoy.stop().await;
    }
    Ok(rows)
}

impl Fleet {
    async fn start() -> Result<Self, String> {
        let redis = RedisServer::start().await?;
        let config =
            r#"{"store": {"timeout_ms": 1000}, "rules": [{"policy": {"query_override": true}}]}"#;
        let settings = Settings {
            store: StoreKind::Redis(redis.url()),
            sidecar_env: vec![("LARDER_PURGE_TOKEN".to_owned(), TOKEN.to_owned())],
            filter_config: config.to_owned(),
            ..Settings::default()
        };
        let envoys = larder_stack::Fleet::start(2, Sidecars::Each, settings)
            .await?
            .envoys;
        let client = Client::builder()
            .pool_max_idle_per_host(2000)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            redis,
            envoys,
            client,
        })
    }

    async fn get(&self, envoy: usize, path: &str) -> Result<(Duration, bool), String> {
        let begun = Instant::now();
        let url = format!("{}{path}", self.envoys[envoy].url());
        let response = self
            .client
            .get(url)
            .header("host", "shop.example")
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let hit = response
            .headers()
            .get("x-cache-status")
            .is_some_and(|status| status == "HIT");
        let status = response.status();
        response.bytes().await.map_err(|error| error.to_string())?;
        if status.is_success() {
            Ok((begun.elapsed(), hit))
        } else {
            Err(format!("{path}: {status}"))
        }
    }

    /// How much longer than the origin a cold key takes with everybody asking at once.
    async fn herd(&self, rounds: usize) -> Result<Vec<Row>, String> {
        let mut waits = Vec::new();
        // Connections first, so that they are not what is measured.
        for round in 0..=rounds {
            let path = format!(
                "/anything/herd-{round}?mock-delay-ms={}&cache-control=max-age=600",
                ORIGIN.as_millis()
            );
            let requests = (0..400).map(|n| self.get(n % 2, &path));
            for answer in futures_util::future::join_all(requests).await {
                let (elapsed, _) = answer?;
                if round > 0 {
                    waits.push(elapsed.saturating_sub(ORIGIN));
                }
            }
        }
        let mut fetches = 0;
        for index in 0..2 {
            let url = format!("{}/_control/journal", self.envoys[0].origin_url(index));
            let journal = self
                .client
                .get(url)
                .send()
                .await
                .map_err(|error| error.to_string())?;
            let journal: Vec<serde_json::Value> =
                journal.json().await.map_err(|error| error.to_string())?;
            fetches += journal
                .iter()
                .filter(|request| request["target"].to_string().contains("/herd-"))
                .count();
        }
        let figure = format!(
            "{} / {} ms",
            millis(percentile(&mut waits, 0.5)),
            millis(percentile(&mut waits, 0.99))
        );
        let remark = "400 clients at once, the load generator on the same two cores; origin 100 ms"
            .to_owned();
        Ok(vec![
            ("herd: added wait, p50 / p99".to_owned(), figure, remark),
            (
                "herd: origin requests per cold key".to_owned(),
                format!("{fetches} for {}", rounds + 1),
                "fleet-wide".to_owned(),
            ),
        ])
    }

    /// From the purge's answer at one sidecar until the other Envoy's workers have forgotten.
    async fn purge_latency(&self, rounds: usize) -> Result<Row, String> {
        let mut times = Vec::new();
        let sidecar = self.envoys[0].sidecar_address().ok_or("no sidecar")?;
        for round in 0..rounds {
            let path = format!("/anything/purged-{round}?cache-control=max-age=600");
            while !self.get(1, &path).await?.1 {}
            let order = serde_json::json!({ "prefix": format!("http://shop.example/anything/purged-{round}") });
            let request = self
                .client
                .post(format!("http://{sidecar}/v1/purge"))
                .bearer_auth(TOKEN)
                .json(&order);
            let begun = Instant::now();
            let answer = request.send().await.map_err(|error| error.to_string())?;
            if !answer.status().is_success() {
                return Err(format!("the purge was answered with {}", answer.status()));
            }
            while self.get(1, &path).await?.1 {
                if begun.elapsed() > Duration::from_secs(5) {
                    return Err("a purged response is still served after 5 s".to_owned());
                }
            }
            times.push(begun.elapsed());
        }
        let figure = format!(
            "{} / {} ms",
            millis(percentile(&mut times, 0.5)),
            millis(percentile(&mut times, 0.99))
        );
        Ok((
            "purge at one sidecar → not served by the other Envoy, p50 / p99".to_owned(),
            figure,
            "the request that finds out included".to_owned(),
        ))
    }

    /// Entries fetched through one Envoy, found by the other in Redis.
    async fn level_2(&self, count: usize) -> Result<Row, String> {
        let path =
            |n: usize| format!("/anything/l2-{n}?mock-body-size=1024&cache-control=max-age=600");
        let fetches = futures_util::stream::iter(0..count)
            .map(|n| async move { self.get(0, &path(n)).await });
        for fetched in fetches.buffer_unordered(16).collect::<Vec<_>>().await {
            fetched?;
        }
        eventually(Duration::from_secs(10), || async {
            (self.keys() >= 2 * count as u64).then_some(())
        })
        .await
        .ok_or("the entries did not reach Redis")?;
        let (mut times, mut hits) = (Vec::new(), 0);
        for n in 0..count {
            let (elapsed, hit) = self.get(1, &path(n)).await?;
            hits += usize::from(hit);
            times.push(elapsed);
        }
        let figure = format!(
            "{} / {} ms",
            millis(percentile(&mut times, 0.5)),
            millis(percentile(&mut times, 0.99))
        );
        Ok((
            "level-2 hit, p50 / p99".to_owned(),
            figure,
            format!("one request after the other; {hits} of {count} hits"),
        ))
    }

    fn keys(&self) -> u64 {
        self.redis.cli(&["DBSIZE"]).trim().parse().unwrap_or(0)
    }

    fn used_memory(&self) -> u64 {
        let info = self.redis.cli(&["INFO", "memory"]);
        info.lines()
            .find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok())
            .unwrap_or(0)
    }

    async fn memory_and_tag(&self, count: usize) -> Result<Vec<Row>, String> {
        let sidecar = self.envoys[0].sidecar_address().ok_or("no sidecar")?;
        let before = self.used_memory();
        let writes = futures_util::stream::iter(0..count).map(|n| {
            let (key, frame) = entry(n);
            let request = self
                .client
                .put(format!("http://{sidecar}/v1/entries/{key}"))
                .body(frame);
            async move {
                request
                    .send()
                    .await
                    .map(|response| response.status().is_success())
                    .unwrap_or(false)
            }
        });
        let begun = Instant::now();
        let stored = writes
            .buffer_unordered(64)
            .filter(|stored| std::future::ready(*stored))
            .count()
            .await;
        let took = begun.elapsed();
        if stored != count {
            return Err(format!("only {stored} of {count} entries were stored"));
        }
        let each = (self.used_memory() - before) / count as u64;
        let order = serde_json::json!({ "tag": "everyone" });
        let begun = Instant::now();
        let request = self
            .client
            .post(format!("http://{sidecar}/v1/purge"))
            .bearer_auth(TOKEN)
            .json(&order);
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let purged = begun.elapsed();
        if !answer.status().is_success() {
            return Err(format!("the purge was answered with {}", answer.status()));
        }
        let rate = count as f64 / took.as_secs_f64();
        Ok(vec![
            (
                "memory in Redis per entry of 1 KB".to_owned(),
                format!("{each} bytes"),
                format!("{count} entries, index and meta included"),
            ),
            (
                "writes through one sidecar".to_owned(),
                format!("{rate:.0}/s"),
                "64 at once; Redis, sidecar and client on two cores".to_owned(),
            ),
            (
                format!("purge of one tag on {count} entries"),
                format!("{} ms", millis(purged)),
                "one call, one mark".to_owned(),
            ),
        ])
    }
}

fn entry(n: usize) -> (String, Vec<u8>) {
    let url = format!("http://shop.example/bench/{n}");
    let key = PrimaryKey::new(
        b"bench",
        b"http",
        b"shop.example",
        format!("/bench/{n}").as_bytes(),
    )
    .digest();
    let body = vec![b'x'; 1024];
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let now = Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(0));
    let meta = EntryMeta {
        url,
        status: 200,
        headers: Headers::from_pairs([
            ("content-type", "text/plain"),
            ("etag", "\"1\""),
            ("cache-control", "max-age=600"),
            ("cache-tag", "everyone"),
        ]),
        cache_type: CacheType::Revalidate,
        max_age: 600,
        use_stale_upto: 0,
        stale_while_revalidate: 0,
        stale_if_error: 0,
        initial_age: 0,
        must_revalidate: false,
        no_cache: false,
        public: false,
        request_time_ms: now,
        response_time_ms: now,
        fresh_until_ms: now.plus_millis(600_000),
        serve_stale_until_ms: now.plus_millis(600_000),
        ttl_ms: 900_000,
        selecting: Selecting::default(),
        tags: vec!["everyone".to_owned()],
        stale_from_ms: None,
        part_first: None,
        part_complete: None,
        route: None,
        body_length: body.len() as u64,
        digest: digest(&body),
    };
    (key.to_string(), encode(&meta, &body))
}
