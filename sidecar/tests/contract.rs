//! One contract over every store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_contract::entry;
use larder_contract::entry::{Entry, EntryMeta, Headers, RouteSeen, Selecting};
use larder_contract::http_time::Timestamp;
use larder_contract::key::{KeyDigest, PrimaryKey};
use larder_contract::purge::{Purge, Scope};
use larder_contract::selectors::{Presented, SelectorToken};
use larder_contract::store_api::{
    Fence, Holder, LeaseTerms, LookUp, LookUpAnswer, Release, WriteAnswer,
};
use larder_sidecar::purging::MAX_MARKS;
use larder_sidecar::store::memory::Memory;
use larder_sidecar::store::redis::{Redis, Seal, Settings, Tls, follow};
use larder_sidecar::{Purged, Purges, Store, Waiting};
use larder_stack::{RedisCluster, RedisSentinels, RedisServer};

mod common;

use common::meta_of;

const KEY: KeyDigest = KeyDigest([7; 32]);
const NOW: u64 = 1_000_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// What an entry was selected by; an empty value stands for an absent field.
fn selecting(pairs: &[(&str, &str)]) -> Selecting {
    let value = |value: &str| (!value.is_empty()).then(|| value.as_bytes().into());
    let field = |(name, text): &(&str, &str)| (name.as_bytes().into(), value(text));
    Selecting(pairs.iter().map(field).collect())
}

fn presented(pairs: &[(&str, &str)]) -> Presented {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), SelectorToken::of(value.as_bytes())))
        .collect()
}

/// Fresh for 5 s from `NOW`, then for 5 s to be served stale.
fn entry_of(body: &str, selected_by: &[(&str, &str)], received: u64) -> Entry {
    let meta = EntryMeta {
        headers: Headers::from_pairs([("x", b"caf\xe9")]),
        max_age: 5,
        use_stale_upto: 5,
        stale_while_revalidate: 5,
        serve_stale_until_ms: at(NOW + 10_000),
        ttl_ms: 60_000,
        selecting: selecting(selected_by),
        ..meta_of(body.as_bytes(), at(received), at(NOW + 5_000))
    };
    Entry::new(meta, body.as_bytes())
}

fn asking(now: u64, fields: &[(&str, &str)], lease: Option<(u64, u64)>) -> LookUp {
    static HOLDERS: AtomicU64 = AtomicU64::new(1);
    let holder = Holder(HOLDERS.fetch_add(1, Ordering::Relaxed));
    let lease = lease.map(|(lease_ms, wait_ms)| LeaseTerms {
        holder,
        lease_ms,
        wait_ms,
    });
    LookUp {
        key: KEY,
        presented: presented(fields),
        now_ms: at(now),
        lease,
    }
}

async fn ask(
    store: &impl Store,
    now: u64,
    presented: &[(&str, &str)],
    lease: bool,
) -> LookUpAnswer {
    store
        .look_up(&asking(now, presented, lease.then_some((30_000, 0))))
        .await
        .unwrap()
        .answer
}

fn body_of(answer: &LookUpAnswer) -> Option<String> {
    let bytes = match answer {
        LookUpAnswer::Entry(bytes) => Some(bytes),
        LookUpAnswer::Lease { stale, .. } | LookUpAnswer::Held { stale } => stale.as_ref(),
        LookUpAnswer::Nothing { .. } => None,
    };
    bytes.map(|bytes| String::from_utf8(entry::decode(bytes).unwrap().1.to_vec()).unwrap())
}

async fn lease(store: &impl Store, now: u64) -> Fence {
    match ask(store, now, &[], true).await {
        LookUpAnswer::Lease { fence, .. } => fence,
        other => panic!("no lease: {other:?}"),
    }
}

async fn what_is_written_is_found_until_it_is_stale(store: &impl Store) {
    assert_eq!(
        ask(store, NOW, &[], false).await,
        LookUpAnswer::Nothing { uncacheable: false }
    );
    assert_eq!(
        store
            .write(KEY, None, entry_of("a", &[], NOW))
            .await
            .unwrap(),
        WriteAnswer::Stored
    );
    let fresh = ask(store, NOW + 4_999, &[], true).await;
    assert!(matches!(fresh, LookUpAnswer::Entry(_)), "{fresh:?}");
    assert_eq!(body_of(&fresh).as_deref(), Some("a"));
    let stale = ask(store, NOW + 5_000, &[], true).await;
    assert!(
        matches!(stale, LookUpAnswer::Lease { stale: Some(_), .. }),
        "{stale:?}"
    );
    assert!(
        matches!(
            ask(store, NOW + 5_000, &[], false).await,
            LookUpAnswer::Entry(_)
        ),
        "plain look-ups get it stale"
    );
}

async fn what_was_written_comes_back_byte_for_byte(store: &impl Store) {
    let entry = entry_of("a", &[("x", "1"), ("y", "")], NOW);
    store.write(KEY, None, entry.clone()).await.unwrap();
    let found = ask(store, NOW, &[("x", "1")], true).await;
    assert_eq!(found, LookUpAnswer::Entry(entry.frame().to_vec()));
}

async fn one_gets_the_lease_and_its_write_ends_it(store: &impl Store) {
    let fence = lease(store, NOW).await;
    assert!(matches!(
        ask(store, NOW, &[], true).await,
        LookUpAnswer::Held { stale: None }
    ));
    let other = Fence("0".repeat(32));
    assert_eq!(
        store
            .write(KEY, Some(&other), entry_of("x", &[], NOW))
            .await
            .unwrap(),
        WriteAnswer::Fenced
    );
    assert_eq!(
        store
            .write(KEY, Some(&fence), entry_of("a", &[], NOW))
            .await
            .unwrap(),
        WriteAnswer::Stored
    );
    assert_eq!(
        store
            .write(KEY, Some(&fence), entry_of("b", &[], NOW))
            .await
            .unwrap(),
        WriteAnswer::Fenced,
        "used up"
    );
    assert_eq!(
        body_of(&ask(store, NOW, &[], true).await).as_deref(),
        Some("a")
    );
}

