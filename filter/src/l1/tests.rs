use super::*;
use larder_cache_core::fields::Fields;
use larder_cache_core::message::Request;
use larder_cache_core::stored_response::ReuseTerms;
use larder_cache_core::vary::SelectingFields;
use larder_contract::http_time::DeltaSeconds;

const NOW: Timestamp = Timestamp::from_millis(100_000);

fn key(path: &str) -> PrimaryKey {
    PrimaryKey::new(b"n", b"http", b"a", path.as_bytes())
}

fn stored(at: u64, body: usize) -> Arc<StoredResponse> {
    Arc::new(StoredResponse {
        url: String::new(),
        status: 200,
        fields: Fields::default(),
        body: vec![0; body].into(),
        part: None,
        request_time: Timestamp::from_millis(at),
        response_time: Timestamp::from_millis(at),
        initial_age: DeltaSeconds::ZERO,
        terms: ReuseTerms::default(),
        explicitly_public: false,
        stale_from: None,
        selecting: SelectingFields::default(),
        tags: Vec::new(),
        route: larder_cache_core::route::RouteNote::default(),
        treatment: larder_cache_core::stored_response::SeenTreatment::default(),
    })
}

#[test]
fn a_purge_takes_what_is_held_and_what_comes_late() {
    let mut l1 = Level1::new(1 << 20, 7);
    let tagged = |at: u64| {
        Arc::new(StoredResponse {
            tags: vec!["news".into()],
            ..(*stored(at, 10)).clone()
        })
    };
    l1.put(&key("/a"), tagged(5), NOW);
    l1.put(&key("/b"), stored(5, 10), NOW);
    let purge = |soft, at| Purge {
        scope: Scope::Tag("news".into()),
        soft,
        at_ms: Timestamp::from_millis(at),
    };
    l1.purge(&purge(true, 6), NOW);
    assert_eq!(
        l1.look_up(&key("/a")).variants()[0].stale_from,
        Some(Timestamp::from_millis(6))
    );
    l1.put(&key("/c"), tagged(6), NOW);
    assert_eq!(
        l1.look_up(&key("/c")).variants()[0].stale_from,
        Some(Timestamp::from_millis(6))
    );
    l1.purge(&purge(false, 7), NOW);
    assert!(l1.look_up(&key("/a")).variants().is_empty());
    assert_eq!(l1.look_up(&key("/b")).variants().len(), 1);
    assert!(!l1.put(&key("/a"), tagged(7), NOW));
    assert!(l1.put(&key("/a"), tagged(8), NOW));
}

#[test]
fn a_mark_gives_way_to_what_is_stored_and_never_takes_its_place() {
    let mut l1 = Level1::new(1 << 20, 7);
    let until = Timestamp::from_millis(9);
    l1.mark_uncacheable(&key("/a"), until);
    assert_eq!(l1.look_up(&key("/a")).uncacheable_until(), Some(until));
    assert!(l1.bytes() > 0, "it counts against the bound");
    l1.put(&key("/a"), stored(1, 10), NOW);
    l1.mark_uncacheable(&key("/a"), until);
    let found = l1.look_up(&key("/a"));
    assert_eq!(
        (found.variants().len(), found.uncacheable_until()),
        (1, None)
    );
}

#[test]
fn an_invalidation_heard_late_leaves_what_is_newer() {
    let mut l1 = Level1::new(1 << 20, 7);
    l1.put(&key("/a"), stored(9, 10), NOW);
    l1.invalidate(&key("/a").digest(), Timestamp::from_millis(8), NOW);
    assert_eq!(l1.look_up(&key("/a")).variants().len(), 1);
}

#[test]
fn its_bound_follows_the_configuration() {
    let mut level1 = Level1::new(1 << 20, 7);
    for n in 0..100 {
        level1.put(&key(&format!("/{n}")), stored(1, 1000), NOW);
    }
    level1.set_bound(65_536, NOW);
    assert!(
        (30_000..=65_536).contains(&level1.bytes()),
        "{}",
        level1.bytes()
    );
    level1.set_bound(0, NOW);
    assert!(
        level1.put(&key("/"), stored(1, 1), NOW),
        "the store gets it all the same"
    );
    assert_eq!(level1.bytes(), 0);
    level1.set_bound(1 << 20, NOW);
    level1.put(&key("/"), stored(1, 1), NOW);
    assert_eq!(level1.look_up(&key("/")).variants().len(), 1);
}

