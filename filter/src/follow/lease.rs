//! What all VMs of one Envoy know of following, in shared data.

use larder_contract::http_time::Timestamp;

use crate::host::{Host, Swap};

const FOLLOWER: &str = "larder/follower";

/// Who follows, until when its lease lasts, up to when everything was heard, and from where to go
/// on. As bytes: owner 8, until 8, heard 8, cursor; numbers are big-endian.
#[derive(Debug)]
pub(super) struct FollowerLease {
    pub(super) owner: u64,
    pub(super) until: Timestamp,
    pub(super) heard: Timestamp,
    pub(super) cursor: Option<String>,
}

impl FollowerLease {
    /// As it lies there, and the version of that.
    pub(super) fn lying<H: Host>(host: &H) -> (Option<Self>, Option<u32>) {
        let (bytes, version) = host.shared(FOLLOWER);
        (bytes.and_then(|bytes| Self::read(&bytes)), version)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (owner, rest) = bytes.split_first_chunk::<8>()?;
        let (until, rest) = rest.split_first_chunk::<8>()?;
        let (heard, cursor) = rest.split_first_chunk::<8>()?;
        let cursor = std::str::from_utf8(cursor).ok()?;
        let time = |bytes: &[u8; 8]| Timestamp::from_millis(u64::from_be_bytes(*bytes));
        let cursor = (!cursor.is_empty()).then(|| cursor.to_owned());
        Some(Self {
            owner: u64::from_be_bytes(*owner),
            until: time(until),
            heard: time(heard),
            cursor,
        })
    }

    /// Puts this in the place of what was read with `version`. Says whether nobody was faster.
    pub(super) fn put<H: Host>(&self, host: &H, version: Option<u32>) -> bool {
        host.swap_shared(FOLLOWER, &self.write(), version) == Swap::Done
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = self.owner.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.until.as_millis().to_be_bytes());
        bytes.extend_from_slice(&self.heard.as_millis().to_be_bytes());
        bytes.extend_from_slice(self.cursor.as_deref().unwrap_or_default().as_bytes());
        bytes
    }
}
