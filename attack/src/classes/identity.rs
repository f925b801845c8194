//! Identity that only the filters before the cache see: Envoy's own `jwt_authn` and `ext_authz`.

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::{Visit, page};
use crate::wire::Request;

/// Signed with the key of the setting; they say who somebody is and never expire.
const ALICE: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImF0dGFjayJ9.eyJpc3MiOiJhdHRhY2siLCJzdWIiOiJhbGljZSJ9.dd-Jhly7uzUyCa2v8vhUarwrElAB0d1NQKeeKgSZMzY";
const BOB: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImF0dGFjayJ9.eyJpc3MiOiJhdHRhY2siLCJzdWIiOiJib2IifQ.kaZoLSV8SqZEQTEY04mUsWMOWybX2ZDC3ZP0TJdAOgc";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Credentials,
        name: "jwt-authn-removes-the-token",
        source: "Envoy documentation, jwt_authn: forward is false by default",
        expectation: "Behind jwt_authn, which removes the token, one user's page answers no other user.",
        setting: Setting::Identity,
        inputs: &[
            "jwt-claim > max-age=60",
            "jwt-payload > max-age=60",
            "jwt-metadata > max-age=60",
        ],
        check: |visit| Box::pin(jwt(visit)),
    },
    Scenario {
        class: Class::Credentials,
        name: "ext-authz-adds-the-user",
        source: "Envoy documentation, ext_authz: allowed_upstream_headers",
        expectation: "Behind ext_authz, which adds who somebody is, one user's page answers no other user.",
        setting: Setting::Identity,
        inputs: &["max-age=60", "max-age=60, stale-while-revalidate=60"],
        check: |visit| Box::pin(authz(visit)),
    },
];

async fn jwt(visit: Visit) -> Verdict {
    let (provider, control) = visit.pair();
    let own = visit
        .path
        .replace("/anything/", &format!("/anything/{provider}/"));
    let target = page(
        &own,
        &[
            ("cache-control", control),
            ("reflect", "x-jwt-sub,x-jwt-payload"),
        ],
    );
    let as_user =
        |token: &str| Request::get(&target).field("authorization", &format!("Bearer {token}"));
    let refused = visit.send(Request::get(&target)).await;
    ensure!(
        refused.status == 401,
        "without a token there is {}: the filter is not in place",
        refused.status
    );
    let alice = visit.send(as_user(ALICE)).await;
    ensure!(alice.is_whole(200), "alice got {}", alice.shown());
    visit.send(as_user(ALICE)).await;
    for _ in 0..2 {
        let bob = visit.send(as_user(BOB)).await;
        ensure!(
            bob.is_whole(200) && !bob.is_hit(),
            "bob got what was stored for alice"
        );
    }
    Ok(())
}

async fn authz(visit: Visit) -> Verdict {
    let members = [
        ("cache-control", visit.input),
        ("reflect", "x-auth-request-user"),
        ("echo", "x-auth-request-user:x-session"),
    ];
    let target = visit.page(&members);
    let as_user = |name: &str| Request::get(&target).field("x-session", name);
    let alice = visit.send(as_user("alice")).await;
    ensure!(
        alice
            .text()
            .contains("\"request-x-auth-request-user\":\"alice\""),
        "the filter is not in place: {}",
        alice.shown()
    );
    visit.send(as_user("alice")).await;
    for _ in 0..2 {
        let bob = visit.send(as_user("bob")).await;
        ensure!(!bob.text().contains("alice"), "bob got alice's page");
    }
    Ok(())
}
