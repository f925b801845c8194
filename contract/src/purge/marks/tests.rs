use super::*;
use proptest::prelude::*;

/// Room for one mark with a short name.
const MARK: usize = MARK_OVERHEAD + 16;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn tag(tag: &str, time: u64, soft: bool) -> Purge {
    Purge {
        scope: Scope::Tag(tag.to_owned()),
        soft,
        at_ms: at(time),
    }
}

fn verdict(marks: &Marks, tags: &[&str], requested: u64) -> Verdict {
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    marks.verdict("http://a/shop/1?x", &tags, at(requested))
}

#[test]
fn a_purge_concerns_what_was_requested_until_then() {
    let mut marks = Marks::new(10 * MARK);
    marks.add(&tag("news", 100, false));
    assert_eq!(verdict(&marks, &["news"], 100), Verdict::Gone(at(100)));
    assert_eq!(verdict(&marks, &["news"], 101), Verdict::Kept);
    assert_eq!(verdict(&marks, &["sport"], 50), Verdict::Kept);
}

#[test]
fn soft_means_stale_and_hard_wins() {
    let mut marks = Marks::new(10 * MARK);
    marks.add(&tag("a", 100, true));
    assert_eq!(verdict(&marks, &["a"], 90), Verdict::StaleSince(at(100)));
    marks.add(&tag("b", 95, false));
    assert_eq!(verdict(&marks, &["a", "b"], 90), Verdict::Gone(at(95)));
    assert_eq!(
        verdict(&marks, &["a", "b"], 96),
        Verdict::StaleSince(at(100))
    );
}

#[test]
fn a_prefix_and_everything_reach_their_urls() {
    let mut marks = Marks::new(10 * MARK);
    marks.add(&Purge {
        scope: Scope::Prefix("http://a/shop/".into()),
        soft: false,
        at_ms: at(100),
    });
    assert_eq!(verdict(&marks, &[], 100), Verdict::Gone(at(100)));
    assert_eq!(marks.verdict("http://a/other", &[], at(100)), Verdict::Kept);
    marks.add(&Purge {
        scope: Scope::Everything,
        soft: false,
        at_ms: at(200),
    });
    assert_eq!(
        marks.verdict("http://a/other", &[], at(200)),
        Verdict::Gone(at(200))
    );
}

#[test]
fn what_several_soft_purges_reached_is_stale_since_the_first_after_it() {
    let mut marks = Marks::new(10 * MARK);
    for time in [100, 300, 200] {
        marks.add(&tag("a", time, true));
    }
    for (requested, since) in [(50, 100), (100, 100), (101, 200), (300, 300)] {
        assert_eq!(
            verdict(&marks, &["a"], requested),
            Verdict::StaleSince(at(since)),
            "{requested}"
        );
    }
    for time in [400, 500] {
        marks.add(&tag("a", time, true));
    }
    assert_eq!(
        verdict(&marks, &["a"], 100),
        Verdict::Gone(at(100)),
        "five went over it"
    );
    assert_eq!(verdict(&marks, &["a"], 101), Verdict::StaleSince(at(200)));
}

#[test]
fn at_the_bound_many_become_one_at_once_and_the_rest_stays_exact() {
    let mut marks = Marks::new(1_000 * MARK);
    for n in 1..=5_000 {
        marks.add(&tag(&n.to_string(), n, false));
        assert!(marks.bytes() <= 1_000 * MARK);
    }
    assert!((1..=20).contains(&marks.folded()), "{}", marks.folded());
    assert_eq!(verdict(&marks, &["5000"], 5_000), Verdict::Gone(at(5_000)));
    assert_eq!(verdict(&marks, &["other"], 4_500), Verdict::Kept);
    assert!(matches!(verdict(&marks, &["other"], 1), Verdict::Gone(_)));
}

proptest! {
    #[test]
    fn prefixes_are_found_as_if_each_was_tried(
        purges in proptest::collection::vec(("[ab]{0,5}", 1u64..100, any::<bool>()), 0..40), url in "[abc]{0,7}",
        requested in 0u64..100,
    ) {
        let mut marks = Marks::new(1000 * MARK);
        let mut each: std::collections::BTreeMap<String, Times> = BTreeMap::new();
        for (prefix, time, soft) in purges {
            marks.add(&Purge { scope: Scope::Prefix(prefix.clone()), soft, at_ms: at(time) });
            each.entry(prefix).or_default().add(soft, at(time));
        }
        let concerned = each.iter().filter(|(prefix, _)| url.starts_with(prefix.as_str()));
        let expected = concerned.fold(Verdict::Kept, |sum, (_, times)| sum.and(times.verdict(at(requested))));
        prop_assert_eq!(marks.verdict(&url, &[], at(requested)), expected);
    }

    #[test]
    fn what_was_purged_never_comes_back_however_many_purges_follow(
        purges in proptest::collection::vec((0u8..20, 1u64..1000, any::<bool>()), 1..60), most in 1usize..8,
        asked in 0u8..20, requested in 0u64..1000,
    ) {
        let (mut bounded, mut unbounded) = (Marks::new(most * MARK), Marks::new(1000 * MARK));
        for (name, time, soft) in purges {
            let purge = tag(&name.to_string(), time, soft);
            bounded.add(&purge);
            unbounded.add(&purge);
        }
        let rank = |verdict| match verdict { Verdict::Kept => 0, Verdict::StaleSince(_) => 1, Verdict::Gone(_) => 2 };
        let asked = [asked.to_string()];
        let tags: Vec<&str> = asked.iter().map(String::as_str).collect();
        prop_assert!(rank(verdict(&bounded, &tags, requested)) >= rank(verdict(&unbounded, &tags, requested)));
        prop_assert!(bounded.bytes() <= most * MARK);
    }

    #[test]
    fn marks_survive_as_purges(purges in proptest::collection::vec((0u8..5, 1u64..100, any::<bool>()), 0..20), requested in 0u64..100) {
        let mut marks = Marks::new(100 * MARK);
        for (name, time, soft) in purges {
            marks.add(&tag(&name.to_string(), time, soft));
        }
        let mut again = Marks::new(100 * MARK);
        for purge in marks.to_purges() {
            again.add(&purge);
        }
        for name in ["0", "1", "2", "3", "4"] {
            prop_assert_eq!(verdict(&again, &[name], requested), verdict(&marks, &[name], requested));
        }
    }
}
