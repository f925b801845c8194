//! What belongs to one user: credentials, cookies, private pages.

use serde_json::json;

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::Request;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Credentials,
        name: "authorization",
        source: "RFC 9111 §3.5; cache-tests other-authorization; envoyproxy/envoy#9857",
        expectation: "The answer to a request with credentials is stored only if it says public or s-maxage.",
        setting: Setting::Safe,
        inputs: &[
            "Basic YWxpY2U6",
            "Bearer alice",
            "Digest username=\"alice\"",
            "Negotiate alice",
            "alice",
            "bearer  alice",
            "AWS4-HMAC-SHA256 Credential=alice",
        ],
        check: |visit| Box::pin(authorization(visit)),
    },
    Scenario {
        class: Class::Credentials,
        name: "identity-field",
        source: "Envoy documentation of jwt_authn, ext_authz and oauth2; oauth2-proxy; AWS ALB, Google IAP, Cloudflare Access, Azure Easy Auth",
        expectation: "A field by which a proxy tells an origin who somebody is counts as credentials.",
        setting: Setting::Safe,
        inputs: &[
            "x-jwt-sub",
            "x-jwt-payload",
            "x-jwt-claim-email",
            "x-forwarded-user",
            "x-forwarded-email",
            "x-forwarded-groups",
            "x-forwarded-preferred-username",
            "x-forwarded-access-token",
            "x-auth-request-user",
            "x-auth-request-email",
            "x-auth-request-groups",
            "x-auth-request-access-token",
            "x-forwarded-client-cert",
            "x-api-key",
            "api-key",
            "x-auth-token",
            "x-access-token",
            "x-amzn-oidc-data",
            "x-amzn-oidc-identity",
            "x-goog-iap-jwt-assertion",
            "x-goog-authenticated-user-email",
            "x-ms-client-principal",
            "x-ms-client-principal-name",
            "cf-access-jwt-assertion",
            "remote-user",
            "proxy-authorization",
        ],
        check: |visit| Box::pin(identity_field(visit)),
    },
    Scenario {
        class: Class::Credentials,
        name: "stored-page-for-an-identity",
        source: "RFC 9111 §3.5",
        expectation: "Who identifies himself does not get a page that was stored for those who do not, unless it is public.",
        setting: Setting::Safe,
        inputs: &[
            "authorization: Bearer alice",
            "x-jwt-sub: alice",
            "x-forwarded-user: alice",
            "x-api-key: alice",
        ],
        check: |visit| Box::pin(stored_for_nobody(visit)),
    },
    Scenario {
        class: Class::Credentials,
        name: "set-cookie",
        source: "cache-tests other-set-cookie; caddyserver/cache-handler#124",
        expectation: "A response that sets a cookie is not stored, whatever lifetime it names.",
        setting: Setting::Safe,
        inputs: &[
            "200 > max-age=60",
            "200 > public, max-age=60",
            "200 > s-maxage=60",
            "200 > public, immutable, max-age=31536000",
            "301 > max-age=60",
            "404 > max-age=60",
            "410 > public, max-age=60",
        ],
        check: |visit| Box::pin(set_cookie(visit)),
    },
    Scenario {
        class: Class::Credentials,
        name: "set-cookie-in-a-304",
        source: "RFC 9111 §3.2, §4.3.4",
        expectation: "A cookie that comes with a 304 goes to the one who asked.",
        setting: Setting::Safe,
        inputs: &["max-age=0", "no-cache", "max-age=1"],
        check: |visit| Box::pin(set_cookie_in_304(visit)),
    },
    Scenario {
        class: Class::Credentials,
        name: "prohibition",
        source: "RFC 9111 §5.2.2.5, §5.2.2.7; RFC 9213 §2.1",
        expectation: "However an origin writes private or no-store, another client gets a page of its own.",
        setting: Setting::Safe,
        inputs: &[
            "cache-control: private",
            "cache-control: PRIVATE, max-age=60",
            "cache-control: max-age=60, private",
            "cache-control: max-age=60, no-store",
            "cache-control: max-age=60,,no-store,",
            "cache-control: max-age=60 , No-Store",
            "cache-control: no-store=1, max-age=60",
            "cache-control: x=\"a, b\", no-store, max-age=60",
            "cache-control: public, max-age=60, private",
            "cdn-cache-control: no-store",
            "cdn-cache-control: private, max-age=60",
        ],
        check: |visit| Box::pin(prohibition(visit)),
    },
    Scenario {
        class: Class::Credentials,
        name: "second-line",
        source: "RFC 9110 §5.3: several lines of a field are one list",
        expectation: "A prohibition in a second Cache-Control line counts like one in the first.",
        setting: Setting::Safe,
        inputs: &["private", "no-store", "no-cache", "max-age=0"],
        check: |visit| Box::pin(second_line(visit)),
    },
    Scenario {
        class: Class::Credentials,
        name: "error-page",
        source: "Squid CVE-2025-62168",
        expectation: "No answer that the cache or Envoy makes up repeats a request's credentials.",
        setting: Setting::Safe,
        inputs: &["authorization", "cookie", "x-api-key"],
        check: |visit| Box::pin(error_page(visit)),
    },
];

