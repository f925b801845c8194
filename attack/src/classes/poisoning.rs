//! Poisoning: one client's request decides what others get under the same key.

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::{Answer, Request};

/// What an attacker wants others to see.
const EVIL: &str = "evil.example";

/// Fields by which proxies tell an origin what was asked for.
const FORWARDING: &[&str] = &[
    "x-forwarded-host",
    "x-forwarded-server",
    "x-forwarded-port",
    "x-forwarded-scheme",
    "x-forwarded-prefix",
    "x-forwarded-ssl",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-http-host-override",
    "forwarded",
];

/// Fields that make a framework send another representation of the same URL.
const FRAMEWORK: &[&str] = &[
    "rsc",
    "next-router-state-tree",
    "next-router-prefetch",
    "next-router-segment-prefetch",
    "next-url",
    "x-nextjs-data",
    "x-middleware-prefetch",
    "x-middleware-subrequest",
    "x-invoke-path",
    "x-invoke-query",
    "x-invoke-status",
    "x-matched-path",
    "x-now-route-matches",
    "x-prerender-revalidate",
    "purpose",
    "sec-purpose",
    "x-requested-with",
    "x-inertia",
    "x-inertia-version",
    "x-inertia-partial-data",
    "x-inertia-partial-component",
    "turbo-frame",
    "hx-request",
    "hx-target",
    "x-pjax",
    "x-pjax-container",
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Poisoning,
        name: "forwarding-field",
        source: "Kettle, Practical Web Cache Poisoning (2018)",
        expectation: "What an origin makes of a forwarding field reaches nobody who did not send it.",
        setting: Setting::Safe,
        inputs: FORWARDING,
        check: |visit| Box::pin(reflected(visit)),
    },
    Scenario {
        class: Class::Poisoning,
        name: "framework-field",
        source: "Next.js CVE-2024-46982, CVE-2025-32421, CVE-2025-49826; Inertia, htmx and Turbo documentation",
        expectation: "What an origin makes of a framework's field reaches nobody who did not send it.",
        setting: Setting::Safe,
        inputs: FRAMEWORK,
        check: |visit| Box::pin(reflected(visit)),
    },
    Scenario {
        class: Class::Poisoning,
        name: "redirect-by-field",
        source: "Ratpack CVE-2021-29479; Kettle (2018)",
        expectation: "A redirect that an origin derives from a forged field is followed by its sender alone.",
        setting: Setting::Safe,
        inputs: &[
            "x-forwarded-host",
            "x-host",
            "x-original-host",
            "x-forwarded-scheme",
            "x-forwarded-prefix",
        ],
        check: |visit| Box::pin(redirect(visit)),
    },
    Scenario {
        class: Class::Poisoning,
        name: "forged-field-of-a-leader",
        source: "Kettle, Web Cache Entanglement (2020), applied to collapsed requests (RFC 9111 §4)",
        expectation: "Who waits for another's fetch does not get what that one's forged field made of it.",
        setting: Setting::Safe,
        inputs: &[
            "x-forwarded-host",
            "forwarded",
            "x-original-url",
            "rsc",
            "x-nextjs-data",
        ],
        check: |visit| Box::pin(follower(visit)),
    },
    Scenario {
        class: Class::Poisoning,
        name: "trusted-proxy-field",
        source: "Kettle (2018): the field is there because a trusted proxy sets it",
        expectation: "A field that every request carries with the same value costs no hit.",
        setting: Setting::Safe,
        inputs: &["x-forwarded-host", "x-forwarded-port", "forwarded"],
        check: |visit| Box::pin(trusted(visit)),
    },
    Scenario {
        class: Class::Poisoning,
        name: "reflected-cookie",
        source: "Kettle (2018), cookie-based poisoning",
        expectation: "A page made with one client's cookie is not stored unless the origin calls it public.",
        setting: Setting::Safe,
        inputs: &[
            "lang=evil.example",
            "theme=x; lang=evil.example",
            "=evil.example",
            "a=\"evil.example\"",
        ],
        check: |visit| Box::pin(cookie(visit)),
    },
    Scenario {
        class: Class::Poisoning,
        name: "parameter-cloaking",
        source: "Kettle, Web Cache Entanglement (2020); Rack, Bottle and Tornado parameter parsing",
        expectation: "Each query that the origin can tell apart has its own entry.",
        setting: Setting::Safe,
        inputs: &[
            "x=1 > x=1;y=evil",
            "x=1&x=2 > x=2&x=1",
            "x=a%26y=b > x=a&y=b",
            "x= > x",
            "x=1 > X=1",
            "x=1 > x=1&utm_source=evil",
            "x=1 > x=1&_=evil",
            "x=1 > x=1&",
            "x=1 > x=1%00",
            "x=%41 > x=A",
            "x=1 > x=1&callback=evil",
            "x=+ > x=%20",
        ],
        check: |visit| Box::pin(cloaked(visit)),
    },
    Scenario {
        class: Class::Poisoning,
        name: "fat-get",
        source: "Kettle, Web Cache Entanglement (2020); RFC 9110 §9.3.1",
        expectation: "The answer to a GET with content answers nobody else.",
        setting: Setting::Safe,
        inputs: &[
            "content-length: 5\r\n\r\nevil!",
            "transfer-encoding: chunked\r\n\r\n5\r\nevil!\r\n0\r\n\r\n",
            "content-type: application/x-www-form-urlencoded\r\ncontent-length: 5\r\n\r\nx=e&y",
        ],
        check: |visit| Box::pin(fat_get(visit)),
    },
];

