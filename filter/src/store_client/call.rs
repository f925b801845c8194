//! What the store is told.

use std::sync::Arc;

use larder_cache_core::policy::Policy;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::key::KeyDigest;
use larder_contract::store_api::{Fence, Release};

use super::leases::Lease;

/// Something to tell the store.
#[derive(Debug)]
pub(crate) enum StoreCall {
    /// Store a response.
    Write {
        /// Under which key.
        key: KeyDigest,
        /// What.
        stored: Arc<StoredResponse>,
        /// The lease it was fetched under.
        fence: Option<Fence>,
        /// For how long to keep it.
        policy: Arc<Policy>,
    },
    /// Give a lease back.
    Release(Release),
}

impl StoreCall {
    /// The lease it ends.
    pub(super) fn lease(&self) -> Option<Lease> {
        match self {
            Self::Release(Release { key, fence, .. })
            | Self::Write {
                key,
                fence: Some(fence),
                ..
            } => Some((*key, fence.clone())),
            Self::Write { fence: None, .. } => None,
        }
    }
}
