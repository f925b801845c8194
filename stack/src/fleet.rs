//! Several Envoys in front of the same origins, on one store.

use std::time::Duration;

use crate::error::Result;
use crate::settings::{Origins, Settings};
use crate::stack::Stack;

const FOLLOW: Duration = Duration::from_secs(20);

/// Whose sidecar each Envoy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecars {
    /// All ask the first one's.
    One,
    /// Each has its own.
    Each,
}

/// Envoys that share what they store, and hear of each other's invalidations.
#[derive(Debug)]
pub struct Fleet {
    /// The origins are the first one's.
    pub envoys: Vec<Stack>,
}

impl Fleet {
    /// Starts `count` Envoys, and waits until each hears what is purged.
    pub async fn start(count: usize, sidecars: Sidecars, settings: Settings) -> Result<Self> {
        let mut envoys: Vec<Stack> = Vec::new();
        for _ in 0..count {
            let mut own = settings.clone();
            if let Some(first) = envoys.first() {
                own.origins = Origins::Addresses(first.origin_addresses());
                if sidecars == Sidecars::One {
                    own.sidecar = first.sidecar_address().map(str::to_owned);
                }
            }
            envoys.push(Stack::start(own, |_| {}).await?);
        }
        for envoy in &envoys {
            envoy.wait_until_it_follows(FOLLOW).await?;
        }
        Ok(Self { envoys })
    }
}
