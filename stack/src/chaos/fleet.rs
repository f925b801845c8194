//! The fleet that is tormented: two Envoys with two workers each, their sidecars, Redis, and the
//! links between them.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;

use super::clock::Clock;
use super::history::Through;
use super::keys;
use super::origin::Origin;
use super::random::Random;
use super::schedule::Form;
use crate::error::{Result, StackError};
use crate::link::Link;
use crate::process::Process;
use crate::{Origins, RedisServer, Settings, Stack, StoreKind, launch};

/// What operators present.
pub(crate) const PURGE_TOKEN: &str = "the-operator-of-chaos";
/// `store.distrust_after_ms` in peace of mind; 0 believes for ever.
pub(crate) const DISTRUST_MS: u64 = 5_000;

/// How long the fleet may take until each Envoy hears what is purged.
const FOLLOW: Duration = Duration::from_secs(20);
const NO_CLI: &str =
    "redis-cli does not run; install it: apt-get install redis-tools, or run make setup-redis";

/// Everything that runs.
pub(crate) struct Fleet {
    pub(crate) clock: Clock,
    pub(crate) origin: Origin,
    pub(crate) redis: Option<Mutex<RedisServer>>,
    /// From each sidecar to Redis.
    pub(crate) redis_links: Vec<Link>,
    pub(crate) sidecars: Vec<Mutex<Sidecar>>,
    /// From each Envoy to its sidecar.
    pub(crate) store_links: Vec<Link>,
    pub(crate) envoys: Vec<Mutex<Stack>>,
    doors: Vec<RwLock<(Through, String)>>,
    /// `host:port` of each sidecar, past the links.
    pub(crate) desks: Vec<String>,
    config: String,
    _folder: tempfile::TempDir,
}

/// A sidecar that can be started again where it was.
pub(crate) struct Sidecar {
    settings: Settings,
    folder: PathBuf,
    pub(crate) process: Process,
    address: String,
}

impl Sidecar {
    async fn start(store: StoreKind, folder: PathBuf) -> Result<Self> {
        let sidecar_env = vec![("LARDER_PURGE_TOKEN".to_owned(), PURGE_TOKEN.to_owned())];
        let settings = Settings {
            store,
            sidecar_env,
            ..Settings::default()
        };
        std::fs::create_dir_all(&folder)?;
        let (process, address) = launch::sidecar(&settings, &folder, launch::ANYWHERE).await?;
        Ok(Self {
            settings,
            folder,
            process,
            address,
        })
    }

    /// Starts it anew on the same port.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.process.kill();
        (self.process, self.address) =
            launch::sidecar(&self.settings, &self.folder, &self.address).await?;
        Ok(())
    }
}

/// A Redis that can be asked and told.
async fn redis() -> Result<RedisServer> {
    let server = RedisServer::start().await?;
    let answers = server.cli(&["PING"]).trim() == "PONG";
    answers
        .then_some(server)
        .ok_or_else(|| StackError(NO_CLI.to_owned()))
}

fn envoy_settings(origin: &Origin, to_sidecar: &Link, filter_config: &str) -> Settings {
    Settings {
        origins: Origins::Addresses(vec![origin.address().to_owned()]),
        health_path: String::new(),
        filter_config: filter_config.to_owned(),
        sidecar: Some(to_sidecar.address()),
        access_log: false,
        ..Settings::default()
    }
}

impl Fleet {
    /// Starts everything. `distrust_ms` is the filters' `store.distrust_after_ms`.
    pub(crate) async fn start(form: Form, seed: u64, distrust_ms: u64) -> Result<Arc<Self>> {
        let folder = tempfile::tempdir()?;
        let clock = Clock::default();
        let origin = Origin::start(clock.clone(), Random::new(seed, 2)).await?;
        let (mut redis_links, mut sidecars, mut desks) = (Vec::new(), Vec::new(), Vec::new());
        let redis = if form == Form::Redis {
            Some(redis().await?)
        } else {
            None
        };
        for side in 0..if form == Form::Redis { 2 } else { 1 } {
            let store = match &redis {
                Some(redis) => {
                    let link = Link::to(&redis.address()).await?;
                    let url = format!("redis://{}", link.address());
                    redis_links.push(link);
                    StoreKind::Redis(url)
                }
                None => StoreKind::Memory,
            };
            let sidecar =
                Sidecar::start(store, folder.path().join(format!("sidecar-{}", side + 1))).await?;
            desks.push(sidecar.address.clone());
            sidecars.push(Mutex::new(sidecar));
        }
        let config = format!(
            r#"{{ "store": {{ "timeout_ms": 200, "distrust_after_ms": {distrust_ms} }}, "rules": [{{ "policy": {{}} }}] }}"#
        );
        let (mut store_links, mut envoys, mut doors) = (Vec::new(), Vec::new(), Vec::new());
        for envoy in 0..2 {
            let desk = desks.get(envoy).unwrap_or(&desks[0]);
            let link = Link::to(desk).await?;
            let stack = Stack::start(envoy_settings(&origin, &link, &config), |_| {}).await?;
            store_links.push(link);
            doors.push(RwLock::new((
                Through { envoy, life: 0 },
                stack.url().to_owned(),
            )));
            envoys.push(Mutex::new(stack));
        }
        let redis = redis.map(Mutex::new);
        let _folder = folder;
        let fleet = Self {
            clock,
            origin,
            redis,
            redis_links,
            sidecars,
            store_links,
            envoys,
            doors,
            desks,
            config,
            _folder,
        };
        for envoy in &fleet.envoys {
            envoy.lock().await.wait_until_it_follows(FOLLOW).await?;
        }
        Ok(Arc::new(fleet))
    }

    /// Where a key is to be had from an Envoy, and which of its lives that is.
    pub(crate) fn door(&self, envoy: usize, key: usize) -> (Through, String) {
        let door = self.doors[envoy]
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        (door.0, format!("{}{}", door.1, keys::path(key)))
    }

    /// An Envoy has begun another life.
    pub(crate) fn moved(&self, envoy: usize, url: &str) {
        let mut door = self.doors[envoy]
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        door.0.life += 1;
        door.1 = url.to_owned();
    }

    /// A configuration that decides the same and is another for Envoy.
    pub(crate) fn another_config(&self, number: u64) -> String {
        self.config.replacen(
            "\"policy\": {}",
            &format!("\"policy\": {{ \"comment\": \"number {number}\" }}"),
            1,
        )
    }
}
