//! What the access log says of an answer of the cache's own (`%RESPONSE_CODE_DETAILS%`).

/// Which kind of answer this was. `docs/cache-status.md` lists the words; a test compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Details {
    /// What was stored answered.
    Hit,
    /// What another request fetched answered.
    Collapsed,
    /// The origin confirmed what was stored.
    Validated,
    /// What was stored answered in place of the origin's error (RFC 5861 §4).
    StaleIfError,
    /// The fetch that the request waited for failed.
    LeaderFailed,
    /// The request wanted only what is stored (RFC 9111 §5.2.1.7).
    OnlyIfCached,
    /// The origin confirmed what it was not asked about (RFC 9111 §4.3.4).
    UnexpectedNotModified,
    /// The origin's part could not be used.
    UnusablePart,
    /// The override cannot be read.
    MalformedOverride,
    /// A `PURGE` was carried out.
    Purged,
}

impl Details {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Hit,
        Self::Collapsed,
        Self::Validated,
        Self::StaleIfError,
        Self::LeaderFailed,
        Self::OnlyIfCached,
        Self::UnexpectedNotModified,
        Self::UnusablePart,
        Self::MalformedOverride,
        Self::Purged,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "larder_hit",
            Self::Collapsed => "larder_collapsed",
            Self::Validated => "larder_validated",
            Self::StaleIfError => "larder_stale_if_error",
            Self::LeaderFailed => "larder_leader_failed",
            Self::OnlyIfCached => "larder_only_if_cached",
            Self::UnexpectedNotModified => "larder_unexpected_304",
            Self::UnusablePart => "larder_bad_206",
            Self::MalformedOverride => "larder_malformed_override",
            Self::Purged => "larder_purged",
        }
    }
}