async fn what_a_client_chose_has_a_lease_of_its_own_before_anything_is_stored(store: &impl Store) {
    lease(store, NOW).await;
    for name in [":override", ":unkeyed"] {
        let answer = ask(store, NOW, &[(name, "1")], true).await;
        assert!(
            matches!(answer, LookUpAnswer::Lease { .. }),
            "{name}: {answer:?}"
        );
    }
}

async fn what_was_asked_for_earlier_never_replaces_what_was_asked_for_later(store: &impl Store) {
    let fence = lease(store, NOW).await;
    assert_eq!(
        store
            .write(KEY, None, entry_of("new", &[], NOW + 9))
            .await
            .unwrap(),
        WriteAnswer::Stored
    );
    assert_eq!(
        store
            .write(KEY, None, entry_of("old", &[], NOW + 8))
            .await
            .unwrap(),
        WriteAnswer::Fenced
    );
    assert_eq!(
        store
            .write(KEY, Some(&fence), entry_of("old", &[], NOW + 8))
            .await
            .unwrap(),
        WriteAnswer::Fenced
    );
    assert_eq!(
        body_of(&ask(store, NOW + 10, &[], true).await).as_deref(),
        Some("new")
    );
    let other = store
        .write(KEY, None, entry_of("other", &[("x", "1")], NOW + 7))
        .await
        .unwrap();
    assert_eq!(
        other,
        WriteAnswer::Stored,
        "another variant has its own order"
    );
}

async fn a_lease_given_back_is_free_and_may_leave_a_mark(store: &impl Store) {
    let fence = lease(store, NOW).await;
    store
        .release(&Release {
            key: KEY,
            fence,
            uncacheable_ms: 0,
        })
        .await
        .unwrap();
    let fence = lease(store, NOW).await;
    store
        .release(&Release {
            key: KEY,
            fence,
            uncacheable_ms: 10_000,
        })
        .await
        .unwrap();
    assert_eq!(
        ask(store, NOW, &[], true).await,
        LookUpAnswer::Nothing { uncacheable: true }
    );
    store
        .write(KEY, None, entry_of("a", &[], NOW))
        .await
        .unwrap();
    assert_eq!(
        body_of(&ask(store, NOW, &[], true).await).as_deref(),
        Some("a"),
        "a write takes the mark away"
    );
}

async fn a_lease_whose_grant_was_never_seen_can_be_given_back_by_its_holder(store: &impl Store) {
    let asked = asking(NOW, &[], Some((30_000, 0)));
    store.look_up(&asked).await.unwrap();
    assert!(matches!(
        ask(store, NOW, &[], true).await,
        LookUpAnswer::Held { .. }
    ));
    let fence = asked.lease.unwrap().holder.as_fence();
    store
        .release(&Release {
            key: KEY,
            fence,
            uncacheable_ms: 0,
        })
        .await
        .unwrap();
    lease(store, NOW).await;
    store
        .write(KEY, None, entry_of("a", &[], NOW))
        .await
        .unwrap();
    lease(store, NOW + 5_000).await;
}

async fn a_lapsed_lease_is_free_and_its_holder_is_refused(store: &impl Store) {
    let LookUpAnswer::Lease { fence, .. } = store
        .look_up(&asking(NOW, &[], Some((1, 0))))
        .await
        .unwrap()
        .answer
    else {
        panic!("no lease");
    };
    let next = larder_stack::eventually(Duration::from_secs(5), || async {
        matches!(ask(store, NOW, &[], true).await, LookUpAnswer::Lease { .. }).then_some(())
    });
    assert!(next.await.is_some());
    assert_eq!(
        store
            .write(KEY, Some(&fence), entry_of("late", &[], NOW))
            .await
            .unwrap(),
        WriteAnswer::Fenced
    );
}

async fn variants_are_told_apart_and_the_latest_match_counts(store: &impl Store) {
    store
        .write(
            KEY,
            None,
            entry_of("gzip", &[("accept-encoding", "g")], NOW),
        )
        .await
        .unwrap();
    store
        .write(KEY, None, entry_of("none", &[("accept-encoding", "")], NOW))
        .await
        .unwrap();
    let body = |presented: &'static [(&'static str, &'static str)]| async move {
        body_of(&ask(store, NOW, presented, false).await)
    };
    assert_eq!(
        body(&[("accept-encoding", "g"), ("x", "y")])
            .await
            .as_deref(),
        Some("gzip")
    );
    assert_eq!(body(&[]).await.as_deref(), Some("none"));
    assert_eq!(body(&[("accept-encoding", "b")]).await, None);
    store
        .write(KEY, None, entry_of("later", &[("x", "y")], NOW + 1))
        .await
        .unwrap();
    assert_eq!(
        body(&[("accept-encoding", "g"), ("x", "y")])
            .await
            .as_deref(),
        Some("later")
    );
    store
        .write(
            KEY,
            None,
            entry_of("gzip 2", &[("accept-encoding", "g")], NOW + 2),
        )
        .await
        .unwrap();
    assert_eq!(
        body(&[("accept-encoding", "g"), ("x", "y")])
            .await
            .as_deref(),
        Some("gzip 2")
    );
}

