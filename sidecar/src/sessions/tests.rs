use super::*;

const WAIT: Duration = Duration::from_secs(1);

fn age(sessions: &Sessions, by: Duration) {
    sessions
        .all()
        .values_mut()
        .for_each(|session| session.seen -= by);
}

#[test]
fn an_envoy_that_is_not_heard_of_is_told_of_now_and_then() {
    let sessions = Sessions::default();
    sessions.poll("envoy", WAIT).answered();
    assert!(!sessions.has_lost_one());
    age(&sessions, LAPSE);
    assert!(sessions.has_lost_one());
    assert!(!sessions.has_lost_one());
    let told_long_ago =
        |session: &mut Session| session.told = session.told.map(|told| told - AGAIN);
    sessions.all().values_mut().for_each(told_long_ago);
    assert!(sessions.has_lost_one(), "it may go on answering");
    assert!(sessions.missing_at(Instant::now()) >= LAPSE);
    sessions.poll("envoy", WAIT).answered();
    sessions.all().values_mut().for_each(told_long_ago);
    assert!(!sessions.has_lost_one(), "it is back");
    assert_eq!(sessions.missing_at(Instant::now()), Duration::ZERO);
    age(&sessions, MISSED_FOR);
    assert!(!sessions.has_lost_one(), "it is dead");
}

#[test]
fn who_asks_for_long_polls_is_not_missing_meanwhile() {
    let sessions = Sessions::default();
    let _poll = sessions.poll("envoy", Duration::from_secs(20));
    age(&sessions, Duration::from_secs(20));
    assert!(!sessions.has_lost_one());
    age(&sessions, LAPSE);
    assert!(sessions.has_lost_one());
    let elsewhere = Sessions::default();
    let _poll = elsewhere.poll("envoy", Duration::from_secs(20));
    age(&elsewhere, Duration::from_secs(20));
    assert!(matches!(elsewhere.news()[..], [News::Follows(_, ago)] if ago < LAPSE));
}

#[test]
fn whoever_has_gone_is_missed_unless_closing_is_believed() {
    for believed in [false, true] {
        let sessions = Sessions::default();
        if believed {
            sessions.believe_closing();
        }
        drop(sessions.poll("told all", WAIT));
        age(&sessions, LAPSE);
        assert_ne!(sessions.has_lost_one(), believed);
        sessions.invalidates("has just told something");
        drop(sessions.poll("has just told something", WAIT));
        age(&sessions, LAPSE);
        assert!(sessions.has_lost_one());
    }
}

#[test]
fn who_leaves_in_peace_costs_nothing() {
    for ends in [
        |sessions: &Sessions| sessions.poll("next", WAIT).answered(),
        Sessions::end,
    ] {
        let sessions = Sessions::default();
        drop(sessions.poll("envoy", WAIT));
        ends(&sessions);
        age(&sessions, LAPSE);
        sessions.poll("next", WAIT).answered();
        assert!(!sessions.has_lost_one());
    }
}

#[test]
fn whose_connection_has_closed_may_find_no_way_back() {
    let sessions = Sessions::default();
    drop(sessions.poll("envoy", WAIT));
    assert!(sessions.have_all_heard(1), "nobody waits for it");
    age(&sessions, LAPSE);
    assert!(sessions.has_lost_one());
    assert_eq!(sessions.news(), [], "the store notices");
    sessions.poll("next", WAIT).answered();
    assert!(
        sessions.news().contains(&News::Left("envoy".to_owned())),
        "it was started again"
    );
    assert!(!sessions.has_lost_one());
}

#[test]
fn one_that_begins_stands_for_one_that_has_gone() {
    let sessions = Sessions::default();
    drop((sessions.poll("a", WAIT), sessions.poll("b", WAIT)));
    sessions.poll("next", WAIT).answered();
    age(&sessions, LAPSE);
    sessions.poll("next", WAIT).answered();
    assert!(sessions.has_lost_one());
}

#[test]
fn a_poll_broken_off_late_is_no_peaceful_end() {
    let sessions = Sessions::default();
    let mut poll = sessions.poll("envoy", WAIT);
    poll.until = Instant::now();
    drop(poll);
    age(&sessions, LAPSE);
    assert!(sessions.has_lost_one());
}

#[test]
fn who_is_refused_has_not_left() {
    let sessions = Sessions::default();
    sessions.poll("envoy", WAIT).refused();
    assert!(matches!(sessions.news()[..], [News::Follows(..)]));
    age(&sessions, LAPSE);
    assert!(sessions.has_lost_one());
}

#[test]
fn who_told_something_a_moment_before_or_was_refused_may_have_more_to_tell() {
    let ends_after = |told: fn(&Sessions)| {
        let sessions = Sessions::default();
        let poll = sessions.poll("envoy", WAIT);
        told(&sessions);
        drop(poll);
        sessions.end();
        age(&sessions, LAPSE);
        sessions.has_lost_one()
    };
    assert!(!ends_after(|_| ()));
    assert!(
        ends_after(|sessions| sessions.invalidates("envoy")),
        "its last words may have been cut off"
    );
    let long_before = |sessions: &Sessions| {
        sessions.invalidates("envoy");
        sessions.is_refused("envoy");
        let ages = |session: &mut Session| {
            session.invalidated = session.invalidated.map(|time| time - QUIET);
            session.refused = session.refused.map(|time| time - TRIES_AGAIN);
        };
        sessions.all().values_mut().for_each(ages);
    };
    assert!(!ends_after(long_before), "all was told");
    assert!(
        ends_after(|sessions| sessions.is_refused("envoy")),
        "it would have tried again"
    );
}

#[test]
fn what_is_told_after_the_end_of_the_poll_ends_the_peace() {
    for tell in [Sessions::invalidates, Sessions::is_refused] {
        let sessions = Sessions::default();
        drop(sessions.poll("envoy", WAIT));
        sessions.end();
        assert_eq!(sessions.news(), [News::Left("envoy".to_owned())]);
        tell(&sessions, "envoy");
        assert!(matches!(&sessions.news()[..], [News::Follows(envoy, _)] if envoy == "envoy"));
        assert!(sessions.have_all_heard(1), "nobody waits for it");
        age(&sessions, LAPSE);
        assert!(sessions.has_lost_one());
    }
}

#[test]
fn news_is_who_follows_and_who_has_left() {
    let sessions = Sessions::default();
    sessions.poll("a", WAIT).answered();
    drop(sessions.poll("b", WAIT));
    sessions.end();
    assert!(sessions.has_newcomers());
    let mut news = sessions.news();
    news.sort_by_key(|news| format!("{news:?}"));
    let follows =
        |news: &News, least| matches!(news, News::Follows(a, ago) if a == "a" && *ago >= least);
    assert!(
        news.len() == 2 && follows(&news[0], Duration::ZERO),
        "{news:?}"
    );
    sessions.poll("a", WAIT).answered();
    assert!(!sessions.has_newcomers());
    assert_eq!(news[1], News::Left("b".to_owned()));
    age(&sessions, LAPSE / 4);
    let news = sessions.news();
    assert!(news.len() == 1 && follows(&news[0], LAPSE / 4), "{news:?}");
    age(&sessions, LAPSE / 4);
    assert_eq!(sessions.news(), []);
}
