//! Hearing what other sidecars do: keys whose waiters should look again, and purges.

use std::time::Duration;

use futures_util::StreamExt;
use larder_cache_core::store_api::KeyDigest;
use redis::Value;
use tokio::time::timeout;

use super::pause::Pause;
use super::purges::{NEWS, catch_up, load_marks};
use super::{Link, wake_channel};
use crate::purging::Purges;
use crate::store::Fault;
use crate::waiting::Waiting;

/// How often the log is read without being told to: a message of a channel can be lost.
const UNASKED: Duration = Duration::from_secs(1);
/// A channel that is silent has to answer a `PING` within so long.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Follows the wake channel for as long as the process lives; while it is broken, waiters look again on their own.
pub async fn follow(link: Link, namespace: String, waiting: Waiting, purges: Purges) {
    let mut pause = Pause::default();
    loop {
        let begun = tokio::time::Instant::now();
        match hear(&link, &namespace, &waiting, &purges).await {
            Ok(()) => {}
            Err(fault) => tracing::debug!(%fault, "the wake channel is not heard"),
        }
        waiting.set_followed(false);
        tokio::time::sleep(pause.next(Some(begun.elapsed()))).await;
    }
}

/// Listens until the channel breaks or commands go to another server.
async fn hear(link: &Link, namespace: &str, waiting: &Waiting, purges: &Purges) -> Result<(), Fault> {
    let mut pubsub = link.pubsub().await?;
    let subscribed = timeout(SIGN_OF_LIFE, pubsub.subscribe(wake_channel(namespace))).await;
    subscribed.map_err(|_| silent())?.map_err(|error| Fault(error.to_string()))?;
    load(link, namespace, purges).await?;
    let number = link.number();
    waiting.set_followed(true);
    waiting.wake_all();
    let (mut sink, mut messages) = pubsub.split();
    while link.number() == number {
        let payload = match timeout(UNASKED, messages.next()).await {
            Ok(Some(message)) => message.get_payload::<String>().unwrap_or_default(),
            Ok(None) => return Ok(()),
            Err(_) => {
                let answer = timeout(SIGN_OF_LIFE, sink.ping::<Value>()).await;
                answer.map_err(|_| silent())?.map_err(|error| Fault(error.to_string()))?;
                NEWS.to_owned()
            }
        };
        if payload == NEWS {
            catch_up(link, namespace, purges).await?;
        } else if let Some(key) = KeyDigest::parse(&payload) {
            waiting.wake(&key);
        }
    }
    Ok(())
}

fn silent() -> Fault {
    Fault("the wake channel does not answer".to_owned())
}

/// Marks first, then the log: a purge made in between is in both.
pub(super) async fn load(link: &Link, namespace: &str, purges: &Purges) -> Result<(), Fault> {
    load_marks(link, namespace, purges).await?;
    catch_up(link, namespace, purges).await
}
