use larder_contract::entry::Entry;
use larder_contract::http_time::Timestamp;
use larder_contract::key::KeyDigest;
use larder_contract::purge::Purge;
use larder_contract::store_api::{
    Fence, Invalidate, LookUp, LookUpAnswer, Release, WriteAnswer, name_of,
};
use larder_stack::eventually;
use tokio::sync::Semaphore;

use super::*;
use crate::answering::{Access, Limits};
use crate::sessions::News;
use crate::store::{Announced, Fault, Found};
use crate::{Purged, Purges, Waiting};

const KEY: KeyDigest = KeyDigest([7; 32]);

/// A store that carries nothing out before it may, and counts what it has.
struct Slow {
    may: Arc<Semaphore>,
    done: Arc<std::sync::atomic::AtomicUsize>,
}

impl Default for Slow {
    fn default() -> Self {
        Self {
            may: Arc::new(Semaphore::new(0)),
            done: Arc::default(),
        }
    }
}

impl Slow {
    async fn carry_out<T>(&self, answer: T) -> Result<T, Fault> {
        let _ = self.may.acquire().await;
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }
}

impl Store for Slow {
    async fn look_up(&self, _: &LookUp) -> Result<Found, Fault> {
        let nothing = LookUpAnswer::Nothing { uncacheable: false };
        self.carry_out(Found::now(nothing)).await
    }

    async fn write(&self, _: KeyDigest, _: Option<&Fence>, _: Entry) -> Result<WriteAnswer, Fault> {
        self.carry_out(WriteAnswer::Stored).await
    }

    async fn release(&self, _: &Release) -> Result<(), Fault> {
        self.carry_out(()).await
    }

    async fn invalidate(&self, _: &[KeyDigest], _: Timestamp, _: bool) -> Result<(), Fault> {
        self.carry_out(()).await
    }

    async fn announce(&self, _: &Purge) -> Result<Announced, Fault> {
        Ok(Announced::Here("1".to_owned()))
    }

    async fn ping(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn describe(&self) -> String {
        "slow".to_owned()
    }
}

fn sidecar(store: Slow) -> Arc<Sidecar<Slow>> {
    let purges = Purges::default();
    purges.begin_at("0".to_owned());
    let limits = Limits {
        max_entry_bytes: 1024,
        max_waiters: 10,
    };
    let store = Purged::new(store, purges);
    Sidecar::new(store, Waiting::default(), limits, Access::default())
}

fn bytes_of(questions: Vec<Question<'_>>) -> Vec<u8> {
    let hello = Asked::Hello {
        version: VERSION,
        envoy: 1,
    };
    let questions = (1..)
        .zip(questions)
        .map(|(number, question)| Asked::Question {
            number,
            sent: crate::clock::now(),
            question,
        });
    let mut bytes = Vec::new();
    for asked in std::iter::once(hello).chain(questions) {
        let mut frame = Vec::new();
        asked.write(&mut frame);
        bytes.push(0);
        bytes.extend_from_slice(&u32::try_from(frame.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&frame);
    }
    bytes
}

fn everything() -> Vec<Question<'static>> {
    let release = Release::of(KEY, Fence("0a".to_owned()));
    let invalidate = Invalidate {
        digests: vec![KEY],
        everything: false,
        now_ms: crate::clock::now(),
    };
    let look_up = LookUp {
        key: KEY,
        presented: Default::default(),
        now_ms: Timestamp::default(),
        lease: None,
    };
    vec![
        Question::LookUp(look_up),
        Question::Follow {
            after: Some("0".to_owned()),
            wait_ms: 10_000,
        },
        Question::Release(release),
        Question::Invalidate(invalidate),
    ]
}

/// Content that has come as far as this, and whose end has not.
fn unended(bytes: Vec<u8>) -> Body {
    use futures_util::stream;
    let come = stream::once(async move { Ok::<_, Infallible>(Bytes::from(bytes)) });
    Body::from_stream(come.chain(stream::pending()))
}

fn poll(conversation: &mut Conversation<Slow>) -> Option<Bytes> {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(conversation).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    }
}

