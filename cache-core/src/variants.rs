//! The stored responses of one key, its variants (RFC 9111 §4.1), and all that happens to them.
//!
//! What this decides: which variant answers a request ([`select`]), which one a new response
//! replaces and which leaves when there are too many ([`Variants::put`]), and what invalidations
//! and purges leave ([`Variants::purge`], [`Variants::judge`]). What it leaves out: how keys are
//! found and kept (level 1 of the filter), and what is remembered of invalidations and purges
//! (`larder_contract::purge`); an invalidation (RFC 9111 §4.4) is a hard purge of its key.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use larder_contract::crowding;
use larder_contract::http_time::Timestamp;
use larder_contract::purge::remembered::Times;
use larder_contract::purge::requested::{as_it_came, is_newer};
use larder_contract::purge::{Marks, Purge, Verdict};

use crate::message::Request;
use crate::reuse;
use crate::stored_response::StoredResponse;

/// Of the variants that match `request` the one received last (RFC 9111 §4.1).
pub fn select<'a>(
    variants: &'a [Arc<StoredResponse>],
    request: &Request,
) -> Option<&'a Arc<StoredResponse>> {
    variants
        .iter()
        .filter(|stored| stored.selecting.matches(request))
        .max_by_key(|stored| stored.response_time)
}

/// The variants of one key, possibly none. Cheap to clone: clones share the responses and the
/// counts of their uses.
#[derive(Clone, Debug, Default)]
pub struct Variants {
    stored: Rc<[Arc<StoredResponse>]>,
    /// In the same order.
    standings: Rc<[Standing]>,
}

#[derive(Debug)]
struct Standing {
    /// How many requests it has answered here.
    uses: Cell<u32>,
    /// When it counts as requested: not later than it came.
    requested: Timestamp,
}

/// One variant with its standing.
#[derive(Clone, Debug)]
struct Variant {
    stored: Arc<StoredResponse>,
    uses: u32,
    requested: Timestamp,
}

/// How many variants of one key are kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// At most so many.
    pub number: usize,
    /// At most so many bytes, but for one that takes more alone.
    pub bytes: u64,
}

/// What is remembered to have been made untrue, as far as it may reach responses of one key that
/// are yet to come.
#[derive(Clone, Copy, Debug)]
pub struct Untrue<'a> {
    /// Invalidations and purges of the key.
    pub key: Times,
    /// Purges by tag and prefix, and of everything.
    pub purges: &'a Marks,
}

/// What became of a response that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is kept, possibly stale.
    Kept,
    /// A newer one holds its place.
    Older,
    /// It was made untrue since it was requested.
    Untrue,
}

impl Untrue<'_> {
    /// What is left of a response that counts as requested then.
    pub fn leaves(
        &self,
        stored: Arc<StoredResponse>,
        requested: Timestamp,
    ) -> Option<Arc<StoredResponse>> {
        let verdict = of_purges(self.purges, &stored, requested).and(self.key.verdict(requested));
        stored.left_by(verdict)
    }

    /// When a response was made untrue, or stale: by its key or by a purge, whichever was earlier.
    /// Whoever came after that must not get it.
    pub fn since(&self, stored: &StoredResponse) -> Option<Timestamp> {
        let purged = match of_purges(self.purges, stored, stored.request_time) {
            Verdict::Kept => None,
            Verdict::Gone(time) | Verdict::StaleSince(time) => Some(time),
        };
        self.key
            .last_reaching(stored.request_time)
            .into_iter()
            .chain(purged)
            .min()
    }
}

fn of_purges(purges: &Marks, stored: &StoredResponse, requested: Timestamp) -> Verdict {
    purges.verdict(&stored.url, &stored.tags, requested)
}

