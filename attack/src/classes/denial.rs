//! Denial of service by the cache: one client's error is kept and given to all.

use serde_json::json;

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::target::PATIENCE;
use crate::visit::Visit;
use crate::wire::Request;

/// Errors that a request can bring about by itself.
const OF_REQUESTS: &[&str] = &[
    "400", "405", "408", "411", "412", "413", "414", "415", "416", "417", "421", "422", "423",
    "424", "425", "426", "427", "428", "429", "430", "431",
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Denial,
        name: "error-with-a-lifetime",
        source: "Nguyen, Lo Iacono, Federrath, Your Cache Has Fallen (2019)",
        expectation: "An error that one request brought about is not kept, even with a lifetime.",
        setting: Setting::Safe,
        inputs: &[
            "400", "401", "403", "405", "406", "408", "411", "412", "413", "414", "415", "416",
            "417", "421", "422", "425", "429", "431", "500", "501", "502", "503", "504", "505",
        ],
        check: |visit| Box::pin(kept(visit)),
    },
    Scenario {
        class: Class::Denial,
        name: "class-of-statuses",
        source: "Nguyen et al. (2019); nginx documentation of proxy_cache_valid",
        expectation: "An operator's lifetime for 4xx leaves out the errors that a request brings about by itself.",
        setting: Setting::Operator,
        inputs: OF_REQUESTS,
        check: |visit| Box::pin(kept_by_class(visit)),
    },
    Scenario {
        class: Class::Denial,
        name: "oversized-header",
        source: "Nguyen et al. (2019), HTTP Header Oversize",
        expectation: "An error about one client's large header stays with that client.",
        setting: Setting::Safe,
        inputs: &["9000", "20000", "50000", "70000"],
        check: |visit| Box::pin(oversized(visit)),
    },
    Scenario {
        class: Class::Denial,
        name: "meta-character",
        source: "Nguyen et al. (2019), HTTP Meta Character",
        expectation: "An error about one client's control characters stays with that client.",
        setting: Setting::Safe,
        inputs: &[
            "x-a: \u{7}",
            "x-a: \0",
            "x-a: \r b",
            "x-a: \u{7f}",
            "x-a: b\r\n c",
            "\u{1}: b",
            "x a: b",
            ": b",
            "x-a\t: b",
        ],
        check: |visit| Box::pin(meta(visit)),
    },
    Scenario {
        class: Class::Denial,
        name: "odd-request-field",
        source: "Nguyen et al. (2019), HTTP Method Override; Hackmanit Web-Cache-Vulnerability-Scanner",
        expectation: "An error that an odd field of one client brings about stays with that client.",
        setting: Setting::Safe,
        inputs: &[
            "x-http-method-override: DELETE > 405",
            "x-method-override: PATCH > 405",
            "x-http-method: POST > 404",
            "range: bytes=99999- > 416",
            "if-match: \"evil\" > 412",
            "if-unmodified-since: Mon, 01 Jan 1990 00:00:00 GMT > 412",
            "expect: evil > 417",
            "content-type: evil/evil > 415",
            "accept: evil/evil > 406",
            "accept-encoding: evil > 406",
            "user-agent: sqlmap > 403",
            "max-forwards: 0 > 400",
            "transfer-encoding: evil > 501",
        ],
        check: |visit| Box::pin(odd_field(visit)),
    },
    Scenario {
        class: Class::Denial,
        name: "method-override-answer",
        source: "Nguyen et al. (2019), HTTP Method Override",
        expectation: "The answer to an overridden method answers nobody else, even if it says 200.",
        setting: Setting::Safe,
        inputs: &[
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
        ],
        check: |visit| Box::pin(override_answer(visit)),
    },
    Scenario {
        class: Class::Denial,
        name: "error-over-a-good-copy",
        source: "Varnish test b00063; RFC 9111 §4.2.4",
        expectation: "An error of the origin does not take the place of a copy that may answer stale.",
        setting: Setting::Safe,
        inputs: &["500", "502", "503", "504"],
        check: |visit| Box::pin(good_copy(visit)),
    },
];

