//! Hearing what other sidecars do: keys whose waiters should look again, and purges.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use larder_contract::key::KeyDigest;
use redis::Value;
use redis::aio::PubSub;
use tokio::time::{Instant, timeout};

use super::link::Link;
use super::names::wake_channel;
use super::pause::Pause;
use super::purges::{NEWS, catch_up, keep_marks, load_marks, watch_envoys};
use crate::purging::Purges;
use crate::store::Fault;
use crate::waiting::Waiting;

/// How often the log is read without being told to: a message of a channel can be lost.
const UNASKED: Duration = Duration::from_secs(1);
/// A channel that is silent has to answer a `PING` within so long.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How often the log is read while the channel is not to be had, and how many times before that is
/// tried again.
const AGAIN: Duration = Duration::from_millis(200);
const READINGS: usize = 25;

/// Follows the other sidecars for as long as the process lives. Where the channel is not to be had
/// (a broken connection, a user that may not SUBSCRIBE), waiters look again on their own, and the
/// log is read now and then.
pub async fn follow(link: Link, namespace: String, waiting: Waiting, purges: Purges) {
    let follower = Follower {
        link,
        namespace,
        waiting,
        purges,
    };
    let mut pause = Pause::default();
    loop {
        let (begun, number) = (Instant::now(), follower.link.number());
        // Each ends at its first fault.
        let ended = match follower.subscribe().await {
            Ok(channel) => follower.listen(channel).await,
            Err(_) => follower.read_now_and_then().await,
        };
        if let Err(fault) = ended {
            tracing::debug!(%fault, "the other sidecars are not heard");
        }
        follower.waiting.set_followed(false);
        // Where commands are answered again, so is this.
        let _ = timeout(
            pause.next(Some(begun.elapsed())),
            follower.link.replaced(number),
        )
        .await;
    }
}

struct Follower {
    link: Link,
    namespace: String,
    waiting: Waiting,
    purges: Purges,
}

impl Follower {
    async fn subscribe(&self) -> Result<PubSub, Fault> {
        let mut channel = self.link.pubsub().await?;
        let subscribed = timeout(
            SIGN_OF_LIFE,
            channel.subscribe(wake_channel(&self.namespace)),
        )
        .await;
        subscribed
            .map_err(|_| silent())?
            .map_err(|error| Fault(error.to_string()))?;
        Ok(channel)
    }

    /// Reads all that was purged. From then on this process vouches for what it gives out.
    async fn catch_up(&self) -> Result<(), Fault> {
        let (asked, number) = (Instant::now(), self.link.number());
        if self.purges.vouches() {
            keep_marks(&self.link, &self.namespace, &self.purges).await?;
        } else {
            // Marks first, then the log: a purge made in between is in both.
            load_marks(&self.link, &self.namespace, &self.purges).await?;
        }
        watch_envoys(&self.link, &self.namespace, &self.purges).await?;
        catch_up(&self.link, &self.namespace, &self.purges).await?;
        if self.link.number() == number {
            self.purges.heard_by(asked, number);
        }
        Ok(())
    }

    /// Listens until the channel breaks or commands go to another server.
    async fn listen(&self, channel: PubSub) -> Result<(), Fault> {
        let number = self.link.number();
        self.catch_up().await?;
        self.waiting.set_followed(true);
        self.waiting.wake_all();
        let (mut sink, mut messages) = channel.split();
        let mut asked = Instant::now();
        while self.link.number() == number {
            let payload = tokio::select! {
                heard = tokio::time::timeout_at(asked + UNASKED, messages.next()) => match heard {
                    Ok(Some(message)) => message.get_payload::<String>().unwrap_or_default(),
                    Ok(None) => return Ok(()),
                    Err(_) => NEWS.to_owned(),
                },
                () = self.purges.asked() => NEWS.to_owned(),
                () = self.link.replaced(number) => return Ok(()),
            };
            let mut is_news = self.hear(&payload);
            // Purges come in thousands: one reading of the log tells of all that have come by now.
            while let Some(Some(message)) = messages.next().now_or_never() {
                is_news |= self.hear(&message.get_payload::<String>().unwrap_or_default());
            }
            // Wakes may come without a pause; the log has its time all the same. An Envoy that is
            // new is told of at once.
            if asked.elapsed() >= UNASKED || self.purges.sessions().has_newcomers() {
                asked = Instant::now();
                self.catch_up().await?;
                // The log is read by another connection: that says nothing of the channel.
                let answer = timeout(SIGN_OF_LIFE, sink.ping::<Value>()).await;
                answer
                    .map_err(|_| silent())?
                    .map_err(|error| Fault(error.to_string()))?;
            } else if is_news {
                catch_up(&self.link, &self.namespace, &self.purges).await?;
            }
        }
        Ok(())
    }

    /// Wakes who waits for a key. Says whether it is news of a purge.
    fn hear(&self, payload: &str) -> bool {
        if let Some(key) = KeyDigest::parse(payload) {
            self.waiting.wake(&key);
        }
        payload == NEWS
    }

    async fn read_now_and_then(&self) -> Result<(), Fault> {
        for _ in 0..READINGS {
            self.catch_up().await?;
            let _ = timeout(AGAIN, self.purges.asked()).await;
        }
        Ok(())
    }
}

fn silent() -> Fault {
    Fault("the wake channel does not answer".to_owned())
}
