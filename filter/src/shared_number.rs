//! A random number that all VMs of this Envoy share, drawn by whichever of them comes first.

use std::cell::Cell;

use crate::host::{Host, Swap};

/// One such number, by its name in shared data.
#[derive(Debug)]
pub(crate) struct SharedNumber {
    name: &'static str,
    known: Cell<Option<u64>>,
}

impl SharedNumber {
    /// The number of that name. It is looked for when it is first asked for.
    pub(crate) const fn named(name: &'static str) -> Self {
        Self {
            name,
            known: Cell::new(None),
        }
    }

    /// The number.
    pub(crate) fn get<H: Host>(&self, host: &H) -> u64 {
        let number = self.known.get().unwrap_or_else(|| look_up(host, self.name));
        self.known.set(Some(number));
        number
    }
}

fn look_up<H: Host>(host: &H, name: &str) -> u64 {
    let read = |bytes: Option<Vec<u8>>| Some(u64::from_be_bytes(bytes?.try_into().ok()?));
    let (held, version) = host.shared(name);
    read(held).unwrap_or_else(|| {
        let drawn = host.random();
        match host.swap_shared(name, &drawn.to_be_bytes(), version) {
            Swap::Done => drawn,
            Swap::Lost => read(host.shared(name).0).unwrap_or(drawn),
        }
    })
}
