//! Lifetimes and clocks: nothing makes a page fresh that is not.

use serde_json::json;

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::Request;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Clocks,
        name: "no-lifetime-at-all",
        source: "RFC 9111 §4.2.1, RFC 9110 §5.6.6; cache-tests cc-freshness, age-parse",
        expectation: "A lifetime or an age that is none of the kind makes nothing fresh.",
        setting: Setting::Safe,
        inputs: &[
            "cache-control: max-age=-1",
            "cache-control: max-age=abc",
            "cache-control: max-age=",
            "cache-control: max-age",
            "cache-control: max-age=0x3c",
            "cache-control: s-maxage=0, max-age=60",
            "cache-control: max-age=0, max-age=60",
            "cache-control: x=\"max-age=60\"",
            "cache-control: xmax-age=60",
            "cache-control: max-age=60; no-store",
            "expires: 0",
            "expires: Mon, 01 Jan 1990 00:00:00 GMT",
            "expires: tomorrow",
            "expires: Thu, 32 Jan 2099 00:00:00 GMT",
            "age: 61",
            "age: 99999999999999999999",
        ],
        check: |visit| Box::pin(no_lifetime(visit)),
    },
    Scenario {
        class: Class::Clocks,
        name: "clock-of-the-origin",
        source: "RFC 9111 §4.2.3",
        expectation: "An origin's clock that is wrong makes nothing live longer than it says.",
        setting: Setting::Safe,
        inputs: &[
            "Thu, 01 Jan 2099 00:00:00 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "nonsense",
            "Mon, 01 Jan 1970 00:00:00 GMT",
            "",
        ],
        check: |visit| Box::pin(origins_clock(visit)),
    },
    Scenario {
        class: Class::Clocks,
        name: "slow-answer",
        source: "RFC 9111 §4.2.3: response_delay counts",
        expectation: "The time that an answer took counts as age, to the millisecond.",
        setting: Setting::Safe,
        inputs: &["400", "600", "900"],
        check: |visit| Box::pin(slow_answer(visit)),
    },
    Scenario {
        class: Class::Clocks,
        name: "age-in-a-hit",
        source: "RFC 9111 §5.1; cache-tests age",
        expectation: "A hit's Age is one number, and as large as what the origin's Age and the time say.",
        setting: Setting::Safe,
        inputs: &["0", "30", "59"],
        check: |visit| Box::pin(age_in_a_hit(visit)),
    },
    Scenario {
        class: Class::Clocks,
        name: "invalidation-from-the-future",
        source: "RFC 9111 §4.4; a fast clock in a fleet",
        expectation: "An invalidation that is dated a day ahead does not reach the fleet with that date.",
        setting: Setting::Safe,
        inputs: &["86400000", "3600000", "315360000000"],
        check: |visit| Box::pin(from_the_future(visit)),
    },
    Scenario {
        class: Class::Clocks,
        name: "stale-for-ever",
        source: "RFC 9111 §4.2.4, RFC 5861 §4",
        expectation: "Nothing is served staler than its windows allow, however the origin fails.",
        setting: Setting::Safe,
        inputs: &[
            "max-age=1, stale-if-error=1",
            "max-age=1, stale-while-revalidate=1",
            "max-age=1, must-revalidate, stale-if-error=60",
            "max-age=1",
            "s-maxage=1, stale-if-error=60",
            "no-cache, stale-if-error=60",
        ],
        check: |visit| Box::pin(stale_for_ever(visit)),
    },
];

async fn no_lifetime(visit: Visit) -> Verdict {
    let control = if visit.input.starts_with("age:") {
        "max-age=60"
    } else {
        ""
    };
    let mut members = vec![("header", visit.input)];
    if !control.is_empty() {
        members.push(("cache-control", control));
    }
    let page = visit.page(&members);
    for _ in 0..3 {
        ensure!(
            !visit.get(&page).await.is_hit(),
            "it was fresh by {}",
            visit.input
        );
    }
    Ok(())
}

