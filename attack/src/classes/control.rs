//! The sidecar and the store: what comes from outside them is not believed.

use crate::scenario::{Class, Scenario, Verdict, ensure};
use crate::setting::Setting;
use crate::visit::Visit;
use crate::wire::Request;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        class: Class::Control,
        name: "malformed-call-to-the-sidecar",
        source: "CWE-20; OWASP API Security",
        expectation: "The sidecar refuses a malformed call with a 4xx, and goes on serving.",
        setting: Setting::Safe,
        inputs: &[
            "POST /v1/look-up >",
            "POST /v1/look-up > {}",
            "POST /v1/look-up > [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
            "POST /v1/invalidate > {\"keys\": [\"zz\"], \"now_ms\": 1}",
            "POST /v1/release > {\"key\": \"00\"}",
            "PUT /v1/entries/00 > x",
            "PUT /v1/entries/../../purge > x",
            "GET /v1/entries/0000000000000000000000000000000000000000000000000000000000000000 >",
            "DELETE /v1/purge >",
            "GET /v1/events?wait_ms=99999999999999999999 >",
            "GET /v1/nothing >",
        ],
        check: |visit| Box::pin(malformed(visit)),
    },
    Scenario {
        class: Class::Control,
        name: "entry-changed-in-redis",
        source: "CWE-345: whoever may write to a shared store injects responses",
        expectation: "With sealed entries, what somebody else wrote into Redis is never served.",
        setting: Setting::Sealed,
        inputs: &["one byte", "cut", "other type", "another page"],
        check: |visit| Box::pin(changed_in_redis(visit)),
    },
];

async fn malformed(visit: Visit) -> Verdict {
    let (call, content) = visit.input.split_once(" >").unwrap_or_default();
    let (method, target) = call.split_once(' ').unwrap_or_default();
    let request = Request::new(method, target).field("content-type", "application/json");
    let answer = visit
        .target
        .sidecar(request.content(content.trim().as_bytes()))
        .await?;
    ensure!(
        (400..500).contains(&answer.status),
        "it was answered {}",
        answer.shown()
    );
    let page = visit.page(&[("cache-control", "max-age=60")]);
    visit.warm(&page).await.map(drop)
}

/// Everything that Redis holds is changed. The setting has no level 1, so the next look-up reads
/// what is there now.
async fn changed_in_redis(visit: Visit) -> Verdict {
    let redis = visit
        .target
        .redis
        .as_ref()
        .ok_or("this scenario needs Redis")?;
    let page = visit.page(&[("cache-control", "max-age=60"), ("body-size", "400")]);
    let other = crate::visit::page(
        &format!("{}/other", visit.path),
        &[("cache-control", "max-age=60"), ("reflect", "host")],
    );
    let good = visit.warm(&page).await?;
    visit.warm(&other).await?;
    let written = larder_stack::eventually(std::time::Duration::from_secs(3), || async {
        let keys = redis.cli(&["--scan"]);
        (keys.lines().count() >= 2).then_some(keys)
    });
    let keys = written.await.ok_or("nothing was written to Redis")?;
    let lines: Vec<&str> = keys.lines().collect();
    let script = script(visit.input);
    visit.note(format!(
        "· Redis holds {} keys; {} → {}",
        lines.len(),
        visit.input,
        redis.cli(&["EVAL", &script, "0"]).trim()
    ));
    // Answers that a leader handed over to other workers lie in Envoy for two seconds.
    visit.time_passes(2500).await;
    for _ in 0..3 {
        let answer = visit.send(Request::get(&page)).await;
        ensure!(
            answer.is_whole(200) && answer.content == good.content,
            "what was changed in Redis was served: {}",
            answer.shown()
        );
    }
    let answer = visit.get(&other).await;
    ensure!(
        answer.text().contains(&format!("\"target\":\"{other}\"")),
        "another page was served: {}",
        answer.shown()
    );
    Ok(())
}

/// Changes every long value of every hash; entries are long, leases and marks are short.
fn script(change: &str) -> String {
    let each = |act: &str| {
        format!(
            "for _,k in ipairs(redis.call('KEYS','*')) do if redis.call('TYPE',k).ok=='hash' then \
             local h=redis.call('HGETALL',k) for i=1,#h,2 do local v=h[i+1] if #v>100 then {act} end end end end"
        )
    };
    match change {
        "one byte" => each("redis.call('HSET',k,h[i],string.sub(v,1,#v-30)..'EVIL'..string.sub(v,#v-25))"),
        "cut" => each("redis.call('HSET',k,h[i],string.sub(v,1,#v-30))"),
        "other type" => {
            "for _,k in ipairs(redis.call('KEYS','*')) do redis.call('DEL',k) redis.call('RPUSH',k,'EVIL') end"
                .to_owned()
        }
        // The entries change places.
        _ => format!(
            "local all={{}} {} for n=1,#all do local o=all[#all+1-n] redis.call('HSET',all[n][1],all[n][2],o[3]) end",
            each("all[#all+1]={k,h[i],v}")
        ),
    }
}
