//! Redis as the store (6.2 or later, Valkey too): one server, a cluster, or what sentinels name.
//!
//! ```text
//! larder:{<key hex>}:v:<variant>   hash: the entry, readable with HGETALL      TTL: freshness + stale window + keep
//! larder:{<key hex>}:i             hash: variant → selectors, time received    TTL: that of the longest variant
//! larder:{<key hex>}:n             hash: variant → look-ups it has answered    TTL: that of the longest variant
//! larder:{<key hex>}:l             hash: lease → fence and its end             TTL: that of the longest lease
//! larder:{<key hex>}:u             string: responses are not storable          TTL: as told
//! larder:{<key hex>}:x             string: when it was invalidated             TTL: 10 minutes
//! larder:{purges}:marks            hash: tag, prefix, everything → times; @since TTL: a year and a day
//! larder:{purges}:log              stream: the last purges                     TTL: a day
//! ```
//!
//! The braces are a hash tag: everything of one URL lies in one slot. Nothing is scanned, nothing
//! flushed, every key ends by itself, and each operation is one script and one round trip. What is
//! read back is checked; what is damaged was never there.

use std::time::{Duration, Instant};

use larder_contract::entry::{self, BODY_FIELD, Entry};
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::purge::Purge;
use larder_contract::selectors::variant_id;
use larder_contract::store_api::{Fence, LookUp, LookUpAnswer, Release, WriteAnswer};
use redis::{Script, ScriptInvocation, Value};
use serde_json::json;

use super::{Announced, Fault, Found, INVALIDATION_MEMORY_MS, Store};

mod address;
mod dial;
mod follow;
mod link;
mod names;
mod pause;
mod purges;
mod reach;
mod seal;
mod tls;

pub use address::Address;
pub use follow::follow;
pub use link::Link;
pub use purges::watch_envoys;
use seal::SEAL_FIELD;
pub use seal::Seal;
pub use tls::Tls;

/// The store.
pub struct Redis {
    link: Link,
    namespace: String,
    description: String,
    max_variants: usize,
    seal: Seal,
    look_up: Script,
    write: Script,
    release: Script,
    invalidate: Script,
}

/// What lies under a key beside its variants: index, leases, mark, time of the last invalidation,
/// probe of room, uses.
const PARTS: [&str; 6] = ["i", "l", "u", "x", "o", "n"];

/// How Redis is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What [`Address::parse`] reads.
    pub url: String,
    /// First part of every key.
    pub namespace: String,
    /// Variants kept per key.
    pub max_variants: usize,
    /// Longest time for one command.
    pub timeout: Duration,
    /// Seals entries, where there is a secret.
    pub seal: Seal,
    /// For `rediss://…`.
    pub tls: Tls,
}

impl Redis {
    /// For the follower: the same way to Redis.
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    /// The store, whether or not Redis can be reached: the link connects by itself, and again
    /// whenever it has to. The error names a setting.
    pub fn open(settings: Settings) -> Result<Self, Fault> {
        let shown = masked(&settings.url);
        let address = Address::parse(&settings.url).map_err(Fault)?;
        let link =
            Link::open(&address, settings.tls, shown.clone(), settings.timeout).map_err(Fault)?;
        Ok(Self {
            link,
            description: format!("redis {shown}"),
            namespace: settings.namespace,
            max_variants: settings.max_variants,
            seal: settings.seal,
            look_up: Script::new(include_str!("look_up.lua")),
            write: Script::new(include_str!("write.lua")),
            release: Script::new(include_str!("release.lua")),
            invalidate: Script::new(include_str!("invalidate.lua")),
        })
    }

    /// The store, once Redis has answered. The error is one line that names the URL without its
    /// password.
    pub async fn connect(settings: Settings) -> Result<Self, Fault> {
        let store = Self::open(settings)?;
        store.answers().await?;
        Ok(store)
    }

    /// Waits for the first answer, or the first reason why there is none.
    pub async fn answers(&self) -> Result<(), Fault> {
        let deadline = Instant::now() + Duration::from_secs(4);
        loop {
            match self.ping().await {
                Err(fault) if self.link.is_undecided() && Instant::now() < deadline => drop(fault),
                answer => return answer,
            }
        }
    }

