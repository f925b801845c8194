//! Herds: many clients at once, one fetch; whoever leads, nobody pays for another's request.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::{Answer, Request};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Herds,
        name: "cold-herd",
        source: "RFC 9111 §4 (collapsed requests); envoyproxy/envoy#34595",
        expectation: "A hundred clients of a cold key make one fetch.",
        setting: Setting::Safe,
        inputs: &[
            "max-age=60",
            "s-maxage=60",
            "max-age=60, stale-while-revalidate=60",
        ],
        check: |visit| Box::pin(cold(visit)),
    },
    Scenario {
        class: Class::Herds,
        name: "leader-with-a-reason-of-its-own",
        source: "varnishcache/varnish-cache#3461; nginx proxy_cache_lock",
        expectation: "A first client whose request could not be stored for its own reasons does not scatter those behind it.",
        setting: Setting::Safe,
        inputs: &[
            "cookie: a=1",
            "authorization: Basic x",
            "x-jwt-sub: alice",
            "x-api-key: k",
            "x-http-method-override: PUT",
            "range: bytes=0-3",
        ],
        check: |visit| Box::pin(own_reason(visit)),
    },
    Scenario {
        class: Class::Herds,
        name: "leader-that-got-an-error",
        source: "worldmonitor#270; Nguyen et al. (2019)",
        expectation: "An error that the first client's request brought about goes to that client; the next one leads.",
        setting: Setting::Safe,
        inputs: &[
            "400", "405", "408", "412", "413", "414", "416", "417", "421", "425", "429", "431",
        ],
        check: |visit| Box::pin(own_error(visit)),
    },
    Scenario {
        class: Class::Herds,
        name: "private-error-of-a-leader",
        source: "unjs/ocache#61; RFC 9111 §5.2.2.7",
        expectation: "An error that belongs to the first client, or may not be stored, goes to no other.",
        setting: Setting::Safe,
        inputs: &[
            "500 > cache-control: private",
            "500 > cache-control: no-store",
            "502 > cache-control: private, max-age=60",
            "503 > set-cookie: sid=alice",
            "504 > cache-control: private",
            "500 > vary: *",
        ],
        check: |visit| Box::pin(private_error(visit)),
    },
    Scenario {
        class: Class::Herds,
        name: "one-failure",
        source: "nginx proxy_cache_lock, Varnish waiting list: the next one tries",
        expectation: "One failed fetch is not everybody's failure: the next one leads, one at a time.",
        setting: Setting::Safe,
        inputs: &["status 500", "status 503", "reset", "broken"],
        check: |visit| Box::pin(one_failure(visit)),
    },
    Scenario {
        class: Class::Herds,
        name: "leader-that-hangs",
        source: "nginx proxy_cache_lock_timeout; envoyproxy/envoy#34595",
        expectation: "When the first fetch hangs, one successor leads at the deadline, not everybody.",
        setting: Setting::Operator,
        inputs: &["head", "content"],
        check: |visit| Box::pin(hangs(visit)),
    },
    Scenario {
        class: Class::Herds,
        name: "leader-whose-client-leaves",
        source: "envoyproxy/envoy#34595; Pingora test test_caching_when_downstream_bails",
        expectation: "When the first client leaves, those behind it are answered, by one fetch more at most.",
        setting: Setting::Safe,
        inputs: &["close"],
        check: |visit| Box::pin(client_leaves(visit)),
    },
    Scenario {
        class: Class::Herds,
        name: "failing-refresh",
        source: "RFC 5861 §3; Varnish test b00063",
        expectation: "A refresh that failed is not tried again by the very next hits.",
        setting: Setting::Safe,
        inputs: &[
            "{\"status\": 503}",
            "{\"status\": 500, \"headers\": [[\"cache-control\", \"no-store\"]]}",
            "{\"reset\": true}",
        ],
        check: |visit| Box::pin(failing_refresh(visit)),
    },
    Scenario {
        class: Class::Herds,
        name: "mark-by-one-client",
        source: "varnishcache/varnish-cache#2754, #2978 (hit-for-miss)",
        expectation: "One client's cookie or error does not switch collapsing off for the next seconds.",
        setting: Setting::Safe,
        inputs: &[
            "cookie: a=1 > 200",
            "x-a: 1 > 400",
            "x-a: 1 > 431",
            "authorization: Basic x > 401",
        ],
        check: |visit| Box::pin(mark(visit)),
    },
];

const SLOW: u64 = 700;

fn kept(more: &Value) -> Value {
    let mut behaviour = json!({ "headers": [["cache-control", "max-age=60"]], "delay_ms": SLOW });
    for (name, value) in more.as_object().into_iter().flatten() {
        behaviour[name] = value.clone();
    }
    behaviour
}

/// The first request goes out; the herd comes when the origin has it.
async fn behind(
    visit: &Visit,
    leader: Request,
    count: usize,
) -> Result<(Answer, Vec<Answer>), String> {
    let leading = tokio::spawn({
        let visit = visit.clone();
        async move { visit.send(leader).await }
    });
    visit.sees(1).await?;
    let herd = visit.herd(&Request::get(&visit.path), count).await;
    let first = leading.await.map_err(|error| error.to_string())?;
    Ok((first, herd))
}

fn all_served(herd: &[Answer]) -> Verdict {
    let failed = herd.iter().filter(|answer| !answer.is_whole(200)).count();
    ensure!(
        failed == 0,
        "{failed} of {} who waited were not served",
        herd.len()
    );
    Ok(())
}

async fn few_fetches(visit: &Visit, most: usize) -> Verdict {
    let fetches = visit.fetches().await;
    ensure!(
        fetches <= most,
        "{fetches} fetches, {most} at most were right"
    );
    Ok(())
}

