//! The operator's choices, validated: where the RFC leaves room, and where an operator may narrow
//! it.
//!
//! What this decides: the bounds of each choice and its safe default. What it leaves out: how a
//! choice is written down; the filter's `config` reads JSON into this.

use std::sync::Arc;

use larder_contract::http_time::DeltaSeconds;

use crate::field_names::FieldNames;
use crate::glob::Glob;

mod identity;
pub mod key;
mod unkeyed;

pub use identity::{IDENTITY_FIELDS, IDENTITY_METADATA};
pub use key::KeyRules;
pub use unkeyed::{Handling, UNKEYED_FIELDS, UnkeyedFields};

/// How one rule's requests are cached. `Policy::default()` is the safe default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Off: requests and responses pass untouched.
    pub cache: bool,
    /// Whether `?cache-control=…` stands in for the origin's lifetimes. Off by default: it lets
    /// clients choose.
    pub query_override: bool,
    /// Whether concurrent requests for one thing become one fetch (RFC 9111 §4).
    pub collapse: bool,
    /// Whether responses are shared with the fleet; else each worker has its own, in level 1 alone.
    pub shared_store: bool,
    /// At which request the shared store is written: 1 at the first, 2 once a second has found the
    /// response in level 1.
    pub share_after: u64,
    /// Lifetime of a response that names none itself; `None` leaves such a response out of the
    /// cache.
    pub default_lifetime: Option<DeltaSeconds>,
    /// Whether a response without a lifetime gets one from its `Last-Modified` (RFC 9111 §4.2.2).
    pub heuristic_freshness: bool,
    /// Lifetimes of responses that name none themselves, by status; the first that fits counts. A
    /// status named here may be stored: that is how absence and errors are cached ("negative
    /// caching").
    pub status_lifetimes: Vec<(StatusRange, DeltaSeconds)>,
    /// The request directives that count, in lower case; `pragma` among them (RFC 9111 §5.2.1,
    /// §5.4). None by default: anybody could make the origin work.
    pub request_directives: Vec<String>,
    /// Whether a response with `Set-Cookie` may be stored. The RFC allows it, users do not expect
    /// it.
    pub store_set_cookie: bool,
    /// Whether a response to a request with `Cookie` may be stored without being explicitly public
    /// (`public` or `s-maxage`).
    pub store_with_cookie: bool,
    /// Whether a request with credentials may be answered from any stored response; else only from
    /// one that is explicitly for everybody (RFC 9111 §3.5 restricts storing alone).
    pub reuse_with_authorization: bool,
    /// Request fields that say who asks: a request that has one is treated as one with
    /// `Authorization` is.
    pub identity_fields: FieldNames,
    /// Namespaces of Envoy's dynamic metadata that say who asks: a filter before the cache may know
    /// the client and tell the origin by other means than a field.
    pub identity_metadata: Vec<String>,
    /// What becomes of request fields that origins look at although no `Vary` names them.
    pub unkeyed_fields: UnkeyedFields,
    /// Whether every final status may be stored with an explicit lifetime (RFC 9111 §3); else only
    /// those in [`Policy::SAFE_STATUSES`], so that an error that one client caused is not served to
    /// all.
    pub store_any_status: bool,
    /// How long a response is kept past its last use, for validation only.
    pub keep: DeltaSeconds,
    /// How long past its lifetime a response may answer when no origin can be reached, where
    /// nothing forbids it: the cache is disconnected then (RFC 9111 §4.2.4).
    pub grace: DeltaSeconds,
    /// No response is served staler than this, whatever its own directives allow.
    pub max_stale: DeltaSeconds,
    /// The largest content that is stored, in bytes. 1 KiB to 16 MiB.
    pub max_object_bytes: u64,
    /// What a `Range` of something that is not stored leads to.
    pub range_on_miss: RangeOnMiss,
    /// More ranges in one request than this get the whole response (RFC 9110 §14.2). 0 to 64.
    pub max_ranges: u64,
    /// Whether `Accept-Language` is compared by its languages and weights instead of its text, and
    /// a response in the language liked best answers every request that likes it best.
    pub normalise_accept_language: bool,
    /// Whether the answer to a POST that says that it is the representation of its own URL may
    /// answer a later GET (RFC 9110 §9.3.3).
    pub store_post: bool,
    /// Response fields that name a response's purge tags, in lower case.
    pub tag_fields: Vec<String>,
    /// Whether clients do not get these fields.
    pub strip_tag_fields: bool,
    /// Whether `PURGE` of a URL from a client drops it; else it passes to the origin.
    pub allow_purge: bool,
    /// How long a key whose response was not storable is not collapsed.
    pub uncacheable_for: DeltaSeconds,
    /// Who is told how an answer came about.
    pub tell: Tell,
    /// What a request's [`crate::cache_status::DEBUG_FIELD`] has to say to be told under
    /// [`Tell::Trusted`].
    pub debug_token: Option<Arc<[u8]>>,
    /// Targeted fields that stand in for `Cache-Control`, most specific first, in lower case (RFC
    /// 9213).
    pub targeted_fields: Vec<String>,
    /// What is left out of the key and what is put into it; `None` where nothing is.
    pub key: Option<Arc<KeyRules>>,
    /// Cookies that count as absent: a request with no other is as one without.
    pub ignore_cookies: Vec<Glob>,
    /// Whether a response with `Set-Cookie` is stored without it. The client whose request brought
    /// it gets it.
    pub strip_set_cookie: bool,
    /// Whether `stale-while-revalidate` and `stale-if-error` count beside `s-maxage`, which else
    /// forbids every stale use (RFC 9111 §5.2.2.10).
    pub stale_with_s_maxage: bool,
    /// The statuses of the origin's that count as an error: a stale copy may stand in for them (RFC
    /// 5861 §4).
    pub error_statuses: Vec<StatusRange>,
    /// For how long after an error that a stale copy stood in for the origin is not asked for the
    /// same again.
    pub error_cooldown: DeltaSeconds,
    /// Response fields that a `304` does not change in what is stored.
    pub keep_on_304: FieldNames,
    /// By how many percent a lifetime may be shorter than what is said, so that what was stored
    /// together does not expire together. 0 to 50; how much it is follows from the URL, so all
    /// Envoys agree.
    pub lifetime_jitter: u64,
    /// Media types, or families such as `image/*`, of which the rule itself gives lifetimes; none
    /// stands for all.
    pub lifetime_types: Vec<Glob>,
    /// Whether the rule is for some paths. Its own lifetimes are not for paths that an origin may
    /// read otherwise then.
    pub is_by_path: bool,
}

