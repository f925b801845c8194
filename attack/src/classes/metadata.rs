//! Oversized metadata: whatever its size, the answer is the origin's, and the next one the same.

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::{End, Request};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Metadata,
        name: "large-response-field",
        source: "caddyserver/cache-handler#127; nginx upstream sent too big header",
        expectation: "A response with large fields is answered whole, and its hit has the same fields.",
        setting: Setting::Rogue,
        inputs: &[
            "etag > 8000",
            "link > 20000",
            "content-security-policy > 16000",
            "cache-control > 10000",
            "vary > 3000",
            "x-a > 40000",
            "expires > 5000",
            "age > 2000",
        ],
        check: |visit| Box::pin(large_field(visit)),
    },
    Scenario {
        class: Class::Metadata,
        name: "many-response-fields",
        source: "CWE-770",
        expectation: "A response with many field lines is answered whole, and its hit has as many.",
        setting: Setting::Rogue,
        inputs: &["50", "95"],
        check: |visit| Box::pin(many_fields(visit)),
    },
    Scenario {
        class: Class::Metadata,
        name: "many-tags",
        source: "Fastly and Cloudflare documentation: 16 KB of tags; caddyserver/cache-handler#127",
        expectation: "A page with up to 16 KB of purge tags is cached, and each of them purges it.",
        setting: Setting::Safe,
        inputs: &["10", "129", "400", "1000"],
        check: |visit| Box::pin(tags(visit)),
    },
    Scenario {
        class: Class::Metadata,
        name: "too-many-tags",
        source: "Fastly documentation: surrogate keys beyond the limit are ignored",
        expectation: "A page whose tags are too many to be purged by is not cached, and Cache-Status says why.",
        setting: Setting::Rogue,
        inputs: &["30000", "50000"],
        check: |visit| Box::pin(too_many_tags(visit)),
    },
    Scenario {
        class: Class::Metadata,
        name: "large-request-field",
        source: "RFC 9110 §5.4, §15.5.15; Apache Traffic Server CVE-2018-8004",
        expectation: "A request with large or many fields is answered, and changes nothing for others.",
        setting: Setting::Safe,
        inputs: &[
            "cookie > 20000",
            "accept-language > 20000",
            "accept-encoding > 20000",
            "if-none-match > 20000",
            "range > 10000",
            "cache-control > 20000",
            "x-a > 50000",
        ],
        check: |visit| Box::pin(large_request(visit)),
    },
    Scenario {
        class: Class::Metadata,
        name: "long-url",
        source: "RFC 9112 §3: 8000 octets at least",
        expectation: "A long URL is answered, and is one resource like any other.",
        setting: Setting::Safe,
        inputs: &["8000", "30000", "55000", "100000"],
        check: |visit| Box::pin(long_url(visit)),
    },
];

fn filled(name: &str, size: usize) -> String {
    let filler = "x".repeat(size);
    match name {
        "etag" => format!("\"{filler}\""),
        "cache-control" => format!("max-age=60, x={filler}"),
        "vary" => (0..size / 8)
            .map(|n| format!("x-{n:05}"))
            .collect::<Vec<_>>()
            .join(","),
        "age" => "0".repeat(size),
        "if-none-match" => (0..size / 8)
            .map(|n| format!("\"{n:05}\""))
            .collect::<Vec<_>>()
            .join(","),
        "range" => format!("bytes={}", vec!["0-0"; size / 4].join(",")),
        "accept-language" | "accept-encoding" => (0..size / 8)
            .map(|n| format!("x{n:05}"))
            .collect::<Vec<_>>()
            .join(", "),
        _ => filler,
    }
}

async fn large_field(visit: Visit) -> Verdict {
    let (name, size) = visit.pair();
    let value = filled(name, size.parse().unwrap_or_default());
    let control = if name == "cache-control" {
        String::new()
    } else {
        "cache-control: max-age=60\r\n".to_owned()
    };
    let answer =
        format!("HTTP/1.1 200 OK\r\n{control}{name}: {value}\r\ncontent-length: 2\r\n\r\nok");
    visit.rogue()?.says(&visit.path, answer.as_bytes());
    for _ in 0..4 {
        let answer = visit.get(&visit.path).await;
        ensure!(
            answer.is_whole(200) && answer.content == b"ok",
            "it was answered {}",
            answer.shown()
        );
        ensure!(
            name == "age" || answer.field(name) == value,
            "its {name} is another"
        );
    }
    Ok(())
}

