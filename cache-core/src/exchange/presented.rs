//! The request as the cache takes it: read once when it arrives, and never changed after that.

use std::borrow::Cow;
use std::sync::Arc;

use larder_contract::http_time::Timestamp;
use larder_contract::key::{ALWAYS_SELECTING, OVERRIDE_FIELD, PrimaryKey, UNKEYED_FIELD};
use larder_contract::path::canonical_path;

use super::effect::{ForwardedRequest, RefreshOrder};
use super::reduction::{self, Reduction, is_tunnel};
use crate::cache_control::RequestDirectives;
use crate::cache_status::{self, DEBUG_FIELD};
use crate::collapse::CollapseKey;
use crate::fields::Fields;
use crate::message::{Request, ResponseHead};
use crate::policy::{Handling, Policy};
use crate::query_override::{self, MalformedOverride, QueryOverride};
use crate::route::RefreshPath;
use crate::rules::Rules;
use crate::storability::NotStorable;
use crate::storing::Fetched;
use crate::vary::{self, SelectingFields};

/// What holds for every request of one configuration and rule.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The rule's policy.
    pub policy: Arc<Policy>,
    /// Part of every key: it keeps several configurations apart in one store.
    pub namespace: Arc<[u8]>,
    /// How background refreshes travel.
    pub refreshes: RefreshPath,
    /// All rules, where any of them leaves something out of the key: an invalidation has to meet
    /// the keys that each of them makes of a URL.
    pub rules: Option<Arc<Rules>>,
}

/// One request under one policy.
#[derive(Debug)]
pub(super) struct Presented {
    pub(super) policy: Arc<Policy>,
    pub(super) namespace: Arc<[u8]>,
    pub(super) refreshes: RefreshPath,
    pub(super) rules: Option<Arc<Rules>>,
    /// As it will be sent, but for the path: judged as the origin gets it.
    pub(super) request: Request,
    pub(super) key: PrimaryKey,
    /// Path and query for the origin, where that differs from the client's.
    path: Option<Vec<u8>>,
    /// Whether the client spelled that path as the key does.
    is_path_canonical: bool,
    /// How the request differs on every way to the origin from what the client sent.
    adjusted: ForwardedRequest,
    /// What the key names, where the rule leaves something out of it.
    pub(super) reduction: Option<Reduction>,
    pub(super) overriding: Option<QueryOverride>,
    pub(super) asked: Option<RequestDirectives>,
    pub(super) arrived: Timestamp,
    /// A rule, an upgrade or gRPC: nothing is changed in passing, but an unsafe method invalidates
    /// all the same.
    pub(super) is_untouched: bool,
    /// Whether the client is told how its answer came about.
    pub(super) told: bool,
}

impl Presented {
    /// Reads the request, whose key may be known from [`key_of`]. The second is what is wrong with
    /// its override.
    pub(super) fn of(
        request: Request,
        key: Option<PrimaryKey>,
        setup: Setup,
        now: Timestamp,
    ) -> (Self, Option<MalformedOverride>) {
        let key = key.unwrap_or_else(|| key_of(&setup, &request));
        let Setup {
            policy,
            namespace,
            refreshes,
            rules,
        } = setup;
        let told = cache_status::is_told(&request, &policy);
        let is_untouched = !policy.cache || is_tunnel(&request);
        let mut presented = Self {
            policy,
            namespace,
            refreshes,
            rules,
            request,
            key,
            path: None,
            is_path_canonical: true,
            adjusted: ForwardedRequest::default(),
            reduction: None,
            overriding: None,
            asked: None,
            arrived: now,
            is_untouched,
            told,
        };
        presented.request.fields.remove(DEBUG_FIELD.as_bytes());
        let mut fault = None;
        if !is_untouched {
            match presented.take_override() {
                Ok(()) => presented.adjust_request(),
                Err(malformed) => fault = Some(malformed),
            }
        }
        (presented, fault)
    }

