//! What a hit in level 1 costs in memory: nothing is allocated, so nothing that is held is copied
//! either.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use larder_cache_core::exchange::{AtHand, Begun, Exchange, Held, ResponseSource, Setup};
use larder_cache_core::fields::Fields;
use larder_cache_core::message::Request;
use larder_cache_core::policy::Policy;
use larder_cache_core::route::{RefreshPath, RouteNote};
use larder_cache_core::stored_response::{ReuseTerms, SeenTreatment, StoredResponse};
use larder_cache_core::variants;
use larder_cache_core::vary::SelectingFields;
use larder_contract::http_time::{DeltaSeconds, Timestamp};
use larder_contract::key::PrimaryKey;
use larder_contract::purge::remembered::Times;
use larder_contract::purge::{Purge, Scope};
use larder_filter::l1::{Found, Level1};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; counting touches a constant
// thread-local only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = ALLOCATIONS.get();
    let result = work();
    (result, ALLOCATIONS.get() - before)
}

fn stored(request: &Request, now: Timestamp) -> Arc<StoredResponse> {
    Arc::new(StoredResponse {
        url: "http://a/".to_owned(),
        status: 200,
        fields: Fields::default(),
        body: vec![0; 1_000].into(),
        part: None,
        request_time: now,
        response_time: now,
        initial_age: DeltaSeconds::ZERO,
        terms: ReuseTerms {
            lifetime: DeltaSeconds::new(60),
            ..ReuseTerms::default()
        },
        explicitly_public: false,
        stale_from: None,
        selecting: SelectingFields::of_response(request, &Fields::default()).unwrap(),
        tags: vec!["t".to_owned()],
        route: RouteNote::default(),
        treatment: SeenTreatment::default(),
    })
}

#[test]
fn a_hit_allocates_nothing_even_where_it_is_judged_by_a_purge_that_leaves_it() {
    let now = Timestamp::from_millis(1_000_000);
    let (request, key) = (
        Request::new("GET", "a", "/"),
        PrimaryKey::new(b"n", b"http", b"a", b"/"),
    );
    let stored = stored(&request, now);
    let mut l1 = Level1::new(1 << 20, 7);
    assert!(l1.put(&key, stored.clone(), now));
    let hit = |l1: &mut Level1| {
        let (found, count) = allocations(|| {
            let found = l1.look_up(&key);
            let selected = variants::select(found.variants(), &request).cloned();
            l1.count_use(&key, selected.as_ref().unwrap_or(&stored));
            selected
        });
        assert!(Arc::ptr_eq(&found.unwrap(), &stored));
        count
    };
    assert_eq!(hit(&mut l1), 0);
    l1.purge(
        &Purge {
            scope: Scope::Tag("other".to_owned()),
            soft: false,
            at_ms: now,
        },
        now,
    );
    assert_eq!(
        hit(&mut l1),
        0,
        "what a purge leaves alone is judged where it lies"
    );
    assert!(
        allocations(|| vec![0_u8; 1]).1 == 1,
        "allocations are counted"
    );
}

/// Level 1 alone, for an Envoy in which no client is known by other means than a field.
struct AlmostNothing<'a>(&'a mut Level1, Found);

impl AtHand for AlmostNothing<'_> {
    fn look_up(&mut self, key: &PrimaryKey) -> Held<'_> {
        self.1 = self.0.look_up(key);
        self.looked_up()
    }

    fn looked_up(&mut self) -> Held<'_> {
        Held {
            variants: self.1.variants(),
            uncacheable_until: self.1.uncacheable_until(),
            ..Held::default()
        }
    }

    fn untrue(&mut self, _: &PrimaryKey) -> Times {
        panic!("a plain hit has no use for it")
    }

    fn count_use(&mut self, _: &PrimaryKey, _: &Arc<StoredResponse>) {
        panic!("there is no other variant")
    }

    fn knows_client(&mut self) -> bool {
        panic!("nobody is known so")
    }

    fn may_know_client(&mut self) -> bool {
        false
    }
}

#[test]
fn a_plain_hit_allocates_its_key_and_the_fields_of_its_own_and_nothing_else() {
    let now = Timestamp::from_millis(1_000_000);
    let (request, key) = (
        Request::new("GET", "a", "/"),
        PrimaryKey::new(b"n", b"http", b"a", b"/"),
    );
    let mut l1 = Level1::new(1 << 20, 7);
    assert!(l1.put(&key, stored(&request, now), now));
    let (policy, namespace) = (Arc::new(Policy::default()), Arc::from(b"n".as_slice()));
    let setup = Setup {
        policy,
        namespace,
        refreshes: RefreshPath::Routed,
        rules: None,
    };
    let needed = allocations(|| {
        (
            PrimaryKey::new(b"n", b"http", b"a", b"/"),
            Fields::with_capacity(5, 160),
        )
    })
    .1;
    let mut at_hand = AlmostNothing(&mut l1, Found::Nothing);
    let (begun, count) = allocations(|| Exchange::begin(request, setup, &mut at_hand, now));
    assert!(matches!(begun, Begun::Answered(..)));
    assert_eq!(count, needed);
}

#[test]
fn a_request_to_a_marked_key_allocates_its_key_and_its_answer_the_two_fields() {
    let now = Timestamp::from_millis(1_000_000);
    let (request, key) = (
        Request::new("GET", "a", "/"),
        PrimaryKey::new(b"n", b"http", b"a", b"/"),
    );
    let mut l1 = Level1::new(1 << 20, 7);
    l1.mark_uncacheable(&key, now.plus_millis(1));
    let setup = Setup {
        policy: Arc::new(Policy::default()),
        namespace: Arc::from(b"n".as_slice()),
        refreshes: RefreshPath::Routed,
        rules: None,
    };
    let key = allocations(|| PrimaryKey::new(b"n", b"http", b"a", b"/")).1;
    let mut at_hand = AlmostNothing(&mut l1, Found::Nothing);
    let (begun, count) = allocations(|| Exchange::begin(request, setup, &mut at_hand, now));
    assert_eq!(count, key);
    let Begun::Marked(marked) = begun else {
        panic!("{begun:?}")
    };
    let response = || marked.on_response(200, ResponseSource::Origin);
    let (response, count) = allocations(response);
    assert_eq!((response.add.len(), response.set.len()), (1, 1));
    assert!(
        count <= 4,
        "each field: its text, and where it lies; {count}"
    );
}
