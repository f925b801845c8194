//! One resource under several spellings: what a purge or an unsafe method means, whoever spells it
//! how.

use serde_json::json;

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::Request;

const SPELLINGS: &[&str] = &[
    "SHOP.test",
    "Shop.Test",
    "shop.test:80",
    "SHOP.TEST:80",
    "shop.test > x-forwarded-proto: https",
    "shop.test > x-forwarded-proto: HTTP",
    "shop.test:80 > x-forwarded-proto: http",
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Spelling,
        name: "purge-of-another-spelling",
        source: "RFC 9110 §4.2.3; FRiCKLE/ngx_cache_purge#16",
        expectation: "A purge of a URL ends what is stored for every spelling of its host and scheme.",
        setting: Setting::Safe,
        inputs: SPELLINGS,
        check: |visit| Box::pin(purged(visit)),
    },
    Scenario {
        class: Class::Spelling,
        name: "purge-spelled-otherwise",
        source: "RFC 9110 §4.2.3",
        expectation: "A purge means the same URL however the operator spells its host and port.",
        setting: Setting::Safe,
        inputs: &["http://SHOP.test", "http://shop.test:80"],
        check: |visit| Box::pin(purge_spelled(visit)),
    },
    Scenario {
        class: Class::Spelling,
        name: "invalidation-by-another-spelling",
        source: "RFC 9111 §4.4, RFC 9110 §4.2.3",
        expectation: "A POST ends what is stored for every spelling of its URL's host.",
        setting: Setting::Safe,
        inputs: &[
            "SHOP.test",
            "shop.test:80",
            "shop.test > x-forwarded-proto: https",
        ],
        check: |visit| Box::pin(invalidated(visit)),
    },
    Scenario {
        class: Class::Spelling,
        name: "one-entry-for-all-spellings",
        source: "RFC 9110 §4.2.3",
        expectation: "Clients that spell a host differently share one entry, so nobody fills the cache by spelling.",
        setting: Setting::Safe,
        inputs: &["SHOP.TEST", "shop.test:80", "sHoP.tEsT:80"],
        check: |visit| Box::pin(shared(visit)),
    },
    Scenario {
        class: Class::Spelling,
        name: "another-site",
        source: "Pingora CVE-2026-2836: a key without the host; Kettle (2020): unkeyed port",
        expectation: "Another host or port has entries of its own.",
        setting: Setting::Safe,
        inputs: &[
            "evil.example",
            "shop.test:8080",
            "shop.test.evil.example",
            "shop.tes",
            "xshop.test",
            "shop.test:443",
            "127.0.0.1",
        ],
        check: |visit| Box::pin(another_site(visit)),
    },
    Scenario {
        class: Class::Spelling,
        name: "key-boundary",
        source: "Web cache poisoning is a key-boundary bug (2026)",
        expectation: "No host and path can be written so that together they make another's key.",
        setting: Setting::Safe,
        inputs: &[
            "shop.test/anything",
            "shop.test%2Fanything",
            "shop.test\u{0}",
            "shop.test ",
            "shop.test,evil.example",
            "[::1]",
            "",
        ],
        check: |visit| Box::pin(boundary(visit)),
    },
];

/// `host > line of the request`.
fn spelled(visit: &Visit, target: &str) -> Request {
    let (host, line) = visit.pair();
    Request::get(target).host(host).line(line)
}

async fn purged(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    let request = spelled(&visit, &page);
    visit
        .until(&request, "a hit", |answer| answer.is_hit())
        .await?;
    visit
        .purge(&json!({ "url": format!("http://shop.test{page}") }))
        .await?;
    let gone = visit
        .until(&request, "a miss", |answer| !answer.is_hit())
        .await;
    gone.map(drop)
        .map_err(|_| "what was purged is still served to who spells it so".to_owned())
}

async fn purge_spelled(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    visit.warm(&page).await?;
    visit
        .purge(&json!({ "url": format!("{}{page}", visit.input) }))
        .await?;
    let gone = visit
        .until(&Request::get(&page), "a miss", |answer| !answer.is_hit())
        .await;
    gone.map(drop)
        .map_err(|_| format!("a purge of {} left it", visit.input))
}

async fn invalidated(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    visit.warm(&page).await?;
    let (host, line) = visit.pair();
    visit
        .send(
            Request::new("POST", &page)
                .host(host)
                .line(line)
                .content(b"x"),
        )
        .await;
    ensure!(
        !visit.get(&page).await.is_hit(),
        "the old page is still a hit"
    );
    Ok(())
}

async fn shared(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    visit.warm(&page).await?;
    let answer = visit.send(spelled(&visit, &page)).await;
    ensure!(answer.is_hit(), "{} has an entry of its own", visit.input);
    Ok(())
}

async fn another_site(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60"), ("reflect", "host")]);
    let other = Request::get(&page).host(visit.input);
    for _ in 0..2 {
        visit.send(other.clone()).await;
    }
    let own = visit.get(&page).await;
    ensure!(
        own.text().contains("\"request-host\":\"shop.test\""),
        "a client of shop.test got {}",
        own.text()
    );
    let own = visit.send(other).await;
    ensure!(
        own.text()
            .contains(&format!("\"request-host\":\"{}\"", visit.input)),
        "a client of {} got {}",
        visit.input,
        own.text()
    );
    Ok(())
}

async fn boundary(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60"), ("reflect", "host")]);
    for target in [
        page.as_str(),
        page.strip_prefix("/anything").unwrap_or_default(),
    ] {
        for _ in 0..2 {
            visit.send(Request::get(target).host(visit.input)).await;
        }
    }
    let own = visit.get(&page).await;
    ensure!(
        own.text().contains("\"request-host\":\"shop.test\""),
        "a client of shop.test got {}",
        own.text()
    );
    Ok(())
}