async fn another_variant_has_a_lease_of_its_own(store: &impl Store) {
    store
        .write(KEY, None, entry_of("a", &[("x", "1")], NOW))
        .await
        .unwrap();
    let taken = |presented: &'static [(&'static str, &'static str)]| async move {
        matches!(
            ask(store, NOW + 5_000, presented, true).await,
            LookUpAnswer::Lease { .. }
        )
    };
    assert!(taken(&[("x", "2")]).await);
    assert!(taken(&[("x", "3")]).await);
    assert!(!taken(&[("x", "3"), ("unrelated", "1")]).await);
}

async fn variants_are_bounded_and_who_floods_evicts_his_own(store: &impl Store) {
    let write = async |n: u64| {
        let token = n.to_string();
        store
            .write(KEY, None, entry_of(&token, &[("x", &token)], NOW + n))
            .await
            .unwrap();
    };
    let held = async |n: u64| {
        let token = n.to_string();
        body_of(&ask(store, NOW, &[("x", &token)], false).await) == Some(token)
    };
    // 1 is wanted, 2 was there before the flood; there is room for four.
    for n in 0..3 {
        write(n).await;
    }
    assert!(held(1).await && held(1).await);
    for n in 3..40 {
        write(n).await;
        assert!(held(1).await, "{n}");
    }
    assert!(held(39).await, "the newcomer itself is kept");
    let mut left = 0;
    for n in 0..40 {
        left += u64::from(held(n).await);
    }
    assert_eq!(left, 4);
}

async fn a_variant_that_is_written_again_and_again_is_wanted(store: &impl Store) {
    for n in 0..4 {
        store
            .write(KEY, None, entry_of("wanted", &[("x", "w")], NOW + n))
            .await
            .unwrap();
    }
    for n in 10..40 {
        let token = n.to_string();
        store
            .write(KEY, None, entry_of(&token, &[("x", &token)], NOW + n))
            .await
            .unwrap();
    }
    assert_eq!(
        body_of(&ask(store, NOW, &[("x", "w")], false).await).as_deref(),
        Some("wanted")
    );
}

async fn an_invalidation_from_the_future_keeps_nothing_out_and_leaves_nothing_in(
    store: &Purged<impl Store>,
) {
    let now = now();
    let day = 86_400_000;
    let key = PrimaryKey::new(b"n", b"http", b"a", b"/k").digest();
    let entry = |requested: u64| {
        let mut entry = entry_of("later", &[], requested);
        entry.change(|meta| meta.fresh_until_ms = at(requested + day));
        entry
    };
    let ask = async || {
        let asked = LookUp {
            key,
            ..asking(now, &[], None)
        };
        body_of(&store.look_up(&asked).await.unwrap().answer)
    };
    store.write(key, None, entry(now + day)).await.unwrap();
    store
        .purge(purge(Scope::Key(key), false, now + day))
        .await
        .unwrap();
    assert_eq!(ask().await, None, "what a wrong clock dated may be older");
    assert_eq!(
        store.write(key, None, entry(now)).await.unwrap(),
        WriteAnswer::Fenced
    );
    assert_eq!(
        store.write(key, None, entry(now + 60_000)).await.unwrap(),
        WriteAnswer::Stored
    );
    assert_eq!(ask().await.as_deref(), Some("later"));
}

fn now() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

async fn an_invalidation_drops_all_variants_and_beats_a_late_write(store: &impl Store) {
    let fence = lease(store, NOW).await;
    store
        .write(KEY, None, entry_of("a", &[("x", "1")], NOW))
        .await
        .unwrap();
    store.invalidate(&[KEY], at(NOW + 10), false).await.unwrap();
    assert_eq!(body_of(&ask(store, NOW, &[("x", "1")], false).await), None);
    for fence in [Some(&fence), None] {
        let late = entry_of("late", &[], NOW + 10);
        assert_eq!(
            store.write(KEY, fence, late).await.unwrap(),
            WriteAnswer::Fenced
        );
    }
    assert_eq!(
        store
            .write(KEY, None, entry_of("new", &[], NOW + 11))
            .await
            .unwrap(),
        WriteAnswer::Stored
    );
}

async fn an_invalidation_leaves_what_was_requested_after_it(store: &impl Store) {
    store
        .write(KEY, None, entry_of("old", &[("x", "1")], NOW))
        .await
        .unwrap();
    store
        .write(KEY, None, entry_of("news", &[("x", "2")], NOW + 11))
        .await
        .unwrap();
    store.invalidate(&[KEY], at(NOW + 10), false).await.unwrap();
    assert_eq!(body_of(&ask(store, NOW, &[("x", "1")], false).await), None);
    assert_eq!(
        body_of(&ask(store, NOW, &[("x", "2")], false).await).as_deref(),
        Some("news")
    );
}

/// What a look-up finds under `KEY`: its stale time, the end of its freshness, and that of its
/// stale window.
async fn ends(store: &impl Store) -> Option<(Option<Timestamp>, Timestamp, Timestamp)> {
    let LookUpAnswer::Entry(bytes) = ask(store, NOW, &[], false).await else {
        return None;
    };
    let meta = entry::decode(&bytes).unwrap().0;
    Some((
        meta.stale_from_ms,
        meta.fresh_until_ms,
        meta.serve_stale_until_ms,
    ))
}

