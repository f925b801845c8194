//! Purges: nobody but the operator, and for the operator always.

use std::time::Duration;

use serde_json::{Value, json};

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::{Setting, TOKEN};
use crate::visit::Visit;
use crate::wire::{Answer, Request};

/// A purge takes milliseconds, and a tick of the filter (100 ms) more right after a swap of its
/// configuration.
const AT_LAST: Duration = Duration::from_millis(400);

const SCOPES: &[&str] = &["url", "tag", "prefix"];

/// Alone, for it concerns every other check too.
const EVERYTHING: &[&str] = &["everything"];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Control,
        name: "purge-without-the-token",
        source: "Fastly documentation on unauthenticated URL purges; apache/apisix#1305",
        expectation: "Nobody purges without the operator's token.",
        setting: Setting::Safe,
        inputs: &[
            "",
            "authorization: Bearer wrong",
            "authorization: Bearer ",
            "authorization: Basic {t}",
            "authorization: {t}",
            "authorization: bearer{t}",
            "authorization: Bearer {t}x",
            "x-token: {t}",
        ],
        check: |visit| Box::pin(without_token(visit)),
    },
    Scenario {
        class: Class::Control,
        name: "purge-method-from-a-client",
        source: "Varnish and Souin PURGE; nginx ngx_cache_purge",
        expectation: "A client's PURGE that the origin refuses, or a field that looks like one, flushes nothing.",
        setting: Setting::Safe,
        inputs: &[
            "BAN",
            "GET > x-purge: 1",
            "GET > fastly-soft-purge: 1",
            "GET > x-larder-purge: 1",
            "REFRESH",
            "GET > surrogate-key: x",
        ],
        check: |visit| Box::pin(purge_method(visit)),
    },
    Scenario {
        class: Class::Control,
        name: "forged-inner-field",
        source: "Kettle (2018): internal headers accepted from outside",
        expectation: "A client cannot speak to the cache by fields that its parts use among themselves.",
        setting: Setting::Safe,
        inputs: &[
            "x-larder-fence: 1",
            "x-larder-uncacheable: 1",
            ":override: max-age=1",
            "x-cache-status: HIT",
            "cache-status: larder; hit",
            "age: 0",
            "x-envoy-internal: true",
        ],
        check: |visit| Box::pin(inner_field(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "purge",
        source: "envoyproxy/envoy#42382; FRiCKLE/ngx_cache_purge#16",
        expectation: "What an operator purged is not served any more, in no variant.",
        setting: Setting::Safe,
        inputs: SCOPES,
        check: |visit| Box::pin(purge(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "purge-of-everything",
        source: "Kong and Cloudflare documentation: purge everything",
        expectation: "After a purge of everything nothing old is served, in no variant.",
        setting: Setting::Flood,
        inputs: EVERYTHING,
        check: |visit| Box::pin(purge(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "soft-purge-of-everything",
        source: "Fastly soft purge",
        expectation: "A soft purge of everything counts however short a fetch is ago.",
        setting: Setting::Flood,
        inputs: EVERYTHING,
        check: |visit| Box::pin(soft_purge(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "purge-of-everything-after-a-swap",
        source: "Envoy extension discovery: a filter's configuration changes while it runs",
        expectation: "A purge of everything reaches an Envoy whose filter configuration was swapped.",
        setting: Setting::Swapped,
        inputs: EVERYTHING,
        check: |visit| Box::pin(purge(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "purge-after-a-swap",
        source: "Envoy extension discovery: a filter's configuration changes while it runs",
        expectation: "A purge reaches an Envoy whose filter configuration was swapped.",
        setting: Setting::Swapped,
        inputs: SCOPES,
        check: |visit| Box::pin(purge(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "soft-purge-right-after-a-fetch",
        source: "Fastly soft purge; Varnish tests m00057, m00058",
        expectation: "A soft purge counts however short the fetch is ago: the next answer is stale or new.",
        setting: Setting::Safe,
        inputs: SCOPES,
        check: |visit| Box::pin(soft_purge(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "soft-purge-during-a-fetch",
        source: "Varnish test c00132",
        expectation: "A soft purge during a fetch counts for what the fetch brings.",
        setting: Setting::Safe,
        inputs: &["url", "tag", "prefix"],
        check: |visit| Box::pin(soft_purge_during(visit)),
    },
];

fn tag(visit: &Visit) -> String {
    visit.path.replace('/', "-")
}

fn tagged(visit: &Visit, more: &[(&str, &str)]) -> String {
    let tag = format!("cache-tag: {}", tag(visit));
    visit.page(
        &[
            &[("cache-control", "max-age=60"), ("header", tag.as_str())],
            more,
        ]
        .concat(),
    )
}

fn order(visit: &Visit, target: &str, soft: bool) -> Value {
    let url = format!("http://shop.test{target}");
    let mut order = match visit.input {
        "url" => json!({ "url": url }),
        "tag" => json!({ "tag": tag(visit) }),
        "prefix" => json!({ "prefix": format!("http://shop.test{}", visit.path) }),
        _ => json!({ "everything": true }),
    };
    order["soft"] = json!(soft);
    order
}

async fn without_token(visit: Visit) -> Verdict {
    let target = tagged(&visit, &[]);
    visit.warm(&target).await?;
    let order = json!({ "url": format!("http://shop.test{target}") }).to_string();
    let request = Request::new("POST", "/v1/purge").line(&visit.input.replace("{t}", TOKEN));
    let answer = visit
        .target
        .sidecar(request.content(order.as_bytes()))
        .await?;
    ensure!(
        matches!(answer.status, 401 | 403),
        "the order was answered {}",
        answer.status
    );
    visit.time_passes(300).await;
    ensure!(visit.get(&target).await.is_hit(), "the page is gone");
    Ok(())
}

async fn purge_method(visit: Visit) -> Verdict {
    let target = tagged(&visit, &[]);
    visit.warm(&target).await?;
    let (method, line) = visit.pair();
    // An origin that accepts such a method has changed something, and what it changed is invalid
    // (RFC 9111 §4.4).
    if method != "GET" {
        visit.behave(&json!({ "status": 405, "times": 1 })).await?;
    }
    visit.send(Request::new(method, &target).line(line)).await;
    ensure!(visit.get(&target).await.is_hit(), "the page is gone");
    Ok(())
}

async fn inner_field(visit: Visit) -> Verdict {
    let target = tagged(&visit, &[]);
    let (name, value) = visit.input.rsplit_once(": ").unwrap_or_default();
    for _ in 0..2 {
        visit.send(Request::get(&target).field(name, value)).await;
    }
    let answer = visit.warm(&target).await?;
    ensure!(answer.is_whole(200), "a clean client got {}", answer.status);
    let fetches = visit.fetches().await;
    ensure!(fetches <= 2, "the field cost {fetches} fetches");
    Ok(())
}

/// Each fetch has a number of its own, so that an old answer is known whatever the cache says of
/// it.
async fn purge(visit: Visit) -> Verdict {
    let target = tagged(
        &visit,
        &[("vary", "x-a"), ("echo", "x-unique:x-request-id")],
    );
    let requests = ["", "x-a: 1", "x-a: 2"].map(|line| Request::get(&target).line(line));
    let mut old = Vec::new();
    for request in &requests {
        visit
            .until(request, "a hit", |answer| answer.is_hit())
            .await?;
        old.extend(
            visit
                .herd(request, 6)
                .await
                .iter()
                .map(|answer| answer.field("x-unique").to_owned()),
        );
    }
    visit.purge(&order(&visit, &target, false)).await?;
    let gone = larder_stack::eventually(AT_LAST, || async {
        let mut answers = Vec::new();
        for request in &requests {
            // Several at once: two workers may each hold a copy.
            answers.extend(visit.herd(request, 6).await);
        }
        let is_new = |answer: &Answer| {
            answer.status == 200 && !old.iter().any(|known| known == answer.field("x-unique"))
        };
        answers.iter().all(is_new).then_some(())
    });
    gone.await
        .ok_or_else(|| format!("{AT_LAST:?} after the purge old answers are still served"))
}

/// Served as stale, or by a fetch that came after the purge; never as if nothing had been said.
async fn soft_purge(visit: Visit) -> Verdict {
    let target = tagged(&visit, &[]);
    visit.get(&target).await;
    visit.purge(&order(&visit, &target, true)).await?;
    visit.time_passes(200).await;
    let before = visit.fetches().await;
    visit.herd(&Request::get(&target), 6).await;
    visit.time_passes(300).await;
    ensure!(
        visit.fetches().await > before,
        "six clients were answered as if nothing had been purged"
    );
    Ok(())
}

async fn soft_purge_during(visit: Visit) -> Verdict {
    let target = tagged(&visit, &[("delay-ms", "800")]);
    let leading = tokio::spawn({
        let (visit, target) = (visit.clone(), target.clone());
        async move { visit.get(&target).await }
    });
    visit.sees(1).await?;
    visit.purge(&order(&visit, &target, true)).await?;
    let _ = leading.await;
    visit.herd(&Request::get(&target), 6).await;
    visit.time_passes(300).await;
    ensure!(
        visit.fetches().await > 1,
        "what was asked for before the purge is fresh"
    );
    Ok(())
}