    fn take_override(&mut self) -> Result<(), MalformedOverride> {
        if !self.policy.query_override {
            return Ok(());
        }
        if let Some(taken) = query_override::take(self.request.path())? {
            // As a pseudo-field it selects a variant like any other field (see `key`).
            self.request.fields.append(
                OVERRIDE_FIELD.as_bytes(),
                taken.directives.canonical().as_bytes(),
            );
            self.overriding = Some(taken.directives);
            self.key = key_by(&self.policy, &self.namespace, &self.request, &taken.path);
            self.path = Some(taken.path);
        }
        Ok(())
    }

    /// Makes of the request what the origin will get: the host, scheme and path that the key names,
    /// and no field that is stripped. So it is judged as it is sent.
    fn adjust_request(&mut self) {
        if let Cow::Owned(path) = canonical_path(self.origin_path()) {
            self.path = Some(path);
            self.is_path_canonical = false;
        }
        if let Cow::Owned(path) = canonical_path(self.request.path()) {
            self.request.fields.set(b":path", &path);
        }
        self.adjusted.set = self.request.canonical_changes();
        for (name, value) in self.adjusted.set.iter() {
            self.request.fields.set(name, value);
        }
        let stripped = self
            .policy
            .unkeyed_fields
            .lines(&self.request.fields, Handling::Strip);
        self.adjusted.remove = stripped.map(|(name, _)| name.to_vec()).collect();
        for name in &self.adjusted.remove {
            self.request.fields.remove(name);
        }
        reduction::reduce(&mut self.request, &self.policy);
        vary::unkeyed::add_pseudo_field(&mut self.request.fields, &self.policy);
        self.name_by_rules();
    }

    /// Asks for what the key names, where the rule leaves something out of it.
    fn name_by_rules(&mut self) {
        let policy = self.policy.clone();
        let Some(rules) = &policy.key else { return };
        let named = rules.name(
            self.request.scheme(),
            self.request.authority(),
            self.origin_path(),
        );
        let named = named.into_owned();
        let mut reduction = Reduction {
            path: None,
            set: Fields::default(),
            named,
        };
        if reduction::concerns(&self.request) && !rules.origin_sees_all {
            let Reduction { named, path, set } = &mut reduction;
            *path = (*named.path != *self.origin_path()).then(|| named.path.to_vec());
            *set = self.request.changes_to(&named.scheme, &named.authority);
            for (name, value) in set.iter() {
                self.request.fields.set(name, value);
            }
        }
        self.reduction = Some(reduction);
    }

    /// Reads what only a look-up needs.
    pub(super) fn read_for_look_up(&mut self) {
        let honoured = &self.policy.request_directives;
        self.asked =
            (!honoured.is_empty()).then(|| RequestDirectives::of(&self.request.fields, honoured));
        if self.policy.normalise_accept_language {
            vary::language::add_pseudo_fields(&mut self.request.fields);
        }
    }

    /// What the origin gets instead of what the client sent, before anything else is changed.
    pub(super) fn change(&self) -> ForwardedRequest {
        ForwardedRequest {
            path: self.path.clone(),
            ..self.adjusted.clone()
        }
    }

    /// The same for a request that is asked for the cache: without what its rule leaves out.
    pub(super) fn reduced_change(&self) -> ForwardedRequest {
        let mut change = self.change();
        reduction::apply(
            self.reduction.as_ref(),
            &self.request,
            &self.policy,
            &mut change,
        );
        change
    }

    /// Whether the client named host, scheme and path as the key does. What its rule leaves out of
    /// a query does not count: the operator says that it changes nothing.
    pub(super) fn is_canonical(&self) -> bool {
        let is_reduced = |reduction: &Reduction| !reduction.set.is_empty();
        self.adjusted.set.is_empty()
            && self.is_path_canonical
            && !self.reduction.as_ref().is_some_and(is_reduced)
    }

    /// The order to fetch in the background what `selecting` selects, with nothing stored and no
    /// lease.
    pub(super) fn refresh_order(
        &self,
        url: String,
        selecting: SelectingFields,
        collapse: CollapseKey,
    ) -> Box<RefreshOrder> {
        Box::new(RefreshOrder {
            key: self.key.clone(),
            collapse,
            url,
            stored: None,
            selecting,
            request: self.request.clone(),
            path: self.origin_path().to_vec(),
            fence: None,
            way: self.refreshes,
        })
    }

