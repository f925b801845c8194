//! Hearing what other sidecars do: keys whose waiters should look again, and purges.

use std::time::Duration;

use futures_util::StreamExt;
use larder_cache_core::store_api::KeyDigest;
use redis::RedisError;
use redis::aio::PubSub;
use tokio::time::Instant;

use super::purges::{NEWS, catch_up, keep_marks, load_marks, watch_envoys};
use super::{Link, wake_channel};
use crate::purging::Purges;
use crate::waiting::Waiting;

/// How long to wait before Redis is tried again, and how often the log is read while the channel is not heard.
const AGAIN: Duration = Duration::from_millis(200);
/// How often the log is read without being told to: a message of a channel can be lost.
const UNASKED: Duration = Duration::from_secs(1);
/// How many times the log is read without the channel before that is tried again.
const READINGS: usize = 25;

/// Follows the other sidecars for as long as the process lives. Where the channel is not to be had (a broken connection, a
/// user that may not SUBSCRIBE), waiters look again on their own, and the log is read now and then.
pub async fn follow(link: Link, namespace: String, waiting: Waiting, purges: Purges) {
    let follower = Follower { link, namespace, waiting, purges };
    loop {
        // Both end at the first fault.
        let _ = match follower.subscribe().await {
            Ok(channel) => follower.listen(channel).await,
            Err(_) => follower.read_now_and_then().await,
        };
        follower.waiting.set_followed(false);
        tokio::time::sleep(AGAIN).await;
    }
}

struct Follower {
    link: Link,
    namespace: String,
    waiting: Waiting,
    purges: Purges,
}

impl Follower {
    async fn subscribe(&self) -> Result<PubSub, RedisError> {
        let mut channel = self.link.pubsub().await?;
        channel.subscribe(wake_channel(&self.namespace)).await?;
        Ok(channel)
    }

    /// Reads all that was purged. From then on this process vouches for what it gives out.
    async fn catch_up(&self) -> Result<(), RedisError> {
        let asked = Instant::now();
        if self.purges.vouches() {
            keep_marks(&self.link, &self.namespace, &self.purges).await?;
        } else {
            // Marks first, then the log: a purge made in between is in both.
            load_marks(&self.link, &self.namespace, &self.purges).await?;
        }
        watch_envoys(&self.link, &self.namespace, &self.purges).await?;
        catch_up(&self.link, &self.namespace, &self.purges).await?;
        self.purges.heard_everything(asked);
        Ok(())
    }

    async fn listen(&self, mut channel: PubSub) -> Result<(), RedisError> {
        self.catch_up().await?;
        self.waiting.set_followed(true);
        self.waiting.wake_all();
        let mut messages = channel.on_message();
        let mut asked = Instant::now();
        loop {
            let payload = match tokio::time::timeout_at(asked + UNASKED, messages.next()).await {
                Ok(Some(message)) => message.get_payload::<String>().unwrap_or_default(),
                Ok(None) => return Ok(()),
                Err(_) => NEWS.to_owned(),
            };
            if let Some(key) = KeyDigest::parse(&payload) {
                self.waiting.wake(&key);
            }
            // Wakes may come without a pause; the log has its time all the same.
            if payload == NEWS || asked.elapsed() >= UNASKED {
                asked = Instant::now();
                self.catch_up().await?;
            }
        }
    }

    async fn read_now_and_then(&self) -> Result<(), RedisError> {
        for _ in 0..READINGS {
            self.catch_up().await?;
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }
}