/// Who is told how an answer came about: what is stored, and for how long, helps whoever wants to
/// poison a cache or to learn what others asked for (RFC 9211 §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tell {
    /// Everybody.
    #[default]
    All,
    /// Whoever presents the debug token.
    Trusted,
    /// Nobody.
    None,
}

/// Some statuses: one, or a class such as all of `5xx` or `52x`. A class leaves out what speaks of one client's request, not of
/// the resource: nobody else would get that. Such a status is named by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl StatusRange {
    /// One status.
    pub const fn one(status: u16) -> Self {
        Self {
            first: status,
            last: status,
        }
    }

    /// Reads `404`, `52x` or `5xx`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches('x');
        let width = match text.len().checked_sub(digits.len())? {
            0 => 1,
            1 => 10,
            2 => 100,
            _ => return None,
        };
        let is_number = text.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let first = digits.parse::<u16>().ok().filter(|_| is_number)? * width;
        let last = first + width - 1;
        (200..=599).contains(&first).then_some(Self { first, last })
    }

    /// Whether `status` is among them.
    pub fn contains(self, status: u16) -> bool {
        let by_itself = self.first == self.last;
        (self.first..=self.last).contains(&status) && (by_itself || !speaks_of_the_request(status))
    }
}

/// The errors that a request's own form, size, fields or pace bring about (RFC 9110 §15.5, RFC
/// 6585).
pub fn speaks_of_the_request(status: u16) -> bool {
    matches!(status, 400 | 405 | 408 | 411..=417 | 421..=431)
}

/// What a `Range` of something that is not stored leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeOnMiss {
    /// The part goes to the client; the whole is fetched in the background and stored, when the
    /// part says that its size allows it.
    Whole,
    /// The part is stored, and answers requests for what lies within it (RFC 9111 §3.3, §3.4).
    Part,
    /// Nothing is stored.
    Pass,
}

