//! Whose answer it is: what one client, or a filter before the cache, brings with it reaches nobody
//! else.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use larder_stack::{Settings, eventually};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{Answer, On, World, patient};

const SECRET: &[u8] = b"a secret that only this test knows";
const TOKEN: &str = "whose-test";

/// `default.json` with a store budget that a busy test machine keeps.
fn safe() -> Settings {
    let config = include_str!("../../../envoy/filters/default.json");
    let config = config.replacen('{', "{ \"store\": { \"timeout_ms\": 3000 },", 1);
    let sidecar_env = vec![("LARDER_PURGE_TOKEN".to_owned(), TOKEN.to_owned())];
    Settings {
        filter_config: config,
        sidecar_env,
        ..patient()
    }
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |chunk: &[u8]| {
        let bits = chunk
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        (0..=chunk.len())
            .map(|n| char::from(DIGITS[(bits >> (18 - 6 * n)) as usize & 63]))
            .collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

/// `Authorization` of a client of that name.
pub(crate) fn bearer(subject: &str) -> String {
    signed(&json!({ "iss": "test", "sub": subject }))
}

/// `Authorization` with these claims.
pub(crate) fn signed(claims: &Value) -> String {
    let head = base64url(br#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = base64url(claims.to_string().as_bytes());
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap();
    mac.update(format!("{head}.{claims}").as_bytes());
    format!(
        "Bearer {head}.{claims}.{}",
        base64url(&mac.finalize().into_bytes())
    )
}

/// The key set that `signed` is verified with.
pub(crate) fn jwks() -> String {
    json!({ "keys": [{ "kty": "oct", "alg": "HS256", "k": base64url(SECRET) }] }).to_string()
}

/// Envoy's `jwt_authn` as it is used most: the token is verified and goes no further.
pub(crate) fn jwt_authn(told: Value) -> Value {
    let mut provider = json!({ "issuer": "test", "local_jwks": { "inline_string": jwks() } });
    provider
        .as_object_mut()
        .unwrap()
        .extend(told.as_object().unwrap().clone());
    json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": { "test": provider },
            "rules": [{
                "match": { "prefix": "/anything/" },
                "requires": { "requires_any": { "requirements": [{ "provider_name": "test" }, { "allow_missing": {} }] } },
            }],
        },
    })
}

async fn as_client(world: &World, subject: &str, path: &str) -> Answer {
    world
        .send("GET", path, &[("authorization", &bearer(subject))])
        .await
}

/// What says that it is for everybody is, and a refresh of it is nobody's.
async fn what_is_for_everybody_is_refreshed_for_nobody(world: &World, ours: &str) {
    world.stored(as_client(world, "alice", ours)).await;
    let stale = eventually(Duration::from_secs(10), || async {
        let answer = as_client(world, "bob", ours).await;
        (answer.is_hit() && answer.says("stale-while-revalidate")).then_some(())
    });
    assert!(stale.await.is_some());
    world.sees(ours, 2).await;
    let journal = world.journal(ours).await;
    let refresh = journal
        .iter()
        .max_by_key(|request| request["at_ms"].as_u64())
        .unwrap()
        .to_string();
    assert!(
        !refresh.contains("x-jwt-sub") && !refresh.contains("authorization"),
        "{refresh}"
    );
}

async fn nobody_gets_anothers_page(told: Value) {
    let world = World::with(On::Memory, safe().with_filters_before(&[jwt_authn(told)])).await;
    let behaviour = |control: &str| {
        format!(
            r#"{{"headers": [["cache-control", "{control}"]], "reflect": "x-jwt-sub,authorization"}}"#
        )
    };
    let (path, open, at_once, ours) = (
        "/anything/mine",
        "/anything/open",
        "/anything/at-once",
        "/anything/ours",
    );
    for path in [path, open, at_once] {
        world.behave(path, &behaviour("max-age=60")).await;
    }
    world
        .behave(
            ours,
            &behaviour("public, max-age=1, stale-while-revalidate=60"),
        )
        .await;
    for subject in ["alice", "bob", "bob"] {
        let answer = as_client(&world, subject, path).await;
        assert!(
            answer.status == 200 && !answer.is_hit(),
            "{subject}: {answer:?}"
        );
        assert!(
            answer.says("detail=authorization-response"),
            "{subject}: {answer:?}"
        );
        assert!(
            answer.body.contains("\"request-authorization\":null"),
            "the filter took it away: {answer:?}"
        );
    }
    // What is stored for nobody is not for who is known.
    world.get(open).await;
    let nobodys = world.until(open, Answer::is_hit).await;
    assert!(
        nobodys.body.contains("\"request-x-jwt-sub\":null"),
        "{nobodys:?}"
    );
    let answer = as_client(&world, "alice", open).await;
    assert!(
        !answer.is_hit() && answer.says("detail=authorization"),
        "{answer:?}"
    );
    // Those who ask at once do not share one fetch.
    let together = ["alice", "bob", "carol"].map(|subject| as_client(&world, subject, at_once));
    for answer in futures_util::future::join_all(together).await {
        assert!(!answer.says("collapsed"), "{answer:?}");
    }
    assert_eq!(world.fetches(at_once).await, 3);
    what_is_for_everybody_is_refreshed_for_nobody(&world, ours).await;
}

