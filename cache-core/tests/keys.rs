//! What a rule leaves out of the key, seen through a whole exchange: which requests share, what the
//! origin is asked for, and what an invalidation takes.

use std::sync::Arc;

use larder_cache_core::exchange::{
    CacheCommand, Command, Effects, Event, Exchange, ForwardedRequest, Local, Question,
    ResponseSource, Setup, SlotAnswer, StoreAnswer,
};
use larder_cache_core::glob::Glob;
use larder_cache_core::message::{Request, ResponseHead};
use larder_cache_core::policy::key::QueryKept;
use larder_cache_core::policy::key::bucket::Buckets;
use larder_cache_core::policy::{KeyRules, Policy};
use larder_cache_core::route::RefreshPath;
use larder_cache_core::rules::matching::Match;
use larder_cache_core::rules::{Rule, Rules};
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;
use larder_contract::key::{KeyDigest, PrimaryKey};

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

fn globs(texts: &[&str]) -> Vec<Glob> {
    texts.iter().map(|text| Glob::new(text)).collect()
}

fn keyed(rules: KeyRules) -> Policy {
    Policy {
        key: Some(Arc::new(rules)),
        ..Policy::default()
    }
}

fn without_utm() -> Policy {
    keyed(KeyRules {
        query: QueryKept::Without(globs(&["utm_*"])),
        ..KeyRules::default()
    })
}

fn setup(policy: &Policy) -> Setup {
    let policy = Arc::new(policy.clone());
    let rule = Rule {
        matches: Match::default(),
        policy: policy.clone(),
    };
    Setup {
        policy,
        namespace: Arc::from(b"n".as_slice()),
        refreshes: RefreshPath::Routed,
        rules: Some(Arc::new(Rules::new(vec![rule]))),
    }
}

fn digest(path: &str) -> KeyDigest {
    PrimaryKey::new(b"n", b"http", b"a", path.as_bytes()).digest()
}

fn get(path: &str) -> Request {
    Request::new("GET", "a", path)
}

/// Takes a request as far as the origin. What it is asked there.
fn to_the_origin(request: Request, policy: &Policy) -> (Exchange, ForwardedRequest) {
    let (mut exchange, mut effects) = Exchange::open(request, setup(policy), NOW);
    for _ in 0..4 {
        let event = match effects.question.take() {
            Some(Question::Forward(change)) => return (exchange, change),
            Some(Question::Arrive(_)) => Event::Slot(SlotAnswer::Lead),
            Some(Question::AskStore(_)) => {
                Event::Store(StoreAnswer::Nothing { uncacheable: false })
            }
            None => Event::Local(Local::default()),
        };
        effects = exchange.handle(event, NOW);
    }
    panic!("{} asks nothing of the origin", exchange.state_name());
}

fn answered(exchange: &mut Exchange, pairs: &[(&str, &str)]) -> Effects {
    let head = ResponseHead::new(200, pairs);
    let source = ResponseSource::Origin;
    exchange.handle(
        Event::Response {
            head,
            source,
            end: true,
        },
        NOW,
    )
}

/// What is stored when the origin answers so.
fn stored(
    request: Request,
    policy: &Policy,
    pairs: &[(&str, &str)],
) -> Option<(PrimaryKey, Arc<StoredResponse>)> {
    let (mut exchange, _) = to_the_origin(request, policy);
    let effects = answered(&mut exchange, pairs);
    effects
        .commands
        .into_iter()
        .find_map(|command| match command {
            Command::Cache(CacheCommand::Keep { key, stored, .. }) => Some((key, stored)),
            _ => None,
        })
}

/// Whether level 1 answers it with what is stored.
fn is_answered_by(request: Request, policy: &Policy, stored: &Arc<StoredResponse>) -> bool {
    let (mut exchange, _) = Exchange::open(request, setup(policy), NOW);
    let variants = std::slice::from_ref(stored);
    let local = Local {
        variants,
        ..Local::default()
    };
    exchange.handle(Event::Local(local), NOW);
    exchange.is_over()
}