async fn many_fields(visit: Visit) -> Verdict {
    let count: usize = visit.input.parse().unwrap_or_default();
    let lines: String = (0..count - 3).map(|n| format!("x-many: {n}\r\n")).collect();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n{lines}content-length: 2\r\n\r\nok"
    );
    visit.rogue()?.says(&visit.path, answer.as_bytes());
    visit.get(&visit.path).await;
    let hit = visit.warm(&visit.path).await?;
    let has = hit
        .fields
        .iter()
        .filter(|(name, _)| name == "x-many")
        .count();
    ensure!(has == count - 3, "the hit has {has} of {} lines", count - 3);
    Ok(())
}

async fn tags(visit: Visit) -> Verdict {
    let count: usize = visit.input.parse().unwrap_or_default();
    let tag = |n: usize| {
        format!(
            "t{n}-{}",
            &visit.path[visit.path.len() - 4..].replace(['/', '-'], "")
        )
    };
    let all: Vec<String> = (0..count).map(tag).collect();
    let control = serde_json::json!({ "headers": [["cache-control", "max-age=60"], ["cache-tag", all.join(",")]] });
    visit.behave(&control).await?;
    visit.warm(&visit.path).await?;
    visit
        .purge(&serde_json::json!({ "tag": tag(count - 1) }))
        .await?;
    let request = Request::get(&visit.path);
    visit
        .until(
            &request,
            "a miss after the purge of its last tag",
            |answer| !answer.is_hit(),
        )
        .await
        .map(drop)
}

async fn too_many_tags(visit: Visit) -> Verdict {
    let size: usize = visit.input.parse().unwrap_or_default();
    let tags = (0..size / 8)
        .map(|n| format!("t{n:06}"))
        .collect::<Vec<_>>()
        .join(",");
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncache-tag: {tags}\r\ncontent-length: 2\r\n\r\nok"
    );
    visit.rogue()?.says(&visit.path, answer.as_bytes());
    // While the key is marked, the mark is the reason that is given.
    for reasons in [
        &["detail=tags"][..],
        &["detail=tags", "detail=uncacheable"],
        &["detail=tags", "detail=uncacheable"],
    ] {
        let answer = visit.get(&visit.path).await;
        ensure!(
            answer.is_whole(200) && !answer.is_hit(),
            "it was answered {}",
            answer.shown()
        );
        let said = answer.field("cache-status");
        ensure!(
            reasons.iter().any(|reason| said.contains(reason)),
            "no reason: {said}"
        );
    }
    Ok(())
}

async fn large_request(visit: Visit) -> Verdict {
    let (name, size) = visit.pair();
    let value = filled(name, size.parse().unwrap_or_default());
    let page = visit.page(&[("cache-control", "max-age=60")]);
    for _ in 0..2 {
        let answer = visit.send(Request::get(&page).field(name, &value)).await;
        ensure!(
            answer.status != 0 && answer.end != End::Silent,
            "there was no answer"
        );
    }
    let clean = visit.warm(&page).await?;
    ensure!(clean.is_whole(200), "a clean client got {}", clean.status);
    Ok(())
}

async fn long_url(visit: Visit) -> Verdict {
    let filler = "x".repeat(visit.input.parse().unwrap_or_default());
    let long = visit.page(&[("cache-control", "max-age=60")]) + "&" + &filler;
    for end in ["a", "b", "a", "b"] {
        let target = format!("{long}{end}");
        let answer = visit.get(&target).await;
        ensure!(answer.status != 0, "there was no answer");
        let is_own = answer.text().contains(&format!("{end}\""));
        ensure!(
            answer.status != 200 || is_own,
            "it got another URL's answer"
        );
    }
    Ok(())
}
