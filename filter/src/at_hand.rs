//! What an exchange asks on the spot when it begins: what level 1 holds, and whether Envoy knows
//! the client.

use std::sync::Arc;

use larder_cache_core::exchange::{AtHand, Held};
use larder_cache_core::policy::Policy;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;
use larder_contract::key::PrimaryKey;
use larder_contract::purge::remembered::Times;

use crate::host::Host;
use crate::identity::Identity;
use crate::l1::{Found, Level1};

/// The rooms that answer, lent to one request.
pub(crate) struct RoomsAtHand<'a, H> {
    pub(crate) host: &'a H,
    pub(crate) l1: &'a mut Level1,
    pub(crate) identity: &'a mut Identity,
    pub(crate) policy: &'a Policy,
    /// What was requested until then may have been purged without our hearing of it.
    pub(crate) distrusted: Option<Timestamp>,
    /// What was looked up last.
    pub(crate) found: Found,
}

impl<H: Host> AtHand for RoomsAtHand<'_, H> {
    fn look_up(&mut self, key: &PrimaryKey) -> Held<'_> {
        self.found = self.l1.look_up(key);
        self.looked_up()
    }

    fn looked_up(&mut self) -> Held<'_> {
        Held {
            variants: self.found.variants(),
            distrusted: self.distrusted,
            uncacheable_until: self.found.uncacheable_until(),
        }
    }

    fn untrue(&mut self, key: &PrimaryKey) -> Times {
        self.l1.untrue(|| key.digest())
    }

    fn count_use(&mut self, key: &PrimaryKey, stored: &Arc<StoredResponse>) {
        self.l1.count_use(key, stored);
    }

    fn knows_client(&mut self) -> bool {
        self.identity.is_identified(self.host, self.policy)
    }

    fn may_know_client(&mut self) -> bool {
        self.identity.may_be_identified()
    }
}
