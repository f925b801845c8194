//! Histories by hand, which the checker must accept or reject.

use super::*;
use crate::chaos::history::{Applied, Purge, Put, Scope, Through};
use crate::chaos::schedule::{Fault, Kind};

const MS: Micros = 1_000;
const SECOND: Micros = 1_000_000;
const TERMS: Terms = Terms {
    calm: 500 * MS,
    distrust: 5 * SECOND,
    slack: SECOND,
    recovery: 3 * SECOND,
};

/// Times in milliseconds; from the tenth second on, when the start is over.
const T: Micros = 10_000;

fn envoy(envoy: usize) -> Through {
    Through { envoy, life: 0 }
}

#[derive(Default)]
struct Story(History);

impl Story {
    fn put(mut self, version: u64, through: Through, end: Micros) -> Self {
        self.0.applied.push(Applied {
            key: 4,
            version,
            at: (end - 2) * MS,
        });
        let (begin, end) = ((end - 4) * MS, end * MS);
        self.0.puts.push(Put {
            through,
            key: 4,
            version,
            begin,
            end,
            answered: Ok(()),
        });
        self
    }

    fn failed_put(mut self, version: u64, through: Through, end: Micros) -> Self {
        self = self.put(version, through, end);
        self.0.puts.last_mut().unwrap().answered = Err("504".to_owned());
        self
    }

    fn purge(mut self, scope: Scope, soft: bool, end: Micros) -> Self {
        let (begin, end) = ((end - 4) * MS, end * MS);
        self.0.purges.push(Purge {
            sidecar: 0,
            scope,
            soft,
            begin,
            end,
            done: true,
        });
        self
    }

    fn fault(mut self, kind: Kind, begin: Micros, end: Micros) -> Self {
        let fault = Fault { kind, side: 1 };
        self.0.spans.push(Span {
            fault,
            begin: begin * MS,
            end: end * MS,
        });
        self
    }

    fn got(mut self, through: Through, begin: Micros, got: Got) -> Self {
        self.0.reads.push(Read {
            through,
            key: 4,
            begin: begin * MS,
            end: (begin + 5) * MS,
            got,
        });
        self
    }

    fn read(self, version: u64, through: Through, begin: Micros) -> Self {
        self.read_of(version, through, begin, (0, 0), "larder; hit; ttl=300")
    }

    /// `stamps`: when the content was generated, and when it was approved.
    fn read_of(
        self,
        version: u64,
        through: Through,
        begin: Micros,
        stamps: (Micros, Micros),
        told: &str,
    ) -> Self {
        let (generated, approved) = (stamps.0 * MS, stamps.1 * MS);
        let hit = told.contains("hit");
        self.got(
            through,
            begin,
            Got::Version(Answer {
                version,
                generated,
                approved,
                hit,
                told: told.into(),
            }),
        )
    }

    fn rules(&self) -> Vec<Rule> {
        judge(&self.0, TERMS)
            .into_iter()
            .map(|violation| violation.rule)
            .collect()
    }
}

#[test]
fn the_envoy_that_answered_never_serves_an_older_version() {
    let written = || {
        Story::default()
            .put(1, envoy(0), T)
            .put(2, envoy(0), T + 100)
    };
    assert_eq!(written().read(2, envoy(0), T + 101).rules(), []);
    assert_eq!(
        written().read(1, envoy(0), T + 100).rules(),
        [],
        "it began before the answer was there"
    );
    assert_eq!(written().read(1, envoy(0), T + 101).rules(), [Rule::OwnPut]);
    let at_once = written()
        .fault(Kind::FreezeRedis, T - 50, T + 9_000)
        .read(1, envoy(0), T + 101);
    assert_eq!(
        at_once.rules(),
        [Rule::OwnPut],
        "a fault of the store is no excuse"
    );
    let again = Through { envoy: 0, life: 1 };
    assert_eq!(
        written().read(1, again, T + 200).rules(),
        [],
        "one that was started anew is another"
    );
}

