//! An Envoy that asks a sidecar, by single calls or by a stream: the same questions, and the same
//! answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use larder_contract::http_time::Timestamp;
use larder_contract::store_api::{
    AHEAD_FIELD, AnswerParts, CLOCK_FIELD, ClockReading, ENTRIES_PATH, Events, EventsSince,
    FENCE_FIELD, Fence, INVALIDATE_PATH, LOOK_UP_PATH, LookUp, LookUpAnswer, RELEASE_PATH,
    UNCACHEABLE_FIELD, UNHEARD_FIELD, name_of,
};
use larder_contract::store_stream::{Answer, Asked, Question, Said};
use reqwest::{Client, RequestBuilder, Response};
use tokio::sync::oneshot;

use crate::wire::{Out, Wire};

/// How questions travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Calls,
    Stream,
}

pub(crate) const BOTH: [Way; 2] = [Way::Calls, Way::Stream];

/// With a clock that is ahead of this machine's, or behind where that is negative.
pub(crate) struct Envoy {
    pub(crate) id: u64,
    pub(crate) ahead_ms: i64,
    by: By,
}

enum By {
    Calls(Client, String),
    Stream(Stream),
}

struct Stream {
    out: Mutex<Out>,
    numbers: AtomicU32,
    open: Arc<Mutex<HashMap<u32, oneshot::Sender<Answer>>>>,
}

impl Envoy {
    pub(crate) async fn new(way: Way, sidecar: SocketAddr, id: u64, ahead_ms: i64) -> Self {
        let by = match way {
            Way::Calls => By::Calls(Client::new(), format!("http://{sidecar}")),
            Way::Stream => By::Stream(Stream::open(sidecar, id).await),
        };
        Self { id, ahead_ms, by }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap()).moved(self.ahead_ms)
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, question: Question<'_>) -> Answer {
        match &self.by {
            By::Calls(client, sidecar) => self.call(client, sidecar, question).await,
            By::Stream(stream) => stream.ask(self.now(), question).await,
        }
    }

    /// The status of what was told.
    pub(crate) async fn tell(&self, question: Question<'_>) -> u16 {
        match self.ask(question).await {
            Answer::Done { status } => status,
            other => panic!("not done: {other:?}"),
        }
    }

    /// By how much this clock is ahead, and what was found.
    pub(crate) async fn look_up(&self, asked: LookUp) -> (i64, LookUpAnswer) {
        match self.ask(Question::LookUp(asked)).await {
            Answer::LookUp { found, ahead } => (ahead, found),
            other => panic!("nothing found or not: {other:?}"),
        }
    }

    /// What was purged, and for how long purges went unheard.
    pub(crate) async fn follow(&self, after: Option<&str>, wait_ms: u64) -> (Events, u64) {
        let after = after.map(str::to_owned);
        match self.ask(Question::Follow { after, wait_ms }).await {
            Answer::Purges { events, unheard_ms } => (events, unheard_ms),
            other => panic!("no purges: {other:?}"),
        }
    }

    /// As a process that dies: what it waits for is given up.
    pub(crate) fn dies(self) {
        if let By::Stream(stream) = self.by {
            stream.out.lock().unwrap().cut();
        }
    }

    async fn call(&self, client: &Client, sidecar: &str, question: Question<'_>) -> Answer {
        match question {
            Question::LookUp(asked) => {
                let asked = LookUp {
                    now_ms: self.now(),
                    ..asked
                };
                let request = client.post(format!("{sidecar}{LOOK_UP_PATH}")).json(&asked);
                found(self.send(request).await).await
            }
            Question::Write { key, fence, entry } => {
                let request = client.put(format!("{sidecar}{ENTRIES_PATH}{key}"));
                let request = fence.into_iter().fold(request, |request, fence| {
                    request.header(FENCE_FIELD, fence.0)
                });
                done(&self.send(request.body(entry.to_vec())).await)
            }
            Question::Release(release) => {
                let request = client
                    .post(format!("{sidecar}{RELEASE_PATH}"))
                    .json(&release);
                done(&self.send(request).await)
            }
            Question::Invalidate(invalidate) => {
                let request = client.post(format!("{sidecar}{INVALIDATE_PATH}"));
                done(&self.send(request.json(&invalidate)).await)
            }
            Question::Follow { after, wait_ms } => {
                let envoy = name_of(self.id);
                let asked = EventsSince {
                    after,
                    wait_ms,
                    envoy,
                };
                let request = client.get(format!("{sidecar}{}", asked.path()));
                let response = self.send(request).await;
                if response.status() != 200 {
                    return done(&response);
                }
                let unheard_ms =
                    field(&response, UNHEARD_FIELD).map_or(0, |text| text.parse().unwrap());
                let events = response.json().await.unwrap();
                Answer::Purges { events, unheard_ms }
            }
        }
    }

    async fn send(&self, request: RequestBuilder) -> Response {
        let reading = ClockReading {
            envoy: self.id,
            now: self.now(),
        };
        let request = request.header(CLOCK_FIELD, reading.to_string());
        request.send().await.unwrap()
    }
}

fn field<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap())
}

fn done(response: &Response) -> Answer {
    Answer::Done {
        status: response.status().as_u16(),
    }
}

async fn found(response: Response) -> Answer {
    let refused = done(&response);
    let ahead = field(&response, AHEAD_FIELD).map_or(0, |text| text.parse().unwrap());
    let parts = AnswerParts {
        status: response.status().as_u16(),
        fence: field(&response, FENCE_FIELD).and_then(|text| Fence::parse(text.as_bytes())),
        uncacheable: field(&response, UNCACHEABLE_FIELD) == Some("1"),
        body: response.bytes().await.unwrap().to_vec(),
    };
    LookUpAnswer::from_parts(parts).map_or(refused, |found| Answer::LookUp { found, ahead })
}

impl Stream {
    async fn open(sidecar: SocketAddr, envoy: u64) -> Self {
        let Wire { out, mut heard } = Wire::welcome(sidecar, envoy).await;
        let open = Arc::<Mutex<HashMap<u32, oneshot::Sender<Answer>>>>::default();
        tokio::spawn({
            let open = open.clone();
            async move {
                while let Some(said) = heard.next().await {
                    let Said::Answer { number, answer } = said else {
                        continue;
                    };
                    let asker = open.lock().unwrap().remove(&number).expect("asked once");
                    let _ = asker.send(answer);
                }
            }
        });
        Self {
            out: Mutex::new(out),
            numbers: AtomicU32::new(1),
            open,
        }
    }

    async fn ask(&self, sent: Timestamp, question: Question<'_>) -> Answer {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (asker, answer) = oneshot::channel();
        self.open.lock().unwrap().insert(number, asker);
        self.out.lock().unwrap().send(&Asked::Question {
            number,
            sent,
            question,
        });
        answer.await.expect("an answer")
    }
}