/// The attacker's page has to be the attacker's alone; the next clean client and the one after it
/// get a clean one.
async fn reflected(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60"), ("reflect", visit.input)]);
    let forged = Request::get(&page).field(visit.input, EVIL);
    visit.send(forged.clone()).await;
    visit.send(forged).await;
    clean_twice(&visit, &page).await
}

async fn clean_twice(visit: &Visit, page: &str) -> Verdict {
    for _ in 0..2 {
        is_clean(&visit.get(page).await)?;
    }
    Ok(())
}

fn is_clean(answer: &Answer) -> Verdict {
    ensure!(answer.status != 0, "a clean client got no answer");
    ensure!(
        !answer.mentions(EVIL),
        "a clean client got the forged {EVIL}"
    );
    Ok(())
}

async fn redirect(visit: Visit) -> Verdict {
    let echo = format!("location:{}", visit.input);
    let page = visit.page(&[
        ("status", "301"),
        ("cache-control", "max-age=60"),
        ("echo", &echo),
    ]);
    for _ in 0..2 {
        visit
            .send(Request::get(&page).field(visit.input, EVIL))
            .await;
    }
    clean_twice(&visit, &page).await
}

async fn follower(visit: Visit) -> Verdict {
    let page = visit.page(&[
        ("cache-control", "max-age=60"),
        ("reflect", visit.input),
        ("delay-ms", "600"),
    ]);
    let leading = tokio::spawn({
        let (visit, forged) = (visit.clone(), Request::get(&page).field(visit.input, EVIL));
        async move { visit.send(forged).await }
    });
    visit.sees(1).await?;
    for answer in visit.herd(&Request::get(&page), 5).await {
        is_clean(&answer)?;
    }
    let _ = leading.await;
    Ok(())
}

async fn trusted(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60"), ("reflect", visit.input)]);
    let request = Request::get(&page).field(visit.input, "host=shop.test");
    visit
        .until(&request, "a hit", |answer| {
            answer.is_hit() && answer.mentions("host=shop.test")
        })
        .await
        .map(drop)
}

async fn cookie(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60"), ("reflect", "cookie")]);
    for _ in 0..2 {
        visit
            .send(Request::get(&page).field("cookie", visit.input))
            .await;
    }
    clean_twice(&visit, &page).await
}

/// Both orders: what either asks for, it gets.
async fn cloaked(visit: Visit) -> Verdict {
    let (one, other) = visit.pair();
    let members = "mock-cache-control=max-age%3D60";
    for query in [one, other, one, other] {
        let target = format!("{}?{members}&{query}", visit.path);
        let answer = visit.get(&target).await;
        let own = format!("\"target\":\"{target}\"");
        ensure!(
            answer.status == 400 || answer.text().contains(&own),
            "{query} got another's: {}",
            answer.text()
        );
    }
    Ok(())
}

async fn fat_get(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    let fat = format!("GET {page} HTTP/1.1\r\nhost: shop.test\r\n{}", visit.input);
    visit
        .raw(fat.as_bytes(), &["GET"], crate::target::PATIENCE)
        .await;
    let clean = visit.get(&page).await;
    ensure!(
        clean.text().contains("\"body_bytes\":0"),
        "a clean client got the answer to the fat GET"
    );
    Ok(())
}
