//! Background refreshes, sent from the VM itself: no client's stream carries them.
//!
//! What this decides: which call carries which step, and which cluster it goes to. The steps are
//! the core's (`refresh`). The request goes to the cluster that leads through the routes, if Envoy
//! has it; else straight to the cluster that the route picked, for what is known to come by a route
//! that changes nothing (`route`).

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::collapse::Identity;
use larder_cache_core::collapse::pace::{self, Pace};
use larder_cache_core::exchange::RefreshOrder;
use larder_cache_core::fields::Fields;
use larder_cache_core::policy::Policy;
use larder_cache_core::refresh::{Event, Refresh, Step};
use larder_cache_core::route::RefreshPath;
use larder_contract::http_time::Timestamp;

use crate::calls::{CallAnswer, Errand, Letter, Outside, Purpose};
use crate::cause::Cause;
use crate::config::Config;
use crate::host::{Host, Refused};

/// A refresh whose origin does not answer for so long is given up, in milliseconds.
const FETCH_TIMEOUT_MS: u64 = 25_000;
/// For the request that only looks whether there is a cluster; nobody waits for its answer.
const PING_TIMEOUT_MS: u64 = 1_000;
/// What Envoy says of a call to a cluster that it does not have.
const UNKNOWN_CLUSTER: Refused = Refused(2);

/// A refresh under way.
#[derive(Debug)]
struct Refreshing {
    refresh: Refresh,
    config: Rc<Config>,
    policy: Arc<Policy>,
    /// The cluster that the route picked, where the request goes straight to it.
    straight: Option<String>,
}

/// A background refresh that has not begun.
#[derive(Debug)]
pub(crate) struct Ordered {
    pub(crate) config: Rc<Config>,
    pub(crate) policy: Arc<Policy>,
    /// The cluster that the route picked, where the refresh goes straight to it.
    pub(crate) straight: Option<String>,
    pub(crate) order: RefreshOrder,
}

/// The refreshes of one worker.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    orders: VecDeque<Ordered>,
    under_way: HashMap<u32, Refreshing>,
    /// The number that was given last.
    last: u32,
    /// How many wholes behind parts may be fetched.
    pace: Pace,
}

impl Refreshes {
    /// A refresh is to begin, soon.
    pub(crate) fn order(&mut self, ordered: Ordered) {
        self.orders.push_back(ordered);
    }

    /// Takes the next that has not begun, and a number for it.
    pub(crate) fn next(&mut self) -> Option<(u32, Ordered)> {
        let ordered = self.orders.pop_front()?;
        self.last = self.last.wrapping_add(1) & !Identity::REFRESH;
        Some((self.last | Identity::REFRESH, ordered))
    }

    /// Whether the bytes that one more may come to hold are within what all may.
    pub(crate) fn have_room(
        &self,
        order: &RefreshOrder,
        max_object_bytes: u64,
        now: Timestamp,
    ) -> bool {
        let stored = order.stored.as_ref().map(|stored| stored.body.len());
        pace::has_room(
            self.held(now).1,
            self.pace.reserve(stored, max_object_bytes, now),
        )
    }

    /// Whether one more whole behind a part may be fetched; then it counts.
    pub(crate) fn begin_whole(&mut self, now: Timestamp) -> bool {
        let (wholes, _) = self.held(now);
        self.pace.begin_whole(wholes, now)
    }

    /// How many wholes behind parts are being fetched, and how many bytes all refreshes may come to
    /// hold.
    fn held(&self, now: Timestamp) -> (usize, u64) {
        self.under_way.values().fold(
            (0, 0),
            |(wholes, held),
             Refreshing {
                 refresh, policy, ..
             }| {
                let stored = refresh.stored().map(|stored| stored.body.len());
                (
                    wholes + usize::from(stored.is_none()),
                    held + self.pace.reserve(stored, policy.max_object_bytes, now),
                )
            },
        )
    }

    /// A refresh begins, with its first step.
    pub(crate) fn begin(&mut self, id: u32, ordered: Ordered, now: Timestamp) -> Step {
        let Ordered {
            config,
            policy,
            straight,
            order,
        } = ordered;
        let (refresh, step) = Refresh::begin(order, policy.clone(), now);
        self.under_way.insert(
            id,
            Refreshing {
                refresh,
                config,
                policy,
                straight,
            },
        );
        step
    }