async fn cold(visit: Visit) -> Verdict {
    visit
        .behave(&json!({ "headers": [["cache-control", visit.input]], "delay_ms": SLOW }))
        .await?;
    all_served(&visit.herd(&Request::get(&visit.path), 100).await)?;
    few_fetches(&visit, 1).await
}

async fn own_reason(visit: Visit) -> Verdict {
    visit.behave(&kept(&json!({}))).await?;
    let (_, herd) = behind(&visit, Request::get(&visit.path).line(visit.input), 40).await?;
    all_served(&herd)?;
    few_fetches(&visit, 3).await
}

async fn own_error(visit: Visit) -> Verdict {
    let status: u16 = visit.input.parse().unwrap_or_default();
    visit
        .behave(&kept(&json!({ "status": status, "times": 1 })))
        .await?;
    visit.behave(&kept(&json!({}))).await?;
    let (first, herd) = behind(&visit, Request::get(&visit.path), 30).await?;
    ensure!(
        first.status == status,
        "the first client got {}",
        first.status
    );
    all_served(&herd)?;
    few_fetches(&visit, 4).await
}

async fn private_error(visit: Visit) -> Verdict {
    let (status, line) = visit.pair();
    let (name, value) = line.split_once(": ").unwrap_or_default();
    let error = json!({
        "status": status.parse::<u16>().unwrap_or_default(),
        "headers": [[name, value], ["x-page-of", "alice"]],
        "delay_ms": SLOW,
        "times": 1,
    });
    visit.behave(&error).await?;
    visit.behave(&kept(&json!({ "delay_ms": 50 }))).await?;
    let (_, herd) = behind(
        &visit,
        Request::get(&visit.path).field("cookie", "sid=alice"),
        12,
    )
    .await?;
    let got = herd
        .iter()
        .filter(|answer| answer.mentions("alice"))
        .count();
    ensure!(
        got == 0,
        "{got} of {} who waited got alice's error",
        herd.len()
    );
    all_served(&herd)
}

async fn one_failure(visit: Visit) -> Verdict {
    let failure = match visit.input.split_once(' ') {
        Some((_, status)) => {
            json!({ "status": status.parse::<u16>().unwrap_or_default(), "times": 1 })
        }
        None => json!({ visit.input: true, "body_size": 10_000, "times": 1 }),
    };
    visit.behave(&kept(&failure)).await?;
    visit.behave(&kept(&json!({ "delay_ms": 100 }))).await?;
    let (_, herd) = behind(&visit, Request::get(&visit.path), 20).await?;
    all_served(&herd)?;
    few_fetches(&visit, 4).await
}

async fn hangs(visit: Visit) -> Verdict {
    let hanging = match visit.input {
        "head" => json!({ "delay_ms": 20_000, "times": 1 }),
        _ => json!({ "stall": true, "body_size": 10_000, "delay_ms": 300, "times": 1 }),
    };
    visit.behave(&kept(&hanging)).await?;
    visit.behave(&kept(&json!({ "delay_ms": 300 }))).await?;
    let leading = tokio::spawn({
        let visit = visit.clone();
        async move {
            visit
                .send_within(Request::get(&visit.path), Duration::from_secs(9))
                .await
        }
    });
    visit.sees(1).await?;
    let began = Instant::now();
    let herd = visit.herd(&Request::get(&visit.path), 60).await;
    let lasted = began.elapsed();
    leading.abort();
    all_served(&herd)?;
    ensure!(
        lasted < Duration::from_secs(8),
        "the last was answered after {lasted:?}"
    );
    few_fetches(&visit, 5).await
}

async fn client_leaves(visit: Visit) -> Verdict {
    visit.behave(&kept(&json!({ "delay_ms": 1200 }))).await?;
    let leaving = tokio::spawn({
        let visit = visit.clone();
        async move {
            visit
                .send_within(Request::get(&visit.path), Duration::from_millis(500))
                .await
        }
    });
    visit.sees(1).await?;
    let herd = visit.herd(&Request::get(&visit.path), 30).await;
    let _ = leaving.await;
    all_served(&herd)?;
    few_fetches(&visit, 2).await
}

async fn failing_refresh(visit: Visit) -> Verdict {
    let control = "max-age=1, stale-while-revalidate=60";
    visit
        .behave(&json!({ "headers": [["cache-control", control]], "times": 1 }))
        .await?;
    let failure: Value = serde_json::from_str(visit.input).unwrap_or_default();
    visit.behave(&failure).await?;
    visit.get(&visit.path).await;
    visit.a_second_passes().await;
    let before = visit.fetches().await;
    for _ in 0..30 {
        let answer = visit.get(&visit.path).await;
        ensure!(
            answer.is_whole(200),
            "a stale answer was allowed, and {} came",
            answer.status
        );
        visit.time_passes(20).await;
    }
    let tried = visit.fetches().await - before;
    // Envoy's own retry of a connection that closed may double each.
    ensure!(
        tried <= 6,
        "30 hits within a second tried {tried} refreshes"
    );
    Ok(())
}

async fn mark(visit: Visit) -> Verdict {
    let (line, status) = visit.pair();
    let status: u16 = status.parse().unwrap_or_default();
    visit
        .behave(&kept(
            &json!({ "status": status, "delay_ms": 0, "times": 1 }),
        ))
        .await?;
    visit.behave(&kept(&json!({ "delay_ms": SLOW }))).await?;
    visit.send(Request::get(&visit.path).line(line)).await;
    all_served(&visit.herd(&Request::get(&visit.path), 40).await)?;
    few_fetches(&visit, 3).await
}
