//! A rule's `policy`.

use larder_cache_core::policy::{Policy, RangeOnMiss, StatusRange, Tell};
use larder_contract::http_time::DeltaSeconds;
use serde_json::{Map, Value};

use super::Reader;
use super::values::{joined, token};

/// What a `Range` on a miss may lead to.
const RANGES_ON_MISS: [(&str, RangeOnMiss); 3] = [
    ("whole", RangeOnMiss::Whole),
    ("part", RangeOnMiss::Part),
    ("pass", RangeOnMiss::Pass),
];

/// Every member of a policy.
const POLICY_MEMBERS: [&str; 41] = [
    "profile",
    "cache",
    "query_override",
    "collapse",
    "shared_store",
    "share_after",
    "default_lifetime_s",
    "heuristic_freshness",
    "request_directives",
    "store_set_cookie",
    "store_with_cookie",
    "reuse_with_authorization",
    "identity_fields",
    "identity_metadata",
    "unkeyed_fields",
    "store_any_status",
    "keep_s",
    "max_stale_s",
    "max_object_bytes",
    "uncacheable_for_s",
    "targeted_fields",
    "status_lifetimes_s",
    "grace_s",
    "range_on_miss",
    "max_ranges",
    "normalise_accept_language",
    "store_post",
    "tag_fields",
    "strip_tag_fields",
    "allow_purge",
    "tell",
    "key",
    "ignore_cookies",
    "strip_set_cookie",
    "stale_with_s_maxage",
    "error_statuses",
    "error_cooldown_s",
    "keep_on_304",
    "lifetime_jitter_percent",
    "lifetime_types",
    "comment",
];

impl Reader {
    pub(super) fn policy(&mut self, value: &Value, path: &str) -> Policy {
        let policy = self.values.object(value, path, &POLICY_MEMBERS);
        let is_strict = [("safe", false), ("rfc9111", true)];
        let base = if self
            .values
            .word(&policy, path, "profile", &is_strict, false)
        {
            Policy::strict()
        } else {
            Policy::default()
        };
        let lifetime = policy.contains_key("default_lifetime_s");
        let lifetime = lifetime.then(|| {
            self.values
                .seconds(&policy, path, "default_lifetime_s", DeltaSeconds::ZERO)
        });
        let base = self.switches(&policy, path, base);
        let base = self.bounds(&policy, path, base);
        let unkeyed_fields = self.unkeyed_fields(&policy, path, base.unkeyed_fields);
        let unkeyed_fields = self.key_fields(&policy, path, unkeyed_fields);
        Policy {
            default_lifetime: lifetime,
            key: self.key_rules(&policy, path),
            ignore_cookies: self.globs(&policy, path, "ignore_cookies"),
            error_statuses: self.error_statuses(&policy, path, base.error_statuses),
            keep_on_304: self.patterns(&policy, path, "keep_on_304", base.keep_on_304),
            lifetime_types: self.media_types(&policy, path),
            identity_fields: self.patterns(&policy, path, "identity_fields", base.identity_fields),
            identity_metadata: self.identity_metadata(&policy, path, base.identity_metadata),
            unkeyed_fields,
            shared_store: self.shared_store(&policy, path),
            status_lifetimes: self.status_lifetimes(&policy, path),
            request_directives: self.request_directives(&policy, path, base.request_directives),
            range_on_miss: self.values.word(
                &policy,
                path,
                "range_on_miss",
                &RANGES_ON_MISS,
                base.range_on_miss,
            ),
            tell: self.tell(&policy, path, base.tell),
            debug_token: self.debug_token.clone(),
            tag_fields: self.field_names(&policy, path, "tag_fields", base.tag_fields),
            targeted_fields: self.field_names(
                &policy,
                path,
                "targeted_fields",
                base.targeted_fields,
            ),
            ..base
        }
    }

    /// What is on or off.
    fn switches(&mut self, policy: &Map<String, Value>, path: &str, base: Policy) -> Policy {
        let mut flag = |name, default| self.values.flag(policy, path, name, default);
        Policy {
            cache: flag("cache", base.cache),
            query_override: flag("query_override", base.query_override),
            collapse: flag("collapse", base.collapse),
            heuristic_freshness: flag("heuristic_freshness", base.heuristic_freshness),
            normalise_accept_language: flag(
                "normalise_accept_language",
                base.normalise_accept_language,
            ),
            store_post: flag("store_post", base.store_post),
            strip_tag_fields: flag("strip_tag_fields", base.strip_tag_fields),
            allow_purge: flag("allow_purge", base.allow_purge),
            store_set_cookie: flag("store_set_cookie", base.store_set_cookie),
            store_with_cookie: flag("store_with_cookie", base.store_with_cookie),
            reuse_with_authorization: flag(
                "reuse_with_authorization",
                base.reuse_with_authorization,
            ),
            store_any_status: flag("store_any_status", base.store_any_status),
            strip_set_cookie: flag("strip_set_cookie", base.strip_set_cookie),
            stale_with_s_maxage: flag("stale_with_s_maxage", base.stale_with_s_maxage),
            ..base
        }
    }

