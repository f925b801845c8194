//! Where the leader slots lie, and which of them are a key's.
//!
//! They lie in shared data, which never forgets a key, so the names are fixed; one secret of this
//! Envoy says which slots a key may use. A VM that has been alone for a while has slots of its own
//! instead, in its memory. Whoever leads in either kind goes on to count when the kind changes, until
//! he ends: here. A newcomer does not see what lies in memory, and may fetch once what is being
//! fetched here; a mark in the other kind is found out once more. A slot only says who fetches, so
//! nobody gets another answer by it.

use larder_cache_core::collapse::{self, Arrival, CollapseKey, Finish, Identity, PLACES, Terms};
use larder_contract::http_time::Timestamp;
use rustc_hash::FxHashMap;

use crate::host::{Host, Swap};
use crate::shared_number::SharedNumber;

/// Leader slots in one Envoy.
const SLOTS: u32 = 4096;
/// When there are so many leaders, those whose time is up are looked for: as many as there are slots.
const MOST_LED: usize = SLOTS as usize;
/// In shared data: what this Envoy's leader slots are found by.
const SALT: &str = "larder/salt";

/// The leader slots, as one VM uses them.
#[derive(Debug)]
pub(super) struct Slots {
    /// A random number: who this VM is among its peers.
    vm: u64,
    salt: SharedNumber,
    /// Those that lie in this VM, by their numbers: no more than there are slots.
    own: FxHashMap<u32, Vec<u8>>,
    /// The keys that somebody leads in shared data, as far as this VM has to do with it, and until
    /// when at most.
    led_in_shared: FxHashMap<CollapseKey, Timestamp>,
}

/// A request at a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtSlot<'a> {
    pub(crate) key: &'a CollapseKey,
    /// The stream, or the refresh.
    pub(crate) stream: u32,
    pub(crate) terms: Terms,
}

/// A slot as it was read: where it lies, and its bytes.
#[derive(Debug)]
pub(super) struct ReadSlot {
    place: Place,
    bytes: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Place {
    /// In this VM, under this number.
    Own(u32),
    /// In shared data, under this name; and the version of its bytes.
    Shared(String, Option<u32>),
}

impl Slots {
    /// For this VM.
    pub(super) fn new(vm: u64) -> Self {
        Self {
            vm,
            salt: SharedNumber::named(SALT),
            own: FxHashMap::default(),
            led_in_shared: FxHashMap::default(),
        }
    }

    /// Writes the slot of `key`, unless somebody else was faster.
    pub(super) fn write<H: Host>(
        &mut self,
        host: &H,
        slot: &ReadSlot,
        key: &CollapseKey,
        bytes: Vec<u8>,
        now: Timestamp,
    ) -> Swap {
        match &slot.place {
            Place::Own(index) => {
                self.own.insert(*index, bytes);
                Swap::Done
            }
            Place::Shared(name, version) => {
                let swap = host.swap_shared(name, &bytes, *version);
                if swap == Swap::Done {
                    self.note_shared(key, &bytes, now);
                }
                swap
            }
        }
    }

    fn note_shared(&mut self, key: &CollapseKey, bytes: &[u8], now: Timestamp) {
        let Some(until) = collapse::led_until(bytes) else {
            self.led_in_shared.remove(key);
            return;
        };
        if self.led_in_shared.len() >= MOST_LED && !self.led_in_shared.contains_key(key) {
            // Whose end was another VM's to write.
            self.led_in_shared.retain(|_, until| now < *until);
        }
        self.led_in_shared.insert(*key, until);
    }

    /// What the slot says to a request that arrives from `inbox` of a VM that is alone or is not;
    /// and the slot, for the bytes that are to be written.
    pub(super) fn arrive<H: Host>(
        &mut self,
        host: &H,
        (inbox, is_alone): (u32, bool),
        at: AtSlot<'_>,
        now: Timestamp,
    ) -> Option<(ReadSlot, Arrival)> {
        let AtSlot { key, stream, terms } = at;
        let me = Identity {
            vm: self.vm,
            stream,
        };
        let is_led_in_shared = || {
            let until = self.led_in_shared.get(key);
            until.is_some_and(|until| now < *until)
        };
        let own: Vec<ReadSlot> = if is_alone || !self.own.is_empty() {
            self.own_of(host, key).collect()
        } else {
            Vec::new()
        };
        // What one of its own slots says of the key still counts when the VM is no longer alone.
        let speaks = |slot: &ReadSlot| collapse::speaks_of(slot.bytes.as_deref(), key, now);
        let is_own = own.iter().any(speaks) || (is_alone && !is_led_in_shared());
        let mut places: Vec<ReadSlot> = if is_own {
            own
        } else {
            self.shared_of(host, key).collect()
        };
        let index = collapse::choose(places.iter().map(|place| place.bytes.as_deref()), key, now);
        let place = (index < places.len()).then(|| places.swap_remove(index))?;
        let arrival = collapse::arrive(place.bytes.as_deref(), key, me, inbox, now, terms);
        Some((place, arrival))
    }

    /// The slot that `stream` leads, and the inboxes of those who wait there.
    pub(super) fn led_by<H: Host>(
        &self,
        host: &H,
        key: &CollapseKey,
        stream: u32,
        now: Timestamp,
    ) -> Option<(ReadSlot, Vec<u32>)> {
        let finish = |place: ReadSlot| {
            let (_, inboxes) = self.finish(&place, key, stream, Finish::Free, now)?;
            Some((place, inboxes))
        };
        self.all_of(host, key).find_map(finish)
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
    pub(super) fn waiting<H: Host>(&self, host: &H, key: &CollapseKey) -> Vec<u32> {
        self.all_of(host, key)
            .flat_map(|place| collapse::waiting(place.bytes.as_deref(), key))
            .collect()
    }

    /// All slots that `key` may use, each read when it is asked for; this VM's own first.
    fn all_of<H: Host>(&self, host: &H, key: &CollapseKey) -> impl Iterator<Item = ReadSlot> {
        self.own_of(host, key).chain(self.shared_of(host, key))
    }

    fn own_of<H: Host>(&self, host: &H, key: &CollapseKey) -> impl Iterator<Item = ReadSlot> {
        self.places_of(host, key).into_iter().map(|index| ReadSlot {
            place: Place::Own(index),
            bytes: self.own.get(&index).cloned(),
        })
    }

    fn shared_of<H: Host>(&self, host: &H, key: &CollapseKey) -> impl Iterator<Item = ReadSlot> {
        self.places_of(host, key).into_iter().map(|index| {
            let name = format!("larder/s/{index}");
            let (bytes, version) = host.shared(&name);
            ReadSlot {
                place: Place::Shared(name, version),
                bytes,
            }
        })
    }

    fn places_of<H: Host>(&self, host: &H, key: &CollapseKey) -> [u32; PLACES] {
        key.places(SLOTS, self.salt.get(host))
    }
}
