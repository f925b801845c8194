//! Policies that Envoy's routes pick by name: `{"larder": {"policy": NAME}}` in a route's metadata.
//!
//! What this decides: what a request gets whose route names one. The policies themselves stand in
//! the configuration, where each is read and refused before any request meets it; a route only
//! names one. A name that nobody knows may stand for "never store this", so such a request passes
//! untouched, and the log says so.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use larder_cache_core::policy::Policy;

use crate::host::Host;
use crate::pairs;

/// Where a route says which policy is its own.
const METADATA: [&str; 4] = ["xds", "route_metadata", "filter_metadata", "larder"];
/// The member that names it.
const MEMBER: &str = "policy";

/// All policies that routes may pick.
#[derive(Clone, Debug, Default)]
pub struct RoutePolicies {
    named: BTreeMap<String, Arc<Policy>>,
    /// The log was told of a request that passes for its route.
    told: Cell<bool>,
}

/// What the route of a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picked<'a> {
    /// Nothing: the rules decide.
    Nothing,
    /// This policy.
    Policy(&'a Arc<Policy>),
    /// Nothing that can be made out.
    Unknown,
}

impl RoutePolicies {
    /// Policies by their names.
    pub fn new(named: impl IntoIterator<Item = (String, Policy)>) -> Self {
        let named = named.into_iter();
        Self {
            named: named
                .map(|(name, policy)| (name, Arc::new(policy)))
                .collect(),
            told: Cell::default(),
        }
    }

    /// What the route of the stream in whose callback we are says. Where no policy may be picked
    /// the host is not asked; else that is one call, for only the host knows the route.
    pub fn picked<H: Host>(&self, host: &H) -> Picked<'_> {
        if self.named.is_empty() {
            return Picked::Nothing;
        }
        let Some(metadata) = host.property(&METADATA) else {
            return Picked::Nothing;
        };
        let members = pairs::read(metadata).unwrap_or_default();
        let name = members
            .get(MEMBER)
            .filter(|_| members.len() == 1)
            .and_then(|name| std::str::from_utf8(name).ok());
        if let Some(policy) = name.and_then(|name| self.named.get(name)) {
            return Picked::Policy(policy);
        }
        self.tell(host, || {
            let known: Vec<_> = self.named.keys().map(String::as_str).collect();
            let said = members
                .iter()
                .map(|(name, value)| format!("{} {:?}", text(name), text(value)));
            format!(
                "larder: a route's metadata says {}; its requests pass untouched. It must be policy alone, and one of \
                 {}",
                said.collect::<Vec<_>>().join(", "),
                known.join(", ")
            )
        });
        Picked::Unknown
    }

    /// Once for each worker and configuration: a line for each request would bury the log.
    fn tell<H: Host>(&self, host: &H, line: impl FnOnce() -> String) {
        if !self.told.replace(true) {
            host.log(log::Level::Warn, &line());
        }
    }
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
