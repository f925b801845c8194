//! On whose behalf what all requests share is changed.

use std::rc::Rc;
use std::sync::Arc;

use larder_cache_core::collapse::Identity;
use larder_cache_core::policy::Policy;

use crate::config::Config;

/// Who brings a change about.
#[derive(Debug)]
pub(crate) struct Cause {
    /// The stream or refresh; leader slots know it by this.
    pub(crate) id: u32,
    pub(crate) config: Rc<Config>,
    pub(crate) policy: Arc<Policy>,
}

impl Cause {
    /// The stream, if it is one and no refresh.
    pub(crate) fn stream(&self) -> Option<u32> {
        (self.id & Identity::REFRESH == 0).then_some(self.id)
    }
}