async fn authorization(visit: Visit) -> Verdict {
    others_do_not_get(visit, "authorization").await
}

async fn identity_field(visit: Visit) -> Verdict {
    let name = visit.input;
    others_do_not_get(visit, name).await
}

/// Alice asks with a field, twice; then bob with his own, and somebody without.
async fn others_do_not_get(visit: Visit, name: &str) -> Verdict {
    let alice = if visit.input == name {
        "alice-in-person"
    } else {
        visit.input
    };
    let page = visit.page(&[("cache-control", "max-age=60"), ("reflect", name)]);
    for _ in 0..2 {
        visit.send(Request::get(&page).field(name, alice)).await;
    }
    let shown = serde_json::Value::from(alice).to_string();
    for other in [
        Request::get(&page).field(name, "Bearer bob"),
        Request::get(&page),
    ] {
        let answer = visit.send(other).await;
        ensure!(
            answer.status == 200 && !answer.text().contains(&shown),
            "another user got alice's page"
        );
    }
    Ok(())
}

async fn stored_for_nobody(visit: Visit) -> Verdict {
    let (name, value) = visit.input.split_once(": ").unwrap_or_default();
    let page = visit.page(&[("cache-control", "max-age=60"), ("reflect", name)]);
    visit.warm(&page).await?;
    let answer = visit.send(Request::get(&page).field(name, value)).await;
    ensure!(answer.mentions(value), "alice got the page for nobody");
    Ok(())
}

async fn set_cookie(visit: Visit) -> Verdict {
    let (status, control) = visit.pair();
    let page = visit.page(&[
        ("status", status),
        ("cache-control", control),
        ("header", "set-cookie: sid=alice"),
    ]);
    for _ in 0..3 {
        ensure!(
            !visit.get(&page).await.is_hit(),
            "a response that sets a cookie was stored"
        );
    }
    Ok(())
}

async fn set_cookie_in_304(visit: Visit) -> Verdict {
    let fields = json!([["cache-control", visit.input], ["etag", "\"1\""]]);
    visit
        .behave(&json!({ "headers": fields, "times": 1 }))
        .await?;
    let with_cookie = json!([
        ["cache-control", "max-age=60"],
        ["etag", "\"1\""],
        ["set-cookie", "sid=alice"]
    ]);
    visit
        .behave(&json!({ "headers": with_cookie, "conditional": true, "times": 1 }))
        .await?;
    visit
        .behave(&json!({ "headers": fields, "conditional": true }))
        .await?;
    visit.get(&visit.path).await;
    visit.a_second_passes().await;
    visit.get(&visit.path).await;
    for _ in 0..3 {
        ensure!(
            !visit.get(&visit.path).await.mentions("alice"),
            "another client got the cookie of the 304"
        );
    }
    Ok(())
}

async fn prohibition(visit: Visit) -> Verdict {
    let plain = if visit.input.starts_with("cdn-") {
        "max-age=60"
    } else {
        "x"
    };
    let page = visit.page(&[
        ("header", visit.input),
        ("header", &format!("cache-control: {plain}")),
    ]);
    for _ in 0..3 {
        ensure!(
            !visit.get(&page).await.is_hit(),
            "it was stored against {}",
            visit.input
        );
    }
    Ok(())
}

async fn second_line(visit: Visit) -> Verdict {
    let page = visit.page(&[
        ("cache-control", "max-age=60"),
        ("cache-control", visit.input),
    ]);
    for _ in 0..3 {
        let answer = visit.get(&page).await;
        // Two lifetimes contradict each other; the shorter is the safe one (RFC 9111 §4.2.1).
        ensure!(!answer.is_hit(), "the second line did not count");
    }
    Ok(())
}

async fn error_page(visit: Visit) -> Verdict {
    let secret = "a-secret-that-nobody-may-repeat";
    let broken = visit.page(&[("reset", "1")]);
    let long = "x".repeat(70_000);
    let requests = [
        Request::get(&broken).field(visit.input, secret),
        Request::get(&visit.page(&[]))
            .field(visit.input, secret)
            .field("cache-control", "only-if-cached"),
        Request::get(&visit.page(&[]))
            .field(visit.input, secret)
            .field("x-long", &long),
        Request::get(&format!("{}?cache-control=nonsense", visit.path)).field(visit.input, secret),
    ];
    for request in requests {
        ensure!(
            !visit.send(request).await.mentions(secret),
            "an answer repeats the request's {}",
            visit.input
        );
    }
    Ok(())
}
