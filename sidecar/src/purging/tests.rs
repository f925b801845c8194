use larder_contract::http_time::Timestamp;

use super::*;

fn purge(n: u64) -> Purge {
    Purge {
        scope: Scope::Everything,
        soft: false,
        at_ms: Timestamp::from_millis(n),
    }
}

#[tokio::test]
async fn who_follows_misses_nothing_and_who_is_too_far_behind_is_told() {
    let purges = Purges::default();
    purges.begin_at("0".to_owned());
    let begin = purges.since(None, Duration::ZERO).await;
    assert_eq!((begin.cursor.as_str(), begin.reset), ("0", false));
    for n in 1..=300 {
        purges.push(n.to_string(), purge(n));
    }
    let first = purges.since(Some("0"), Duration::ZERO).await;
    assert_eq!(
        (first.events.len(), first.cursor.as_str()),
        (Events::MOST, "256")
    );
    let rest = purges.since(Some("256"), Duration::ZERO).await;
    assert_eq!((rest.events.len(), rest.cursor.as_str()), (44, "300"));
    assert!(purges.since(Some("elsewhere"), Duration::ZERO).await.reset);
    for n in 301..=5000 {
        purges.push(n.to_string(), purge(n));
    }
    assert!(purges.since(Some("300"), Duration::ZERO).await.reset);
}

#[tokio::test]
async fn a_purge_is_heard_when_all_who_follow_ask_on_from_behind_it() {
    let purges = Purges::default();
    let wait = Duration::from_millis(500);
    let waited = async || {
        let since = Instant::now();
        purges.are_heard(wait).await;
        since.elapsed()
    };
    purges.push("1".to_owned(), purge(1));
    assert!(waited().await < wait, "nobody follows");
    for envoy in ["a", "b"] {
        let _poll = std::mem::ManuallyDrop::new(purges.sessions().poll(envoy, wait));
        purges.polled_from(envoy, "1");
    }
    assert!(waited().await < wait);
    purges.push("2".to_owned(), purge(2));
    purges.polled_from("a", "2");
    assert!(waited().await >= wait, "one is frozen");
    let later = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        purges.polled_from("b", "2");
    };
    let (took, ()) = tokio::join!(waited(), later);
    assert!(took < wait, "{took:?}");
}

#[test]
fn what_was_not_heard_for_a_while_is_not_vouched_for() {
    let now = Instant::now();
    assert!(
        Purges::default().hearing().vouches_at(now),
        "alone there is nothing to hear"
    );
    let purges = Purges::shared();
    assert!(
        !purges.hearing().vouches_at(now),
        "before the marks are read"
    );
    purges.heard_everything(now);
    assert!(
        purges
            .hearing()
            .vouches_at(now + TRUST - Duration::from_millis(1))
    );
    assert!(!purges.hearing().vouches_at(now + TRUST));
    purges.heard_everything(now - Duration::from_secs(1));
    assert!(
        purges
            .hearing()
            .vouches_at(now + TRUST - Duration::from_millis(1)),
        "an older answer takes nothing back"
    );
}

#[tokio::test]
async fn a_long_poll_ends_with_the_purge_it_waited_for() {
    let purges = Purges::default();
    let waiting = tokio::spawn({
        let purges = purges.clone();
        async move { purges.since(Some(""), Duration::from_secs(20)).await }
    });
    tokio::task::yield_now().await;
    purges.push("1".to_owned(), purge(1));
    let events = tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(events.events.len(), 1);
}