fn set(change: &ForwardedRequest, name: &str) -> Option<String> {
    let value = change.set.get(name)?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[test]
fn what_is_left_out_of_the_key_is_left_out_of_what_the_origin_sees() {
    let (exchange, change) = to_the_origin(get("/p?utm_source=x&id=1"), &without_utm());
    assert_eq!(change.path.as_deref(), Some(&b"/p?id=1"[..]));
    assert_eq!(exchange.key().digest(), digest("/p?id=1"));
    let (_, plain) = to_the_origin(get("/p?id=1"), &without_utm());
    assert_eq!(plain.path, None, "nothing to change");
    let told = keyed(KeyRules {
        origin_sees_all: true,
        query: QueryKept::Without(globs(&["utm_*"])),
        ..KeyRules::default()
    });
    let (exchange, change) = to_the_origin(get("/p?utm_source=x&id=1"), &told);
    assert_eq!(
        (change.path, exchange.key().digest()),
        (None, digest("/p?id=1"))
    );
}

#[test]
fn a_post_goes_on_as_it_came_and_drops_what_its_url_is_stored_under() {
    let post = Request::new("POST", "a", "/p?utm_source=x&id=1");
    let (mut exchange, change) = to_the_origin(post, &without_utm());
    assert_eq!(change, ForwardedRequest::default());
    let location = ("location", "/new?utm_medium=y");
    let effects = answered(&mut exchange, &[location]);
    let Some(Command::Cache(CacheCommand::Invalidate(keys))) = effects.commands.into_iter().next()
    else {
        panic!("nothing is dropped")
    };
    for path in ["/p?utm_source=x&id=1", "/p?id=1", "/new"] {
        assert!(keys.contains(&digest(path)), "{path}");
    }
}

#[test]
fn an_invalidation_meets_the_keys_of_rules_that_are_not_its_own() {
    let rule = Rule {
        matches: Match {
            methods: vec!["GET".to_owned()],
            ..Match::default()
        },
        policy: Arc::new(without_utm()),
    };
    let setup = Setup {
        rules: Some(Arc::new(Rules::new(vec![rule]))),
        ..setup(&Policy {
            allow_purge: true,
            ..Policy::default()
        })
    };
    for method in ["PURGE", "DELETE"] {
        let request = Request::new(method, "a", "/p?utm_source=x");
        let (mut exchange, mut effects) = Exchange::open(request, setup.clone(), NOW);
        if !exchange.is_over() {
            effects = answered(&mut exchange, &[]);
        }
        let keys = effects
            .commands
            .into_iter()
            .find_map(|command| match command {
                Command::Cache(CacheCommand::Invalidate(keys)) => Some(keys),
                _ => None,
            });
        assert!(keys.unwrap().contains(&digest("/p")), "{method}");
    }
}

#[test]
fn one_scheme_and_one_host_are_what_the_origin_is_asked_for() {
    let policy = keyed(KeyRules {
        ignore_scheme: true,
        host: Some(b"shop.example".as_slice().into()),
        ..KeyRules::default()
    });
    let (exchange, change) = to_the_origin(get("/p"), &policy);
    assert_eq!(set(&change, ":authority").as_deref(), Some("shop.example"));
    assert_eq!(set(&change, ":scheme").as_deref(), Some("https"));
    let key = PrimaryKey::new(b"n", b"https", b"shop.example", b"/p");
    assert_eq!(*exchange.key(), key);
    let (_, stored) = stored(get("/p"), &policy, &[FRESH]).unwrap();
    assert_eq!(stored.url, "https://shop.example/p");
}

#[test]
fn cookies_that_count_as_absent_neither_keep_from_the_cache_nor_reach_the_origin() {
    let policy = Policy {
        ignore_cookies: globs(&["_ga*"]),
        ..Policy::default()
    };
    let only = || get("/p").with("cookie", "_ga=1; _gat=2");
    let (_, change) = to_the_origin(only(), &policy);
    assert_eq!(change.remove, [b"cookie".to_vec()]);
    let vary = ("vary", "cookie");
    let (_, kept) = stored(only(), &policy, &[FRESH, vary]).unwrap();
    for (cookie, expected) in [("_ga=9", true), ("session=1", false)] {
        let request = get("/p").with("cookie", cookie);
        assert_eq!(is_answered_by(request, &policy, &kept), expected);
    }
    let other = get("/p").with("cookie", "_ga=1; session=2");
    let (_, change) = to_the_origin(other.clone(), &policy);
    assert_eq!(set(&change, "cookie").as_deref(), Some("session=2"));
    assert!(stored(other, &policy, &[FRESH]).is_none());
    assert!(stored(only(), &Policy::default(), &[FRESH]).is_none());
}

#[test]
fn a_cookie_in_the_key_selects_and_is_for_all_who_send_its_like() {
    let policy = keyed(KeyRules {
        cookies: globs(&["currency"]),
        ..KeyRules::default()
    });
    let with = |cookie: &str| get("/p").with("cookie", cookie);
    let (key, kept) = stored(with("currency=EUR"), &policy, &[FRESH]).unwrap();
    assert_eq!(key.digest(), digest("/p"), "a purge of the URL takes it");
    assert!(is_answered_by(with("currency=EUR"), &policy, &kept));
    assert!(!is_answered_by(with("currency=USD"), &policy, &kept));
    assert!(!is_answered_by(get("/p"), &policy, &kept));
    assert!(stored(with("currency=EUR; session=1"), &policy, &[FRESH]).is_none());
}

#[test]
fn a_field_in_a_bucket_selects_by_the_bucket_and_reaches_the_origin_so() {
    let policy = keyed(KeyRules {
        buckets: Buckets::new("accept-language", ["de", "en"])
            .into_iter()
            .collect(),
        ..KeyRules::default()
    });
    let with = |languages: &str| get("/p").with("accept-language", languages);
    let (_, change) = to_the_origin(with("de-AT, en;q=0.5"), &policy);
    assert_eq!(set(&change, "accept-language").as_deref(), Some("de"));
    let vary = ("vary", "accept-language");
    let (_, kept) = stored(with("de-AT, en;q=0.5"), &policy, &[FRESH, vary]).unwrap();
    assert!(is_answered_by(with("de-CH"), &policy, &kept));
    assert!(!is_answered_by(with("en"), &policy, &kept));
    let (_, change) = to_the_origin(with("fr"), &policy);
    assert_eq!(change.remove, [b"accept-language".to_vec()]);
}

#[test]
fn a_cookie_of_the_response_may_be_left_out_of_what_is_stored() {
    let policy = Policy {
        strip_set_cookie: true,
        ..Policy::default()
    };
    let cookie = ("set-cookie", "a=1");
    let (_, kept) = stored(get("/p"), &policy, &[FRESH, cookie]).unwrap();
    assert!(!kept.fields.contains("set-cookie"));
    let (mut exchange, _) = to_the_origin(get("/p"), &policy);
    let taken = answered(&mut exchange, &[FRESH, cookie])
        .commands
        .into_iter()
        .any(|command| match command {
            Command::PassResponse(change) => change.remove.contains(&b"set-cookie".to_vec()),
            _ => false,
        });
    assert!(!taken, "the first client gets it");
}