#[test]
fn what_was_put_is_found_and_a_newer_one_replaces_it() {
    let mut level1 = Level1::new(1 << 20, 7);
    level1.put(&key("/"), stored(1, 10), NOW);
    level1.put(&key("/"), stored(2, 20), NOW);
    level1.put(&key("/"), stored(1, 10), NOW);
    let found = level1.look_up(&key("/"));
    assert_eq!(
        found
            .variants()
            .iter()
            .map(|stored| stored.body.len())
            .collect::<Vec<_>>(),
        [20]
    );
}

#[test]
fn it_never_holds_more_bytes_than_its_bound() {
    let mut level1 = Level1::new(100_000, 7);
    for n in 0..1000 {
        level1.put(&key(&format!("/{n}")), stored(1, 1000), NOW);
        assert!(level1.bytes() <= 100_000);
    }
    assert!(level1.bytes() > 50_000);
    assert!(level1.take_evictions() > 800);
    assert_eq!(level1.take_evictions(), 0);
}

#[test]
fn an_invalidation_beats_what_was_requested_before_it_and_arrives_later() {
    let mut level1 = Level1::new(1 << 20, 7);
    level1.put(&key("/"), stored(1, 1), NOW);
    level1.invalidate(&key("/").digest(), Timestamp::from_millis(5), NOW);
    assert!(level1.look_up(&key("/")).variants().is_empty());
    assert!(!level1.put(&key("/"), stored(5, 1), NOW));
    assert!(level1.put(&key("/"), stored(6, 1), NOW));
    assert_eq!(level1.look_up(&key("/")).variants().len(), 1);
}

#[test]
fn a_soft_purge_of_a_key_reaches_what_was_fetched_before_and_comes_later() {
    let mut l1 = Level1::new(1 << 20, 7);
    let purge = Purge {
        scope: Scope::Key(key("/").digest()),
        soft: true,
        at_ms: Timestamp::from_millis(5),
    };
    l1.purge(&purge, NOW);
    assert_eq!(
        l1.untrue(|| key("/").digest()).soft,
        Some(Timestamp::from_millis(5))
    );
    l1.put_fetched(&key("/"), stored(5, 1), NOW);
    assert_eq!(
        l1.look_up(&key("/")).variants()[0].stale_from,
        Some(Timestamp::from_millis(5))
    );
    l1.put_fetched(&key("/"), stored(6, 1), NOW);
    assert_eq!(l1.look_up(&key("/")).variants()[0].stale_from, None);
}

#[test]
fn a_response_is_untrue_from_the_first_change_that_is_remembered() {
    let mut l1 = Level1::new(1 << 20, 7);
    let at = Timestamp::from_millis;
    l1.invalidate(&key("/").digest(), at(5), NOW);
    l1.clear(at(9), NOW);
    let since =
        |l1: &Level1, stored: &StoredResponse| l1.untrue_since(|| key("/").digest(), stored);
    assert_eq!(since(&l1, &stored(4, 1)), Some(at(5)));
    assert_eq!(since(&l1, &stored(6, 1)), Some(at(9)));
    assert_eq!(since(&l1, &stored(10, 1)), None);
}

#[test]
fn a_fetch_longer_than_an_invalidation_is_remembered_does_not_bring_back_the_old() {
    let mut l1 = Level1::new(1 << 20, 7);
    let at = Timestamp::from_millis;
    l1.invalidate(&key("/").digest(), at(5_000), at(5_000));
    let late = at(5_000 + 11 * 60_000);
    l1.forget_old_invalidations(late);
    assert!(!l1.put_fetched(&key("/"), stored(4_000, 1), late));
    assert!(l1.put_fetched(&key("/"), stored(5_001, 1), late));
    assert!(
        l1.put(&key("/other"), stored(4_000, 1), late),
        "the store vouches for what it has"
    );
}

#[test]
fn an_invalidation_from_the_future_counts_from_now() {
    let mut l1 = Level1::new(1 << 20, 7);
    l1.invalidate(&key("/").digest(), NOW.plus_millis(86_400_000), NOW);
    assert!(!l1.put(&key("/"), stored(NOW.as_millis(), 1), NOW));
    assert!(l1.put(
        &key("/"),
        stored(NOW.as_millis() + 1_001, 1),
        NOW.plus_millis(1_001)
    ));
}

