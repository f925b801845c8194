//! Parts: what a range may ask for, and what a part may say.

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::{Answer, Request};

const WHOLE: usize = 1000;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Ranges,
        name: "odd-range",
        source: "nginx CVE-2017-7529, CVE-2026-60005; RFC 9110 §14.1.2",
        expectation: "Any Range on a stored page gets 206, 416 or the whole, and never a byte that is not the page's.",
        setting: Setting::Safe,
        inputs: &[
            "bytes=0-18446744073709551616",
            "bytes=18446744073709551615-",
            "bytes=-18446744073709551616",
            "bytes=-9223372036854775808",
            "bytes=-17208,-9223372036854758792",
            "bytes=9223372036854775807-9223372036854775808",
            "bytes=-0",
            "bytes=5-2",
            "bytes=",
            "bytes=a-b",
            "bytes = 0-1",
            "lines=0-1",
            "bytes=--1",
            "bytes=0x0-0x5",
            "bytes=0-0,999-999,5-5",
            "bytes=0-,0-,0-,0-",
            "bytes=1000-",
            "bytes=0-0, ,1-1",
            "BYTES=0-1",
            "bytes=+0-+5",
        ],
        check: |visit| Box::pin(odd(visit)),
    },
    Scenario {
        class: Class::Ranges,
        name: "fields-of-a-416",
        source: "RFC 9110 §15.5.17",
        expectation: "A 416 says nothing of the object that a cache in front could store it by.",
        setting: Setting::Safe,
        inputs: &[
            "cache-control",
            "etag",
            "expires",
            "last-modified",
            "content-encoding",
            "x-kept",
        ],
        check: |visit| Box::pin(fields_of_416(visit)),
    },
    Scenario {
        class: Class::Ranges,
        name: "digest-of-a-part",
        source: "RFC 9530 §2; AWS S3 checksums; Google Cloud Storage x-goog-hash; RFC 1864",
        expectation: "A 206 carries no digest of the whole that a client would check the part by.",
        setting: Setting::Safe,
        inputs: &[
            "content-md5",
            "content-digest",
            "digest",
            "x-amz-checksum-sha256",
            "x-amz-checksum-crc32c",
            "x-goog-hash",
            "x-ms-blob-content-md5",
        ],
        check: |visit| Box::pin(digest(visit)),
    },
    Scenario {
        class: Class::Ranges,
        name: "whole-with-content-range",
        source: "RFC 9110 §14.4; Varnish builtin VCL unsets Content-Range on other statuses",
        expectation: "A 200 with a Content-Range is not served as a stored page that has it.",
        setting: Setting::Safe,
        inputs: &[
            "bytes 0-1/5",
            "bytes */5",
            "bytes 0-999/1000",
            "lines 0-1/2",
        ],
        check: |visit| Box::pin(with_content_range(visit)),
    },
    Scenario {
        class: Class::Ranges,
        name: "part-as-the-whole",
        source: "Range poisoning; RFC 9111 §3.3, §3.4",
        expectation: "A part, or a refusal of one, is never served as the page.",
        setting: Setting::Safe,
        inputs: &[
            "206 > content-range: bytes 0-999/5000",
            "206 > x-a: b",
            "206 > content-range: bytes 0-1/9",
            "416 > content-range: bytes */5000",
        ],
        check: |visit| Box::pin(part_as_whole(visit)),
    },
    Scenario {
        class: Class::Ranges,
        name: "if-range",
        source: "RFC 9110 §13.1.5",
        expectation: "A part of another version than If-Range names is never served.",
        setting: Setting::Safe,
        inputs: &[
            "\"other\"",
            "W/\"1\"",
            "Mon, 01 Jan 1990 00:00:00 GMT",
            "1",
            "\"1\", \"2\"",
            "*",
        ],
        check: |visit| Box::pin(if_range(visit)),
    },
];

fn letters() -> Vec<u8> {
    (0..WHOLE)
        .map(|n| b'a' + u8::try_from(n % 26).unwrap_or(0))
        .collect()
}

async fn stored(visit: &Visit, more: &[(&str, &str)]) -> Result<String, String> {
    let members = [
        ("cache-control", "max-age=60"),
        ("header", "etag: \"1\""),
        ("body-size", "1000"),
    ];
    let target = visit.page(&[&members[..], more].concat());
    visit.warm(&target).await?;
    Ok(target)
}

