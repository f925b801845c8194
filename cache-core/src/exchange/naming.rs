//! What a request's URL is stored under, by its own rule and by others.
//!
//! What this decides: which keys an invalidation drops. The rule of a GET may be another than that
//! of the POST which changes what it brings, so the names that all rules give a URL count.

use larder_contract::key::{KeyDigest, PrimaryKey};

use super::effect::CacheCommand;
use super::presented::Presented;
use crate::invalidation::Target;
use crate::policy::key::Named;

impl Presented {
    /// Whether the key names another URL than the client did.
    pub(super) fn is_renamed(&self) -> bool {
        self.reduction.as_ref().is_some_and(|reduction| {
            let Named {
                scheme,
                authority,
                path,
            } = &reduction.named;
            (&**scheme, &**authority) != (self.request.scheme(), self.request.authority())
                || **path != *self.origin_path()
        })
    }

    /// The keys under which something may be stored for these URLs; with any of them the request's
    /// own.
    pub(super) fn keys_of(&self, targets: &[Target]) -> Vec<KeyDigest> {
        let mut digests: Vec<KeyDigest> = Vec::new();
        let mut add = |key: &PrimaryKey| {
            let own = *key == self.key;
            let digest = if own { self.key.digest() } else { key.digest() };
            if !digests.contains(&digest) {
                digests.push(digest);
            }
        };
        for target in targets {
            let Target {
                scheme,
                authority,
                path,
            } = target;
            add(&PrimaryKey::new(&self.namespace, scheme, authority, path));
            for named in self.rules.iter().flat_map(|rules| rules.names_of(target)) {
                add(&named.key(&self.namespace));
            }
        }
        if !targets.is_empty() {
            add(&self.key);
        }
        digests
    }

    /// Drops what is stored under the request's own key, everywhere.
    pub(super) fn invalidation(&self) -> CacheCommand {
        CacheCommand::Invalidate(vec![self.key.digest()])
    }

    /// Drops what is stored for the request's own URL under whatever rule, everywhere.
    pub(super) fn invalidation_by_url(&self) -> CacheCommand {
        if self.rules.is_none() {
            return self.invalidation();
        }
        let path = self.origin_path().to_vec();
        let target = Target {
            path,
            ..Target::of(&self.request)
        };
        CacheCommand::Invalidate(self.keys_of(&[target]))
    }
}