    /// How long, how many, how large.
    fn bounds(&mut self, policy: &Map<String, Value>, path: &str, base: Policy) -> Policy {
        let mut seconds = |name, default| self.values.seconds(policy, path, name, default);
        let grace = seconds("grace_s", base.grace);
        let keep = seconds("keep_s", base.keep);
        let max_stale = seconds("max_stale_s", base.max_stale);
        let uncacheable_for = seconds("uncacheable_for_s", base.uncacheable_for);
        let error_cooldown = DeltaSeconds::new(self.values.number(
            policy,
            path,
            "error_cooldown_s",
            base.error_cooldown.as_secs(),
            0,
            3_600,
        ));
        let mut number =
            |name, default, min, max| self.values.number(policy, path, name, default, min, max);
        let lifetime_jitter = number("lifetime_jitter_percent", base.lifetime_jitter, 0, 50);
        let share_after = number("share_after", base.share_after, 1, 2);
        let max_ranges = number("max_ranges", base.max_ranges, 0, 64);
        let max_object_bytes = number("max_object_bytes", base.max_object_bytes, 1024, 16 << 20);
        Policy {
            grace,
            keep,
            max_stale,
            uncacheable_for,
            share_after,
            max_ranges,
            max_object_bytes,
            error_cooldown,
            lifetime_jitter,
            ..base
        }
    }

    /// Without a store no rule has one.
    fn shared_store(&mut self, policy: &Map<String, Value>, path: &str) -> bool {
        let shared = self
            .values
            .flag(policy, path, "shared_store", !self.storeless);
        if shared && self.storeless {
            self.values.mistake(
                &joined(path, "shared_store"),
                "cannot be true while store.enabled is false",
            );
        }
        shared
    }

    /// `true` for all, `false` for none, or a list of some.
    fn request_directives(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
        default: Vec<String>,
    ) -> Vec<String> {
        const NAME: &str = "request_directives";
        let all = || Policy::REQUEST_DIRECTIVES.map(str::to_owned).to_vec();
        if let Some(Value::Bool(on)) = policy.get(NAME) {
            return on.then(all).unwrap_or_default();
        }
        let problem = format!(
            "must be true, false or a list of {}",
            Policy::REQUEST_DIRECTIVES.join(", ")
        );
        let directive = |item: &Value| {
            token(item).filter(|name| Policy::REQUEST_DIRECTIVES.contains(&name.as_str()))
        };
        let some = self.values.list(policy, path, NAME, &problem, directive);
        some.unwrap_or(default)
    }

    fn status_lifetimes(
        &mut self,
        policy: &Map<String, Value>,
        path: &str,
    ) -> Vec<(StatusRange, DeltaSeconds)> {
        let Some(value) = policy.get("status_lifetimes_s") else {
            return Vec::new();
        };
        let path = joined(path, "status_lifetimes_s");
        let Value::Object(members) = value else {
            self.values
                .mistake(&path, "must be an object such as {\"404\": 10, \"5xx\": 1}");
            return Vec::new();
        };
        let mut lifetimes: Vec<(StatusRange, DeltaSeconds)> = Vec::new();
        for name in members.keys() {
            let lifetime = self
                .values
                .seconds(members, &path, name, DeltaSeconds::ZERO);
            match StatusRange::parse(name) {
                Some(statuses) => lifetimes.push((statuses, lifetime)),
                None => self.values.mistake(
                    &joined(&path, name),
                    "must be a status such as 404, or a class such as 5xx",
                ),
            }
        }
        // One status says more than a class.
        lifetimes.sort_by_key(|(statuses, _)| statuses.last - statuses.first);
        lifetimes
    }

    fn tell(&mut self, policy: &Map<String, Value>, path: &str, default: Tell) -> Tell {
        let words = [
            ("all", Tell::All),
            ("trusted", Tell::Trusted),
            ("none", Tell::None),
        ];
        let tell = self.values.word(policy, path, "tell", &words, default);
        if tell == Tell::Trusted && self.debug_token.is_none() {
            self.values.mistake(
                &joined(path, "tell"),
                "cannot be \"trusted\" without debug_token",
            );
        }
        tell
    }
}
