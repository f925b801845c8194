//! Hearing what other sidecars do: keys whose waiters should look again, and purges.

use std::time::Duration;

use futures_util::StreamExt;
use larder_cache_core::store_api::KeyDigest;
use redis::RedisError;

use super::purges::{NEWS, catch_up, load_marks};
use super::{Link, wake_channel};
use crate::purging::Purges;
use crate::waiting::Waiting;

/// How long to wait before the channel is tried again, and how often the log is read without being told to: a message
/// of a channel can be lost.
const AGAIN: Duration = Duration::from_millis(200);
const UNASKED: Duration = Duration::from_secs(1);

/// Follows the wake channel for as long as the process lives; while it is broken, waiters look again on their own.
pub async fn follow(link: Link, namespace: String, waiting: Waiting, purges: Purges) {
    loop {
        if let Ok(mut pubsub) = link.pubsub().await
            && pubsub.subscribe(wake_channel(&namespace)).await.is_ok()
            && load(&link, &namespace, &purges).await.is_ok()
        {
            waiting.set_followed(true);
            waiting.wake_all();
            let mut messages = pubsub.on_message();
            loop {
                let payload = match tokio::time::timeout(UNASKED, messages.next()).await {
                    Ok(Some(message)) => message.get_payload::<String>().unwrap_or_default(),
                    Ok(None) => break,
                    Err(_) => NEWS.to_owned(),
                };
                if payload == NEWS {
                    if catch_up(&link, &namespace, &purges).await.is_err() {
                        break;
                    }
                } else if let Some(key) = KeyDigest::parse(&payload) {
                    waiting.wake(&key);
                }
            }
            waiting.set_followed(false);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Marks first, then the log: a purge made in between is in both.
pub(super) async fn load(link: &Link, namespace: &str, purges: &Purges) -> Result<(), RedisError> {
    load_marks(link, namespace, purges).await?;
    catch_up(link, namespace, purges).await
}
