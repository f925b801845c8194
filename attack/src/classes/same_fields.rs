//! A hit has exactly the fields of its miss: whatever routes and Envoy's own answers do.

use std::collections::BTreeMap;

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::{Visit, page};
use crate::wire::{Answer, Request};

const KINDS: &[&str] = &[
    "body-size=0",
    "body-size=10",
    "body-size=3000",
    "body-size=20000",
    "body-size=100000",
    "body-size=10&mock-chunked=1",
    "body-size=20000&mock-chunked=1",
    "body-size=10&mock-untyped=1",
    "body-size=20000&mock-untyped=1",
    "status=404&mock-body-size=10",
    "status=301&mock-body-size=0&mock-header=location:/x",
    "status=410&mock-body-size=20000",
    "body-size=10&mock-header=access-control-allow-origin:*",
    "body-size=10&mock-header=x-two:1&mock-header=x-two:2",
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Fields,
        name: "hit-as-miss",
        source: "Envoy documentation of response_headers_to_add and local_reply_config; Fetch standard on Access-Control-Allow-Origin",
        expectation: "A hit has the content and the fields of the miss, those that a route adds once.",
        setting: Setting::Routes,
        inputs: KINDS,
        check: |visit| Box::pin(hit_as_miss(visit)),
    },
    Scenario {
        class: Class::Fields,
        name: "head-as-get",
        source: "RFC 9110 §9.3.2",
        expectation: "A HEAD that a hit answers has the fields of the GET.",
        setting: Setting::Routes,
        inputs: &[
            "body-size=0",
            "body-size=10",
            "body-size=20000",
            "status=404&mock-body-size=10",
        ],
        check: |visit| Box::pin(head_as_get(visit)),
    },
    Scenario {
        class: Class::Fields,
        name: "refreshed-as-miss",
        source: "Envoy documentation of response_headers_to_add; RFC 5861 §3",
        expectation: "A hit after a refresh has the fields of a miss.",
        setting: Setting::Routes,
        inputs: &["body-size=10", "body-size=3000", "body-size=20000"],
        check: |visit| Box::pin(refreshed_as_miss(visit)),
    },
    Scenario {
        class: Class::Fields,
        name: "cors-fields-of-a-304",
        source: "Fetch standard, CORS check; RFC 9110 §15.4.5",
        expectation: "A 304 from the cache has the fields by which a browser may read the page.",
        setting: Setting::Safe,
        inputs: &[
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "access-control-expose-headers",
            "timing-allow-origin",
            "cross-origin-resource-policy",
            "vary",
        ],
        check: |visit| Box::pin(cors_of_304(visit)),
    },
    Scenario {
        class: Class::Fields,
        name: "tag-without-its-coding",
        source: "Apache httpd bug 45023: mod_deflate changes the ETag; nginx gzip_static",
        expectation: "What an origin confirms for the tag that was sent is confirmed, though its 304 names the tag without the coding.",
        setting: Setting::Safe,
        inputs: &[
            "\"x--gzip\" > \"x\"",
            "\"x-gzip\" > \"x\"",
            "W/\"x\" > \"x\"",
            "\"x;gzip\" > \"x\"",
        ],
        check: |visit| Box::pin(tag_without_coding(visit)),
    },
];

/// All fields but those that speak of the way an answer took, and those that framing alone decides.
fn compared(answer: &Answer) -> BTreeMap<String, Vec<String>> {
    const OF_THE_WAY: &[&str] = &[
        "age",
        "cache-status",
        "x-cache-status",
        "x-envoy-upstream-service-time",
        "content-length",
        "transfer-encoding",
    ];
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in answer
        .fields
        .iter()
        .filter(|(name, _)| !OF_THE_WAY.contains(&name.as_str()))
    {
        fields.entry(name.clone()).or_default().push(value.clone());
    }
    fields
}