#[test]
fn another_envoy_follows_soon_in_peace() {
    let written = || {
        Story::default()
            .put(1, envoy(0), T)
            .put(2, envoy(0), T + 100)
    };
    assert_eq!(written().read(1, envoy(1), T + 600).rules(), []);
    let late = written().read(1, envoy(1), T + 601);
    assert_eq!(
        judge(&late.0, TERMS),
        [Violation {
            rule: Rule::CalmPut,
            seen: Seen::Read(0),
            cause: Cause::Put(1)
        }]
    );
    assert_eq!(
        written().read(0, envoy(1), T + 550).rules(),
        [Rule::CalmPut],
        "older than the one before, too"
    );
}

#[test]
fn what_was_heard_in_peace_does_not_come_back_with_a_later_fault() {
    let written =
        Story::default()
            .put(1, envoy(0), T)
            .fault(Kind::RollBackRedis, T + 2_000, T + 3_000);
    assert_eq!(
        written.read(0, envoy(1), T + 2_500).rules(),
        [Rule::CalmPut]
    );
}

#[test]
fn under_a_fault_another_envoy_believes_for_a_while() {
    let written = || {
        Story::default()
            .fault(Kind::SilentStoreLink, T - 10, T + 60_000)
            .put(1, envoy(0), T)
    };
    assert_eq!(written().read(0, envoy(1), T + 6_000).rules(), []);
    assert_eq!(
        written().read(0, envoy(1), T + 6_001).rules(),
        [Rule::DistrustedPut]
    );
    let recovering = Story::default()
        .fault(Kind::SilentStoreLink, T - 3_000, T - 2_900)
        .put(1, envoy(0), T);
    assert_eq!(
        recovering.read(0, envoy(1), T + 3_000).rules(),
        [],
        "connections are made anew"
    );
    let soon = Story::default()
        .fault(Kind::SilentStoreLink, T + 400, T + 60_000)
        .put(1, envoy(0), T);
    assert_eq!(
        soon.read(0, envoy(1), T + 3_000).rules(),
        [],
        "it may not have heard before the fault"
    );
}

#[test]
fn stale_if_error_goes_on_only_while_the_origin_is_away() {
    let told = "larder; hit; ttl=-9; detail=stale-if-error";
    let deaf = || {
        Story::default()
            .fault(Kind::SilentStoreLink, T - 10, T + 60_000)
            .put(1, envoy(0), T)
    };
    let both = deaf().fault(Kind::OriginDown, T + 7_000, T + 9_000);
    assert_eq!(
        both.read_of(0, envoy(1), T + 8_000, (0, 0), told).rules(),
        []
    );
    assert_eq!(
        deaf().read_of(0, envoy(1), T + 8_000, (0, 0), told).rules(),
        [Rule::DistrustedPut]
    );
    let own = deaf()
        .fault(Kind::OriginDown, T + 7_000, T + 9_000)
        .read_of(0, envoy(0), T + 8_000, (0, 0), told);
    assert_eq!(own.rules(), [Rule::OwnPut], "who answered knows");
}

#[test]
fn a_put_that_failed_promises_nothing() {
    let origin = || Story::default().fault(Kind::OriginErrors, T - 100, T + 100);
    assert_eq!(
        origin()
            .failed_put(1, envoy(0), T)
            .read(0, envoy(0), T + 9_000)
            .rules(),
        []
    );
    assert_eq!(
        origin()
            .failed_put(1, envoy(0), T)
            .read(1, envoy(1), T + 9_000)
            .rules(),
        [],
        "it may have worked"
    );
    assert_eq!(
        Story::default().failed_put(1, envoy(0), T).rules(),
        [Rule::ClientError]
    );
}

