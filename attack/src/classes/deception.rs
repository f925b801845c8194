//! Deception: a victim is sent to a URL that the cache takes for something public. Confusion: cache
//! and origin read a path differently.

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::target::PATIENCE;
use crate::visit::{Visit, page};
use crate::wire::Request;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Deception,
        name: "static-suffix",
        source: "Gil, Web Cache Deception (2017); Mirheidari et al., Cached and Confused (2020)",
        expectation: "No ending of a path makes a page storable that names no lifetime.",
        setting: Setting::Safe,
        inputs: &[
            "/x.css",
            "/x.js",
            "/x.jpg",
            "/x.woff2",
            ";x.css",
            "%2Fx.css",
            "%3Bx.css",
            "%0Ax.css",
            "%23x.css",
            "%3Fx.css",
            "%26x.css",
            "%00x.css",
            "/..%2fstatic/x.css",
            "/robots.txt",
            "/favicon.ico",
            "/.well-known/x",
        ],
        check: |visit| Box::pin(suffix(visit)),
    },
    Scenario {
        class: Class::Deception,
        name: "private-page-under-an-operators-lifetime",
        source: "Gil (2017); Cloudflare documentation, Cache Deception Armor",
        expectation: "An operator's default lifetime stores nothing that its origin or its request marks as one user's.",
        setting: Setting::Operator,
        inputs: &[
            "cache-control: private >",
            "cache-control: no-store >",
            "cache-control: no-cache >",
            "set-cookie: sid=alice >",
            "> cookie: sid=alice",
            "> authorization: Basic YWxpY2U6",
            "> x-api-key: alice",
            "expires: 0 >",
            "vary: * >",
        ],
        check: |visit| Box::pin(private_page(visit)),
    },
    Scenario {
        class: Class::Deception,
        name: "path-spelling",
        source: "Doyhenard, Gotta Cache 'Em All (2024)",
        expectation: "Whoever asks for a path gets what the origin says of this very path, however others have spelled theirs.",
        setting: Setting::Safe,
        inputs: &[
            "a/../b",
            "a/%2e%2e/b",
            "a/..%2fb",
            "a%2f..%2fb",
            "./b",
            "/b",
            "b/",
            "b%2f",
            "B",
            "%62",
            "b;x",
            "b%5c",
            "b\\",
            "b%20",
            "b%00",
            "b%0a",
            "b%23x",
            "b%3fx",
            "a/..;/b",
            "b/.",
        ],
        check: |visit| Box::pin(spelling(visit)),
    },
    Scenario {
        class: Class::Deception,
        name: "fragment-in-a-target",
        source: "Apache Traffic Server CVE-2021-27577; RFC 9112 §3.2",
        expectation: "A request target with a fragment poisons nothing.",
        setting: Setting::Safe,
        inputs: &["b#x", "b#/../../account", "#b", "b?x#y"],
        check: |visit| Box::pin(spelling(visit)),
    },
    Scenario {
        class: Class::Deception,
        name: "absolute-target",
        source: "RFC 9112 §3.2.2; Kettle, Cracking the Lens (2017)",
        expectation: "A target in absolute form counts for the host that it names, and for no other.",
        setting: Setting::Safe,
        inputs: &[
            "http://evil.example",
            "http://evil.example:80",
            "http://user@evil.example",
            "HTTP://EVIL.example",
        ],
        check: |visit| Box::pin(absolute(visit)),
    },
];

async fn suffix(visit: Visit) -> Verdict {
    let target = page(
        &format!("{}/account{}", visit.path, visit.input),
        &[("reflect", "cookie")],
    );
    for _ in 0..2 {
        visit
            .send(Request::get(&target).field("cookie", "sid=alice"))
            .await;
    }
    let mallory = visit.get(&target).await;
    ensure!(!mallory.mentions("alice"), "mallory got alice's page");
    ensure!(!mallory.is_hit(), "a page without a lifetime was stored");
    Ok(())
}

/// The input is a line of the response, and after `>` one of the request.
async fn private_page(visit: Visit) -> Verdict {
    let (response, request) = visit.input.split_once('>').unwrap_or_default();
    let response = response.trim();
    let members = [
        ("header", response),
        ("reflect", "cookie,authorization,x-api-key"),
    ];
    let target = page(
        &visit.path,
        if response.is_empty() {
            &members[1..]
        } else {
            &members
        },
    );
    visit.send(Request::get(&target).line(request.trim())).await;
    let other = visit.get(&target).await;
    ensure!(!other.is_hit(), "another user got a stored page");
    let reflected = ["sid=alice", "Basic YWxpY2U6", "alice"].map(|value| format!(":\"{value}\""));
    ensure!(
        !reflected.iter().any(|value| other.text().contains(value)),
        "another user got alice's page"
    );
    Ok(())
}

async fn spelling(visit: Visit) -> Verdict {
    let query = "mock-cache-control=max-age%3D60";
    let odd = format!(
        "GET {}/{}?{query} HTTP/1.1\r\nhost: shop.test\r\n\r\n",
        visit.path, visit.input
    );
    for _ in 0..2 {
        visit.raw(odd.as_bytes(), &["GET"], PATIENCE).await;
    }
    for name in ["a", "b", "account"] {
        let target = format!("{}/{name}?{query}", visit.path);
        let plain = visit.get(&target).await;
        let own = format!("\"target\":\"{target}\"");
        ensure!(
            plain.text().contains(&own),
            "{name} got what the origin said of another path: {}",
            plain.text()
        );
    }
    Ok(())
}

async fn absolute(visit: Visit) -> Verdict {
    let target = visit.page(&[("cache-control", "max-age=60"), ("reflect", "host")]);
    let odd = format!(
        "GET {}{target} HTTP/1.1\r\nhost: shop.test\r\n\r\n",
        visit.input
    );
    for _ in 0..2 {
        visit.raw(odd.as_bytes(), &["GET"], PATIENCE).await;
    }
    let clean = visit.get(&target).await;
    ensure!(
        clean.text().contains("\"request-host\":\"shop.test\""),
        "a clean client got another host's: {}",
        clean.text()
    );
    Ok(())
}