    fn base(&self, key: &KeyDigest) -> String {
        format!("{}:{{{key}}}", self.namespace)
    }

    /// The names that scripts make of the base: all are declared, the base itself first. Only which
    /// variants there are is not known before the script has looked.
    fn names(&self, key: &KeyDigest) -> Vec<String> {
        let base = self.base(key);
        let parts = PARTS
            .iter()
            .map(|part| format!("{base}:{part}"))
            .collect::<Vec<_>>();
        std::iter::once(base).chain(parts).collect()
    }

    fn channel(&self) -> String {
        names::wake_channel(&self.namespace)
    }

    async fn run(&self, invocation: &ScriptInvocation<'_>) -> Result<Value, Fault> {
        self.link.run(invocation).await
    }
}

impl Store for Redis {
    async fn look_up(&self, asked: &LookUp) -> Result<Found, Fault> {
        let mut invocation = self.look_up.prepare_invoke();
        invocation
            .key(self.names(&asked.key))
            .arg(serde_json::to_string(&asked.presented).unwrap_or_else(|_| "{}".to_owned()))
            .arg(asked.now_ms.as_millis())
            .arg(asked.lease.map_or(0, |terms| terms.lease_ms))
            .arg(
                asked
                    .lease
                    .map_or_else(String::new, |terms| terms.holder.to_string()),
            );
        let reply = self.run(&invocation).await?;
        self.read_look_up(reply, asked)
            .ok_or_else(|| Fault("Redis answered a look-up with something else".to_owned()))
    }

    async fn write(
        &self,
        key: KeyDigest,
        fence: Option<&Fence>,
        entry: Entry,
    ) -> Result<WriteAnswer, Fault> {
        let meta = entry.meta();
        let selectors = meta.selectors();
        let variant = variant_id(&selectors);
        let received = meta.response_time_ms.as_millis();
        let record = json!({ "selectors": selectors, "received": received });
        let mut invocation = self.write.prepare_invoke();
        invocation
            .key(self.names(&key))
            .key(format!("{}:v:{variant}", self.base(&key)))
            .arg(fence.map_or("", |fence| fence.0.as_str()))
            .arg(meta.request_time_ms.as_millis())
            .arg(&variant)
            .arg(record.to_string())
            .arg(meta.ttl_ms)
            .arg(self.max_variants)
            .arg(self.channel())
            .arg(key.to_string());
        let mut fields: Vec<(String, Vec<u8>)> = entry::to_hash_fields(meta)
            .into_iter()
            .map(|(name, value)| (name, value.into_bytes()))
            .collect();
        fields.push((BODY_FIELD.to_owned(), entry.body().to_vec()));
        if let Some(seal) = self.seal.seal(&key, &fields) {
            fields.push((SEAL_FIELD.to_owned(), seal.into_bytes()));
        }
        for (name, value) in &fields {
            invocation.arg(name.as_str()).arg(value.as_slice());
        }
        match self.run(&invocation).await? {
            Value::Int(1) => Ok(WriteAnswer::Stored),
            _ => Ok(WriteAnswer::Fenced),
        }
    }

    async fn release(&self, release: &Release) -> Result<(), Fault> {
        let mut invocation = self.release.prepare_invoke();
        invocation
            .key(self.names(&release.key))
            .arg(&release.fence.0)
            .arg(release.uncacheable_ms)
            .arg(self.channel())
            .arg(release.key.to_string());
        self.run(&invocation).await.map(drop)
    }

    async fn invalidate(
        &self,
        keys: &[KeyDigest],
        time: Timestamp,
        soft: bool,
    ) -> Result<(), Fault> {
        for key in keys {
            let mut invocation = self.invalidate.prepare_invoke();
            invocation
                .key(self.names(key))
                .arg(time.as_millis())
                .arg(INVALIDATION_MEMORY_MS)
                .arg(self.channel())
                .arg(key.to_string())
                .arg(u8::from(soft));
            self.run(&invocation).await?;
        }
        Ok(())
    }