fn the_same(miss: &Answer, hit: &Answer, what: &str, but: &[&str]) -> Verdict {
    let (mut miss_fields, mut hit_fields) = (compared(miss), compared(hit));
    for name in but {
        miss_fields.remove(*name);
        hit_fields.remove(*name);
    }
    ensure!(
        miss.status == hit.status,
        "the {what} is {} instead of {}",
        hit.status,
        miss.status
    );
    ensure!(
        miss_fields == hit_fields,
        "the {what} has {hit_fields:?} instead of {miss_fields:?}"
    );
    Ok(())
}

fn routed(visit: &Visit, members: &str) -> String {
    let name = visit.path.trim_start_matches("/anything/");
    format!("/routed/{name}?mock-{members}")
}

async fn hit_as_miss(visit: Visit) -> Verdict {
    let target = format!(
        "{}&mock-cache-control=max-age%3D60",
        routed(&visit, visit.input)
    );
    let miss = visit.get(&target).await;
    ensure!(
        miss.field("x-route") == "added",
        "the route adds nothing: {}",
        miss.shown()
    );
    for _ in 0..3 {
        let hit = visit.warm(&target).await?;
        the_same(&miss, &hit, "hit", &[])?;
        ensure!(
            miss.content == hit.content,
            "the content is another: {}",
            hit.shown()
        );
    }
    Ok(())
}

async fn head_as_get(visit: Visit) -> Verdict {
    let target = format!(
        "{}&mock-cache-control=max-age%3D60",
        routed(&visit, visit.input)
    );
    visit.warm(&target).await?;
    let get = visit.get(&target).await;
    let head = visit.send(Request::new("HEAD", &target)).await;
    ensure!(head.is_hit(), "the HEAD was a miss");
    the_same(&get, &head, "HEAD", &[])
}

async fn refreshed_as_miss(visit: Visit) -> Verdict {
    let control = "mock-cache-control=max-age%3D1,stale-while-revalidate%3D60";
    let target = format!("{}&{control}", routed(&visit, visit.input));
    let miss = visit.get(&target).await;
    visit.a_second_passes().await;
    visit.get(&target).await;
    let is_fresh =
        |answer: &Answer| answer.is_hit() && !answer.field("cache-status").contains("stale");
    let hit = visit
        .until(&Request::get(&target), "a refreshed hit", is_fresh)
        .await?;
    the_same(&miss, &hit, "refreshed hit", &["date"])
}

async fn cors_of_304(visit: Visit) -> Verdict {
    let (value, header) = ("origin-x", format!("{}: origin-x", visit.input));
    let target = page(
        &visit.path,
        &[
            ("cache-control", "max-age=60"),
            ("header", "etag: \"1\""),
            ("header", &header),
        ],
    );
    visit.warm(&target).await?;
    let answer = visit
        .send(Request::get(&target).field("if-none-match", "\"1\""))
        .await;
    ensure!(
        answer.status == 304 && answer.is_hit(),
        "it was answered {}",
        answer.status
    );
    ensure!(
        answer.field(visit.input) == value,
        "the 304 has no {}",
        visit.input
    );
    Ok(())
}

async fn tag_without_coding(visit: Visit) -> Verdict {
    let (sent, confirmed) = visit.pair();
    let fields = |tag: &str| serde_json::json!([["cache-control", "max-age=1"], ["etag", tag]]);
    visit
        .behave(&serde_json::json!({ "headers": fields(sent), "body_size": 500, "times": 1 }))
        .await?;
    visit
        .behave(&serde_json::json!({ "status": 304, "headers": fields(confirmed), "body_size": 0 }))
        .await?;
    let miss = visit.get(&visit.path).await;
    for _ in 0..3 {
        visit.a_second_passes().await;
        let before = visit.fetches().await;
        let answer = visit.get(&visit.path).await;
        ensure!(
            answer.is_whole(200) && answer.content == miss.content,
            "it was answered {}",
            answer.shown()
        );
        let journal = visit.journal(&visit.path).await;
        let validations = journal
            .iter()
            .skip(before)
            .filter(|request| crate::visit::journal_field(request, "if-none-match").is_some());
        ensure!(
            validations.count() == journal.len() - before,
            "the page was fetched whole though it was confirmed"
        );
    }
    Ok(())
}
