//! Who is measured.

use clap::ValueEnum;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// With `envoy/filters/default.json`.
    Larder,
    /// The same without sidecar and store, as the others are.
    LarderAlone,
    /// The same without the store stream: a call for each question.
    LarderCalls,
    /// The same without level 1.
    LarderLevel2,
    /// With a rule that caches nothing.
    LarderBypass,
    /// The newer native cache filter of Envoy.
    CacheV2,
    /// The older one.
    Cache,
    /// A module that answers at once and does nothing else.
    Floor,
    /// A module that also does what any cache must.
    FloorReads,
    /// Envoy's route table answers; no filter.
    Direct,
    /// nginx with `proxy_cache`.
    Nginx,
    /// Varnish with its builtin rules.
    Varnish,
    /// Envoy without a cache: every request goes to the origin.
    Proxy,
}

impl Kind {
    /// What it is called in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Larder => "**Larder**",
            Self::LarderAlone => "Larder, no shared store",
            Self::LarderCalls => "Larder, store by calls",
            Self::LarderLevel2 => "**Larder, level 2**",
            Self::LarderBypass => "Larder, bypass rule",
            Self::CacheV2 => "Envoy `cache_v2`",
            Self::Cache => "Envoy `cache`",
            Self::Floor => "wasm floor",
            Self::FloorReads => "wasm floor that reads",
            Self::Direct => "Envoy, direct response",
            Self::Nginx => "nginx `proxy_cache`",
            Self::Varnish => "Varnish",
            Self::Proxy => "Envoy, no cache",
        }
    }

    /// The name without marks.
    pub(crate) fn plain_name(self) -> String {
        self.name().replace(['*', '`'], "")
    }

    /// Whether it is ours: without its figure there is no document.
    pub(crate) fn is_larder(self) -> bool {
        matches!(
            self,
            Self::Larder
                | Self::LarderAlone
                | Self::LarderCalls
                | Self::LarderLevel2
                | Self::LarderBypass
        )
    }

    /// Whether it sends what Larder has sent instead of caching.
    pub(crate) fn imitates(self) -> bool {
        matches!(self, Self::Floor | Self::FloorReads | Self::Direct)
    }

    /// Whether it keeps all that it has ever fetched: it is started anew before memory gets scarce.
    pub(crate) fn grows(self) -> bool {
        matches!(self, Self::Cache | Self::CacheV2)
    }
}