/// Two of [`everything`] are told: a release and an invalidation.
async fn two_are_carried_out(done: &std::sync::atomic::AtomicUsize) {
    let both = || async { (done.load(Ordering::Relaxed) == 2).then_some(()) };
    let both = eventually(Duration::from_secs(10), both).await;
    assert!(both.is_some(), "{done:?}");
}

#[tokio::test]
async fn what_was_told_and_is_under_way_is_carried_out_though_the_stream_is_gone() {
    let (store, may, done) = {
        let store = Slow::default();
        let (may, done) = (store.may.clone(), store.done.clone());
        (store, may, done)
    };
    let sidecar = sidecar(store);
    let incoming = unended(bytes_of(everything()));
    let mut conversation = Conversation::new(sidecar.clone(), Peer(None), incoming);
    assert!(poll(&mut conversation).is_some(), "welcome");
    assert_eq!(conversation.asks.len() + conversation.follows.len(), 2);
    assert_eq!(conversation.tells.len(), 2);
    drop(conversation);
    assert_eq!(done.load(Ordering::Relaxed), 0);
    may.add_permits(10);
    two_are_carried_out(&done).await;
    assert_eq!(sidecar.counters.streams.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_has_come_and_was_not_read_yet_is_carried_out_and_heard_before_the_envoy_has_gone() {
    let store = Slow::default();
    let (may, done) = (store.may.clone(), store.done.clone());
    let sidecar = sidecar(store);
    let sessions = sidecar.store.purges().sessions();
    sessions.believe_closing();
    let follows = everything().swap_remove(1);
    let (first, last) = (bytes_of(vec![follows]), bytes_of(everything()));
    let begun = last.len() - bytes_of(everything().split_off(1)).len();
    let pieces = [Bytes::from(first), Bytes::from(last).slice(15..)];
    assert!(begun > 0);
    let (told, come) = tokio::sync::mpsc::unbounded_channel();
    let come = futures_util::stream::unfold(come, |mut come| async move {
        let piece: Bytes = come.recv().await?;
        Some((Ok::<_, Infallible>(piece), come))
    });
    let mut conversation = Conversation::new(sidecar.clone(), Peer(None), Body::from_stream(come));
    let [first, last] = pieces;
    told.send(first).unwrap();
    assert!(poll(&mut conversation).is_some(), "welcome");
    assert_eq!(conversation.follows.len(), 1);
    told.send(last).unwrap();
    drop(conversation);
    may.add_permits(10);
    two_are_carried_out(&done).await;
    let news = sessions.news();
    assert!(
        matches!(news.as_slice(), [News::Follows(name, _)] if *name == name_of(1)),
        "it may have had more to tell: {news:?}"
    );
}

#[tokio::test]
async fn an_envoy_whose_stream_is_gone_while_it_follows_has_left() {
    let sidecar = sidecar(Slow::default());
    let sessions = sidecar.store.purges().sessions();
    sessions.believe_closing();
    let incoming = unended(bytes_of(vec![everything().swap_remove(1)]));
    let mut conversation = Conversation::new(sidecar.clone(), Peer(None), incoming);
    assert!(poll(&mut conversation).is_some(), "welcome");
    drop(conversation);
    assert_eq!(sessions.news(), [News::Left(name_of(1))]);
}

#[tokio::test]
async fn where_too_many_are_under_way_nothing_more_is_read() {
    let sidecar = sidecar(Slow::default());
    let many = std::iter::repeat_with(|| everything().swap_remove(0)).take(10_000);
    let incoming = unended(bytes_of(many.collect()));
    let mut conversation = Conversation::new(sidecar, Peer(None), incoming);
    for _ in 0..1_000 {
        let _ = poll(&mut conversation);
    }
    assert_eq!(conversation.asks.len(), MOST.0);
    assert!(conversation.weight <= MOST.1);
}