async fn of_several_soft_invalidations_the_earliest_counts_and_a_hard_one_takes_all(
    store: &impl Store,
) {
    for (round, times) in [[10, 20, 10], [20, 10, 10], [20, 20, 10], [10, 20, 20]]
        .into_iter()
        .enumerate()
    {
        let base = NOW + round as u64 * 1_000;
        assert_eq!(
            store
                .write(KEY, None, entry_of("a", &[], base))
                .await
                .unwrap(),
            WriteAnswer::Stored,
            "{times:?}"
        );
        for time in times {
            store
                .invalidate(&[KEY], at(base + time), true)
                .await
                .unwrap();
        }
        let first = at(base + 10);
        assert_eq!(
            ends(store).await,
            Some((Some(first), first, first.plus_millis(5_000))),
            "{times:?}"
        );
        store
            .invalidate(&[KEY], at(base + 20), false)
            .await
            .unwrap();
        assert_eq!(ends(store).await, None, "{times:?}");
    }
}

async fn a_soft_invalidation_reaches_what_was_requested_until_then_and_keeps_out_what_comes_late(
    store: &impl Store,
) {
    store
        .write(KEY, None, entry_of("news", &[], NOW + 11))
        .await
        .unwrap();
    let untouched = ends(store).await;
    store.invalidate(&[KEY], at(NOW + 10), true).await.unwrap();
    assert_eq!(ends(store).await, untouched, "requested later");
    let late = entry_of("late", &[("x", "1")], NOW + 10);
    assert_eq!(
        store.write(KEY, None, late).await.unwrap(),
        WriteAnswer::Fenced
    );
    store.invalidate(&[KEY], at(NOW + 11), true).await.unwrap();
    let first = at(NOW + 11);
    assert_eq!(
        ends(store).await,
        Some((Some(first), first, first.plus_millis(5_000)))
    );
}

async fn what_comes_from_the_future_is_not_newer_than_its_successor(store: &impl Store) {
    let now = now();
    store
        .write(KEY, None, entry_of("ahead", &[], now + 86_400_000))
        .await
        .unwrap();
    assert_eq!(
        store
            .write(KEY, None, entry_of("now", &[], now))
            .await
            .unwrap(),
        WriteAnswer::Stored
    );
    assert_eq!(
        body_of(&ask(store, NOW, &[], false).await).as_deref(),
        Some("now")
    );
}

async fn what_comes_from_the_future_is_reached_by_every_invalidation(store: &impl Store) {
    store
        .write(KEY, None, entry_of("ahead", &[], now() + 86_400_000))
        .await
        .unwrap();
    store.invalidate(&[KEY], at(NOW), true).await.unwrap();
    assert_eq!(
        ends(store).await,
        Some((Some(at(NOW)), at(NOW), at(NOW + 5_000)))
    );
    store.invalidate(&[KEY], at(NOW), false).await.unwrap();
    assert_eq!(ends(store).await, None);
}

async fn an_entry_ends_with_its_ttl(store: &impl Store) {
    let mut entry = entry_of("a", &[], NOW);
    entry.change(|meta| meta.ttl_ms = 50);
    store.write(KEY, None, entry).await.unwrap();
    let gone = larder_stack::eventually(Duration::from_secs(5), || async {
        body_of(&ask(store, NOW, &[], false).await)
            .is_none()
            .then_some(())
    });
    assert!(gone.await.is_some());
}

async fn a_held_look_up_is_woken_by_the_write(store: &impl Store) {
    let waiting = Waiting::default();
    let fence = lease(store, NOW).await;
    let waits = asking(NOW, &[], Some((30_000, 20_000)));
    let held = waiting.look_up(store, &waits, 10);
    let write = async {
        larder_stack::eventually(Duration::from_secs(5), || async {
            (waiting.len() == 1).then_some(())
        })
        .await
        .unwrap();
        store
            .write(KEY, Some(&fence), entry_of("a", &[], NOW))
            .await
            .unwrap();
        waiting.wake(&KEY);
    };
    let begun = std::time::Instant::now();
    let (answer, ()) = tokio::join!(held, write);
    assert_eq!(body_of(&answer.unwrap()).as_deref(), Some("a"));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(waiting.is_empty());
}

async fn a_held_look_up_gets_the_lease_when_it_lapses_and_gives_up_in_time(store: &impl Store) {
    let waiting = Waiting::default();
    store
        .look_up(&asking(NOW, &[], Some((200, 0))))
        .await
        .unwrap();
    let answer = waiting
        .look_up(store, &asking(NOW, &[], Some((30_000, 10_000))), 10)
        .await
        .unwrap();
    assert!(matches!(answer, LookUpAnswer::Lease { .. }), "{answer:?}");
    let answer = waiting
        .look_up(store, &asking(NOW, &[], Some((30_000, 50))), 10)
        .await
        .unwrap();
    assert!(
        matches!(answer, LookUpAnswer::Held { stale: None }),
        "{answer:?}"
    );
}

