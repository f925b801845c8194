//! Level 1 judges late; here it is held to a model that carries every purge out at once.

use super::*;
use larder_cache_core::fields::Fields;
use larder_cache_core::message::Request;
use larder_cache_core::stored_response::ReuseTerms;
use larder_cache_core::vary::SelectingFields;
use larder_contract::http_time::DeltaSeconds;
use larder_contract::purge::Verdict;
use larder_contract::selectors::Selector;
use proptest::prelude::*;

const PATHS: [&str; 4] = ["/shop/1", "/shop/2", "/news/1", "/news/2"];
const TAGS: [&str; 3] = ["a", "b", "c"];
const PREFIXES: [&str; 3] = ["http://x/shop/", "http://x/news/1", "http://x/"];

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + millis)
}

fn key(path: usize) -> PrimaryKey {
    PrimaryKey::new(b"n", b"http", b"x", PATHS[path].as_bytes())
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        path: usize,
        variant: u8,
        tags: [bool; 3],
        requested: u64,
    },
    Purge {
        scope: u8,
        soft: bool,
        at: u64,
    },
    LookUp(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Some are requested in the future, as far as their clocks are right.
    let put = (0..4usize, 0..2u8, any::<[bool; 3]>(), 0..60u64).prop_map(
        |(path, variant, tags, requested)| Step::Put {
            path,
            variant,
            tags,
            requested: if requested > 50 {
                requested * 1_000
            } else {
                requested
            },
        },
    );
    let purge = (0..11u8, prop::bool::weighted(0.3), 0..50u64)
        .prop_map(|(scope, soft, at)| Step::Purge { scope, soft, at });
    proptest::collection::vec(
        prop_oneof![3 => put, 2 => purge, 2 => (0..4usize).prop_map(Step::LookUp)],
        1..60,
    )
}

fn scope_of(number: u8) -> Scope {
    match number {
        0..4 => Scope::Key(key(usize::from(number)).digest()),
        4..7 => Scope::Tag(TAGS[usize::from(number) - 4].to_owned()),
        7..10 => Scope::Prefix(PREFIXES[usize::from(number) - 7].to_owned()),
        _ => Scope::Everything,
    }
}

fn response(path: usize, variant: u8, tags: [bool; 3], requested: u64) -> Arc<StoredResponse> {
    let request = Request::new("GET", "x", PATHS[path]).with("v", &variant.to_string());
    Arc::new(StoredResponse {
        url: format!("http://x{}", PATHS[path]),
        status: 200,
        fields: Fields::default(),
        body: vec![0; 10].into(),
        part: None,
        request_time: at(requested),
        response_time: at(requested),
        initial_age: DeltaSeconds::ZERO,
        terms: ReuseTerms::default(),
        explicitly_public: false,
        stale_from: None,
        selecting: SelectingFields::of(&[b"v".to_vec()], &request).unwrap(),
        tags: TAGS
            .iter()
            .zip(tags)
            .filter(|(_, has)| *has)
            .map(|(tag, _)| (*tag).to_owned())
            .collect(),
        route: larder_cache_core::route::RouteNote::default(),
        treatment: larder_cache_core::stored_response::SeenTreatment::default(),
    })
}

/// Carries out at once what it hears.
#[derive(Default)]
struct Eager {
    held: Vec<(usize, Arc<StoredResponse>, Timestamp)>,
    heard: Vec<Purge>,
}

fn concerns(purge: &Purge, path: usize, stored: &StoredResponse) -> bool {
    match &purge.scope {
        Scope::Key(digest) => *digest == key(path).digest(),
        Scope::Tag(tag) => stored.tags.contains(tag),
        Scope::Prefix(prefix) => stored.url.starts_with(prefix),
        Scope::Everything => true,
    }
}

impl Eager {
    fn purge(&mut self, purge: Purge) {
        let held =
            std::mem::take(&mut self.held)
                .into_iter()
                .filter_map(|(path, stored, requested)| {
                    let verdict = if concerns(&purge, path, &stored) {
                        purge.verdict(requested)
                    } else {
                        Verdict::Kept
                    };
                    Some((path, stored.left_by(verdict)?, requested))
                });
        self.held = held.collect();
        self.heard.push(purge);
    }

    fn put(&mut self, path: usize, stored: Arc<StoredResponse>, now: Timestamp) {
        let requested = if stored.request_time > now.plus_millis(1_000) {
            now
        } else {
            stored.request_time
        };
        let concerning = self
            .heard
            .iter()
            .filter(|purge| concerns(purge, path, &stored));
        // Of a key's soft purges the last one is remembered for what is yet to come.
        let (of_key, others): (Vec<&Purge>, Vec<&Purge>) =
            concerning.partition(|purge| matches!(purge.scope, Scope::Key(_)) && purge.soft);
        let last = of_key.iter().max_by_key(|purge| purge.at_ms);
        let verdicts = others
            .iter()
            .chain(last)
            .map(|purge| purge.verdict(requested));
        let Some(stored) = stored
            .clone()
            .left_by(verdicts.fold(Verdict::Kept, Verdict::and))
        else {
            return;
        };
        let same = |(known, held, _): &(usize, Arc<StoredResponse>, Timestamp)| {
            *known == path && held.selecting == stored.selecting
        };
        if let Some(place) = self.held.iter().position(same) {
            let received = self.held[place].1.response_time;
            if received > stored.response_time && received <= now.plus_millis(1_000) {
                return;
            }
            self.held.remove(place);
        }
        self.held.push((path, stored, requested));
    }

