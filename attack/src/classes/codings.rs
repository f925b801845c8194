//! Codings and other selecting fields: who gets what he cannot read, or what is another's.

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::Request;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Codings,
        name: "coding-that-was-not-accepted",
        source: "RFC 9111 §4.1, RFC 9110 §12.5.3; Kong/kong#12796",
        expectation: "A coded response answers only requests that accept its coding.",
        setting: Setting::Safe,
        inputs: &[
            "gzip, dcb > dcb > gzip",
            "gzip, dcz > dcz > gzip",
            "gzip, zstd > zstd > gzip",
            "gzip, br > br > gzip",
            "gzip, deflate > deflate > gzip",
            "gzip, x-custom > x-custom > gzip",
            "gzip > gzip > ",
            "gzip > gzip > identity",
            "gzip > gzip > br",
            "gzip > gzip > gzip;q=0",
            "gzip > gzip > GZIP;Q=0",
            "gzip > gzip > gzip; q=0.000",
            "* > gzip > gzip;q=0, *",
            "* > br > gzip",
            "br;q=1, *;q=0 > br > *;q=0",
            "gzip;q=1 > gzip > identity;q=1, gzip;q=0",
        ],
        check: |visit| Box::pin(not_accepted(visit)),
    },
    Scenario {
        class: Class::Codings,
        name: "coding-without-vary",
        source: "Kong/kong#12796; RFC 9110 §12.5.5",
        expectation: "A coded response whose origin forgot Vary does not reach a client that accepts no coding.",
        setting: Setting::Safe,
        inputs: &["gzip", "br", "zstd"],
        check: |visit| Box::pin(without_vary(visit)),
    },
    Scenario {
        class: Class::Codings,
        name: "invalid-accept-encoding",
        source: "Apache Traffic Server CVE-2024-35296",
        expectation: "An invalid Accept-Encoding does not make the cache miss what does not vary.",
        setting: Setting::Safe,
        inputs: &[
            "gzip;q=9",
            ",,,",
            "gzip;;;",
            "\"",
            "gzip;q=\u{7e}",
            ";q=1",
            "a b c",
            "gzip;q=0.0001",
        ],
        check: |visit| Box::pin(invalid(visit)),
    },
    Scenario {
        class: Class::Codings,
        name: "same-meaning",
        source: "RFC 9110 §12.5.3",
        expectation: "Spellings of Accept-Encoding that mean the same share a variant.",
        setting: Setting::Safe,
        inputs: &["gzip, br > br,gzip", "gzip > GZIP", "gzip, br > gzip , br"],
        check: |visit| Box::pin(same_meaning(visit)),
    },
    Scenario {
        class: Class::Vary,
        name: "any-field",
        source: "RFC 9111 §4.1: * always fails to match",
        expectation: "A response that varies by everything answers nobody else, however the list is written.",
        setting: Setting::Safe,
        inputs: &["*", "x-a, *", "*, x-a", "x-a,*", " * ", "x-a, , *"],
        check: |visit| Box::pin(vary_star(visit)),
    },
    Scenario {
        class: Class::Vary,
        name: "selecting-field",
        source: "RFC 9111 §4.1; cache-tests vary",
        expectation: "A response answers only requests whose selecting fields are the same.",
        setting: Setting::Safe,
        inputs: &[
            "x-a: 1 > x-a: 2",
            "x-a: 1 > ",
            "x-a: 1 > x-a: 1, 2",
            "x-a: a > x-a: A",
            "x-a: 1 > x-b: 1",
            "X-A: 1 > x-a: 11",
            "x-a: en > x-a: en-GB",
            "x-a: \"a\" > x-a: a",
            "x-a: a%00 > x-a: a",
        ],
        check: |visit| Box::pin(selecting(visit)),
    },
    Scenario {
        class: Class::Vary,
        name: "unusable-vary",
        source: "RFC 9110 §12.5.5; envoyproxy/envoy#40469",
        expectation: "A Vary that is no list of names is answered, and shares nothing between those who differ.",
        setting: Setting::Rogue,
        inputs: &[
            "x-a,,,,",
            "\"x-a\"",
            "x-a x-b",
            "x-a;q=1",
            ":path, x-a",
            "x-a\t,\tx-b",
            "@",
        ],
        check: |visit| Box::pin(unusable(visit)),
    },
];

