//! The operator's choices, validated: where the RFC leaves room, and where an operator may narrow it.
//!
//! What this decides: the bounds of each choice and its safe default. What it leaves out: how a choice is written down;
//! the filter's `config` reads JSON into this.

use crate::http_time::DeltaSeconds;

/// How one rule's requests are cached. `Policy::default()` is the safe default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Off: requests and responses pass untouched.
    pub cache: bool,
    /// Whether `?cache-control=…` stands in for the origin's lifetimes. Off by default: it lets clients choose.
    pub query_override: bool,
    /// Whether concurrent requests for one thing become one fetch (RFC 9111 §4).
    pub collapse: bool,
    /// Lifetime of a response that names none itself; `None` leaves such a response out of the cache.
    pub default_lifetime: Option<DeltaSeconds>,
    /// Whether a response without a lifetime gets one from its `Last-Modified` (RFC 9111 §4.2.2).
    pub heuristic_freshness: bool,
    /// Whether `Cache-Control` and `Pragma` of a request count (RFC 9111 §5.2.1). Off by default: anybody could make
    /// the origin work.
    pub request_directives: bool,
    /// Whether a response with `Set-Cookie` may be stored. The RFC allows it, users do not expect it.
    pub store_set_cookie: bool,
    /// Whether a response to a request with `Cookie` may be stored without being explicitly public
    /// (`public` or `s-maxage`).
    pub store_with_cookie: bool,
    /// Whether a request with `Authorization` may be answered from any stored response; else only from one that is
    /// explicitly for everybody (RFC 9111 §3.5 restricts storing alone).
    pub reuse_with_authorization: bool,
    /// Whether every final status may be stored with an explicit lifetime (RFC 9111 §3); else only those in
    /// [`Policy::SAFE_STATUSES`], so that an error that one client caused is not served to all.
    pub store_any_status: bool,
    /// How long a response is kept past its last use, for validation only.
    pub keep: DeltaSeconds,
    /// No response is served staler than this, whatever its own directives allow.
    pub max_stale: DeltaSeconds,
    /// The largest content that is stored, in bytes. 1 KiB to 16 MiB.
    pub max_object_bytes: u64,
    /// How long a key whose response was not storable is not collapsed.
    pub uncacheable_for: DeltaSeconds,
    /// Targeted fields that stand in for `Cache-Control`, most specific first, in lower case (RFC 9213).
    pub targeted_fields: Vec<String>,
}

impl Policy {
    /// Statuses stored by default: successes, permanent redirects, and absence (404, 410), each with an explicit
    /// lifetime only.
    pub const SAFE_STATUSES: [u16; 8] = [200, 203, 204, 300, 301, 308, 404, 410];

    /// Follows RFC 9111 to the letter where the default is stricter or laxer.
    pub fn strict() -> Self {
        Self {
            heuristic_freshness: true,
            request_directives: true,
            store_set_cookie: true,
            store_with_cookie: true,
            reuse_with_authorization: true,
            store_any_status: true,
            ..Self::default()
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            cache: true,
            query_override: false,
            collapse: true,
            default_lifetime: None,
            heuristic_freshness: false,
            request_directives: false,
            store_set_cookie: false,
            store_with_cookie: false,
            reuse_with_authorization: false,
            store_any_status: false,
            keep: DeltaSeconds::new(300),
            max_stale: DeltaSeconds::new(86_400),
            max_object_bytes: 1 << 20,
            uncacheable_for: DeltaSeconds::new(10),
            targeted_fields: vec!["cdn-cache-control".to_owned()],
        }
    }
}
