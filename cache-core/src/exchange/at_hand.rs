//! What an exchange asks on the spot when it begins.

use std::sync::Arc;

use larder_contract::http_time::Timestamp;
use larder_contract::key::PrimaryKey;
use larder_contract::purge::remembered::Times;

use super::event::Local;
use crate::stored_response::StoredResponse;

/// What a host has at hand when a request arrives: it answers at once, and only what it is asked.
pub trait AtHand {
    /// What level 1 holds under a key.
    fn look_up(&mut self, key: &PrimaryKey) -> Held<'_>;
    /// What the last look-up brought, once more.
    fn looked_up(&mut self) -> Held<'_>;
    /// When a key was last made untrue, if that is remembered.
    fn untrue(&mut self, key: &PrimaryKey) -> Times;
    /// `stored`, one of several under its key, has answered.
    fn count_use(&mut self, key: &PrimaryKey, stored: &Arc<StoredResponse>);
    /// Whether the host knows who asks by other means than a field (`Policy::identity_metadata`).
    fn knows_client(&mut self) -> bool;
    /// Whether it is worth asking that before a hit is given: where no client was ever known so, a
    /// hit need not pay for it.
    fn may_know_client(&mut self) -> bool;
}

/// What level 1 holds under a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held<'a> {
    /// All variants.
    pub variants: &'a [Arc<StoredResponse>],
    /// Nothing is known of what the fleet has purged lately: what was requested until then is
    /// validated before it answers.
    pub distrusted: Option<Timestamp>,
    /// Up to when answers under the key are known not to be storable. Never together with variants.
    pub uncacheable_until: Option<Timestamp>,
}

impl<'a> Held<'a> {
    /// The event that tells an exchange of it.
    pub(super) fn with(self, untrue: Times) -> Local<'a> {
        let Self {
            variants,
            distrusted,
            uncacheable_until,
        } = self;
        Local {
            variants,
            distrusted,
            uncacheable_until,
            invalidated: untrue.hard,
            softened: untrue.soft,
        }
    }
}
