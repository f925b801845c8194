//! Invalidations that the store has not accepted yet.
//!
//! What was answered as invalidated must not come back from the store, nor live on in another
//! Envoy. So each is kept until the store says that it has it, however long that takes, and tried
//! again after a pause. They are joined by key; where there are more than can be kept, they become
//! one of everything.

use std::collections::HashMap;
use std::rc::Rc;

use larder_cache_core::collapse::message::Message;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::store_api::Invalidate;
use larder_contract::store_stream::Question;

use crate::calls::{Errand, Outside, Purpose};
use crate::config::Config;
use crate::host::Host;
use crate::metrics;
use crate::store_client::{StoreClient, Told};

/// Keys that are kept; beyond it they become one invalidation of everything. By their digests: 1
/// MiB at most.
const MAX_KEYS: usize = 16_384;
/// How long the store may take to accept, in milliseconds.
const TIMEOUT_MS: u64 = 2_000;
/// Pauses after a failure, in milliseconds: the first, doubled up to the last.
const PAUSES_MS: (u64, u64) = (100, 1_000);
/// How often this Envoy's workers are reminded of what the store has not accepted, in milliseconds:
/// they forget after a while, and might then take it from the store.
const REMIND_MS: u64 = 20_000;
/// What the operator is told when the sidecar refuses an invalidation for what it says.
const NOT_UNDERSTOOD: &str = "larder: the sidecar does not understand an invalidation, so everything is invalidated in its place; \
     use sidecars of the filter's version";

/// What the store has yet to be told.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    keys: HashMap<KeyDigest, Timestamp>,
    everything: Option<Timestamp>,
    /// What a call under way tells.
    under_way: Option<Invalidate>,
    /// The store that is told.
    config: Option<Rc<Config>>,
    not_before: Timestamp,
    pause_ms: u64,
    reminded: Timestamp,
    /// Whether it was said that the sidecar is of another version.
    told_of_version: bool,
}

impl Untold {
    /// Keeps these until the store has them.
    pub(crate) fn add(&mut self, config: &Rc<Config>, keys: &[KeyDigest], now: Timestamp) {
        self.config = Some(config.clone());
        self.keys.extend(keys.iter().map(|key| (*key, now)));
        if self.keys.len() > MAX_KEYS {
            self.keys.clear();
            self.everything = Some(now);
        }
    }

    /// What is to be told now, if anything.
    fn next(&mut self, now: Timestamp) -> Option<Invalidate> {
        if self.under_way.is_some()
            || now < self.not_before
            || (self.keys.is_empty() && self.everything.is_none())
        {
            return None;
        }
        let next = match self.everything {
            Some(time) => Invalidate {
                digests: Vec::new(),
                everything: true,
                now_ms: time,
            },
            None => {
                let digests: Vec<KeyDigest> = self
                    .keys
                    .keys()
                    .take(Invalidate::MAX_KEYS)
                    .copied()
                    .collect();
                // All of a batch is dated by its latest: what was requested before is concerned by
                // either.
                let latest = digests
                    .iter()
                    .filter_map(|key| self.keys.get(key))
                    .max()
                    .copied()
                    .unwrap_or(now);
                Invalidate {
                    digests,
                    everything: false,
                    now_ms: latest,
                }
            }
        };
        self.under_way = Some(next.clone());
        Some(next)
    }

    /// The store has it.
    fn accepted(&mut self) {
        self.pause_ms = 0;
        let Some(told) = self.under_way.take() else {
            return;
        };
        self.everything = self
            .everything
            .filter(|time| !told.everything || *time > told.now_ms);
        for key in &told.digests {
            if self.keys.get(key).is_some_and(|time| *time <= told.now_ms) {
                self.keys.remove(key);
            }
        }
    }

    /// The store does not have it, as far as is known.
    fn refused(&mut self, now: Timestamp) {
        self.under_way = None;
        self.pause_ms = (self.pause_ms * 2).clamp(PAUSES_MS.0, PAUSES_MS.1);
        self.not_before = now.plus_millis(self.pause_ms);
    }

    /// The store will never have it as it was told: all that is kept becomes one invalidation of
    /// everything, which is the plainest of them.
    fn not_understood(&mut self, now: Timestamp) {
        if self.under_way.as_ref().is_some_and(|told| !told.everything) {
            self.keys.clear();
            self.everything = Some(now);
        }
        self.refused(now);
    }