    async fn announce(&self, purge: &Purge) -> Result<Announced, Fault> {
        purges::announce(&self.link, &self.namespace, purge)
            .await
            .map(Announced::InSharedLog)
    }

    fn connection(&self) -> u64 {
        self.link.number()
    }

    async fn ping(&self) -> Result<(), Fault> {
        // In a cluster this asks a node for a key of ours, not any node whether it lives.
        let key = names::log_key(&self.namespace);
        self.link
            .query::<i64>(redis::cmd("EXISTS").arg(key))
            .await
            .map(drop)
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

impl Redis {
    /// Reads the script's answer; an entry that does not check out counts as absent.
    fn read_look_up(&self, reply: Value, asked: &LookUp) -> Option<Found> {
        let Value::Array(items) = reply else {
            return None;
        };
        let mut items = items.into_iter();
        let (Value::Int(status), fence, Value::Int(left)) =
            (items.next()?, text(items.next()?)?, items.next()?)
        else {
            return None;
        };
        let mut fields = Vec::new();
        while let (Some(name), Some(value)) = (items.next(), items.next()) {
            fields.push((String::from_utf8(text(name)?).ok()?, text(value)?));
        }
        let entry = self.read_entry(&asked.key, fields);
        let stale = entry.as_ref().map(|entry| entry.frame().to_vec());
        let fence_text = String::from_utf8(fence).ok()?;
        Some(match status {
            200 => match stale {
                Some(bytes) => Found::now(LookUpAnswer::Entry(bytes)),
                // It was there but is damaged: as if it were not; the filter fetches without a
                // lease.
                None => Found::now(LookUpAnswer::Nothing { uncacheable: false }),
            },
            201 => Found::now(LookUpAnswer::Lease {
                fence: Fence::parse(fence_text.as_bytes())?,
                stale,
            }),
            202 => Found {
                may_serve_stale: entry
                    .is_some_and(|entry| asked.now_ms < entry.meta().serve_stale_until_ms),
                answer: LookUpAnswer::Held { stale },
                lease_left_ms: u64::try_from(left).unwrap_or(0),
            },
            204 => Found::now(LookUpAnswer::Nothing {
                uncacheable: fence_text == "uncacheable",
            }),
            _ => return None,
        })
    }

    fn read_entry(&self, key: &KeyDigest, mut fields: Vec<(String, Vec<u8>)>) -> Option<Entry> {
        let seal = fields
            .iter()
            .position(|(name, _)| name == SEAL_FIELD)
            .map(|at| fields.swap_remove(at).1);
        if !self.seal.holds(key, &fields, seal.as_deref()) {
            tracing::warn!(%key, "an entry without the right seal was ignored");
            return None;
        }
        let body = fields
            .iter()
            .find(|(name, _)| name == BODY_FIELD)
            .map(|(_, body)| body.as_slice())?;
        let meta = entry::from_hash_fields(
            fields
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice())),
        )
        .ok()?;
        entry::check_body(&meta, body).ok()?;
        Some(Entry::new(meta, body))
    }
}

fn text(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// The URL without its password.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.rsplit_once('@') {
        Some((credentials, host)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_a_script_makes_is_declared_but_the_variants() {
        for script in [
            include_str!("look_up.lua"),
            include_str!("write.lua"),
            include_str!("release.lua"),
            include_str!("invalidate.lua"),
        ] {
            let made = script.replace("KEYS[1] .. ':", "base .. ':");
            let mut parts = made
                .split("base .. ':")
                .skip(1)
                .filter_map(|rest| rest.split(['\'', ':']).next())
                .peekable();
            assert!(parts.peek().is_some());
            for part in parts {
                assert!(PARTS.contains(&part) || part == "v", "{part}");
            }
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(masked("rediss://u:secret@h:1/0"), "rediss://u:***@h:1/0");
        assert_eq!(masked("redis://:secret@h"), "redis://:***@h");
        assert_eq!(masked("redis://h:6379"), "redis://h:6379");
    }
}
