//! What the document says about each scenario, beside its table.

use crate::herd;
use crate::rounds::Plan;
use crate::scenario::Scenario;

/// How everything is measured; once, above the first scenario.
const SETTING: &str = "\
One worker of each server is pinned to core 0; `wrk` with one thread and 32 connections, the origin and Larder's sidecar
share core 1. All contestants ask the same mock origin. Every Envoy runs `envoy/envoy.yaml` without an access log; only the
cache in it differs. The peers' configurations are in `bench/peers`. CPU is user and system time of the server with all its
processes; ratios are medians of the rounds' ratios. A turn counts only if the origin's journal, the status codes and the
lengths say that the contestant did what the scenario asks for.";

impl Scenario {
    /// The section's title.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Hit => "Hits",
            Self::Level2 => "Level-2 hits",
            Self::Miss => "Misses",
            Self::MissBrowser => "Misses of a browser",
            Self::Uncacheable => "Uncacheable responses",
            Self::Revalidation => "Revalidation",
            Self::Herd => "The herd",
        }
    }

    /// What its plot shows, if it has one.
    pub(crate) fn plot_title(self) -> Option<&'static str> {
        match self {
            Self::Hit => Some("Processor time of the server per hit"),
            Self::Miss => Some("Processor time of the server per miss"),
            _ => None,
        }
    }

    /// How it was measured.
    pub(crate) fn words(self, plan: &Plan) -> String {
        let own = match self {
            Self::Hit => "\
Everything is stored and fresh; the origin is not asked once. The wasm floor is a filter (`bench/floor`) that sends the same
fields and bytes as Larder and does nothing else: the faster of answering at once and of putting a stand-in first, which
spares a copy of large contents. The floor that reads also has every callback, reads the request's fields and the clock, and
drains a queue, as any cache must. Envoy's direct response sends contents of 4 KB at most.",
            Self::Level2 => "\
Larder without level 1 (`l1_bytes` 0): every hit is read from the sidecar's memory. In brackets with the sidecar, which runs
on the other core. The others have no shared store. Not run: nginx with srcache and Redis; Debian packages srcache, but no
Redis module for nginx.",
            Self::Miss => "\
Every request is the first for its URL, the answer is passed on and stored; a contestant that would not find it the next time
has no figure. In brackets with the sidecar, which keeps a copy of everything for the other Envoys and runs on the other
core, as the load and the origin do: they limit the rate, so what is compared is CPU.",
            Self::MissBrowser => "\
The same with the request head of a browser: 17 fields, 1 KB. A cache that compares fields has more to compare.",
            Self::Uncacheable => "\
The origin says `no-store`. With the bypass rule Larder does not look at the responses. nginx' `proxy_cache_lock`, which the
herd below needs, lets requests for one URL wait for one another even where nothing can be stored.",
            Self::Revalidation => "\
The origin says `no-cache` and sends an entity tag; 1000 URLs in turn. Larder keeps such a response and has the origin
confirm it with a 304 each time. The last column says what the others do instead.",
            Self::Herd => return herd_words(),
        };
        let keys = if plan.keys == 1 {
            String::new()
        } else {
            format!(" {} URLs in turn.", plan.keys)
        };
        let fields = if plan.fields == 0 {
            String::new()
        } else {
            format!(" {} more header fields.", plan.fields)
        };
        let rounds = format!(
            "Medians of {} interleaved rounds of {} s.{keys}{fields}",
            plan.rounds, plan.seconds
        );
        let setting = if self == Self::Hit {
            format!("{SETTING}\n\n")
        } else {
            String::new()
        };
        format!("{setting}{own} {rounds}")
    }
}

fn herd_words() -> String {
    format!(
        "{} clients ask at once for a URL that nobody has and whose origin takes {} ms; {} URLs, one after the other. The \
         wait is what a client waits beyond the origin's time; the clients share core 1. nginx looks every half second whether \
         it still has to wait.",
        herd::CLIENTS,
        herd::ORIGIN.as_millis(),
        herd::ROUNDS
    )
}
