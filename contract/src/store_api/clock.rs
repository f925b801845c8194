//! What time it is where a filter runs.

use std::fmt;

use crate::http_time::Timestamp;

/// Says in every call of a filter which Envoy makes it and what time it is there: a
/// [`ClockReading`]. Clocks differ, and what was requested before a purge is told by time; so the
/// sidecar puts all times that go to the store on the store's clock.
pub const CLOCK_FIELD: &str = "x-larder-clock";
/// In a look-up's answer: by how many milliseconds the asker's clock is ahead of the store's, a
/// negative number where it is behind. The entry that comes along has the store's times. Absent
/// where they agree.
pub const AHEAD_FIELD: &str = "x-larder-ahead";

/// Which Envoy makes a call, and what time it is there: `00000000000000a1:1700000000000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// A random number that all workers of an Envoy share.
    pub envoy: u64,
    /// When the call was made, on the Envoy's clock.
    pub now: Timestamp,
}

/// An Envoy's name: its number in 16 hex digits.
pub fn name_of(envoy: u64) -> String {
    format!("{envoy:016x}")
}

impl ClockReading {
    /// Reads it as it stands in [`CLOCK_FIELD`].
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (envoy, now) = std::str::from_utf8(value).ok()?.split_once(':')?;
        let envoy = (envoy.len() == 16)
            .then(|| u64::from_str_radix(envoy, 16).ok())
            .flatten()?;
        Some(Self {
            envoy,
            now: Timestamp::from_millis(now.parse().ok()?),
        })
    }

    /// The Envoy as it calls itself in [`EventsSince`](super::EventsSince).
    pub fn name(&self) -> String {
        name_of(self.envoy)
    }
}

impl fmt::Display for ClockReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.envoy, self.now.as_millis())
    }
}
