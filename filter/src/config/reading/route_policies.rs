//! Reading the policies that routes pick by name.

use larder_cache_core::policy::Policy;
use serde_json::Value;

use super::super::route_policies::RoutePolicies;
use super::values::{joined, member};
use super::{Map, Reader};

impl Reader {
    /// An object of policies, each under its name.
    pub(super) fn route_policies(&mut self, top: &Map<String, Value>) -> RoutePolicies {
        const PATH: &str = "route_policies";
        let named = match member(top, PATH) {
            Value::Null => return RoutePolicies::default(),
            Value::Object(named) => named,
            _ => {
                self.values.mistake(PATH, "must be an object of policies");
                return RoutePolicies::default();
            }
        };
        let read = named.iter().map(|(name, value)| {
            let path = joined(PATH, name);
            if name.is_empty() {
                self.values.mistake(PATH, "must not have an empty name");
            }
            if value.get("key").is_some() {
                // A purge and an invalidation name a URL, and know of no route.
                self.values.mistake(
                    &joined(&path, "key"),
                    "belongs into a rule: a purge of a URL knows no route",
                );
            }
            let policy = Policy {
                // Most routes match by path, and none says so.
                is_by_path: true,
                ..self.policy(value, &path)
            };
            (name.clone(), policy)
        });
        RoutePolicies::new(read.collect::<Vec<_>>())
    }
}