    fn seen(&self, path: usize) -> Vec<Seen> {
        sorted(
            self.held
                .iter()
                .filter(|(known, ..)| *known == path)
                .map(|(_, stored, _)| stored),
        )
    }

    /// Soft purges of one scope that are told apart are few.
    fn is_told_apart(&self) -> bool {
        let soft = |scope: &Scope| {
            self.heard
                .iter()
                .filter(|purge| purge.soft && purge.scope == *scope)
                .count()
        };
        self.heard.iter().all(|purge| soft(&purge.scope) <= 4)
    }
}

type Seen = (Vec<(String, Selector)>, Timestamp, Option<Timestamp>);

fn sorted<'a>(all: impl Iterator<Item = &'a Arc<StoredResponse>>) -> Vec<Seen> {
    let mut all: Vec<_> = all
        .map(|held| {
            (
                held.selecting.selectors().into_iter().collect(),
                held.request_time,
                held.stale_from,
            )
        })
        .collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_judged_late_is_what_would_have_been_left_at_once(steps in steps()) {
        let (mut l1, mut eager) = (Level1::new(1 << 20, 7), Eager::default());
        let mut now = at(0);
        for step in steps {
            now = now.plus_millis(1);
            match step {
                Step::Put { path, variant, tags, requested } => {
                    let stored = response(path, variant, tags, requested);
                    l1.put(&key(path), stored.clone(), now);
                    eager.put(path, stored, now);
                }
                Step::Purge { scope, soft, at: time } => {
                    let purge = Purge { scope: scope_of(scope), soft, at_ms: at(time) };
                    l1.purge(&purge, now);
                    eager.purge(purge);
                }
                Step::LookUp(path) => {
                    prop_assume!(eager.is_told_apart());
                    prop_assert_eq!(sorted(l1.look_up(&key(path)).variants().iter()), eager.seen(path));
                }
            }
        }
        prop_assume!(eager.is_told_apart());
        for path in 0..PATHS.len() {
            prop_assert_eq!(sorted(l1.look_up(&key(path)).variants().iter()), eager.seen(path));
        }
    }

    #[test]
    fn what_is_held_and_only_that_is_found_by_its_digest(
        steps in proptest::collection::vec((0..40u32, 0..3u8, 10..6_000usize), 1..200),
    ) {
        let mut l1 = Level1::new(60_000, 7);
        let name = |n: u32| PrimaryKey::new(b"n", b"http", b"x", n.to_string().as_bytes());
        for (n, what, bytes) in steps {
            match what {
                0 => l1.invalidate(&name(n).digest(), at(50), at(50)),
                1 => l1.mark_uncacheable(&name(n), at(99)),
                _ => {
                    let body = vec![0; bytes * if bytes > 5_900 { 10 } else { 1 }].into();
                    l1.put(&name(n), Arc::new(StoredResponse { body, ..(*response(0, 0, [false; 3], 60)).clone() }), at(60));
                }
            }
            let held: Vec<_> =
                l1.cache.iter().filter(|(_, held)| matches!(held, Held::Stored(_))).map(|(key, _)| key.clone()).collect();
            prop_assert_eq!(held.len(), l1.places.len());
            for key in held {
                prop_assert_eq!(l1.key_of(&key.digest()), Some(key));
            }
        }
    }
}

#[test]
fn a_purge_costs_no_look_at_what_is_held_and_a_stream_of_them_empties_nothing() {
    let mut l1 = Level1::new(64 << 20, 7);
    let name = |n: u32| PrimaryKey::new(b"n", b"http", b"x", n.to_string().as_bytes());
    for n in 0..20_000 {
        l1.put(&name(n), response(0, 0, [true; 3], 1), at(1));
    }
    let bytes = l1.bytes();
    for n in 0..11_000 {
        l1.purge(
            &Purge {
                scope: Scope::Tag(format!("unrelated-{n}")),
                soft: false,
                at_ms: at(2),
            },
            at(2),
        );
    }
    l1.purge(
        &Purge {
            scope: Scope::Tag("a".to_owned()),
            soft: false,
            at_ms: at(0),
        },
        at(2),
    );
    assert_eq!((l1.bytes(), l1.times_crowded()), (bytes, (0, 0)));
    assert!((0..20_000).all(|n| l1.look_up(&name(n)).variants().len() == 1));
    l1.purge(
        &Purge {
            scope: Scope::Everything,
            soft: false,
            at_ms: at(3),
        },
        at(3),
    );
    assert_eq!(
        l1.bytes(),
        bytes,
        "what is dead leaves when it is looked up"
    );
    assert!(l1.look_up(&name(7)).variants().is_empty());
    assert!(l1.bytes() < bytes);
}
