//! One question of a stream: from its frame to its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use larder_contract::http_time::Timestamp;
use larder_contract::store_api::{ClockReading, EventsSince, LookUp, name_of};
use larder_contract::store_stream::{Answer, Question};
use tokio::sync::watch;

use crate::answering::{Refusal, Sidecar};
use crate::store::Store;

/// What becomes of a question when its stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody is left to be answered.
    Asks,
    /// It was told, and is carried out all the same.
    Tells,
    /// Nobody is left to be answered, and that says something of the Envoy.
    Follows,
}

impl Kind {
    pub(super) fn of(question: &Question<'_>) -> Self {
        match question {
            Question::LookUp(_) => Self::Asks,
            Question::Write { .. } | Question::Release(_) | Question::Invalidate(_) => Self::Tells,
            Question::Follow { .. } => Self::Follows,
        }
    }
}

/// A question under way.
pub(super) struct UnderWay {
    pub(super) number: u32,
    /// Bytes of its frame: about what it holds in memory.
    pub(super) weight: usize,
    answering: Pin<Box<dyn Future<Output = Answer> + Send>>,
}

/// A question's number, its weight, and its answer.
pub(super) type Answered = (u32, usize, Answer);

impl Future for UnderWay {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.answering.as_mut().poll(cx);
        answer.map(|answer| (self.number, self.weight, answer))
    }
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) envoy: u64,
    pub(super) number: u32,
    pub(super) sent: Timestamp,
}

/// Begins to answer a question. `frame` is what it was read from.
pub(super) fn begin<S: Store>(
    sidecar: &Arc<Sidecar<S>>,
    sender: Sender,
    question: Question<'_>,
    frame: &Bytes,
    given_up: &watch::Sender<bool>,
) -> UnderWay {
    let sidecar = sidecar.clone();
    let clock = Some(ClockReading {
        envoy: sender.envoy,
        now: sender.sent,
    });
    let answering: Pin<Box<dyn Future<Output = Answer> + Send>> = match question {
        Question::LookUp(asked) => {
            let asked = LookUp {
                now_ms: sender.sent,
                ..asked
            };
            Box::pin(async move {
                match sidecar.look_up(clock, asked).await {
                    Ok((found, ahead)) => Answer::LookUp { found, ahead },
                    Err(refusal) => refused(&refusal),
                }
            })
        }
        Question::Write { key, fence, entry } => {
            let entry = frame.slice_ref(entry);
            Box::pin(async move {
                match sidecar.write(clock, key, fence, entry).await {
                    Ok(answer) => done(answer.status()),
                    Err(refusal) => refused(&refusal),
                }
            })
        }
        Question::Release(release) => {
            Box::pin(async move { carried_out(sidecar.release(release).await) })
        }
        Question::Invalidate(invalidate) => {
            Box::pin(async move { carried_out(sidecar.invalidate(clock, invalidate).await) })
        }
        Question::Follow { after, wait_ms } => {
            let mut given_up = given_up.subscribe();
            let asked = EventsSince {
                after,
                wait_ms,
                envoy: name_of(sender.envoy),
            };
            Box::pin(async move {
                let given_up = async {
                    let _ = given_up.wait_for(|given_up| *given_up).await;
                };
                match sidecar.follow(clock, &asked, given_up).await {
                    Ok(followed) => Answer::Purges {
                        events: followed.events,
                        unheard_ms: followed.unheard_ms,
                    },
                    Err(refusal) => refused(&refusal),
                }
            })
        }
    };
    UnderWay {
        number: sender.number,
        weight: frame.len(),
        answering,
    }
}

pub(super) fn done(status: u16) -> Answer {
    Answer::Done { status }
}

fn refused(refusal: &Refusal) -> Answer {
    done(refusal.status())
}

fn carried_out(result: Result<(), Refusal>) -> Answer {
    result.map_or_else(|refusal| refused(&refusal), |()| done(204))
}