#[test]
fn what_comes_from_the_future_is_neither_newer_than_its_successor_nor_than_an_invalidation() {
    let mut l1 = Level1::new(1 << 20, 7);
    let ahead = NOW.as_millis() + 3_600_000;
    l1.put(&key("/"), stored(ahead, 10), NOW);
    l1.put(&key("/"), stored(NOW.as_millis(), 20), NOW);
    assert_eq!(l1.look_up(&key("/")).variants()[0].body.len(), 20);
    l1.put(&key("/b"), stored(ahead, 10), NOW);
    l1.invalidate(&key("/b").digest(), NOW, NOW);
    assert!(l1.look_up(&key("/b")).variants().is_empty());
}

/// A variant of its own for each `n`, fresh for a minute.
fn variant(n: u64, body: usize) -> Arc<StoredResponse> {
    let request = Request::new("GET", "a", "/").with("x", &n.to_string());
    let selecting = SelectingFields::of(&[b"x".to_vec()], &request).unwrap();
    let terms = ReuseTerms {
        lifetime: DeltaSeconds::new(60),
        ..ReuseTerms::default()
    };
    Arc::new(StoredResponse {
        selecting,
        terms,
        ..(*stored(NOW.as_millis() + n, body)).clone()
    })
}

#[test]
fn who_floods_a_key_with_variants_evicts_his_own() {
    for body in [10, 100_000] {
        let mut l1 = Level1::new(1 << 20, 7);
        let wanted = variant(0, body);
        l1.put(&key("/"), wanted.clone(), NOW);
        for _ in 0..3 {
            l1.look_up(&key("/"));
        }
        for n in 1..=3_000 {
            l1.put(&key("/"), variant(n, body), NOW.plus_millis(n));
            l1.look_up(&key("/"));
        }
        let found = l1.look_up(&key("/"));
        let held = found.variants();
        assert!(held.contains(&wanted), "{body}");
        assert!(
            held.len() <= MAX_VARIANTS && held.len() > 1,
            "{body}: {}",
            held.len()
        );
        assert!(
            l1.bytes() <= 1 << 18,
            "{body}: one key takes its share of the bound"
        );
    }
}

#[test]
fn a_use_among_several_variants_counts_and_survives_a_renewal() {
    let mut l1 = Level1::new(1 << 20, 7);
    for n in 0..32 {
        l1.put(&key("/"), variant(n, 10), NOW);
    }
    let wanted = l1.look_up(&key("/")).variants()[17].clone();
    l1.count_use(&key("/"), &wanted);
    l1.count_use(&key("/"), &wanted);
    let renewed = Arc::new(StoredResponse {
        request_time: NOW.plus_millis(50),
        ..(*wanted).clone()
    });
    l1.put(&key("/"), renewed.clone(), NOW);
    for n in 100..1_000 {
        l1.put(&key("/"), variant(n, 10), NOW.plus_millis(n));
    }
    assert!(l1.look_up(&key("/")).variants().contains(&renewed));
}

#[test]
fn what_the_store_still_has_is_held_again_a_minute_after_everything_was_dropped() {
    let mut l1 = Level1::new(1 << 20, 7);
    let (old, later) = (stored(5, 10), |millis: u64| NOW.plus_millis(millis));
    l1.put(&key("/a"), old.clone(), NOW);
    l1.clear(NOW, NOW);
    assert!(l1.look_up(&key("/a")).variants().is_empty());
    assert!(
        !l1.put(&key("/a"), old.clone(), later(59_999)),
        "the store may not have heard yet"
    );
    assert!(
        l1.unpurged(old.clone()).is_none()
            && l1.untrue_since(|| key("/a").digest(), &old) == Some(NOW)
    );
    assert!(l1.put(&key("/a"), old.clone(), later(60_000)));
    assert_eq!(l1.look_up(&key("/a")).variants().len(), 1);
    assert!(
        !l1.put_fetched(&key("/b"), old.clone(), later(60_000)),
        "nobody vouches for what was fetched before"
    );
    // What the store has not accepted is told again and again.
    l1.clear(NOW, later(70_000));
    assert!(!l1.put(&key("/a"), old.clone(), later(129_999)));
    assert!(l1.put(&key("/a"), old, later(130_000)));
}
