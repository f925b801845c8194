//! Floods: a client that fills what is bounded, so that others lose what they use.

use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::Request;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Flooding,
        name: "made-up-variants",
        source: "varnishcache/varnish-cache#4236; RFC 9111 §4.1",
        expectation: "Made-up values of a selecting field do not push out the variant that everybody uses.",
        setting: Setting::Flood,
        inputs: &[
            "x-a",
            "accept-language",
            "accept-encoding",
            "x-forwarded-host",
        ],
        check: |visit| Box::pin(variants(visit)),
    },
    Scenario {
        class: Class::Flooding,
        name: "made-up-lifetimes",
        source: "An operator's override by query, used by an attacker",
        expectation: "Made-up lifetimes in a query do not push out the lifetime that everybody asks for.",
        setting: Setting::Flood,
        inputs: &["max-age", "stale-if-error"],
        check: |visit| Box::pin(lifetimes(visit)),
    },
    Scenario {
        class: Class::Flooding,
        name: "made-up-queries",
        source: "Hackmanit Web-Cache-Vulnerability-Scanner, cache buster",
        expectation: "A flood of made-up queries leaves a page that is in use where it is.",
        setting: Setting::Flood,
        inputs: &["10", "20000"],
        check: |visit| Box::pin(queries(visit)),
    },
    Scenario {
        class: Class::Flooding,
        name: "long-urls-in-posts",
        source: "darkweak/souin#529; caddyserver/cache-handler#118",
        expectation: "POSTs to long made-up URLs do not stay in Envoy's memory.",
        setting: Setting::Flood,
        inputs: &["302", "200"],
        check: |visit| Box::pin(long_urls(visit)),
    },
];

const FLOOD: usize = 800;

/// Sends requests, a few at a time.
async fn flood(visit: &Visit, requests: impl Iterator<Item = Request>) {
    stream::iter(requests)
        .map(|request| async move { visit.send(request).await })
        .buffer_unordered(16)
        .collect::<Vec<_>>()
        .await;
}

async fn variants(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=300"), ("vary", visit.input)]);
    visit.warm(&page).await?;
    let before = visit.fetches().await;
    let forged = |n: usize| Request::get(&page).field(visit.input, &format!("x{n}"));
    // Everybody goes on using it meanwhile.
    for start in [0, FLOOD / 2] {
        flood(&visit, (start..start + FLOOD / 2).map(forged)).await;
        let mut misses = 0;
        for _ in 0..4 {
            misses += usize::from(!visit.get(&page).await.is_hit());
        }
        ensure!(
            misses == 0,
            "the variant of everybody was pushed out ({before} fetches before)"
        );
    }
    Ok(())
}

async fn lifetimes(visit: Visit) -> Verdict {
    let page = format!("{}?cache-control=max-age=300", visit.path);
    visit.warm(&page).await?;
    let forged = |n: usize| {
        let more = if visit.input == "max-age" {
            String::new()
        } else {
            ",stale-if-error=7".to_owned()
        };
        Request::get(&format!(
            "{}?cache-control=max-age={}{more}",
            visit.path,
            1000 + n
        ))
    };
    flood(&visit, (0..3000).map(forged)).await;
    for _ in 0..4 {
        ensure!(
            visit.get(&page).await.is_hit(),
            "the lifetime that everybody asks for was pushed out"
        );
    }
    Ok(())
}

async fn queries(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=300")]);
    visit.warm(&page).await?;
    let forged =
        |n: usize| Request::get(&format!("{page}&mock-body-size={}&buster={n}", visit.input));
    flood(&visit, (0..FLOOD).map(forged)).await;
    for _ in 0..4 {
        ensure!(visit.get(&page).await.is_hit(), "the page was pushed out");
    }
    Ok(())
}

async fn long_urls(visit: Visit) -> Verdict {
    visit
        .behave(&json!({ "status": visit.input.parse::<u16>().unwrap_or_default() }))
        .await?;
    let filler = "x".repeat(40_000);
    let post =
        |n: usize| Request::new("POST", &format!("{}?{n}{filler}", visit.path)).content(b"x");
    // The first ones give Envoy's own buffers their size.
    flood(&visit, (0..100).map(post)).await;
    let Some(before) = visit.target.envoy_megabytes() else {
        return Ok(());
    };
    flood(&visit, (100..700).map(post)).await;
    let after = visit.target.envoy_megabytes().unwrap_or(before);
    let grown = after.saturating_sub(before);
    ensure!(
        grown < 24,
        "600 POSTs with 40 kB of URL each left {grown} MB in Envoy"
    );
    Ok(())
}
