//! Unsafe methods: what they end, and what nobody may end by them.

use std::time::Duration;

use serde_json::json;

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::{Visit, page};
use crate::wire::{Answer, Request};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Invalidation,
        name: "unsafe-method",
        source: "RFC 9111 §4.4; cache-tests invalidate-POST",
        expectation: "After an unsafe method was answered without an error, the old page is not served.",
        setting: Setting::Safe,
        inputs: &[
            "POST 200 >",
            "PUT 200 >",
            "DELETE 204 >",
            "PATCH 200 >",
            "POST 201 >",
            "POST 302 >",
            "POST 303 >",
            "POST 200 > content-type: application/grpc",
            "POST 200 > content-type: application/grpc+proto",
            "POST 200 > content-type: application/grpc-web",
            "POST 200 > content-type: application/grpc-web-text+proto",
            "POST 200 > content-type: text/event-stream",
            "POST 200 > cookie: a=1",
            "POST 200 > authorization: Bearer x",
            "POST 200 > x-http-method-override: GET",
            "POST 200 > cache-control: no-store",
            "PUT 200 > range: bytes=0-1",
        ],
        check: |visit| Box::pin(unsafe_method(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "refused-method",
        source: "RFC 9111 §4.4: a non-error response invalidates",
        expectation: "Nobody flushes a page by a method that the origin refuses.",
        setting: Setting::Safe,
        inputs: &["400", "401", "403", "404", "405", "415"],
        check: |visit| Box::pin(refused(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "client-leaves-before-the-answer",
        source: "RFC 9111 §4.4; RFC 9110 §9.2.2",
        expectation: "A PUT whose client leaves before the answer invalidates all the same.",
        setting: Setting::Safe,
        inputs: &["PUT", "POST", "DELETE"],
        check: |visit| Box::pin(client_leaves(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "answer-is-lost",
        source: "RFC 9110 §9.2.2: it may have happened",
        expectation: "An unsafe method whose answer is lost invalidates, for the change may have happened.",
        setting: Setting::Safe,
        inputs: &[
            "{\"reset\": true}",
            "{\"broken\": true, \"body_size\": 1000}",
        ],
        check: |visit| Box::pin(answer_lost(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "get-after-a-put",
        source: "RFC 9111 §4: only requests that were waiting may share",
        expectation: "A GET that is sent after a PUT was answered does not get content that was asked for before it.",
        setting: Setting::Safe,
        inputs: &[
            "PUT",
            "POST",
            "DELETE",
            "purge by url",
            "purge by tag",
            "purge by prefix",
        ],
        check: |visit| Box::pin(get_after_put(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "get-after-a-purge-of-everything",
        source: "RFC 9111 §4: only requests that were waiting may share",
        expectation: "A GET after a purge of everything does not get content that was asked for before it.",
        setting: Setting::Flood,
        inputs: &["purge everything"],
        check: |visit| Box::pin(get_after_put(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "slow-content-behind-a-put",
        source: "RFC 9111 §4.4",
        expectation: "Content that was under way when a PUT was answered is not stored when its end comes.",
        setting: Setting::Safe,
        inputs: &["PUT", "purge by url", "purge by tag"],
        check: |visit| Box::pin(slow_content(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "flush-by-redirect",
        source: "RFC 9111 §4.4: MAY; cache-tests invalidate-POST-location",
        expectation: "A redirect after a POST does not flush the page that it leads to.",
        setting: Setting::Safe,
        inputs: &["301", "302", "303", "307", "308"],
        check: |visit| Box::pin(flush_by_redirect(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "named-by-the-answer",
        source: "RFC 9111 §4.4",
        expectation: "What a 201 created, or Content-Location names on the same host, is not served from before.",
        setting: Setting::Safe,
        inputs: &[
            "201 > location",
            "201 > content-location",
            "200 > content-location",
        ],
        check: |visit| Box::pin(named(visit)),
    },
    Scenario {
        class: Class::Invalidation,
        name: "another-hosts-page",
        source: "RFC 9111 §4.4, §7.1: only within the same origin",
        expectation: "An answer of one host does not flush another host's page.",
        setting: Setting::Safe,
        inputs: &["location", "content-location"],
        check: |visit| Box::pin(another_host(visit)),
    },
];

fn kept(visit: &Visit) -> String {
    visit.page(&[("cache-control", "max-age=60")])
}

async fn unsafe_method(visit: Visit) -> Verdict {
    let (what, line) = visit.input.split_once(" >").unwrap_or_default();
    let (method, status) = what.split_once(' ').unwrap_or_default();
    let target = kept(&visit);
    visit.warm(&target).await?;
    let answered = json!({ "status": status.parse::<u16>().unwrap_or_default(), "times": 1 });
    visit.behave(&answered).await?;
    let answer = visit
        .send(
            Request::new(method, &target)
                .line(line.trim())
                .content(b"x"),
        )
        .await;
    ensure!(
        answer.status.to_string() == status,
        "the method was answered {}",
        answer.status
    );
    ensure!(
        !visit.get(&target).await.is_hit(),
        "the old page is still a hit"
    );
    Ok(())
}

async fn refused(visit: Visit) -> Verdict {
    let target = kept(&visit);
    visit.warm(&target).await?;
    visit
        .behave(&json!({ "status": visit.input.parse::<u16>().unwrap_or_default(), "times": 1 }))
        .await?;
    visit
        .send(Request::new("POST", &target).content(b"x"))
        .await;
    ensure!(
        visit.get(&target).await.is_hit(),
        "a refused POST flushed the page"
    );
    Ok(())
}

async fn client_leaves(visit: Visit) -> Verdict {
    let target = kept(&visit);
    visit.warm(&target).await?;
    let before = visit.fetches().await;
    visit
        .behave(&json!({ "delay_ms": 700, "times": 1 }))
        .await?;
    let request = Request::new(visit.input, &target).content(b"x");
    visit.send_within(request, Duration::from_millis(250)).await;
    visit.sees(before + 1).await?;
    // By then the origin has answered, or would have.
    visit.time_passes(900).await;
    ensure!(
        !visit.get(&target).await.is_hit(),
        "the old page is still a hit"
    );
    Ok(())
}

async fn answer_lost(visit: Visit) -> Verdict {
    let target = kept(&visit);
    visit.warm(&target).await?;
    let mut lost: serde_json::Value = serde_json::from_str(visit.input).unwrap_or_default();
    lost["times"] = json!(1);
    visit.behave(&lost).await?;
    visit.send(Request::new("PUT", &target).content(b"x")).await;
    ensure!(
        !visit.get(&target).await.is_hit(),
        "the old page is still a hit"
    );
    Ok(())
}

/// The change: by a method, or by an operator.
async fn change(visit: &Visit) -> Verdict {
    let host = "http://shop.test";
    match visit.input {
        "purge by url" => {
            visit
                .purge(&json!({ "url": format!("{host}{}", visit.path) }))
                .await?
        }
        "purge by tag" => {
            visit
                .purge(&json!({ "tag": visit.path.replace('/', "-") }))
                .await?
        }
        "purge by prefix" => {
            visit
                .purge(&json!({ "prefix": format!("{host}{}", visit.path) }))
                .await?
        }
        "purge everything" => visit.purge(&json!({ "everything": true })).await?,
        method => {
            let answer = visit
                .send(Request::new(method, &visit.path).content(b"x"))
                .await;
            ensure!(
                answer.status == 200,
                "the method was answered {}",
                answer.status
            );
            return Ok(());
        }
    }
    // An operator's order is told to Envoy by the sidecar; that takes milliseconds, and a client
    // cannot know.
    visit.time_passes(150).await;
    Ok(())
}

fn version(version: &str, more: &serde_json::Value, visit: &Visit) -> serde_json::Value {
    let tag = visit.path.replace('/', "-");
    let mut behaviour = json!({ "headers": [["cache-control", "max-age=60"], ["cache-tag", tag], ["x-version", version]] });
    for (name, value) in more.as_object().into_iter().flatten() {
        behaviour[name] = value.clone();
    }
    behaviour
}

async fn get_after_put(visit: Visit) -> Verdict {
    visit
        .behave(&version(
            "old",
            &json!({ "delay_ms": 1200, "times": 1 }),
            &visit,
        ))
        .await?;
    if !visit.input.starts_with("purge") {
        visit.behave(&json!({ "times": 1 })).await?;
    }
    visit.behave(&version("new", &json!({}), &visit)).await?;
    let leading = tokio::spawn({
        let visit = visit.clone();
        async move { visit.get(&visit.path).await }
    });
    visit.sees(1).await?;
    change(&visit).await?;
    let after = visit.herd(&Request::get(&visit.path), 8).await;
    let old = |answers: &[Answer]| {
        answers
            .iter()
            .filter(|answer| answer.field("x-version") != "new")
            .count()
    };
    ensure!(
        old(&after) == 0,
        "{} of 8 who asked after the change got what was asked for before it",
        old(&after)
    );
    let _ = leading.await;
    let later = visit.herd(&Request::get(&visit.path), 4).await;
    ensure!(
        old(&later) == 0,
        "the old content came back when its fetch ended"
    );
    Ok(())
}

async fn slow_content(visit: Visit) -> Verdict {
    let slow = json!({ "body_size": 2000, "pieces": 10, "piece_delay_ms": 120, "times": 1 });
    visit.behave(&version("old", &slow, &visit)).await?;
    if !visit.input.starts_with("purge") {
        visit.behave(&json!({ "times": 1 })).await?;
    }
    visit.behave(&version("new", &json!({}), &visit)).await?;
    let leading = tokio::spawn({
        let visit = visit.clone();
        async move { visit.get(&visit.path).await }
    });
    visit.sees(1).await?;
    change(&visit).await?;
    let _ = leading.await;
    for _ in 0..4 {
        let answer = visit.get(&visit.path).await;
        ensure!(
            answer.field("x-version") == "new",
            "content from before the change was stored after it"
        );
    }
    Ok(())
}

async fn flush_by_redirect(visit: Visit) -> Verdict {
    let home = page(
        &format!("{}/home", visit.path),
        &[("cache-control", "max-age=60")],
    );
    visit.warm(&home).await?;
    let login = visit.page(&[
        ("status", visit.input),
        ("header", &format!("location: {home}")),
    ]);
    let answer = visit.send(Request::new("POST", &login).content(b"x")).await;
    ensure!(
        answer.status.to_string() == visit.input,
        "the login was answered {}",
        answer.status
    );
    ensure!(
        visit.get(&home).await.is_hit(),
        "a login flushed the page that it leads to"
    );
    Ok(())
}

async fn named(visit: Visit) -> Verdict {
    let (status, field) = visit.pair();
    let item = page(
        &format!("{}/item", visit.path),
        &[("cache-control", "max-age=60")],
    );
    visit.warm(&item).await?;
    let create = visit.page(&[("status", status), ("header", &format!("{field}: {item}"))]);
    visit
        .send(Request::new("POST", &create).content(b"x"))
        .await;
    ensure!(
        !visit.get(&item).await.is_hit(),
        "the old page is still a hit"
    );
    Ok(())
}

async fn another_host(visit: Visit) -> Verdict {
    let item = kept(&visit);
    visit.warm(&item).await?;
    let named = format!("{}: http://shop.test{item}", visit.input);
    let create = page(
        &format!("{}/create", visit.path),
        &[("status", "201"), ("header", &named)],
    );
    visit
        .send(
            Request::new("POST", &create)
                .host("evil.example")
                .content(b"x"),
        )
        .await;
    ensure!(
        visit.get(&item).await.is_hit(),
        "evil.example flushed a page of shop.test"
    );
    Ok(())
}