async fn kept(visit: Visit) -> Verdict {
    let status: u16 = visit.input.parse().unwrap_or_default();
    visit
        .behave(
            &json!({ "status": status, "headers": [["cache-control", "max-age=60"]], "times": 1 }),
        )
        .await?;
    visit
        .behave(&json!({ "headers": [["cache-control", "max-age=60"]] }))
        .await?;
    recovers(&visit, status).await
}

async fn kept_by_class(visit: Visit) -> Verdict {
    let status: u16 = visit.input.parse().unwrap_or_default();
    visit
        .behave(&json!({ "status": status, "times": 1 }))
        .await?;
    recovers(&visit, status).await
}

/// The first client gets the error, the second what the origin says now.
async fn recovers(visit: &Visit, status: u16) -> Verdict {
    let first = visit.get(&visit.path).await;
    ensure!(
        first.status == status,
        "the first client got {} instead of the origin's {status}",
        first.status
    );
    let second = visit.get(&visit.path).await;
    ensure!(
        second.is_whole(200),
        "the next client got {} ({})",
        second.status,
        second.field("cache-status")
    );
    Ok(())
}

async fn oversized(visit: Visit) -> Verdict {
    let large = "x".repeat(visit.input.parse().unwrap_or_default());
    let page = visit.page(&[("cache-control", "max-age=60")]);
    visit
        .send(Request::get(&page).field("x-oversized", &large))
        .await;
    let clean = visit.get(&page).await;
    ensure!(clean.is_whole(200), "a clean client got {}", clean.status);
    Ok(())
}

async fn meta(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    let odd = format!(
        "GET {page} HTTP/1.1\r\nhost: shop.test\r\n{}\r\n\r\n",
        visit.input
    );
    visit.raw(odd.as_bytes(), &["GET"], PATIENCE).await;
    let clean = visit.get(&page).await;
    ensure!(clean.is_whole(200), "a clean client got {}", clean.status);
    Ok(())
}

async fn odd_field(visit: Visit) -> Verdict {
    let (line, status) = visit.pair();
    let status: u16 = status.parse().unwrap_or_default();
    visit
        .behave(
            &json!({ "status": status, "headers": [["cache-control", "max-age=60"]], "times": 1 }),
        )
        .await?;
    visit
        .behave(&json!({ "headers": [["cache-control", "max-age=60"]] }))
        .await?;
    visit.send(Request::get(&visit.path).line(line)).await;
    // Envoy may have refused it by itself; then the error is still to come, and goes to one client
    // too.
    if visit.fetches().await == 0 {
        visit.get(&visit.path).await;
    }
    for _ in 0..2 {
        let clean = visit.get(&visit.path).await;
        // The error of 404 kind is storable; that it is not stored for this request is the point.
        ensure!(
            clean.is_whole(200),
            "a clean client got {} ({})",
            clean.status,
            clean.field("cache-status")
        );
    }
    Ok(())
}

async fn override_answer(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60"), ("reflect", visit.input)]);
    for _ in 0..2 {
        visit
            .send(Request::get(&page).field(visit.input, "DELETE"))
            .await;
    }
    for _ in 0..2 {
        ensure!(
            !visit.get(&page).await.mentions("DELETE"),
            "a clean client got the answer to the overridden method"
        );
    }
    Ok(())
}

async fn good_copy(visit: Visit) -> Verdict {
    let status: u16 = visit.input.parse().unwrap_or_default();
    let lifetimes = "max-age=1, stale-while-revalidate=60, stale-if-error=60";
    visit
        .behave(&json!({ "headers": [["cache-control", lifetimes]], "times": 1 }))
        .await?;
    visit.behave(&json!({ "status": status })).await?;
    visit.get(&visit.path).await;
    visit.a_second_passes().await;
    for _ in 0..4 {
        let answer = visit.get(&visit.path).await;
        ensure!(
            answer.is_whole(200),
            "a client got the {} though a stale copy may answer",
            answer.status
        );
        visit.time_passes(100).await;
    }
    Ok(())
}