impl Policy {
    /// Every request directive there is (RFC 9111 §5.2.1, RFC 5861 §4), and `pragma`.
    pub const REQUEST_DIRECTIVES: [&str; 8] = [
        "max-age",
        "max-stale",
        "min-fresh",
        "no-cache",
        "no-store",
        "only-if-cached",
        "stale-if-error",
        "pragma",
    ];

    /// The statuses that count as an error by default (RFC 5861 §4).
    pub const ERROR_STATUSES: [u16; 4] = [500, 502, 503, 504];

    /// Whether an answer of the origin with this status counts as an error.
    pub fn is_error(&self, status: u16) -> bool {
        self.error_statuses
            .iter()
            .any(|statuses| statuses.contains(status))
    }

    /// The cookies whose values are part of the key.
    pub fn key_cookies(&self) -> &[Glob] {
        self.key.as_ref().map_or(&[], |rules| &rules.cookies)
    }

    /// Whether the origin gets of a request what is left out of its key.
    pub fn origin_sees_all(&self) -> bool {
        self.key.as_ref().is_some_and(|rules| rules.origin_sees_all)
    }

    /// The lifetime the operator gives to responses of this status that name none.
    pub fn lifetime_of_status(&self, status: u16) -> Option<DeltaSeconds> {
        let named = self
            .status_lifetimes
            .iter()
            .find(|(statuses, _)| statuses.contains(status));
        named
            .map(|(_, lifetime)| *lifetime)
            .or(self.default_lifetime.filter(|_| status == 200))
    }

    /// Statuses stored by default: successes, permanent redirects, and absence (404, 410), each
    /// with an explicit lifetime only.
    pub const SAFE_STATUSES: [u16; 8] = [200, 203, 204, 300, 301, 308, 404, 410];

    /// Follows RFC 9111 to the letter where the default is stricter or laxer.
    pub fn strict() -> Self {
        Self {
            heuristic_freshness: true,
            request_directives: Self::REQUEST_DIRECTIVES.map(str::to_owned).to_vec(),
            store_set_cookie: true,
            store_with_cookie: true,
            reuse_with_authorization: true,
            identity_fields: FieldNames::default(),
            identity_metadata: Vec::new(),
            unkeyed_fields: UnkeyedFields::default(),
            store_any_status: true,
            grace: DeltaSeconds::new(300),
            range_on_miss: RangeOnMiss::Part,
            normalise_accept_language: true,
            store_post: true,
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
            shared_store: true,
            share_after: 1,
            default_lifetime: None,
            heuristic_freshness: false,
            status_lifetimes: Vec::new(),
            request_directives: Vec::new(),
            store_set_cookie: false,
            store_with_cookie: false,
            reuse_with_authorization: false,
            identity_fields: FieldNames::of(&IDENTITY_FIELDS),
            identity_metadata: IDENTITY_METADATA.map(str::to_owned).to_vec(),
            unkeyed_fields: UnkeyedFields::selecting(&UNKEYED_FIELDS),
            store_any_status: false,
            keep: DeltaSeconds::new(300),
            grace: DeltaSeconds::ZERO,
            max_stale: DeltaSeconds::new(86_400),
            max_object_bytes: 1 << 20,
            range_on_miss: RangeOnMiss::Whole,
            max_ranges: 8,
            normalise_accept_language: false,
            store_post: false,
            tag_fields: vec!["cache-tag".to_owned(), "surrogate-key".to_owned()],
            strip_tag_fields: false,
            allow_purge: false,
            uncacheable_for: DeltaSeconds::new(10),
            tell: Tell::All,
            debug_token: None,
            targeted_fields: vec!["cdn-cache-control".to_owned()],
            key: None,
            ignore_cookies: Vec::new(),
            strip_set_cookie: false,
            stale_with_s_maxage: false,
            error_statuses: Self::ERROR_STATUSES.map(StatusRange::one).to_vec(),
            error_cooldown: DeltaSeconds::ZERO,
            keep_on_304: FieldNames::default(),
            lifetime_jitter: 0,
            lifetime_types: Vec::new(),
            is_by_path: false,
        }
    }
}