#[test]
fn nothing_comes_that_was_not_written() {
    let story = Story::default().put(1, envoy(0), T);
    assert_eq!(story.read(2, envoy(0), T + 1).rules(), [Rule::Unwritten]);
    let early = Story::default()
        .put(1, envoy(0), T)
        .read(1, envoy(0), T - 20);
    assert_eq!(early.rules(), [Rule::Unwritten], "before it was written");
    let mangled = Story::default().got(envoy(0), T, Got::Mangled("key=5".to_owned()));
    assert_eq!(mangled.rules(), [Rule::Foreign]);
}

#[test]
fn errors_are_excused_by_the_origin_and_by_the_envoy_that_was_asked() {
    let failed = |story: Story| {
        story
            .got(envoy(1), T, Got::Status(503, String::new()))
            .rules()
    };
    assert_eq!(failed(Story::default()), [Rule::ClientError]);
    assert_eq!(
        failed(Story::default().fault(Kind::OriginDown, T - 10, T + 10)),
        []
    );
    assert_eq!(
        failed(Story::default().fault(Kind::FreezeRedis, T - 10, T + 10)),
        [Rule::ClientError]
    );
    assert_eq!(
        failed(Story::default().fault(Kind::RestartEnvoy, T - 10, T + 10)),
        []
    );
    let other = Story::default().fault(Kind::RestartEnvoy, T - 10, T + 10);
    assert_eq!(
        other
            .got(envoy(0), T, Got::Nothing("timeout".to_owned()))
            .rules(),
        [Rule::ClientError]
    );
}

#[test]
fn what_was_purged_is_gone() {
    let purged = || Story::default().purge(Scope::Prefix(0), false, T);
    let of = |story: Story, begin, stamps| {
        story
            .read_of(0, envoy(1), begin, stamps, "larder; hit; ttl=9")
            .rules()
    };
    assert_eq!(of(purged(), T + 500, (T - 9, T - 9)), []);
    assert_eq!(of(purged(), T + 501, (T - 9, T - 9)), [Rule::CalmPurge]);
    assert_eq!(of(purged(), T + 501, (T, T)), [], "fetched since");
    assert_eq!(
        of(purged(), T + 501, (T - 9, T + 9)),
        [Rule::CalmPurge],
        "nothing was there to be confirmed"
    );
    assert_eq!(
        of(purged(), T + 501, (T - 9, T - 2)),
        [],
        "confirmed while the purge was made"
    );
    assert_eq!(
        of(purged(), T + 501, (T - 9, T - 5)),
        [Rule::CalmPurge],
        "confirmed before"
    );
    let deaf = || purged().fault(Kind::SilentStoreLink, T - 10, T + 60_000);
    assert_eq!(of(deaf(), T + 6_000, (T - 9, T - 9)), []);
    assert_eq!(
        of(deaf(), T + 6_001, (T - 9, T - 9)),
        [Rule::DistrustedPurge]
    );
    assert_eq!(of(deaf(), T + 6_001, (T - 9, T + 9)), [], "validated");
    assert_eq!(
        of(
            Story::default().purge(Scope::Prefix(1), false, T),
            T + 501,
            (T - 9, T - 9)
        ),
        [],
        "another's"
    );
}

#[test]
fn what_was_purged_softly_is_served_only_as_stale_or_confirmed() {
    let of = |stamps, told: &str| {
        Story::default()
            .purge(Scope::Url(4), true, T)
            .read_of(0, envoy(0), T + 501, stamps, told)
            .rules()
    };
    assert_eq!(of((T - 9, T - 9), "larder; hit; ttl=9"), [Rule::SoftPurge]);
    assert_eq!(
        of(
            (T - 9, T - 9),
            "larder; hit; ttl=-9; detail=stale-while-revalidate"
        ),
        []
    );
    assert_eq!(of((T - 9, T + 9), "larder; hit; ttl=9"), []);
    assert_eq!(of((T - 9, T - 9), "larder; fwd=stale; fwd-status=304"), []);
}
