//! Background refreshes: what one client's request has to do with what everybody gets next.

use serde_json::json;

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::{Visit, journal_field};
use crate::wire::Request;

const STALE: &str = "max-age=1, stale-while-revalidate=60";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Poisoning,
        name: "forged-field-in-a-refresh",
        source: "Kettle (2018), applied to RFC 5861 §3",
        expectation: "A refresh that a forged field's sender sets off brings nothing forged to the others.",
        setting: Setting::Safe,
        inputs: &[
            "x-forwarded-host",
            "x-forwarded-scheme",
            "forwarded",
            "x-original-url",
            "rsc",
            "x-nextjs-data",
        ],
        check: |visit| Box::pin(forged(visit)),
    },
    Scenario {
        class: Class::Credentials,
        name: "refresh-carries-no-identity",
        source: "RFC 9111 §3.5; envoyproxy/envoy cache_v2 documentation on upstream requests",
        expectation: "A refresh takes nothing to the origin that says who set it off.",
        setting: Setting::Safe,
        inputs: &[
            "cookie: sid=alice",
            "authorization: Bearer alice",
            "x-jwt-sub: alice",
            "x-forwarded-user: alice",
            "x-auth-request-email: alice",
            "x-api-key: alice",
            "proxy-authorization: Basic alice",
            "x-amzn-oidc-data: alice",
        ],
        check: |visit| Box::pin(no_identity(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "refresh-with-a-cookie",
        source: "RFC 9111 §3, §4.3; browsers send cookies with everything",
        expectation: "A client's cookie at a stale hit costs the entry nothing: after the refresh everybody has a hit.",
        setting: Setting::Safe,
        inputs: &["GET > 200", "GET > 304", "HEAD > 200", "HEAD > 304"],
        check: |visit| Box::pin(with_a_cookie(visit)),
    },
    Scenario {
        class: Class::Vary,
        name: "refresh-of-a-variant",
        source: "RFC 9111 §4.1",
        expectation: "A refresh never stores one variant's content as another's.",
        setting: Setting::Safe,
        inputs: &[
            "cookie: dark",
            "authorization: Bearer dark",
            "accept-language: dark",
            "x-theme: dark",
        ],
        check: |visit| Box::pin(variant(visit)),
    },
    Scenario {
        class: Class::Poisoning,
        name: "refresh-behind-a-route",
        source: "envoyproxy/envoy cache_v2 documentation, override_upstream_cluster",
        expectation: "A refresh asks the origin for what the route would have asked for, and brings that.",
        setting: Setting::Routes,
        inputs: &["prefix_rewrite", "host_rewrite", "request_headers_to_add"],
        check: |visit| Box::pin(behind_a_route(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "refresh-finds-it-gone",
        source: "RFC 9110 §15.5.5, §15.5.11; Varnish test b00063",
        expectation: "A 404 or 410 that a refresh gets ends the old copy.",
        setting: Setting::Safe,
        inputs: &["404", "410"],
        check: |visit| Box::pin(gone(visit)),
    },
    Scenario {
        class: Class::Clocks,
        name: "why-not-stale",
        source: "RFC 9111 §5.2.2.10, RFC 9211 §2.8",
        expectation: "Where a directive forbids a stale answer that another allows, Cache-Status says so with a word.",
        setting: Setting::Safe,
        inputs: &[
            "s-maxage=1, stale-while-revalidate=60",
            "max-age=1, must-revalidate, stale-while-revalidate=60",
            "max-age=1, proxy-revalidate, stale-while-revalidate=60",
        ],
        check: |visit| Box::pin(told_why(visit)),
    },
];

/// Asks as everybody until the refresh has come, and gives that answer.
async fn refreshed(
    visit: &Visit,
    clean: &Request,
    before: usize,
) -> Result<crate::wire::Answer, String> {
    visit.sees(before + 1).await?;
    visit
        .until(clean, "a fresh hit", |answer| {
            answer.is_hit() && !answer.field("cache-status").contains("stale")
        })
        .await
}

async fn forged(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", STALE), ("reflect", visit.input)]);
    let clean = Request::get(&page);
    visit.warm(&page).await?;
    visit.a_second_passes().await;
    let before = visit.fetches().await;
    visit
        .send(clean.clone().field(visit.input, "evil.example"))
        .await;
    visit.send(clean.clone()).await;
    visit.sees(before + 1).await?;
    for _ in 0..3 {
        ensure!(
            !visit.send(clean.clone()).await.mentions("evil.example"),
            "a clean client got the forged value"
        );
    }
    Ok(())
}

async fn no_identity(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", &format!("public, {STALE}"))]);
    visit.warm(&page).await?;
    visit.a_second_passes().await;
    let before = visit.fetches().await;
    let answer = visit.send(Request::get(&page).line(visit.input)).await;
    // Where the client's own request went to the origin, that is no refresh.
    if !answer.is_hit() {
        return Ok(());
    }
    let (name, _) = visit.input.split_once(':').unwrap_or_default();
    for request in visit.sees(before + 1).await?.iter().skip(before) {
        ensure!(
            journal_field(request, name).is_none(),
            "the refresh carried {name}"
        );
    }
    Ok(())
}

async fn with_a_cookie(visit: Visit) -> Verdict {
    let (method, status) = visit.pair();
    let conditional = if status == "304" { "1" } else { "0" };
    let page = visit.page(&[
        ("cache-control", STALE),
        ("header", "etag: \"1\""),
        ("conditional", conditional),
    ]);
    let clean = Request::get(&page);
    visit.warm(&page).await?;
    visit.a_second_passes().await;
    let before = visit.fetches().await;
    let stale = visit
        .send(Request::new(method, &page).field("cookie", "_ga=1"))
        .await;
    ensure!(
        stale.is_hit(),
        "the stale answer was not a hit for a client with a cookie"
    );
    visit.sees(before + 1).await?;
    let next = visit.send(clean.clone()).await;
    ensure!(
        next.is_hit(),
        "the entry is gone: {}",
        next.field("cache-status")
    );
    refreshed(&visit, &clean, before).await.map(drop)
}

async fn variant(visit: Visit) -> Verdict {
    let (name, value) = visit.input.split_once(": ").unwrap_or_default();
    let page = visit.page(&[
        ("cache-control", &format!("public, {STALE}")),
        ("vary", name),
    ]);
    let dark = Request::get(&page).field(name, value);
    visit.send(dark.clone()).await;
    visit.send(Request::get(&page)).await;
    visit.a_second_passes().await;
    for _ in 0..3 {
        let answer = visit.send(dark.clone()).await;
        ensure!(
            answer.mentions(value),
            "who asks with {} got the page for nobody",
            visit.input
        );
        visit.time_passes(100).await;
    }
    ensure!(
        !visit.get(&page).await.mentions(value),
        "who asks without {name} got another's page"
    );
    Ok(())
}

async fn behind_a_route(visit: Visit) -> Verdict {
    let name = visit.path.trim_start_matches("/anything/");
    let (outer, inner, reflected, expected) = match visit.input {
        "prefix_rewrite" => (
            "/v2/",
            "/anything/v1/",
            "host",
            "\"target\":\"/anything/v1/",
        ),
        "host_rewrite" => (
            "/hosted/",
            "/anything/hosted/",
            "host",
            "\"request-host\":\"inner.test\"",
        ),
        _ => (
            "/v2/",
            "/anything/v1/",
            "x-backend-key",
            "\"request-x-backend-key\":\"secret\"",
        ),
    };
    let target = crate::visit::page(
        &format!("{outer}{name}"),
        &[("cache-control", STALE), ("reflect", reflected)],
    );
    let clean = Request::get(&target);
    visit.warm(&target).await?;
    visit.a_second_passes().await;
    for _ in 0..10 {
        let answer = visit.send(clean.clone()).await;
        ensure!(
            answer.text().contains(expected),
            "another content came: {}",
            answer.text()
        );
        visit.time_passes(50).await;
    }
    let seen = visit.journal(&format!("{inner}{name}")).await.len();
    ensure!(
        seen >= 2,
        "the stale entry was never refreshed by the way of its route"
    );
    Ok(())
}

async fn gone(visit: Visit) -> Verdict {
    visit
        .behave(&json!({ "headers": [["cache-control", STALE]], "times": 1 }))
        .await?;
    let status: u16 = visit.input.parse().unwrap_or_default();
    visit.behave(&json!({ "status": status })).await?;
    let clean = Request::get(&visit.path);
    visit.send(clean.clone()).await;
    visit.a_second_passes().await;
    visit.send(clean.clone()).await;
    let wanted = format!("the {status}");
    visit
        .until(&clean, &wanted, |answer| answer.status == status)
        .await
        .map(drop)
}

async fn told_why(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", visit.input)]);
    visit.warm(&page).await?;
    visit.a_second_passes().await;
    let answer = visit.get(&page).await;
    let said = answer.field("cache-status");
    ensure!(
        !answer.is_hit(),
        "a stale answer was given against {}",
        visit.input
    );
    ensure!(
        said.contains("fwd=stale") && said.contains("detail="),
        "no reason: {said}"
    );
    Ok(())
}