/// `accepted > coding > accepted by the next`.
async fn not_accepted(visit: Visit) -> Verdict {
    let mut parts = visit.input.split(" > ");
    let (accepted, coding, next) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let header = format!("content-encoding: {coding}");
    let page = visit.page(&[
        ("cache-control", "max-age=60"),
        ("header", &header),
        ("vary", "accept-encoding"),
    ]);
    let first = Request::get(&page).field("accept-encoding", accepted);
    visit
        .until(&first, "a hit", |answer| answer.is_hit())
        .await?;
    let second = if next.is_empty() {
        Request::get(&page)
    } else {
        Request::get(&page).field("accept-encoding", next)
    };
    let answer = visit.send(second).await;
    ensure!(
        !answer.is_hit(),
        "who accepts {next:?} got the {coding} that was made for {accepted:?}"
    );
    Ok(())
}

async fn without_vary(visit: Visit) -> Verdict {
    let page = visit.page(&[
        ("cache-control", "max-age=60"),
        ("header", &format!("content-encoding: {}", visit.input)),
    ]);
    for _ in 0..2 {
        visit
            .send(Request::get(&page).field("accept-encoding", visit.input))
            .await;
    }
    let plain = visit
        .send(Request::get(&page).field("accept-encoding", "identity"))
        .await;
    ensure!(!plain.is_hit(), "who accepts no coding got {}", visit.input);
    Ok(())
}

async fn invalid(visit: Visit) -> Verdict {
    let page = visit.page(&[("cache-control", "max-age=60")]);
    visit.warm(&page).await?;
    let answer = visit
        .send(Request::get(&page).field("accept-encoding", visit.input))
        .await;
    ensure!(
        answer.is_hit() || answer.status == 400,
        "it was a miss: {}",
        answer.field("cache-status")
    );
    Ok(())
}

async fn same_meaning(visit: Visit) -> Verdict {
    let (one, other) = visit.pair();
    let page = visit.page(&[("cache-control", "max-age=60"), ("vary", "accept-encoding")]);
    let with = |accepted: &str| Request::get(&page).field("accept-encoding", accepted);
    visit
        .until(&with(one), "a hit", |answer| answer.is_hit())
        .await?;
    ensure!(
        visit.send(with(other)).await.is_hit(),
        "{other} is another variant than {one}"
    );
    Ok(())
}

async fn vary_star(visit: Visit) -> Verdict {
    let page = visit.page(&[
        ("cache-control", "public, max-age=60"),
        ("vary", visit.input),
    ]);
    for _ in 0..3 {
        ensure!(!visit.get(&page).await.is_hit(), "it was reused");
    }
    Ok(())
}

async fn selecting(visit: Visit) -> Verdict {
    let (one, other) = visit.pair();
    let page = visit.page(&[("cache-control", "max-age=60"), ("vary", "X-a")]);
    visit
        .until(&Request::get(&page).line(one), "a hit", |answer| {
            answer.is_hit()
        })
        .await?;
    let answer = visit.send(Request::get(&page).line(other)).await;
    ensure!(
        !answer.is_hit(),
        "who sent {other:?} got the answer to {one:?}"
    );
    Ok(())
}

async fn unusable(visit: Visit) -> Verdict {
    let answer = |who: &str| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nvary: {}",
            visit.input
        );
        format!("{head}\r\ncontent-length: {}\r\n\r\n{who}", who.len())
    };
    visit.rogue()?.says(&visit.path, answer("alice").as_bytes());
    let alice = visit
        .send(Request::get(&visit.path).field("x-a", "alice"))
        .await;
    ensure!(alice.status != 0, "there was no answer");
    visit.rogue()?.says(&visit.path, answer("bob").as_bytes());
    let bob = visit
        .send(Request::get(&visit.path).field("x-a", "bob"))
        .await;
    // What names nothing that a request could carry may be stored; what names x-a in any way may
    // not be shared.
    ensure!(
        !visit.input.contains("x-a") || !bob.mentions("alice"),
        "bob got alice's page"
    );
    Ok(())
}