impl Variants {
    /// All of them. To clone it is to count one more reference.
    pub fn stored(&self) -> &Rc<[Arc<StoredResponse>]> {
        &self.stored
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// Bytes they take, roughly.
    pub fn weight(&self) -> usize {
        self.stored.iter().map(|stored| stored.weight()).sum()
    }

    /// Remembers that `used` has answered a request.
    pub fn count_use(&self, used: &Arc<StoredResponse>) {
        let at = self
            .stored
            .iter()
            .position(|stored| Arc::ptr_eq(stored, used));
        if let Some(standing) = at.and_then(|at| self.standings.get(at)) {
            standing.count();
        }
    }

    /// The same of the only variant, if there is just one: what it is looked up for is its use.
    pub fn count_look_up(&self) {
        if let [only] = &*self.standings {
            only.count();
        }
    }

    /// Keeps a response that comes now, in place of the same variant (equal selecting fields),
    /// unless that is newer, and as far as it is still true. `untrue` is all that is remembered,
    /// and counts for what is kept already as well.
    pub fn put(
        &mut self,
        stored: Arc<StoredResponse>,
        untrue: &Untrue<'_>,
        bounds: Bounds,
        now: Timestamp,
    ) -> Put {
        let requested = as_it_came(stored.request_time, now);
        let Some(stored) = untrue.leaves(stored, requested) else {
            return Put::Untrue;
        };
        self.judge(untrue.purges);
        let mut all: Vec<Variant> = self.all().collect();
        let same = all
            .iter()
            .position(|held| held.stored.selecting == stored.selecting);
        let replaced = same.map(|at| all.remove(at));
        if replaced
            .as_ref()
            .is_some_and(|held| is_newer(held.stored.response_time, stored.response_time, now))
        {
            return Put::Older;
        }
        let uses = replaced.map_or(0, |held| held.uses);
        make_room(&mut all, &stored, bounds, now);
        all.push(Variant {
            stored,
            uses,
            requested,
        });
        *self = Self::of(all);
        Put::Kept
    }

    /// Carries out a purge that concerns the key. Says whether anything changed.
    pub fn purge(&mut self, purge: &Purge) -> bool {
        self.leave(|_, requested| purge.verdict(requested))
    }

    /// Carries out all purges by tag and prefix, and of everything. Says whether anything changed.
    pub fn judge(&mut self, purges: &Marks) -> bool {
        self.leave(|stored, requested| of_purges(purges, stored, requested))
    }

    fn leave(&mut self, verdict: impl Fn(&StoredResponse, Timestamp) -> Verdict) -> bool {
        let new = |stored: &StoredResponse, requested| {
            verdict(stored, requested).beyond(stored.stale_from)
        };
        let mut both = self.stored.iter().zip(&*self.standings);
        if both.all(|(stored, standing)| new(stored, standing.requested) == Verdict::Kept) {
            return false;
        }
        let left = self.all().filter_map(|held| {
            let verdict = new(&held.stored, held.requested);
            Some(Variant {
                stored: held.stored.left_by(verdict)?,
                ..held
            })
        });
        *self = Self::of(left.collect());
        true
    }

    fn of(all: Vec<Variant>) -> Self {
        let standing = |held: &Variant| Standing {
            uses: Cell::new(held.uses),
            requested: held.requested,
        };
        let standings = all.iter().map(standing).collect();
        Self {
            standings,
            stored: all.into_iter().map(|held| held.stored).collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = Variant> {
        self.stored
            .iter()
            .zip(&*self.standings)
            .map(|(stored, standing)| Variant {
                stored: stored.clone(),
                uses: standing.uses.get(),
                requested: standing.requested,
            })
    }
}

impl Standing {
    fn count(&self) {
        self.uses.set(self.uses.get().saturating_add(1));
    }
}

impl Variant {
    /// What speaks for keeping it.
    fn standing(&self, now: Timestamp) -> crowding::Standing {
        let terms = &self.stored.terms;
        let usable = terms
            .lifetime
            .plus(terms.stale_while_revalidate.max(terms.stale_if_error))
            .as_millis();
        let remaining = reuse::remaining_millis(&self.stored, now);
        let spent = remaining < 0 && remaining.unsigned_abs() > usable;
        crowding::Standing {
            uses: self.uses,
            received: self.stored.response_time,
            spent,
        }
    }
}

/// Drops variants until one more may be kept.
fn make_room(all: &mut Vec<Variant>, more: &StoredResponse, bounds: Bounds, now: Timestamp) {
    loop {
        let bytes: usize =
            all.iter().map(|held| held.stored.weight()).sum::<usize>() + more.weight();
        if all.len() < bounds.number && bytes as u64 <= bounds.bytes {
            return;
        }
        let standings: Vec<crowding::Standing> =
            all.iter().map(|held| held.standing(now)).collect();
        let Some(goes) = crowding::first_to_go(&standings) else {
            return;
        };
        all.remove(goes);
    }
}

#[cfg(test)]
mod tests;