async fn nobody_waits_for_what_may_be_served_stale(store: &impl Store) {
    store
        .write(KEY, None, entry_of("a", &[], NOW))
        .await
        .unwrap();
    lease(store, NOW + 6_000).await;
    let begun = std::time::Instant::now();
    let asked = asking(NOW + 6_000, &[], Some((30_000, 10_000)));
    let answer = Waiting::default().look_up(store, &asked, 10).await.unwrap();
    assert!(
        matches!(answer, LookUpAnswer::Held { stale: Some(_) }),
        "{answer:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}

fn tagged(body: &str, tags: &[&str], received: u64) -> Entry {
    let mut entry = entry_of(body, &[], received);
    entry.change(|meta| {
        meta.url = "http://a/shop/1".to_owned();
        meta.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    });
    entry
}

fn purge(scope: Scope, soft: bool, time: u64) -> Purge {
    Purge {
        scope,
        soft,
        at_ms: at(time),
    }
}

async fn a_purge_by_tag_drops_what_carries_it_and_nothing_newer(store: &Purged<impl Store>) {
    store
        .write(KEY, None, tagged("old", &["news", "x"], NOW))
        .await
        .unwrap();
    store
        .purge(purge(Scope::Tag("sport".into()), false, NOW + 5))
        .await
        .unwrap();
    assert_eq!(
        body_of(&ask(store, NOW, &[], false).await).as_deref(),
        Some("old")
    );
    store
        .purge(purge(Scope::Tag("news".into()), false, NOW + 5))
        .await
        .unwrap();
    assert_eq!(body_of(&ask(store, NOW, &[], false).await), None);
    let fence = lease(store, NOW).await;
    assert_eq!(
        store
            .write(KEY, Some(&fence), tagged("new", &["news"], NOW + 6))
            .await
            .unwrap(),
        WriteAnswer::Stored
    );
    assert_eq!(
        body_of(&ask(store, NOW, &[], false).await).as_deref(),
        Some("new")
    );
}

async fn a_purge_by_prefix_or_of_everything_reaches_its_urls(store: &Purged<impl Store>) {
    for (scope, gone) in [
        (Scope::Prefix("http://b/".into()), false),
        (Scope::Prefix("http://a/shop".into()), true),
        (Scope::Everything, true),
    ] {
        let time = NOW + if scope == Scope::Everything { 20 } else { 10 };
        store
            .write(KEY, None, tagged("a", &[], time))
            .await
            .unwrap();
        store
            .purge(purge(scope.clone(), false, time))
            .await
            .unwrap();
        assert_eq!(
            body_of(&ask(store, NOW, &[], false).await).is_none(),
            gone,
            "{scope:?}"
        );
    }
}

async fn a_soft_purge_makes_stale_and_lets_nothing_live_longer(store: &Purged<impl Store>) {
    store
        .write(KEY, None, tagged("a", &["news"], NOW))
        .await
        .unwrap();
    store
        .purge(purge(Scope::Tag("news".into()), true, NOW + 100))
        .await
        .unwrap();
    // Fresh for the store until NOW + 5000 before; now there is a lease, and the stale entry with
    // the time in it.
    let answer = ask(store, NOW + 101, &[], true).await;
    let LookUpAnswer::Lease {
        stale: Some(bytes), ..
    } = &answer
    else {
        panic!("{answer:?}")
    };
    let meta = entry::decode(bytes).unwrap().0;
    assert_eq!(
        (meta.stale_from_ms, meta.fresh_until_ms),
        (Some(at(NOW + 100)), at(NOW + 100))
    );
    assert_eq!(meta.serve_stale_until_ms, at(NOW + 5_100));
    store
        .purge(purge(Scope::Tag("news".into()), true, NOW + 4_000))
        .await
        .unwrap();
    let later = entry::decode(bytes).unwrap().0;
    assert_eq!(
        later.stale_from_ms,
        Some(at(NOW + 100)),
        "a later one changes nothing"
    );
}

async fn what_was_requested_before_a_purge_is_refused_after_it_and_its_lease_ends(
    store: &Purged<impl Store>,
) {
    let fence = lease(store, NOW).await;
    store
        .purge(purge(Scope::Tag("news".into()), false, NOW + 5))
        .await
        .unwrap();
    let late = store
        .write(KEY, Some(&fence), tagged("late", &["news"], NOW))
        .await
        .unwrap();
    assert_eq!(late, WriteAnswer::Fenced);
    lease(store, NOW).await;
}

async fn a_purge_of_a_key_takes_all_its_variants(store: &Purged<impl Store>) {
    let key = PrimaryKey::new(b"n", b"http", b"a", b"/").digest();
    let look_up = |token: &str| {
        let asked = asking(NOW, &[("x", token)], None);
        LookUp { key, ..asked }
    };
    for token in ["1", "2"] {
        store
            .write(key, None, entry_of(token, &[("x", token)], NOW))
            .await
            .unwrap();
    }
    store
        .purge(purge(Scope::Key(key), false, NOW))
        .await
        .unwrap();
    for token in ["1", "2"] {
        assert_eq!(
            body_of(&store.look_up(&look_up(token)).await.unwrap().answer),
            None
        );
    }
}

async fn redis(server: &RedisServer) -> Redis {
    let settings = Settings {
        url: server.url(),
        namespace: "t".to_owned(),
        max_variants: 4,
        timeout: Duration::from_secs(1),
        seal: Seal::default(),
        tls: Tls::default(),
    };
    Redis::connect(settings).await.unwrap()
}

macro_rules! contract {
    ($($law:ident)*) => {
        async fn every_law(url: &str) {
            $($law(&on(url, stringify!($law)).await).await;)*
        }
        mod on_memory {
            $(#[tokio::test] async fn $law() { super::$law(&super::Memory::new(1 << 20, 4)).await; })*
        }
        mod on_redis {
            $(#[tokio::test] async fn $law() {
                let server = super::RedisServer::start().await.unwrap();
                super::$law(&super::redis(&server).await).await;
                for key in server.cli(&["KEYS", "*"]).lines().filter(|key| !key.is_empty()) {
                    let ttl: i64 = server.cli(&["PTTL", key]).trim().parse().unwrap();
                    assert!(ttl > 0, "{key} has no end");
                }
            })*
        }
    };
}

/// A store under a namespace of its own, so that one cluster serves all laws.
async fn on(url: &str, namespace: &str) -> Redis {
    let settings = Settings {
        url: url.to_owned(),
        namespace: namespace.to_owned(),
        max_variants: 4,
        timeout: Duration::from_secs(2),
        seal: Seal::default(),
        tls: Tls::default(),
    };
    Redis::connect(settings).await.unwrap()
}

macro_rules! purge_contract {
    ($($law:ident)*) => {
        async fn every_purge_law(url: &str) {
            $($law(&Purged::new(on(url, concat!("p-", stringify!($law))).await, Purges::default())).await;)*
        }
        mod purges_on_memory {
            $(#[tokio::test] async fn $law() {
                let store = super::Memory::new(1 << 20, 4);
                super::$law(&super::Purged::new(store, super::Purges::default())).await;
            })*
        }
        mod purges_on_redis {
            $(#[tokio::test] async fn $law() {
                let server = super::RedisServer::start().await.unwrap();
                super::$law(&super::Purged::new(super::redis(&server).await, super::Purges::default())).await;
                for key in server.cli(&["KEYS", "*"]).lines().filter(|key| !key.is_empty()) {
                    let ttl: i64 = server.cli(&["PTTL", key]).trim().parse().unwrap();
                    assert!(ttl > 0, "{key} has no end");
                }
            })*
        }
    };
}