    /// Gives a refresh an event. The step that follows, if it is under way.
    pub(crate) fn handle(&mut self, id: u32, event: Event<'_>, now: Timestamp) -> Option<Step> {
        Some(self.under_way.get_mut(&id)?.refresh.handle(event, now))
    }

    /// On whose behalf a refresh changes what all share.
    pub(crate) fn cause(&self, id: u32) -> Option<Cause> {
        let Refreshing { config, policy, .. } = self.under_way.get(&id)?;
        Some(Cause {
            id,
            config: config.clone(),
            policy: policy.clone(),
        })
    }

    /// A refresh asks nothing more.
    pub(crate) fn end(&mut self, id: u32) {
        self.under_way.remove(&id);
    }

    /// Sends a refresh's request to the origin. Says whether it is on its way.
    pub(crate) fn fetch<H: Host>(
        &self,
        outside: &mut Outside<H>,
        id: u32,
        mut fields: Fields,
        now: Timestamp,
    ) -> bool {
        let Some(Refreshing {
            straight, config, ..
        }) = self.under_way.get(&id)
        else {
            return true;
        };
        let cluster = if let Some(cluster) = straight {
            // The route's own retries, as far as a request may ask for them.
            fields.append(b"x-envoy-retry-on", b"connect-failure,refused-stream");
            fields.append(b"x-envoy-max-retries", b"2");
            cluster
        } else {
            let scheme = fields.get(":scheme").unwrap_or(b"http").to_vec();
            if !fields.contains("x-forwarded-proto") {
                // The listener behind the cluster sees an unencrypted connection, whatever the
                // client's was.
                fields.append(b"x-forwarded-proto", &scheme);
            }
            config.refresh_cluster()
        };
        let letter = Letter {
            cluster,
            head: &fields,
            body: &[],
            timeout_ms: FETCH_TIMEOUT_MS,
        };
        let errand = Errand {
            purpose: Purpose::RefreshFetch(id),
            holds: None,
            config: config.clone(),
            now,
        };
        let Err(refused) = outside.calls.make(&outside.host, &letter, errand) else {
            return true;
        };
        if refused == UNKNOWN_CLUSTER && config.refresh_path() == RefreshPath::Routed {
            look_for_cluster(&outside.host, config);
        }
        false
    }

    /// Learns from an answer's size how much room refreshes need.
    pub(crate) fn note_size(&mut self, id: u32, answer: &CallAnswer, now: Timestamp) {
        let most = self
            .under_way
            .get(&id)
            .map_or(u64::MAX, |refreshing| refreshing.policy.max_object_bytes);
        // Without a head, Envoy had gathered as much as it may.
        if !answer.has_head
            || answer
                .body
                .as_ref()
                .is_ok_and(|body| body.len() as u64 > most)
        {
            self.pace.note_large(now);
        }
    }
}

/// Finds out whether Envoy has the cluster for refreshes, and says so in the log once it has not.
/// The request asks for no resource (RFC 9110 §9.3.7), so it reaches no route; Envoy refuses the
/// call at once where there is no cluster.
pub(crate) fn look_for_cluster<H: Host>(host: &H, config: &Config) {
    let cluster = config.refresh_cluster();
    let fields = [
        (":method", "OPTIONS"),
        (":scheme", "http"),
        (":authority", cluster),
        (":path", "*"),
    ];
    let found = host.call(cluster, &Fields::from_pairs(fields), &[], PING_TIMEOUT_MS)
        != Err(UNKNOWN_CLUSTER);
    let before = config.refresh_cluster_found.replace(Some(found));
    if !found && before != Some(false) {
        let level = if config.refresh_cluster.is_some() {
            log::Level::Warn
        } else {
            log::Level::Info
        };
        let line = format!(
            "larder: Envoy has no cluster {cluster}, so what its routes change is refreshed in the foreground; see envoy/README.md"
        );
        host.log(level, &line);
    }
}

/// Where a refresh goes that does not take the route.
pub(crate) fn picked_cluster<H: Host>(host: &H) -> Option<String> {
    String::from_utf8(host.property(&["xds", "cluster_name"])?).ok()
}
