//! What is measured: which URLs, which contestants, and what a contestant has to do for its figure
//! to count.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::contestant::Kind;
use crate::load::Urls;

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// All is stored and fresh.
    Hit,
    /// All is stored and fresh, in the sidecar alone.
    Level2,
    /// Every request is the first for its URL, and the answer is stored.
    Miss,
    /// The same with a browser's request head.
    MissBrowser,
    /// No answer may be stored.
    Uncacheable,
    /// All is stored and has to be validated every time; the origin answers 304.
    Revalidation,
    /// Many clients at once ask for what nobody has.
    Herd,
}

/// What a browser sends for a page, beside `Host`; no cookie, so that the answer may be stored.
const BROWSER: [(&str, &str); 16] = [
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7"),
    ("connection", "keep-alive"),
    ("dnt", "1"),
    ("priority", "u=0, i"),
    (
        "referer",
        "https://www.shop.example/catalogue/shoes/running?sort=price&page=2",
    ),
    (
        "sec-ch-ua",
        "\"Chromium\";v=\"143\", \"Not A(Brand\";v=\"24\", \"Google Chrome\";v=\"143\"",
    ),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Linux\""),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-user", "?1"),
    ("upgrade-insecure-requests", "1"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
    ),
];

/// URLs in turn where one alone would be asked for by several at once.
const MANY: usize = 1000;
/// Envoy's limit for contents of direct responses.
const DIRECT_BYTES: usize = 4096;

impl Scenario {
    pub(crate) const ALL: [Self; 7] = [
        Self::Hit,
        Self::Level2,
        Self::Miss,
        Self::MissBrowser,
        Self::Uncacheable,
        Self::Revalidation,
        Self::Herd,
    ];

    /// Its section in the document, and what its plot's file is called after.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::Hit => "hits",
            Self::Level2 => "level-2",
            Self::Miss => "misses",
            Self::MissBrowser => "misses-browser",
            Self::Uncacheable => "uncacheable",
            Self::Revalidation => "revalidation",
            Self::Herd => "herd",
        }
    }

    /// Who takes part with contents of `size` bytes.
    pub(crate) fn contestants(self, size: usize) -> Vec<Kind> {
        use Kind::{
            Cache, CacheV2, Direct, Floor, FloorReads, Larder, LarderAlone, LarderBypass,
            LarderCalls, LarderLevel2, Nginx, Proxy, Varnish,
        };
        match self {
            Self::Hit if size > DIRECT_BYTES => vec![
                Larder, CacheV2, Cache, Floor, FloorReads, Nginx, Varnish, Proxy,
            ],
            Self::Hit => vec![
                Larder, CacheV2, Cache, Floor, FloorReads, Direct, Nginx, Varnish, Proxy,
            ],
            Self::Level2 => vec![LarderLevel2, Proxy],
            Self::Miss => vec![
                Larder,
                LarderCalls,
                LarderAlone,
                CacheV2,
                Cache,
                Nginx,
                Varnish,
                Proxy,
            ],
            Self::MissBrowser => vec![Larder, LarderCalls, LarderAlone, CacheV2, Proxy],
            Self::Uncacheable => vec![Larder, LarderBypass, CacheV2, Cache, Nginx, Varnish, Proxy],
            Self::Revalidation => vec![Larder, CacheV2, Cache, Nginx, Varnish, Proxy],
            Self::Herd => vec![Larder, CacheV2, Cache, Nginx, Varnish],
        }
    }

    /// The path that the load asks for.
    pub(crate) fn path(self) -> &'static str {
        match self {
            // The origin's resource that has an entity tag and heeds conditions.
            Self::Revalidation => "/data",
            _ => "/anything/bench",
        }
    }

    /// Which URLs; `keys` is what was asked for.
    pub(crate) fn urls(self, keys: usize) -> Urls {
        match self {
            Self::Miss | Self::MissBrowser => Urls::Fresh,
            Self::Level2 | Self::Revalidation => Urls::InTurn(keys.max(MANY)),
            _ => Urls::InTurn(keys),
        }
    }

    /// Request fields beside those that the load sends anyhow.
    pub(crate) fn request_head(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::MissBrowser => &BROWSER,
            _ => &[],
        }
    }

    /// Whether every request is the first for its URL.
    pub(crate) fn is_miss(self) -> bool {
        matches!(self, Self::Miss | Self::MissBrowser)
    }

    /// How the origin answers: contents of `size` bytes, and so many more fields.
    pub(crate) fn behaviour(self, size: usize, fields: usize) -> Value {
        let cache_control = match self {
            Self::Uncacheable => "no-store",
            Self::Revalidation => "no-cache",
            _ => "max-age=3600",
        };
        let mut headers = vec![("cache-control".to_owned(), cache_control.to_owned())];
        headers.extend((0..fields).map(|n| (format!("x-bench-{n}"), "v".repeat(24))));
        json!({ "body_size": size, "headers": headers })
    }
}

