//! Header fields: what a client makes of them, what of a response is its own connection's, what
//! tells too much.

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::{Visit, page};
use crate::wire::Request;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Fields,
        name: "connection-names-a-field",
        source: "Varnish CVE-2022-45059; Davison, Abusing hop-by-hop headers (2019); RFC 9110 §7.6.1",
        expectation: "A client's Connection field takes no other client's answer away and makes nobody's page public.",
        setting: Setting::Safe,
        inputs: &[
            "authorization",
            "cookie",
            "host",
            "accept-encoding",
            "content-length",
            "x-forwarded-for",
            "cache-control",
            "x-jwt-sub",
            "x-a",
            "close, x-a",
        ],
        check: |visit| Box::pin(connection_names(visit)),
    },
    Scenario {
        class: Class::Fields,
        name: "connection-fields-of-a-response",
        source: "RFC 9111 §3.1, RFC 9110 §7.6.1",
        expectation: "What concerns the origin's connection is not in a hit.",
        setting: Setting::Rogue,
        inputs: &[
            "keep-alive: timeout=5",
            "proxy-connection: keep-alive",
            "upgrade: h2c",
            "te: trailers",
            "trailer: x-a",
            "proxy-authenticate: Basic",
            "x-secret-hop: 1",
            "proxy-authentication-info: x",
        ],
        check: |visit| Box::pin(of_the_connection(visit)),
    },
    Scenario {
        class: Class::Fields,
        name: "no-store-fields",
        source: "RFC 9111 §5.2.2.4, §5.2.2.7: field names in no-cache and private",
        expectation: "A field that private or no-cache names is not in another client's hit.",
        setting: Setting::Safe,
        inputs: &[
            "private=\"x-user\"",
            "no-cache=\"x-user\"",
            "private=\"X-User, x-b\"",
            "no-cache=\"x-b, X-USER\"",
        ],
        check: |visit| Box::pin(named_fields(visit)),
    },
    Scenario {
        class: Class::Fields,
        name: "time-of-the-fetch",
        source: "Envoy documentation of x-envoy-upstream-service-time",
        expectation: "A hit does not repeat what Envoy said of the fetch.",
        setting: Setting::Safe,
        inputs: &[
            "x-envoy-upstream-service-time",
            "x-envoy-decorator-operation",
            "x-envoy-upstream-healthchecked-cluster",
        ],
        check: |visit| Box::pin(time_of_fetch(visit)),
    },
    Scenario {
        class: Class::Fields,
        name: "what-clients-are-told",
        source: "RFC 9211 §6; Kong and Souin debug headers",
        expectation: "Where an operator tells clients nothing, no answer speaks of the cache.",
        setting: Setting::Discreet,
        inputs: &["cache-status", "x-cache-status"],
        check: |visit| Box::pin(told_nothing(visit)),
    },
    Scenario {
        class: Class::Fields,
        name: "no-key-in-an-answer",
        source: "RFC 9211 §6: key; Hackmanit Web-Cache-Vulnerability-Scanner",
        expectation: "No answer shows a key, a namespace, or where the sidecar is.",
        setting: Setting::Safe,
        inputs: &["x-cache-key", "cache-status", "x-larder"],
        check: |visit| Box::pin(no_key(visit)),
    },
];

/// An attacker takes a field out of the request by naming it; then everybody asks.
async fn connection_names(visit: Visit) -> Verdict {
    let name = visit.input.trim_start_matches("close, ");
    let target = visit.page(&[
        ("cache-control", "max-age=60"),
        ("reflect", "authorization,cookie,x-jwt-sub"),
        ("vary", "accept-encoding, x-a"),
    ]);
    let attack = Request::get(&target).field("connection", visit.input);
    let attack = match name {
        "host" | "content-length" => attack,
        name => attack.field(name, "alice"),
    };
    for _ in 0..2 {
        visit.send(attack.clone()).await;
    }
    for _ in 0..2 {
        let clean = visit.get(&target).await;
        ensure!(
            clean.is_whole(200) && !clean.text().contains("alice"),
            "a clean client got {}",
            clean.shown()
        );
    }
    Ok(())
}

async fn of_the_connection(visit: Visit) -> Verdict {
    let (name, _) = visit.input.split_once(':').unwrap_or_default();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nconnection: {name}\r\n{}\r\n",
        visit.input
    );
    visit.rogue()?.says(
        &visit.path,
        format!("{head}content-length: 2\r\n\r\nok").as_bytes(),
    );
    let hit = visit.warm(&visit.path).await?;
    ensure!(!hit.has(name), "the hit has {name}");
    Ok(())
}

async fn named_fields(visit: Visit) -> Verdict {
    let target = visit.page(&[
        ("cache-control", &format!("{}, max-age=60", visit.input)),
        ("header", "x-user: alice"),
    ]);
    visit.get(&target).await;
    for _ in 0..3 {
        let answer = visit.get(&target).await;
        ensure!(
            !(answer.is_hit() && answer.has("x-user")),
            "another client's hit has the field"
        );
    }
    Ok(())
}

async fn time_of_fetch(visit: Visit) -> Verdict {
    let target = visit.page(&[("cache-control", "max-age=60"), ("delay-ms", "30")]);
    let hit = visit.warm(&target).await?;
    ensure!(
        !hit.has(visit.input),
        "the hit has {}: {}",
        visit.input,
        hit.field(visit.input)
    );
    Ok(())
}

async fn told_nothing(visit: Visit) -> Verdict {
    for (status, control) in [
        ("200", "max-age=60"),
        ("200", "no-store"),
        ("500", "no-store"),
        ("404", "max-age=60"),
    ] {
        let target = page(
            &format!("{}/{status}", visit.path),
            &[("status", status), ("cache-control", control)],
        );
        for _ in 0..3 {
            let answer = visit.get(&target).await;
            ensure!(
                answer.status != 0 && !answer.has(visit.input),
                "an answer says {}",
                answer.field(visit.input)
            );
        }
    }
    Ok(())
}

async fn no_key(visit: Visit) -> Verdict {
    let target = visit.page(&[("cache-control", "max-age=60")]);
    let requests = [
        Request::get(&target),
        Request::get(&target).field("x-cache-debug", "1"),
        Request::get(&target).field("pragma", "x-get-cache-key"),
    ];
    for request in requests {
        let answer = visit.send(request).await;
        let said = answer.field(visit.input);
        let tells =
            said.contains("key=") || said.contains("shop.test") || said.contains("127.0.0.1");
        let is_key = visit.input == "x-cache-key" && answer.has("x-cache-key");
        ensure!(!tells, "it says {said}");
        ensure!(!is_key, "it has a field for the key: {said}");
    }
    Ok(())
}