purge_contract! {
    a_purge_by_tag_drops_what_carries_it_and_nothing_newer
    a_purge_by_prefix_or_of_everything_reaches_its_urls
    a_soft_purge_makes_stale_and_lets_nothing_live_longer
    what_was_requested_before_a_purge_is_refused_after_it_and_its_lease_ends
    a_purge_of_a_key_takes_all_its_variants
    an_invalidation_from_the_future_keeps_nothing_out_and_leaves_nothing_in
}

/// A second sidecar on the same Redis, and the purges it has heard of.
async fn another(server: &RedisServer) -> Purged<Redis> {
    let store = redis(server).await;
    let purges = Purges::default();
    tokio::spawn(follow(
        store.link(),
        "t".to_owned(),
        Waiting::default(),
        purges.clone(),
    ));
    larder_stack::eventually(Duration::from_secs(5), || async {
        (!purges.cursor().is_empty()).then_some(())
    })
    .await
    .unwrap();
    Purged::new(store, purges)
}

#[tokio::test]
async fn a_purge_at_one_sidecar_is_known_at_another_and_to_one_that_starts_later() {
    let server = RedisServer::start().await.unwrap();
    let (here, there) = (another(&server).await, another(&server).await);
    let cursor = there.purges().cursor();
    there
        .write(KEY, None, tagged("old", &["news"], NOW))
        .await
        .unwrap();
    here.purge(purge(Scope::Tag("news".into()), false, NOW + 5))
        .await
        .unwrap();
    let events = there
        .purges()
        .since(Some(&cursor), Duration::from_secs(5))
        .await;
    assert_eq!(
        events.events,
        [purge(Scope::Tag("news".into()), false, NOW + 5)]
    );
    assert_eq!(body_of(&ask(&there, NOW, &[], false).await), None);
    let late = there
        .write(KEY, None, tagged("late", &["news"], NOW + 5))
        .await
        .unwrap();
    assert_eq!(late, WriteAnswer::Fenced);
    let third = another(&server).await;
    assert_eq!(
        third
            .write(KEY, None, tagged("late", &["news"], NOW + 5))
            .await
            .unwrap(),
        WriteAnswer::Fenced
    );
}

#[tokio::test]
async fn what_is_invalidated_takes_the_room_of_a_digest_in_the_log_whatever_its_url() {
    let server = RedisServer::start().await.unwrap();
    let here = another(&server).await;
    for n in 0..300 {
        let path = format!("/{n}?{}", "x".repeat(40_000));
        let key = PrimaryKey::new(b"n", b"http", b"a", path.as_bytes()).digest();
        here.purge(purge(Scope::Key(key), false, NOW))
            .await
            .unwrap();
    }
    let length: u64 = server
        .cli(&["XLEN", "t:{purges}:log"])
        .trim()
        .parse()
        .unwrap();
    assert_eq!(
        length, 301,
        "one each, and the place where an empty log begins"
    );
    let bytes: u64 = server
        .cli(&["MEMORY", "USAGE", "t:{purges}:log", "SAMPLES", "0"])
        .trim()
        .parse()
        .unwrap();
    assert!(bytes < 300 * 400, "{bytes}");
}

#[tokio::test]
async fn more_marks_than_redis_keeps_become_one_of_what_is_older() {
    let server = RedisServer::start().await.unwrap();
    let here = another(&server).await;
    let fill = "for n = 1, tonumber(ARGV[1]) do redis.call('HSET', KEYS[1], 'tn' .. n, (1000 + n) .. ':0') end";
    let marks = "t:{purges}:marks";
    server.cli(&["EVAL", fill, "1", marks, &MAX_MARKS.to_string()]);
    server.cli(&["HSET", marks, "*", "5:0"]);
    here.purge(purge(Scope::Tag("one-more".into()), false, NOW))
        .await
        .unwrap();
    let left: usize = server.cli(&["HLEN", marks]).trim().parse().unwrap();
    assert!((MAX_MARKS / 2..MAX_MARKS).contains(&left), "{left}");
    let everything = server.cli(&["HGET", marks, "*"]);
    let until: usize = everything.trim().trim_end_matches(":0").parse().unwrap();
    let exists = |n: usize| server.cli(&["HEXISTS", marks, &format!("tn{n}")]).trim() == "1";
    assert!(
        exists(until - 1000 + 1) && !exists(until - 1000),
        "what is gone is that old, and nothing else"
    );
    assert_eq!(
        server.cli(&["HGET", marks, "tone-more"]).trim(),
        format!("{NOW}:0")
    );
}