    /// Path and query as the origin gets them.
    pub(super) fn origin_path(&self) -> &[u8] {
        self.reduction
            .as_ref()
            .and_then(|reduction| reduction.path.as_deref())
            .or(self.path.as_deref())
            .unwrap_or_else(|| self.request.path())
    }

    /// The URL that is fetched, or that the rule names in its place: for people and for purges by
    /// prefix.
    pub(super) fn url(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (scheme, authority, path) = match &self.reduction {
            Some(Reduction { named, .. }) => (&*named.scheme, &*named.authority, &*named.path),
            None => (
                self.request.scheme(),
                self.request.authority(),
                self.origin_path(),
            ),
        };
        format!("{}://{}{}", text(scheme), text(authority), text(path))
    }

    pub(super) fn is_head(&self) -> bool {
        self.request.method() == b"HEAD"
    }

    pub(super) fn is_get(&self) -> bool {
        self.request.method() == b"GET"
    }

    pub(super) fn has_ranges(&self) -> bool {
        self.request.fields.contains("range")
    }

    /// RFC 9111 §5.2.1.7.
    pub(super) fn asks_only_if_cached(&self) -> bool {
        self.asked
            .as_ref()
            .is_some_and(|asked| asked.only_if_cached)
    }

    /// A request with credentials shares nobody's fetch: whether its answer is for others is known
    /// only afterwards.
    pub(super) fn is_credentialed(&self) -> bool {
        self.request.is_credentialed(&self.policy)
    }

    /// Whether the client chose this variant by itself, by an override or by fields that no `Vary`
    /// names. What is found out for it says nothing of the others.
    pub(super) fn is_a_choice_of_the_client(&self) -> bool {
        self.overriding.is_some() || self.request.fields.contains(UNKEYED_FIELD)
    }

    /// Whether an answer that is not stored, for this reason, speaks of what is stored for
    /// everybody: what one client's cookie or credentials brought about never takes that away.
    pub(super) fn is_said_to_all(&self, why: NotStorable) -> bool {
        why.is_said_by_the_response() && !self.request.is_one_clients(&self.policy)
    }

    /// Requests collapse by resource, override, and the selecting fields known so far.
    pub(super) fn collapse_key(&self, known: Option<&SelectingFields>) -> CollapseKey {
        let mut names: Vec<Vec<u8>> = known
            .map(|known| known.names().map(<[u8]>::to_vec).collect())
            .unwrap_or_default();
        for always in ALWAYS_SELECTING.map(str::as_bytes) {
            if !names.iter().any(|name| name == always) {
                names.push(always.to_vec());
            }
        }
        let selecting = SelectingFields::of(&names, &self.request).unwrap_or_default();
        CollapseKey::new(&self.key.digest(), &selecting)
    }

    /// An answer to this request.
    pub(super) fn fetched<'a>(
        &'a self,
        response: &'a ResponseHead,
        request_time: Timestamp,
        response_time: Timestamp,
    ) -> Fetched<'a> {
        let (request, overriding) = (&self.request, self.overriding.as_ref());
        Fetched {
            request,
            overriding,
            response,
            request_time,
            response_time,
        }
    }
}

/// The key of what a request asks for, as it came.
pub(super) fn key_of(setup: &Setup, request: &Request) -> PrimaryKey {
    key_by(&setup.policy, &setup.namespace, request, request.path())
}

/// The key of a request whose path and query for the origin are `path`. The only place that makes a
/// key of a request: what the short way looks up is what the long way keeps.
fn key_by(policy: &Policy, namespace: &[u8], request: &Request, path: &[u8]) -> PrimaryKey {
    let (scheme, authority) = (request.scheme(), request.authority());
    match &policy.key {
        None => PrimaryKey::new(namespace, scheme, authority, path),
        Some(rules) => rules.name(scheme, authority, path).key(namespace),
    }
}