    /// What the workers are to be reminded of, now and then.
    pub(crate) fn reminder(&mut self, now: Timestamp) -> Vec<Message> {
        if (self.keys.is_empty() && self.everything.is_none())
            || now.millis_since(self.reminded) < REMIND_MS
        {
            return Vec::new();
        }
        self.reminded = now;
        let keys = self
            .keys
            .iter()
            .map(|(key, time)| Message::Invalidate(*key, *time));
        keys.chain(self.everything.map(Message::Forget)).collect()
    }
}

impl Untold {
    /// Tells the store the next of them, if its time has come.
    pub(crate) fn tell<H: Host>(&mut self, outside: &mut Outside<H>, store: &mut StoreClient) {
        let now = outside.host.now();
        let Some(config) = self.config.clone() else {
            return;
        };
        while let Some(message) = self.next(now) {
            let errand = Errand {
                purpose: Purpose::Invalidate,
                holds: None,
                config: config.clone(),
                now,
            };
            let question = Question::Invalidate(message);
            if store.send(outside, question, errand, TIMEOUT_MS).is_err() {
                self.refused(now);
            }
        }
    }

    /// The store has answered, or nobody has. Says whether there may be more to tell at once.
    pub(crate) fn on_told<H: Host>(
        &mut self,
        outside: &mut Outside<H>,
        told: Told,
        now: Timestamp,
    ) -> bool {
        if told == Told::Accepted {
            self.accepted();
            return true;
        }
        outside.metrics.event(metrics::STORE_FAULTS);
        if told == Told::NotUnderstood {
            if !std::mem::replace(&mut self.told_of_version, true) {
                outside.host.log(log::Level::Error, NOT_UNDERSTOOD);
            }
            self.not_understood(now);
        } else {
            self.refused(now);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_contract::key::PrimaryKey;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn key(path: &str) -> KeyDigest {
        PrimaryKey::new(b"n", b"http", b"a", path.as_bytes()).digest()
    }

    fn untold(paths: &[&str]) -> Untold {
        let config = Rc::new(Config::parse(b"{}").unwrap());
        let mut untold = Untold::default();
        untold.add(
            &config,
            &paths.iter().map(|path| key(path)).collect::<Vec<_>>(),
            at(10),
        );
        untold
    }

    #[test]
    fn an_invalidation_is_told_until_the_store_has_it() {
        let mut untold = untold(&["/a"]);
        let told = untold.next(at(10)).unwrap();
        assert_eq!(
            (told.digests.as_slice(), told.now_ms),
            ([key("/a")].as_slice(), at(10))
        );
        assert_eq!(untold.next(at(11)), None, "one call at a time");
        untold.refused(at(11));
        assert_eq!(untold.next(at(110)), None, "after a pause");
        assert_eq!(untold.next(at(111)), Some(told));
        untold.accepted();
        assert_eq!(untold.next(at(9_999)), None);
    }

    #[test]
    fn one_that_comes_while_another_is_told_is_told_too() {
        let mut untold = untold(&["/a"]);
        untold.next(at(10)).unwrap();
        let config = untold.config.clone().unwrap();
        untold.add(&config, &[key("/a")], at(20));
        untold.accepted();
        assert_eq!(untold.next(at(20)).unwrap().now_ms, at(20));
    }

    #[test]
    fn more_than_can_be_kept_becomes_one_of_everything() {
        let mut untold = untold(&[]);
        let config = untold.config.clone().unwrap();
        for n in 0..20_000_u64 {
            untold.add(&config, &[key(&n.to_string())], at(n));
            assert!(untold.keys.len() <= MAX_KEYS);
        }
        let told = untold.next(at(20_000)).unwrap();
        assert!(told.everything && told.digests.is_empty());
        untold.accepted();
        assert!(
            !untold.next(at(20_000)).unwrap().everything,
            "then those that came later"
        );
    }

    #[test]
    fn what_the_sidecar_does_not_understand_becomes_one_of_everything() {
        let mut untold = untold(&["/a", "/b"]);
        untold.next(at(10)).unwrap();
        untold.not_understood(at(20));
        let told = untold.next(at(9_999)).unwrap();
        assert!(told.everything && told.digests.is_empty() && told.now_ms == at(20));
        untold.not_understood(at(9_999));
        assert!(
            untold.next(at(99_999)).unwrap().everything,
            "and is told until it is taken"
        );
    }

    #[test]
    fn pauses_grow_and_end_with_success() {
        let mut untold = untold(&["/a"]);
        let mut now = 10;
        for pause in [100, 200, 400, 800, 1_000, 1_000] {
            untold.next(at(now)).unwrap();
            untold.refused(at(now));
            assert_eq!(untold.not_before, at(now + pause));
            now += pause;
        }
        untold.next(at(now)).unwrap();
        untold.accepted();
        assert_eq!(untold.pause_ms, 0);
    }
}
