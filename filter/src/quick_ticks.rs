//! Deadlines that are shorter than a tick.
//!
//! A question on the store stream has no deadline of its own in Envoy, and a look-up's is shorter
//! than the tick of 100 ms. So the VM is ticked more often while look-ups are waited for. What this
//! decides: when that begins and ends, and which of these ticks only look at deadlines.

use larder_contract::http_time::Timestamp;

use crate::calls::Calls;
use crate::host::Host;

/// How often the VM is ticked else, in milliseconds.
pub(crate) const TICK_MS: u64 = 100;
/// How often the VM is ticked while look-ups are waited for, in milliseconds.
const QUICK_MS: u64 = 20;
/// Ticks are as quick as that for so long after the last look-up: under load there is always one.
const LINGER_MS: u64 = 1_000;

/// Whether ticks are quick.
#[derive(Debug, Default)]
pub(crate) struct QuickTicks {
    /// The root context that is ticked so.
    root: Option<u32>,
    asked: Timestamp,
}

impl QuickTicks {
    /// A look-up is on its way that Envoy keeps no time of.
    pub(crate) fn on_asked<H: Host>(&mut self, calls: &Calls, host: &H, now: Timestamp) {
        self.asked = now;
        if self.root.is_none() {
            self.root = Some(calls.root());
            host.set_tick_period(QUICK_MS);
        }
    }

    /// Whether this tick comes between two whole ones, and only deadlines are to be looked at.
    /// Slows ticks down again when nobody has asked for a while.
    pub(crate) fn is_between<H: Host>(
        &mut self,
        calls: &Calls,
        host: &H,
        whole: Timestamp,
        now: Timestamp,
    ) -> bool {
        if self.root.is_none() {
            return false;
        }
        let is_idle = !calls.has_look_ups() && now.millis_since(self.asked) >= LINGER_MS;
        if is_idle && self.root == Some(calls.root()) {
            self.root = None;
            host.set_tick_period(TICK_MS);
        }
        now >= whole && now.millis_since(whole) < TICK_MS - QUICK_MS / 2
    }

    /// A root context is gone, and its ticks with it.
    pub(crate) fn on_root_gone(&mut self, root: u32) {
        self.root.take_if(|quick| *quick == root);
    }
}