/// What happened in a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happened {
    /// Requests that the load counted.
    pub(crate) asked: f64,
    /// Requests that reached the origin.
    pub(crate) fetched: f64,
    /// The share of these that were conditional, where it was looked at.
    pub(crate) conditional: f64,
    /// Entries that the sidecar answered with.
    pub(crate) from_level_2: f64,
}

/// A share from which it counts as all: some requests are under way when a turn begins and ends.
const ALMOST_ALL: f64 = 0.98;

impl Scenario {
    /// A remark on what `kind` did, if it is not the plain thing. The error says why this is no
    /// figure for the scenario.
    pub(crate) fn judge(self, kind: Kind, happened: &Happened) -> Result<Option<String>, String> {
        let share = happened.fetched / happened.asked;
        let passed = share >= ALMOST_ALL;
        match (self, kind) {
            (Self::Herd, _) => Ok(None),
            (_, Kind::Proxy) if passed => Ok(None),
            (_, Kind::Proxy) => Err(format!(
                "only {} of the requests reached the origin",
                percent(share)
            )),
            (Self::Hit | Self::Level2, _) if happened.fetched > 0.0 => {
                Err(format!("{} requests reached the origin", happened.fetched))
            }
            (Self::Hit, _) => Ok(None),
            (Self::Level2, _) => Ok(Some(format!(
                "{} read from the sidecar",
                percent(happened.from_level_2 / happened.asked)
            ))),
            (Self::Miss | Self::MissBrowser, _) if !passed => Err(format!(
                "only {} of the requests reached the origin",
                percent(share)
            )),
            (Self::Miss | Self::MissBrowser, _) => Ok(None),
            (Self::Uncacheable, _) if passed => Ok(None),
            (Self::Uncacheable, _) if kind.is_larder() => Err(format!(
                "only {} of the requests reached the origin",
                percent(share)
            )),
            (Self::Uncacheable, _) => Ok(Some(format!(
                "fetches for {} of the requests",
                percent(share)
            ))),
            (Self::Revalidation, _) => validated(kind, passed, share, happened.conditional),
        }
    }
}

fn validated(
    kind: Kind,
    passed: bool,
    share: f64,
    conditional: f64,
) -> Result<Option<String>, String> {
    let remark = match conditional {
        _ if !passed => format!("asks the origin for {} of the requests", percent(share)),
        all if all >= ALMOST_ALL => return Ok(Some("validates".to_owned())),
        none if none <= 1.0 - ALMOST_ALL => "fetches anew".to_owned(),
        some => format!("validates {} of the requests", percent(some)),
    };
    // Ours may have lost what does not fit into level 1; not all of it.
    let fails = kind.is_larder() && (!passed || conditional <= 0.5);
    if fails { Err(remark) } else { Ok(Some(remark)) }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(fetched: f64, conditional: f64) -> Happened {
        Happened {
            asked: 1000.0,
            fetched,
            conditional,
            from_level_2: 0.0,
        }
    }

    #[test]
    fn a_hit_that_reaches_the_origin_is_no_hit() {
        assert_eq!(
            Scenario::Hit.judge(Kind::Nginx, &happened(0.0, 0.0)),
            Ok(None)
        );
        assert!(
            Scenario::Hit
                .judge(Kind::Nginx, &happened(1.0, 0.0))
                .is_err()
        );
        assert_eq!(
            Scenario::Hit.judge(Kind::Proxy, &happened(1020.0, 0.0)),
            Ok(None)
        );
    }

    #[test]
    fn a_miss_that_does_not_reach_the_origin_is_no_miss() {
        assert_eq!(
            Scenario::Miss.judge(Kind::Larder, &happened(1020.0, 0.0)),
            Ok(None)
        );
        assert!(
            Scenario::Miss
                .judge(Kind::Larder, &happened(900.0, 0.0))
                .is_err()
        );
    }

    #[test]
    fn what_a_peer_does_instead_of_validating_is_said() {
        let remark =
            |kind, fetched, share| Scenario::Revalidation.judge(kind, &happened(fetched, share));
        assert_eq!(
            remark(Kind::Larder, 1000.0, 1.0),
            Ok(Some("validates".to_owned()))
        );
        assert_eq!(
            remark(Kind::Varnish, 1000.0, 0.0),
            Ok(Some("fetches anew".to_owned()))
        );
        assert_eq!(
            remark(Kind::Nginx, 1000.0, 0.5),
            Ok(Some("validates 50 % of the requests".to_owned()))
        );
        assert_eq!(
            remark(Kind::Larder, 1000.0, 0.7),
            Ok(Some("validates 70 % of the requests".to_owned()))
        );
        assert!(remark(Kind::Larder, 1000.0, 0.0).is_err());
        assert!(remark(Kind::Larder, 500.0, 1.0).is_err());
    }
}