#[tokio::test]
async fn behind_jwt_authn_that_names_the_client_in_a_field_nobody_gets_anothers_page() {
    nobody_gets_anothers_page(
        json!({ "claim_to_headers": [{ "header_name": "x-jwt-sub", "claim_name": "sub" }] }),
    )
    .await;
}

#[tokio::test]
async fn behind_jwt_authn_that_names_the_client_in_metadata_alone_nobody_gets_anothers_page() {
    nobody_gets_anothers_page(json!({ "payload_in_metadata": "claims" })).await;
}

async fn a_forged_field_reaches_nobody_else(on: On) {
    let world = World::with(on, safe()).await;
    let names =
        "x-forwarded-host,x-original-url,forwarded,rsc,x-nextjs-data,hx-request,x-invoke-path";
    let behaviour = |control: &str| {
        format!(r#"{{"headers": [["cache-control", "{control}"]], "reflect": "{names}"}}"#)
    };
    for name in names.split(',') {
        let path = format!("/anything/{name}");
        world
            .behave(&path, &behaviour("max-age=1, stale-while-revalidate=60"))
            .await;
        let forged = [(name, "evil")];
        let (evil, good) = tokio::join!(world.send("GET", &path, &forged), world.get(&path));
        assert!(
            evil.body.contains("evil") && !good.body.contains("evil"),
            "{name}: a follower: {good:?}"
        );
        // Stale hits of both, and the refreshes that they start.
        for fields in [&[][..], &forged[..]] {
            let stale = eventually(Duration::from_secs(10), || async {
                world
                    .send("GET", &path, fields)
                    .await
                    .says("stale-while-revalidate")
                    .then_some(())
            });
            assert!(stale.await.is_some(), "{name}");
        }
        for _ in 0..3 {
            let answer = world.get(&path).await;
            assert!(!answer.body.contains("evil"), "{name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_forged_field_reaches_nobody_else_on_memory() {
    a_forged_field_reaches_nobody_else(On::Memory).await;
}

#[tokio::test]
async fn a_forged_field_reaches_nobody_else_on_redis() {
    a_forged_field_reaches_nobody_else(On::Redis).await;
}

#[tokio::test]
async fn a_stale_hit_by_a_client_with_a_cookie_refreshes_the_entry_for_all() {
    let world = World::with(On::Memory, safe()).await;
    let path = "/anything/x";
    let behaviour = r#"{"headers": [["cache-control", "max-age=1, stale-while-revalidate=600"]]}"#;
    world.becomes(path, behaviour).await;
    world.get(path).await;
    world.until(path, |answer| answer.is_hit()).await;
    for count in 2..4 {
        let stale = eventually(Duration::from_secs(10), || async {
            let answer = world.send("GET", path, &[("cookie", "_ga=1")]).await;
            assert!(answer.is_hit(), "{answer:?}");
            answer.says("stale-while-revalidate").then_some(())
        });
        assert!(stale.await.is_some());
        let fresh = world
            .until(path, |answer| {
                answer.is_hit() && !answer.says("stale-while-revalidate")
            })
            .await;
        assert!(
            fresh.status == 200 && world.fetches(path).await >= count,
            "{fresh:?}"
        );
    }
    let journal = world.journal(path).await;
    assert!(
        journal
            .iter()
            .all(|request| !request.to_string().contains("cookie")),
        "{journal:?}"
    );
}

#[tokio::test]
async fn every_spelling_of_a_host_is_one_entry_that_a_purge_and_a_change_meet() {
    let world = World::with(On::Memory, safe()).await;
    let path = "/anything/page";
    let page = |word: &str| {
        format!(
            r#"{{"headers": [["cache-control", "max-age=600"], ["x-word", "{word}"]], "reflect": "host"}}"#
        )
    };
    // What each spelling gets, from whichever worker.
    let words = || async {
        let mut words = Vec::new();
        for host in [
            [("host", "shop.example")],
            [("host", "SHOP.example")],
            [("host", "shop.example:80")],
        ] {
            for answer in
                futures_util::future::join_all((0..8).map(|_| world.send("GET", path, &host))).await
            {
                assert!(
                    answer.body.contains("\"request-host\":\"shop.example\""),
                    "{host:?}: {answer:?}"
                );
                words.push(answer.header("x-word").to_owned());
            }
        }
        words
    };
    world.becomes(path, &page("old")).await;
    words().await;
    assert_eq!(world.fetches(path).await, 1, "one entry");
    world.becomes(path, &page("purged")).await;
    let sidecar = world.stack.sidecar_address().unwrap();
    let order = world
        .client
        .post(format!("http://{sidecar}/v1/purge"))
        .bearer_auth(TOKEN);
    let told = order
        .body(r#"{"url": "https://SHOP.example:443/anything/page"}"#)
        .send()
        .await
        .unwrap();
    assert!(told.status().is_success());
    let purged = eventually(Duration::from_secs(10), || async {
        words()
            .await
            .iter()
            .all(|word| word == "purged")
            .then_some(())
    });
    assert!(purged.await.is_some(), "{:?}", words().await);
    world.becomes(path, &page("changed")).await;
    world
        .send("PUT", path, &[("host", "SHOP.EXAMPLE:80")])
        .await;
    let words = words().await;
    assert!(words.iter().all(|word| word == "changed"), "{words:?}");
}

#[tokio::test]
async fn every_spelling_of_a_path_is_one_entry_that_a_purge_by_url_or_prefix_meets() {
    let world = World::with(On::Memory, safe()).await;
    let path = "/anything/k/a%C3%A9%2F";
    // As a parameter of the origins' control.
    let named = &path.replace('%', "%25");
    let sidecar = world.stack.sidecar_address().unwrap();
    let page = |word: &str| {
        format!(r#"{{"headers": [["cache-control", "max-age=600"], ["x-word", "{word}"]]}}"#)
    };
    // What each spelling gets, from whichever worker.
    let words = || async {
        let mut words = Vec::new();
        for spelled in [
            path,
            "/anything/k/a%c3%a9%2f",
            "/anything/k/%61%C3%a9%2F",
            "/anything/k/x/%2e%2e/a%c3%A9%2F",
        ] {
            let asked = (0..8).map(|_| world.send("GET", spelled, &[("host", "shop.example")]));
            for answer in futures_util::future::join_all(asked).await {
                assert!(
                    answer.body.contains(&format!("\"target\":\"{path}\"")),
                    "{spelled}: {answer:?}"
                );
                words.push(answer.header("x-word").to_owned());
            }
        }
        words
    };
    world.becomes(named, &page("old")).await;
    words().await;
    assert_eq!(world.fetches(named).await, 1, "one entry");
    for (number, (kind, spelled)) in [
        ("url", "/anything/k/a%c3%a9%2f"),
        ("url", "/anything/k/%61%C3%A9%2F"),
        ("url", "/anything/x/../k/./a\u{e9}%2F#top"),
        ("prefix", "/anything/%6b/a%c3%a"),
        ("prefix", "/anything//../k/a%c3"),
    ]
    .into_iter()
    .enumerate()
    {
        let word = format!("purged-{number}");
        world.becomes(named, &page(&word)).await;
        let order = world
            .client
            .post(format!("http://{sidecar}/v1/purge"))
            .bearer_auth(TOKEN);
        let order =
            order.body(json!({ kind: format!("http://shop.example{spelled}") }).to_string());
        assert!(order.send().await.unwrap().status().is_success());
        let purged = eventually(Duration::from_secs(10), || async {
            words().await.iter().all(|got| *got == word).then_some(())
        });
        assert!(
            purged.await.is_some(),
            "{kind} {spelled}: {:?}",
            words().await
        );
    }
}