/// Whether a single part is what its `Content-Range` says.
fn is_true_part(answer: &Answer) -> bool {
    let place = answer
        .field("content-range")
        .strip_prefix("bytes ")
        .and_then(|place| place.split_once('/'));
    let bounds = place.and_then(|(place, _)| place.split_once('-'));
    let Some((Ok(first), Ok(last))) =
        bounds.map(|(first, last)| (first.parse::<usize>(), last.parse::<usize>()))
    else {
        return answer
            .field("content-type")
            .starts_with("multipart/byteranges");
    };
    letters()
        .get(first..=last)
        .is_some_and(|part| part == answer.content)
}

async fn odd(visit: Visit) -> Verdict {
    let target = stored(&visit, &[]).await?;
    let answer = visit
        .send(Request::get(&target).field("range", visit.input))
        .await;
    match answer.status {
        200 => ensure!(answer.content == letters(), "the whole is another"),
        206 => ensure!(
            is_true_part(&answer),
            "the part is not the page's: {}",
            answer.shown()
        ),
        416 => ensure!(
            answer.content.len() < WHOLE,
            "a refusal of {} bytes",
            answer.content.len()
        ),
        400 => {}
        status => ensure!(false, "it was answered {status}"),
    }
    Ok(())
}

async fn fields_of_416(visit: Visit) -> Verdict {
    let more = [
        ("header", "expires: Thu, 01 Jan 2099 00:00:00 GMT"),
        ("header", "last-modified: Mon, 01 Jan 1990 00:00:00 GMT"),
        ("header", "content-encoding: gzip"),
        ("header", "x-kept: of the object"),
    ];
    // Only what says how the object may be stored or is encoded; other fields may well be repeated.
    if visit.input == "x-kept" {
        let target = stored(&visit, &more).await?;
        let answer = visit
            .send(Request::get(&target).field("range", "bytes=5000-"))
            .await;
        ensure!(answer.status == 416, "it was answered {}", answer.status);
        ensure!(
            answer.field("content-range") == "bytes */1000",
            "it does not say how long the page is"
        );
        return Ok(());
    }
    let target = stored(&visit, &more).await?;
    let answer = visit
        .send(Request::get(&target).field("range", "bytes=5000-"))
        .await;
    ensure!(answer.status == 416, "it was answered {}", answer.status);
    let forbids = answer.field(visit.input).contains("no-store");
    ensure!(
        !answer.has(visit.input) || forbids,
        "it has {}: {}",
        visit.input,
        answer.field(visit.input)
    );
    Ok(())
}

async fn digest(visit: Visit) -> Verdict {
    let target = stored(
        &visit,
        &[("header", &format!("{}: of-the-whole", visit.input))],
    )
    .await?;
    let whole = visit.get(&target).await;
    ensure!(
        whole.field(visit.input) == "of-the-whole",
        "the whole has lost its digest"
    );
    let part = visit
        .send(Request::get(&target).field("range", "bytes=0-9"))
        .await;
    ensure!(part.status == 206, "it was answered {}", part.status);
    ensure!(
        !part.has(visit.input),
        "the part has the whole's {}",
        visit.input
    );
    Ok(())
}

async fn with_content_range(visit: Visit) -> Verdict {
    let header = format!("content-range: {}", visit.input);
    let target = visit.page(&[
        ("cache-control", "max-age=60"),
        ("header", &header),
        ("body-size", "1000"),
    ]);
    for _ in 0..3 {
        let answer = visit.get(&target).await;
        ensure!(
            !(answer.is_hit() && answer.has("content-range")),
            "it was stored and served with its Content-Range"
        );
    }
    Ok(())
}

async fn part_as_whole(visit: Visit) -> Verdict {
    let (status, header) = visit.pair();
    let target = visit.page(&[
        ("status", status),
        ("cache-control", "max-age=60"),
        ("header", header),
        ("body-size", "1000"),
    ]);
    for _ in 0..3 {
        let answer = visit.get(&target).await;
        ensure!(
            !answer.is_hit(),
            "who asked for the page got a stored {status} as {}",
            answer.status
        );
        ensure!(answer.status != 200, "the {status} became the page");
    }
    Ok(())
}

async fn if_range(visit: Visit) -> Verdict {
    let target = stored(&visit, &[]).await?;
    let answer = visit
        .send(
            Request::get(&target)
                .field("range", "bytes=0-9")
                .field("if-range", visit.input),
        )
        .await;
    ensure!(
        answer.is_whole(200) && answer.content == letters(),
        "it was answered {}",
        answer.status
    );
    Ok(())
}
