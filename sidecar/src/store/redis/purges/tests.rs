use larder_stack::RedisServer;

use super::*;
use crate::store::redis::{Redis, Seal, Settings, Tls};

const LOG: &str = "t:{purges}:log";
const OTHER: &str = r#"{"scope": {"tag": "other"}, "soft": false, "at_ms": 5}"#;

async fn begun(server: &RedisServer) -> (Link, Purges) {
    let settings = Settings {
        url: server.url(),
        namespace: "t".to_owned(),
        max_variants: 8,
        timeout: Duration::from_secs(5),
        seal: Seal::default(),
        tls: Tls::default(),
    };
    let (link, purges) = (Redis::open(settings).unwrap().link(), Purges::shared());
    load_marks(&link, "t", &purges).await.unwrap();
    catch_up(&link, "t", &purges).await.unwrap();
    // What was begun with is read: it is a purge of everything.
    catch_up(&link, "t", &purges).await.unwrap();
    (link, purges)
}

fn distrusts(purges: &Purges, since: Timestamp) -> bool {
    purges
        .all_marks()
        .iter()
        .any(|purge| purge.scope == Scope::Everything && purge.at_ms >= since)
}

#[tokio::test]
async fn a_log_that_is_lost_is_noticed_although_another_was_begun() {
    let server = RedisServer::start().await.unwrap();
    let (link, purges) = begun(&server).await;
    let (cursor, now) = (purges.cursor(), purges.clock().now());
    server.cli(&["DEL", LOG]);
    server.cli(&["XADD", LOG, "*", "purge", OTHER]);
    catch_up(&link, "t", &purges).await.unwrap();
    assert!(purges.since(Some(&cursor), Duration::ZERO).await.reset && distrusts(&purges, now));
}

#[tokio::test]
async fn every_purge_of_our_own_has_to_be_in_the_log_whatever_came_later() {
    let server = RedisServer::start().await.unwrap();
    let (link, purges) = begun(&server).await;
    let mut ids = Vec::new();
    for tag in ["a", "b"] {
        let purge = Purge {
            scope: Scope::Tag(tag.to_owned()),
            soft: false,
            at_ms: purges.clock().now(),
        };
        ids.push(announce(&link, "t", &purge).await.unwrap());
        purges.expect(ids.last().unwrap().clone());
    }
    catch_up(&link, "t", &purges).await.unwrap();
    let now = purges.clock().now();
    tokio::time::sleep(Duration::from_millis(2)).await;
    catch_up(&link, "t", &purges).await.unwrap();
    assert!(!distrusts(&purges, now), "all is there");

    let purge = Purge {
        scope: Scope::Tag("c".to_owned()),
        soft: false,
        at_ms: purges.clock().now(),
    };
    let lost = announce(&link, "t", &purge).await.unwrap();
    purges.expect(lost.clone());
    server.cli(&["XDEL", LOG, &lost]);
    let kept = announce(&link, "t", &purge).await.unwrap();
    purges.expect(kept);
    catch_up(&link, "t", &purges).await.unwrap();
    assert!(distrusts(&purges, now));
}
