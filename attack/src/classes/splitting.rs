//! Splitting: a value with a line end in it becomes a field, or a whole answer, of the attacker's.

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::End;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Splitting,
        name: "control-byte-in-a-response-field",
        source: "RFC 9110 §5.5; Klein, Divide and Conquer (2004)",
        expectation: "A response field with a control byte is neither stored nor sent on as something else.",
        setting: Setting::Rogue,
        inputs: &[
            "x-a: b\rset-cookie: sid=evil",
            "x-a: b\0set-cookie: sid=evil",
            "x-a: b\nset-cookie: sid=evil",
            "x-a: b\r\n set-cookie: sid=evil",
            "x-a: \u{7f}set-cookie: sid=evil",
            "x-a\rset-cookie: sid=evil",
            "x-a : set-cookie",
            "etag: \"1\rset-cookie: sid=evil\"",
            "vary: x-a\rset-cookie: sid=evil",
            "cache-tag: a\rset-cookie: sid=evil",
        ],
        check: |visit| Box::pin(control_byte(visit)),
    },
    Scenario {
        class: Class::Splitting,
        name: "encoded-line-end-in-a-target",
        source: "CWE-113; Hackmanit Web-Cache-Vulnerability-Scanner, response splitting",
        expectation: "An encoded line end in a URL becomes no field of an answer.",
        setting: Setting::Safe,
        inputs: &[
            "%0d%0aset-cookie:%20sid=evil",
            "%0aset-cookie:%20sid=evil",
            "%E5%98%8D%E5%98%8Aset-cookie:sid=evil",
            "%00%0d%0a",
        ],
        check: |visit| Box::pin(encoded(visit)),
    },
    Scenario {
        class: Class::Splitting,
        name: "framing-of-a-response",
        source: "RFC 9112 §6.3, §8; Squid GHSA-3365-q9qx-f98m; Apache Traffic Server CVE-2023-38522",
        expectation: "A response with ambiguous or broken framing is not served to others, and its surplus to nobody.",
        setting: Setting::Rogue,
        inputs: &[
            "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nsurplus",
            "content-length: 5\r\ncontent-length: 12\r\n\r\nfive!surplus",
            "content-length: 100\r\n\r\nfive!",
            "content-length: -5\r\n\r\nfive!",
            "content-length: 5,5\r\n\r\nfive!surplus",
            "transfer-encoding: chunked\r\n\r\n5\r\nfive!\r\n",
            "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nfive!\r\n0\r\n\r\n",
            "transfer-encoding: chunked\r\n\r\n5\r\nfive!surplus\r\n0\r\n\r\n",
            "transfer-encoding: gzip\r\n\r\nfive!",
        ],
        check: |visit| Box::pin(framing(visit)),
    },
    Scenario {
        class: Class::Splitting,
        name: "second-answer",
        source: "Klein (2004); RFC 9112 §9.2",
        expectation: "A second answer behind the first one reaches nobody.",
        setting: Setting::Rogue,
        inputs: &["200", "204", "304"],
        check: |visit| Box::pin(second_answer(visit)),
    },
];

async fn control_byte(visit: Visit) -> Verdict {
    let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n";
    visit.rogue()?.says(
        &visit.path,
        format!("{head}{}\r\n\r\nok", visit.input).as_bytes(),
    );
    for _ in 0..3 {
        let answer = visit.get(&visit.path).await;
        ensure!(answer.status != 0, "there was no answer at all");
        // A lone LF ends a line for lenient readers (RFC 9112 §2.2); then it is the origin's own
        // field, and forbids storing.
        let is_split = answer.has("set-cookie") && !visit.input.contains('\n');
        ensure!(!is_split, "the value became a field");
        let raw = answer.fields.iter().any(|(name, value)| {
            [name, value]
                .iter()
                .any(|text| text.contains(['\r', '\0', '\u{7f}']))
        });
        ensure!(
            !(raw && answer.is_hit()),
            "the control byte was stored and sent on"
        );
    }
    Ok(())
}

async fn encoded(visit: Visit) -> Verdict {
    let target = format!(
        "{}/{}?mock-cache-control=max-age%3D60",
        visit.path, visit.input
    );
    for _ in 0..3 {
        ensure!(
            !visit.get(&target).await.has("set-cookie"),
            "the URL became a field"
        );
    }
    Ok(())
}

async fn framing(visit: Visit) -> Verdict {
    let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n";
    visit
        .rogue()?
        .says_exactly(&visit.path, format!("{head}{}", visit.input).as_bytes());
    let mut whole = false;
    for _ in 0..3 {
        let answer = visit.get(&visit.path).await;
        ensure!(!answer.mentions("surplus"), "the surplus was served");
        ensure!(answer.end != End::Silent, "the client was left waiting");
        // What Envoy's codec lets pass as whole is whole for the cache; what the first client got
        // in part is not.
        ensure!(
            !answer.is_hit() || whole,
            "what nobody got whole was stored"
        );
        whole |= answer.is_whole(200);
    }
    Ok(())
}

async fn second_answer(visit: Visit) -> Verdict {
    let content = if visit.input == "200" {
        "content-length: 2\r\n\r\nok"
    } else {
        "\r\n"
    };
    let first = format!(
        "HTTP/1.1 {} X\r\ncache-control: max-age=60\r\n{content}",
        visit.input
    );
    let second = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 4\r\n\r\nevil";
    visit
        .rogue()?
        .says_exactly(&visit.path, (first + second).as_bytes());
    let other = format!("{}/other", visit.path);
    for _ in 0..3 {
        for target in [&visit.path, &other] {
            ensure!(
                !visit.get(target).await.mentions("evil"),
                "{target} got the second answer"
            );
        }
    }
    Ok(())
}
