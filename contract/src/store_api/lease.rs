//! Leases: how one is asked for, and how it is proved.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::as_text::serialise_as_text;

/// Carries the fencing token: in a `201` the token granted, in a `PUT` the token held.
pub const FENCE_FIELD: &str = "x-larder-fence";

/// Proof of a lease, refused on a write once the lease has lapsed or passed to another. 1 to 32 hex
/// digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub String);

impl Fence {
    /// Reads a fence as it stands in [`FENCE_FIELD`].
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let well_formed =
            (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        well_formed.then(|| Self(text.to_owned()))
    }
}

/// Who asks for a lease: a random number, 16 hex digits in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub u64);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Holder {
    fn parse(text: &str) -> Option<Self> {
        let number = u64::from_str_radix(text, 16).ok()?;
        (text.len() == 16).then_some(Self(number))
    }

    /// As a fence that names the holder only: good for giving back a lease whose grant was never
    /// seen.
    pub fn as_fence(self) -> Fence {
        Fence(self.to_string())
    }
}

serialise_as_text!(Holder, "a holder is 16 hex digits");

/// How a lease is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseTerms {
    /// 16 hex digits that the asker drew. The lease's fence ends in them, so that an asker who
    /// never saw the answer can still give the lease back.
    pub holder: Holder,
    /// After this many milliseconds without a write the lease lapses. 1 to [`Self::MAX_LEASE_MS`].
    pub lease_ms: u64,
    /// How long the answer may be held back while another holds the lease, in milliseconds. 0 to
    /// [`Self::MAX_WAIT_MS`]. The answer comes at once when the holder publishes, gives up, or lets
    /// its lease lapse; in the latter two cases this look-up takes part in the race for the lease
    /// again.
    pub wait_ms: u64,
}

impl LeaseTerms {
    /// The longest lease.
    pub const MAX_LEASE_MS: u64 = 600_000;
    /// The longest wait for a lease's holder.
    pub const MAX_WAIT_MS: u64 = 30_000;

    /// What is out of range, in words.
    pub fn mistake(self) -> Option<String> {
        let (lease, wait) = (Self::MAX_LEASE_MS, Self::MAX_WAIT_MS);
        let wrong = !(1..=lease).contains(&self.lease_ms) || self.wait_ms > wait;
        wrong.then(|| format!("lease_ms is 1 to {lease}, wait_ms at most {wait}"))
    }
}
