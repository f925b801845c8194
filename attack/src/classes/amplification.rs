//! Amplification: little from a client makes much for the origin, for Envoy, or for the network.

use futures_util::future::join_all;
use serde_json::json;

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::{Visit, journal_field, page};
use crate::wire::Request;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Amplification,
        name: "one-byte-of-many",
        source: "Li et al., RangeAmp: CDN Backfired (2020)",
        expectation: "A burst of requests for one byte each does not fetch each thing whole.",
        setting: Setting::Safe,
        inputs: &["bytes=0-0", "bytes=-1", "bytes=999-999"],
        check: |visit| Box::pin(one_byte(visit)),
    },
    Scenario {
        class: Class::Amplification,
        name: "many-ranges-of-one",
        source: "Apache Traffic Server CVE-2018-8005; Apache Killer CVE-2011-3192; RFC 9110 §14.2",
        expectation: "A request for many ranges is not answered with much more than the whole.",
        setting: Setting::Safe,
        inputs: &["0-", "0-99999", "1-", "-99999", "0-0"],
        check: |visit| Box::pin(many_ranges(visit)),
    },
    Scenario {
        class: Class::Amplification,
        name: "forced-misses",
        source: "RFC 9111 §5.2.1; Envoy ignore_request_cache_control_header",
        expectation: "No field of a client's request makes the origin work for what is fresh.",
        setting: Setting::Safe,
        inputs: &[
            "cache-control: no-cache",
            "cache-control: max-age=0",
            "cache-control: no-store",
            "cache-control: min-fresh=999999",
            "pragma: no-cache",
            "if-none-match: \"other\"",
            "if-modified-since: Mon, 01 Jan 1990 00:00:00 GMT",
            "x-refresh: 1",
            "accept-encoding: evil",
            "accept: evil/evil",
            "user-agent: evil",
            "x-forwarded-for: 1.2.3.4",
            "cookie: a=1",
        ],
        check: |visit| Box::pin(forced_miss(visit)),
    },
    Scenario {
        class: Class::Amplification,
        name: "grown-refresh",
        source: "RFC 5861 §3; envoyproxy/envoy#36989",
        expectation: "A refresh whose answer has grown to 24 MB is not read whole into memory.",
        setting: Setting::Flood,
        inputs: &["counted", "chunked"],
        check: |visit| Box::pin(grown(visit)),
    },
];

const PAGES: usize = 40;

async fn one_byte(visit: Visit) -> Verdict {
    let members = [
        ("cache-control", "max-age=60"),
        ("body-size", "100000"),
        ("ranges", "1"),
    ];
    let target = visit.page(&members);
    let one = |n: usize| {
        visit.send(Request::get(&format!("{target}&cb={n}")).field("range", visit.input))
    };
    let answers = join_all((0..PAGES).map(one)).await;
    ensure!(
        answers.iter().all(|answer| answer.is_whole(206)),
        "not every part came"
    );
    // What goes on in the background has two seconds to show itself.
    visit.time_passes(2000).await;
    let journal = visit.journal(&visit.path).await;
    let wholes = journal
        .iter()
        .filter(|request| journal_field(request, "range").is_none())
        .count();
    ensure!(
        wholes <= PAGES / 2,
        "{PAGES} requests for one byte made {wholes} fetches of the whole"
    );
    Ok(())
}

async fn many_ranges(visit: Visit) -> Verdict {
    let size = 100_000;
    let target = visit.page(&[("cache-control", "max-age=60"), ("body-size", "100000")]);
    visit.warm(&target).await?;
    for count in [3, 20, 300] {
        let ranges = vec![visit.input; count].join(",");
        let answer = visit
            .send(Request::get(&target).field("range", &format!("bytes={ranges}")))
            .await;
        let most = size + size / 4;
        ensure!(
            answer.content.len() <= most,
            "{count} ranges got {} bytes",
            answer.content.len()
        );
    }
    Ok(())
}

async fn forced_miss(visit: Visit) -> Verdict {
    let target = visit.page(&[("cache-control", "max-age=60"), ("header", "etag: \"1\"")]);
    visit.warm(&target).await?;
    let before = visit.fetches().await;
    for _ in 0..3 {
        visit.send(Request::get(&target).line(visit.input)).await;
    }
    let fetches = visit.fetches().await - before;
    ensure!(fetches == 0, "three requests made {fetches} fetches");
    Ok(())
}

async fn grown(visit: Visit) -> Verdict {
    let control = "max-age=1, stale-while-revalidate=60";
    let paths: Vec<String> = (0..8).map(|n| format!("{}/{n}", visit.path)).collect();
    for path in &paths {
        let small = page(path, &[]);
        visit
            .behave_at(
                path,
                &json!({ "headers": [["cache-control", control]], "times": 1 }),
            )
            .await?;
        let grown = json!({ "headers": [["cache-control", control]], "body_size": 24 << 20, "chunked": visit.input == "chunked" });
        visit.behave_at(path, &grown).await?;
        visit.get(&small).await;
    }
    visit.a_second_passes().await;
    let before = visit.target.envoy_megabytes().unwrap_or_default();
    join_all(
        paths
            .iter()
            .map(|path| visit.send(Request::get(&page(path, &[])))),
    )
    .await;
    let mut most = before;
    for _ in 0..30 {
        visit.time_passes(100).await;
        most = most.max(visit.target.envoy_megabytes().unwrap_or_default());
    }
    ensure!(
        most - before < 100,
        "eight refreshes took {} MB of memory",
        most - before
    );
    Ok(())
}
