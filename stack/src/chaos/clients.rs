//! Who uses the fleet: readers, writers and operators.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Client, Response};

use super::fleet::{Fleet, PURGE_TOKEN};
use super::history::{Answer, Got, Purge, Put, Read, Scope, Through};
use super::keys;
use super::origin::{APPROVED, GENERATED};
use super::random::Random;
use super::recorder::Recorder;

/// Who has no answer by then has none.
const HANG: Duration = Duration::from_secs(20);
/// How long an operator waits.
const PURGE_PATIENCE: Duration = Duration::from_secs(5);
/// Readers for each Envoy.
const READERS: usize = 4;
/// Writers; each writes keys of its own.
pub(crate) const WRITERS: usize = 4;

/// Everybody together.
#[derive(Clone)]
pub(crate) struct Clients {
    fleet: Arc<Fleet>,
    recorder: Arc<Recorder>,
    client: Client,
    stop: Arc<AtomicBool>,
}

impl Clients {
    /// A fresh connection for each request, so that both workers are met.
    pub(crate) fn new(fleet: Arc<Fleet>, recorder: Arc<Recorder>) -> Self {
        let client = Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(HANG)
            .build()
            .unwrap_or_default();
        Self {
            fleet,
            recorder,
            client,
            stop: Arc::default(),
        }
    }

    /// Ends everybody soon.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Lets everybody begin.
    pub(crate) fn begin(&self, seed: u64) -> tokio::task::JoinSet<()> {
        let mut all = tokio::task::JoinSet::new();
        for reader in 0..2 * READERS {
            all.spawn(
                self.clone()
                    .reads(reader % 2, Random::new(seed, 100 + reader as u64)),
            );
        }
        for writer in 0..WRITERS {
            all.spawn(
                self.clone()
                    .writes(writer, Random::new(seed, 200 + writer as u64)),
            );
        }
        all.spawn(self.clone().purges(Random::new(seed, 300)));
        all
    }

    async fn reads(self, envoy: usize, mut random: Random) {
        while self.goes_on() {
            self.read(envoy, random.index(keys::COUNT)).await;
            tokio::time::sleep(Duration::from_millis(random.between(0, 20))).await;
        }
    }

    async fn read(&self, envoy: usize, key: usize) {
        let (through, url) = self.fleet.door(envoy, key);
        let begin = self.fleet.clock.now();
        let sent = self.client.get(url).header("host", keys::HOST).send().await;
        let got = match sent {
            Ok(response) => got(response, key).await,
            Err(error) => Got::Nothing(why(&error)),
        };
        let end = self.fleet.clock.now();
        let failed = matches!(got, Got::Nothing(_));
        self.recorder.read(Read {
            through,
            key,
            begin,
            end,
            got,
        });
        if failed {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn writes(self, writer: usize, mut random: Random) {
        let own = keys::COUNT / WRITERS;
        let mut versions = vec![0_u64; own];
        while self.goes_on() {
            // Some are written often, others so seldom that a lost invalidation would show for
            // long.
            let one = if random.chance(60) {
                random.index(3)
            } else {
                random.index(own)
            };
            versions[one] += 1;
            let (key, envoy) = (writer * own + one, random.index(2));
            let (through, url) = self.fleet.door(envoy, key);
            let answered = self.put(through, url, key, versions[one]).await;
            if answered {
                for envoy in [envoy, 1 - envoy, envoy, 1 - envoy] {
                    self.read(envoy, key).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(random.between(50, 700))).await;
        }
    }

    async fn put(&self, through: Through, url: String, key: usize, version: u64) -> bool {
        let begin = self.fleet.clock.now();
        let sent = self
            .client
            .put(url)
            .header("host", keys::HOST)
            .body(version.to_string())
            .send()
            .await;
        let answered = match sent {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(response.status().as_u16().to_string()),
            Err(error) => Err(why(&error)),
        };
        let (end, done) = (self.fleet.clock.now(), answered.is_ok());
        self.recorder.put(Put {
            through,
            key,
            version,
            begin,
            end,
            answered,
        });
        done
    }

    async fn purges(self, mut random: Random) {
        while self.goes_on() {
            tokio::time::sleep(Duration::from_millis(random.between(300, 1_800))).await;
            let scope = match random.between(0, 99) {
                0..40 => Scope::Url(random.index(keys::COUNT)),
                40..70 => Scope::Tag(random.index(keys::TAGS)),
                70..94 => Scope::Prefix(random.index(keys::PREFIXES.len())),
                _ => Scope::Everything,
            };
            self.purge(
                random.index(self.fleet.desks.len()),
                scope,
                random.chance(40),
            )
            .await;
        }
    }

    async fn purge(&self, sidecar: usize, scope: Scope, soft: bool) {
        let order = match scope {
            Scope::Url(key) => format!(r#""url": "http://{}{}""#, keys::HOST, keys::path(key)),
            Scope::Tag(tag) => format!(r#""tag": "t{tag}""#),
            Scope::Prefix(prefix) => format!(
                r#""prefix": "http://{}{}""#,
                keys::HOST,
                keys::PREFIXES[prefix]
            ),
            Scope::Everything => r#""everything": true"#.to_owned(),
        };
        let url = format!("http://{}/v1/purge", self.fleet.desks[sidecar]);
        let request = self
            .client
            .post(url)
            .timeout(PURGE_PATIENCE)
            .bearer_auth(PURGE_TOKEN);
        let begin = self.fleet.clock.now();
        let sent = request
            .body(format!(r#"{{ {order}, "soft": {soft} }}"#))
            .send()
            .await;
        let done = sent.is_ok_and(|response| response.status() == 200);
        self.recorder.purge(Purge {
            sidecar,
            scope,
            soft,
            begin,
            end: self.fleet.clock.now(),
            done,
        });
    }
}

async fn got(response: Response, key: usize) -> Got {
    let field = |name: &str| {
        let value = response.headers().get(name).map(|value| value.as_bytes());
        value
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default()
    };
    let number = |name: &str| field(name).parse().unwrap_or(0);
    let (status, told) = (response.status().as_u16(), field("cache-status"));
    let (generated, approved, hit) = (
        number(GENERATED),
        number(APPROVED),
        field("x-cache-status") == "HIT",
    );
    let body = match response.text().await {
        Ok(body) => body,
        Err(error) => return Got::Nothing(why(&error)),
    };
    if status != 200 {
        return Got::Status(status, told);
    }
    match keys::version_in(&body, key) {
        Ok(version) => Got::Version(Answer {
            version,
            generated,
            approved,
            hit,
            told: told.into(),
        }),
        Err(instead) => Got::Mangled(instead),
    }
}

/// The innermost reason, which says most.
fn why(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(inner) = reason.source() {
        reason = inner;
    }
    reason.to_string()
}