#[tokio::test]
async fn a_follower_that_lost_its_place_is_told_to_start_anew() {
    let server = RedisServer::start().await.unwrap();
    let here = another(&server).await;
    here.purge(purge(Scope::Everything, false, NOW))
        .await
        .unwrap();
    let known = || async { (here.purges().cursor() != "0-0").then_some(()) };
    larder_stack::eventually(Duration::from_secs(5), known)
        .await
        .unwrap();
    let cursor = here.purges().cursor();
    server.cli(&["DEL", "t:{purges}:log"]);
    here.purge(purge(Scope::Everything, false, NOW + 1))
        .await
        .unwrap();
    let told = || async {
        here.purges()
            .since(Some(&cursor), Duration::ZERO)
            .await
            .reset
            .then_some(())
    };
    larder_stack::eventually(Duration::from_secs(5), told)
        .await
        .unwrap();
}

contract! {
    what_is_written_is_found_until_it_is_stale
    what_was_written_comes_back_byte_for_byte
    one_gets_the_lease_and_its_write_ends_it
    what_a_client_chose_has_a_lease_of_its_own_before_anything_is_stored
    what_was_asked_for_earlier_never_replaces_what_was_asked_for_later
    a_lease_given_back_is_free_and_may_leave_a_mark
    a_lease_whose_grant_was_never_seen_can_be_given_back_by_its_holder
    a_lapsed_lease_is_free_and_its_holder_is_refused
    variants_are_told_apart_and_the_latest_match_counts
    another_variant_has_a_lease_of_its_own
    variants_are_bounded_and_who_floods_evicts_his_own
    a_variant_that_is_written_again_and_again_is_wanted
    an_invalidation_drops_all_variants_and_beats_a_late_write
    an_invalidation_leaves_what_was_requested_after_it
    of_several_soft_invalidations_the_earliest_counts_and_a_hard_one_takes_all
    a_soft_invalidation_reaches_what_was_requested_until_then_and_keeps_out_what_comes_late
    what_comes_from_the_future_is_not_newer_than_its_successor
    what_comes_from_the_future_is_reached_by_every_invalidation
    an_entry_ends_with_its_ttl
    a_held_look_up_is_woken_by_the_write
    a_held_look_up_gets_the_lease_when_it_lapses_and_gives_up_in_time
    nobody_waits_for_what_may_be_served_stale
}

#[tokio::test]
async fn a_look_up_held_at_one_sidecar_is_woken_by_a_write_at_another() {
    let server = RedisServer::start().await.unwrap();
    let here = redis(&server).await;
    let there = redis(&server).await;
    let waiting = Waiting::default();
    tokio::spawn(follow(
        here.link(),
        "t".to_owned(),
        waiting.clone(),
        Purges::default(),
    ));
    let heard = || async {
        server
            .cli(&["PUBSUB", "NUMSUB", "t:wake"])
            .trim()
            .ends_with('1')
            .then_some(())
    };
    larder_stack::eventually(Duration::from_secs(5), heard)
        .await
        .unwrap();
    let fence = lease(&there, NOW).await;
    let waits = asking(NOW, &[], Some((30_000, 20_000)));
    let held = waiting.look_up(&here, &waits, 10);
    let write = async {
        larder_stack::eventually(Duration::from_secs(5), || async {
            (waiting.len() == 1).then_some(())
        })
        .await
        .unwrap();
        there
            .write(KEY, Some(&fence), entry_of("a", &[], NOW))
            .await
            .unwrap();
    };
    let begun = std::time::Instant::now();
    let (answer, ()) = tokio::join!(held, write);
    assert_eq!(body_of(&answer.unwrap()).as_deref(), Some("a"));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "pushed, not polled: {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn other_peoples_keys_in_the_same_redis_are_left_alone() {
    let server = RedisServer::start().await.unwrap();
    server.cli(&["SET", "theirs", "1"]);
    let store = redis(&server).await;
    store
        .write(KEY, None, entry_of("a", &[], NOW))
        .await
        .unwrap();
    store.invalidate(&[KEY], at(NOW), false).await.unwrap();
    assert_eq!(server.cli(&["GET", "theirs"]).trim(), "1");
}

#[tokio::test]
async fn rubbish_under_our_names_counts_as_nothing_stored() {
    let server = RedisServer::start().await.unwrap();
    let store = redis(&server).await;
    for part in ["i", "l"] {
        server.cli(&[
            "SET",
            &format!("t:{{{KEY}}}:{part}"),
            "rubbish",
            "EX",
            "100",
        ]);
    }
    lease(&store, NOW).await;
    assert_eq!(
        store
            .write(KEY, None, entry_of("a", &[], NOW))
            .await
            .unwrap(),
        WriteAnswer::Stored
    );
    assert_eq!(
        body_of(&ask(&store, NOW, &[], true).await).as_deref(),
        Some("a")
    );
}