async fn origins_clock(visit: Visit) -> Verdict {
    let date = format!("date: {}", visit.input);
    let page = visit.page(&[("cache-control", "max-age=1"), ("header", &date)]);
    for _ in 0..2 {
        visit.get(&page).await;
    }
    visit.time_passes(2100).await;
    for _ in 0..2 {
        let answer = visit.get(&page).await;
        ensure!(
            !answer.is_hit(),
            "after 2 s it is still fresh: {}",
            answer.field("cache-status")
        );
        visit.time_passes(2100).await;
    }
    Ok(())
}

async fn slow_answer(visit: Visit) -> Verdict {
    let delay: u64 = visit.input.parse().unwrap_or_default();
    let page = visit.page(&[("cache-control", "max-age=2"), ("delay-ms", visit.input)]);
    let asked = std::time::Instant::now();
    visit.get(&page).await;
    let passed = u64::try_from(asked.elapsed().as_millis()).unwrap_or_default();
    // 2.1 s after it was asked for, it is 2.1 s old; since it came, less than 2 s have passed.
    visit.time_passes(2100_u64.saturating_sub(passed)).await;
    let since = asked.elapsed();
    ensure!(
        since.as_millis() < 2000 + u128::from(delay),
        "the machine is too slow for this check: {since:?}"
    );
    let answer = visit.get(&page).await;
    ensure!(
        !answer.is_hit(),
        "{since:?} after it was asked for, it is still fresh for 2 s"
    );
    Ok(())
}

async fn age_in_a_hit(visit: Visit) -> Verdict {
    let given: u64 = visit.input.parse().unwrap_or_default();
    let page = visit.page(&[
        ("cache-control", "max-age=120"),
        ("header", &format!("age: {given}")),
    ]);
    visit.warm(&page).await?;
    visit.a_second_passes().await;
    let hit = visit.get(&page).await;
    let ages: Vec<u64> = hit
        .fields
        .iter()
        .filter(|(name, _)| name == "age")
        .filter_map(|(_, value)| value.parse().ok())
        .collect();
    ensure!(hit.is_hit() && ages.len() == 1, "its ages are {ages:?}");
    ensure!(
        (given + 1..=given + 6).contains(&ages[0]),
        "its age is {} after {given} and a second",
        ages[0]
    );
    Ok(())
}

async fn from_the_future(visit: Visit) -> Verdict {
    let ahead: u128 = visit.input.parse().unwrap_or_default();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let key: String = visit
        .path
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let cursor = visit.target.sidecar(Request::get("/v1/events")).await?;
    let cursor: serde_json::Value = serde_json::from_slice(&cursor.content).unwrap_or_default();
    let order = format!("{{\"keys\": [\"{key}\"], \"now_ms\": {}}}", now + ahead);
    let request = Request::new("POST", "/v1/invalidate").field("content-type", "application/json");
    let answer = visit
        .target
        .sidecar(request.content(order.as_bytes()))
        .await?;
    visit.note(format!("· {order} was answered {}", answer.status));
    let after = cursor["cursor"].as_str().unwrap_or_default();
    let events = visit
        .target
        .sidecar(Request::get(&format!("/v1/events?after={after}")))
        .await?;
    visit.note(events.shown());
    let events: serde_json::Value = serde_json::from_slice(&events.content).unwrap_or_default();
    let dates = events["events"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|event| event["at_ms"].as_u64());
    let latest = u128::from(dates.max().unwrap_or_default());
    ensure!(
        latest <= now + 10_000,
        "the fleet is told of an invalidation {} ms ahead",
        latest.saturating_sub(now)
    );
    Ok(())
}

async fn stale_for_ever(visit: Visit) -> Verdict {
    visit
        .behave(
            &json!({ "headers": [["cache-control", visit.input], ["etag", "\"1\""]], "times": 1 }),
        )
        .await?;
    visit.behave(&json!({ "status": 503 })).await?;
    visit.get(&visit.path).await;
    visit.time_passes(3200).await;
    for _ in 0..3 {
        let answer = visit.get(&visit.path).await;
        ensure!(
            !answer.is_hit() && answer.status == 503,
            "it is still served, {}",
            answer.field("cache-status")
        );
        visit.time_passes(100).await;
    }
    Ok(())
}
