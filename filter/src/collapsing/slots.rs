//! Where the leader slots lie in shared data, and which of them are a key's.
//!
//! Shared data never forgets a key, so the names are fixed; one secret of this Envoy says which
//! slots a key may use.

use larder_cache_core::collapse::{self, Arrival, CollapseKey, Finish, Identity, Terms};
use larder_contract::http_time::Timestamp;

use crate::host::{Host, Swap};
use crate::shared_number::SharedNumber;

/// Leader slots in one Envoy.
const SLOTS: u32 = 4096;
/// In shared data: what this Envoy's leader slots are found by.
const SALT: &str = "larder/salt";

/// The leader slots, as one VM uses them.
#[derive(Debug)]
pub(super) struct Slots {
    /// A random number: who this VM is among its peers.
    vm: u64,
    salt: SharedNumber,
}

/// A request at a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtSlot<'a> {
    pub(crate) key: &'a CollapseKey,
    /// The stream, or the refresh.
    pub(crate) stream: u32,
    pub(crate) terms: Terms,
}

/// A slot as it was read: its name, its bytes, their version.
#[derive(Debug)]
pub(super) struct ReadSlot {
    name: String,
    bytes: Option<Vec<u8>>,
    version: Option<u32>,
}

impl ReadSlot {
    /// Writes the slot, unless somebody else was faster.
    pub(super) fn write<H: Host>(&self, host: &H, bytes: &[u8]) -> Swap {
        host.swap_shared(&self.name, bytes, self.version)
    }
}

impl Slots {
    /// For this VM.
    pub(super) fn new(vm: u64) -> Self {
        Self {
            vm,
            salt: SharedNumber::named(SALT),
        }
    }

    /// What the slot says to a request that arrives from `inbox`; and the slot, for the bytes that
    /// are to be written.
    pub(super) fn arrive<H: Host>(
        &mut self,
        host: &H,
        inbox: u32,
        at: AtSlot<'_>,
        now: Timestamp,
    ) -> Option<(ReadSlot, Arrival)> {
        let AtSlot { key, stream, terms } = at;
        let me = Identity {
            vm: self.vm,
            stream,
        };
        let mut places = self.places_of(host, key);
        let index = collapse::choose(places.iter().map(|place| place.bytes.as_deref()), key, now);
        let place = (index < places.len()).then(|| places.swap_remove(index))?;
        let arrival = collapse::arrive(place.bytes.as_deref(), key, me, inbox, now, terms);
        Some((place, arrival))
    }

    /// The slot that `stream` leads, and the inboxes of those who wait there.
    pub(super) fn led_by<H: Host>(
        &mut self,
        host: &H,
        key: &CollapseKey,
        stream: u32,
        now: Timestamp,
    ) -> Option<(ReadSlot, Vec<u32>)> {
        let mut places = self.places_of(host, key).into_iter();
        places.find_map(|place| {
            self.finish(&place, key, stream, Finish::Free, now)
                .map(|(_, inboxes)| (place, inboxes))
        })
    }

    /// The slot's bytes once `stream` has left it so, and the inboxes of those who wait there;
    /// `None` if it does not lead it.
    pub(super) fn finish(
        &self,
        place: &ReadSlot,
        key: &CollapseKey,
        stream: u32,
        end: Finish,
        now: Timestamp,
    ) -> Option<(Vec<u8>, Vec<u32>)> {
        collapse::finish(
            place.bytes.as_deref(),
            key,
            Identity {
                vm: self.vm,
                stream,
            },
            end,
            now,
        )
    }

    /// The inboxes of those who wait for whoever leads `key`.
    pub(super) fn waiting<H: Host>(&mut self, host: &H, key: &CollapseKey) -> Vec<u32> {
        let places = self.places_of(host, key);
        places
            .iter()
            .flat_map(|place| collapse::waiting(place.bytes.as_deref(), key))
            .collect()
    }

    /// All slots that `key` may use, as they are now.
    fn places_of<H: Host>(&mut self, host: &H, key: &CollapseKey) -> Vec<ReadSlot> {
        let salt = self.salt.get(host);
        let read = |index: u32| {
            let name = format!("larder/s/{index}");
            let (bytes, version) = host.shared(&name);
            ReadSlot {
                name,
                bytes,
                version,
            }
        };
        key.places(SLOTS, salt).map(read).into()
    }
}