#[tokio::test]
async fn an_entry_of_another_version_is_a_miss_and_never_a_fault() {
    let server = RedisServer::start().await.unwrap();
    let store = redis(&server).await;
    let mut entry = entry_of("a", &[], NOW);
    entry.change(|meta| {
        meta.route = Some(RouteSeen {
            at_ms: at(NOW),
            changes: false,
        });
    });
    let variant = format!("t:{{{KEY}}}:v:{}", entry.meta().variant_id());
    // An older one does not say what was seen of the route; a newer one says something that is not
    // known here.
    for (change, found) in [
        (vec!["HDEL", &variant, "route"], true),
        (vec!["HSET", &variant, "of_a_later_version", "1"], false),
        (vec!["HSET", &variant, "version", "1"], false),
        (vec!["HSET", &variant, "version", "99"], false),
        (
            vec![
                "HSET",
                &variant,
                "route",
                "{\"at_ms\":1,\"changes\":true,\"more\":1}",
            ],
            false,
        ),
        (vec!["HSET", &variant, "route", "[]"], false),
    ] {
        // A later fetch replaces it, whatever it was.
        entry.change(|meta| meta.request_time_ms = meta.request_time_ms.plus_millis(1));
        assert_eq!(
            store.write(KEY, None, entry.clone()).await.unwrap(),
            WriteAnswer::Stored,
            "{change:?}"
        );
        assert!(body_of(&ask(&store, NOW, &[], true).await).is_some());
        server.cli(&change);
        for lease in [false, true] {
            let answer = ask(&store, NOW, &[], lease).await;
            assert_eq!(body_of(&answer).is_some(), found, "{change:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_redis_that_cannot_be_reached_is_named_without_its_password() {
    let settings = Settings {
        url: "redis://u:secret@127.0.0.1:1".to_owned(),
        namespace: "t".to_owned(),
        max_variants: 4,
        timeout: Duration::from_secs(1),
        seal: Seal::default(),
        tls: Tls::default(),
    };
    let problem = Redis::connect(settings).await.err().unwrap().0;
    assert!(
        problem.contains("127.0.0.1:1") && !problem.contains("secret"),
        "{problem}"
    );
}

#[tokio::test]
async fn every_law_holds_on_a_cluster_and_survives_the_loss_of_a_master() {
    let mut cluster = RedisCluster::start().await.unwrap();
    every_law(&cluster.url()).await;
    every_purge_law(&cluster.url()).await;
    let slots_of_one_key = |key: &str| {
        key.contains(&format!("{{{KEY}}}")) || key.contains("{purges}") || key.contains('{')
    };
    assert!(
        cluster.keys().iter().all(|key| slots_of_one_key(key)),
        "everything of one URL in one slot"
    );
    let store = on(&cluster.url(), "f").await;
    store
        .write(KEY, None, entry_of("a", &[], NOW))
        .await
        .unwrap();
    cluster.kill_master_of(&format!("f:{{{KEY}}}:i"));
    // Whatever the replica has not heard of is a miss; what matters is that the store answers again
    // by itself.
    let back = || async {
        let written = store.write(KEY, None, entry_of("b", &[], NOW + 1)).await;
        matches!(written, Ok(WriteAnswer::Stored)).then_some(())
    };
    larder_stack::eventually(Duration::from_secs(20), back)
        .await
        .expect("the replica takes over");
    assert_eq!(
        body_of(&ask(&store, NOW, &[], false).await).as_deref(),
        Some("b")
    );
}

#[tokio::test]
async fn a_purge_reaches_another_sidecar_through_a_cluster() {
    let cluster = RedisCluster::start().await.unwrap();
    let (here, there) = (on(&cluster.url(), "t").await, on(&cluster.url(), "t").await);
    let purges = Purges::default();
    tokio::spawn(follow(
        there.link(),
        "t".to_owned(),
        Waiting::default(),
        purges.clone(),
    ));
    larder_stack::eventually(Duration::from_secs(5), || async {
        (!purges.cursor().is_empty()).then_some(())
    })
    .await
    .unwrap();
    let cursor = purges.cursor();
    Purged::new(here, Purges::default())
        .purge(purge(Scope::Tag("news".into()), false, NOW))
        .await
        .unwrap();
    let events = purges.since(Some(&cursor), Duration::from_secs(5)).await;
    assert_eq!(
        events.events,
        [purge(Scope::Tag("news".into()), false, NOW)]
    );
}

#[tokio::test]
async fn the_master_that_the_sentinels_name_is_used_and_so_is_its_successor() {
    let mut sentinels = RedisSentinels::start().await.unwrap();
    let store = on(&sentinels.url(), "t").await;
    store
        .write(KEY, None, entry_of("a", &[], NOW))
        .await
        .unwrap();
    assert_eq!(
        body_of(&ask(&store, NOW, &[], false).await).as_deref(),
        Some("a")
    );
    sentinels.kill_master();
    let back = || async {
        let written = store.write(KEY, None, entry_of("b", &[], NOW + 1)).await;
        matches!(written, Ok(WriteAnswer::Stored)).then_some(())
    };
    larder_stack::eventually(Duration::from_secs(30), back)
        .await
        .expect("a new master");
    assert_eq!(
        body_of(&ask(&store, NOW, &[], false).await).as_deref(),
        Some("b")
    );
}

#[tokio::test]
async fn whoever_writes_to_redis_without_the_secret_puts_nothing_into_the_cache() {
    let server = RedisServer::start().await.unwrap();
    let with = |secret: &str| {
        let seal = Seal::new(secret).unwrap();
        let settings = Settings {
            url: server.url(),
            namespace: "t".into(),
            max_variants: 4,
            timeout: Duration::from_secs(1),
            seal,
            tls: Tls::default(),
        };
        Redis::connect(settings)
    };
    let store = with("the fleet's common secret").await.unwrap();
    store
        .write(KEY, None, entry_of("genuine", &[], NOW))
        .await
        .unwrap();
    assert_eq!(
        body_of(&ask(&store, NOW, &[], false).await).as_deref(),
        Some("genuine")
    );
    store.invalidate(&[KEY], at(NOW + 1), true).await.unwrap();
    assert_eq!(
        body_of(&ask(&store, NOW, &[], false).await).as_deref(),
        Some("genuine"),
        "a soft purge breaks no seal"
    );
    // Someone without the secret writes a whole, consistent entry.
    redis(&server)
        .await
        .write(KEY, None, entry_of("forged", &[], NOW + 5))
        .await
        .unwrap();
    assert_eq!(body_of(&ask(&store, NOW, &[], false).await), None);
    let other = with("some other secret entirely").await.unwrap();
    store
        .write(KEY, None, entry_of("genuine", &[], NOW + 9))
        .await
        .unwrap();
    assert_eq!(body_of(&ask(&other, NOW, &[], false).await), None);
}
