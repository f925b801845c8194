//! Where purges lie in Redis, and how they are read back.

use std::time::Duration;

use larder_contract::http_time::Timestamp;
use larder_contract::purge::{Purge, Scope};
use redis::{Script, Value};

use super::link::Link;
use super::names::{envoys_key, log_key, marks_key, unused_key, wake_channel};
use crate::purging::{LOG_LENGTH, MAX_MARKS, Purges};
use crate::sessions::{AGAIN, LAPSE, MISSED_FOR, News};
use crate::store::Fault;

/// On the wake channel: there is a new purge in the log. Anything else there is a key.
pub(super) const NEWS: &str = "purge";
const LOST_PURGES: &str = "Redis has lost purges that it had taken";
const NO_LOG: &str = "no log of purges was found";
/// A year, the longest life of an entry, and a day.
pub(super) const MARKS_LIFE_MS: u64 = 366 * 86_400_000;
/// Whoever is further behind starts anew.
pub(super) const LOG_LIFE_MS: u64 = 86_400_000;

/// Tells which Envoys follow here, and hears what time it is there. While one is missing, what it
/// would tell is not known: what is stored is distrusted, again and again.
pub async fn watch_envoys(link: &Link, namespace: &str, purges: &Purges) -> Result<(), Fault> {
    let script = Script::new(include_str!("../envoys.lua"));
    let mut invocation = script.prepare_invoke();
    invocation
        .key(envoys_key(namespace))
        .key(unused_key(namespace))
        .arg(LAPSE.as_millis() as u64);
    invocation
        .arg(AGAIN.as_millis() as u64)
        .arg(MISSED_FOR.as_millis() as u64);
    for news in purges.sessions().news() {
        match news {
            News::Follows(envoy, ago) => invocation.arg(envoy).arg(1).arg(ago.as_millis() as u64),
            News::Left(envoy) => invocation.arg(envoy).arg("-").arg(0),
        };
    }
    let (lost, now, longest): (u64, u64, u64) = read(link.run(&invocation).await?)?;
    purges
        .sessions()
        .one_is_missing_for(Duration::from_millis(longest));
    purges.clock().hear_store(Timestamp::from_millis(now));
    if lost > 0 {
        distrust(link, namespace, purges, "an Envoy is missing").await?;
    }
    Ok(())
}

/// The field that says since when the marks are whole. Without it some may be missing.
const SINCE: &str = "@since";

/// The mark's field; a purge of a key leaves none.
pub(super) fn mark_name(scope: &Scope) -> Option<String> {
    match scope {
        Scope::Key(_) => None,
        Scope::Tag(tag) => Some(format!("t{tag}")),
        Scope::Prefix(prefix) => Some(format!("p{prefix}")),
        Scope::Everything => Some("*".to_owned()),
    }
}

fn purges_of(name: &str, times: &str) -> Option<[Purge; 2]> {
    let scope = match name.split_at_checked(1)? {
        ("*", "") => Scope::Everything,
        ("t", tag) => Scope::Tag(tag.to_owned()),
        ("p", prefix) => Scope::Prefix(prefix.to_owned()),
        _ => return None,
    };
    let (hard, soft) = times.split_once(':')?;
    let purge = |soft, time: &str| {
        Some(Purge {
            scope: scope.clone(),
            soft,
            at_ms: Timestamp::from_millis(time.parse().ok()?),
        })
    };
    Some([purge(false, hard)?, purge(true, soft)?])
}

/// Remembers a purge, and tells every sidecar. Gives its place in the log.
pub(super) async fn announce(link: &Link, namespace: &str, purge: &Purge) -> Result<String, Fault> {
    let json = serde_json::to_string(purge).map_err(|error| Fault(error.to_string()))?;
    let script = Script::new(include_str!("../announce.lua"));
    let mut invocation = script.prepare_invoke();
    invocation
        .key(marks_key(namespace))
        .key(log_key(namespace))
        .key(unused_key(namespace))
        .arg(mark_name(&purge.scope).unwrap_or_default())
        .arg(u8::from(purge.soft))
        .arg(purge.at_ms.as_millis())
        .arg(json)
        .arg(MAX_MARKS)
        .arg(LOG_LENGTH)
        .arg(MARKS_LIFE_MS)
        .arg(LOG_LIFE_MS)
        .arg(wake_channel(namespace))
        .arg(NEWS);
    read(link.run(&invocation).await?)
}

fn read<T: redis::FromRedisValue>(value: Value) -> Result<T, Fault> {
    redis::from_redis_value(value)
        .map_err(|_| Fault("Redis answered something else than was asked for".to_owned()))
}

/// Reads all marks. Where they are gone, or were never there, nothing is known of what was purged:
/// then everything requested until now is purged.
pub(super) async fn load_marks(link: &Link, namespace: &str, purges: &Purges) -> Result<(), Fault> {
    if merge_marks(link, namespace, &[everything(purges)], purges).await? {
        tracing::info!("no marks of purges were found; what was stored before now is not used");
    }
    Ok(())
}

/// Puts the marks back that this process remembers, should they be gone: marks are keys like any
/// other, and Redis may evict them. Also keeps them and the log from ending by themselves.
pub(super) async fn keep_marks(link: &Link, namespace: &str, purges: &Purges) -> Result<(), Fault> {
    let (marks, log) = (marks_key(namespace), log_key(namespace));
    if link
        .query::<bool>(redis::cmd("HEXISTS").arg(&marks).arg(SINCE))
        .await?
    {
        link.query::<i64>(redis::cmd("PEXPIRE").arg(&marks).arg(MARKS_LIFE_MS))
            .await?;
        return link
            .query::<i64>(redis::cmd("PEXPIRE").arg(&log).arg(LOG_LIFE_MS))
            .await
            .map(drop);
    }
    tracing::warn!("the marks of purges were evicted or lost; they are put back");
    merge_marks(link, namespace, &purges.all_marks(), purges)
        .await
        .map(drop)
}

/// A purge of everything requested until now.
fn everything(purges: &Purges) -> Purge {
    Purge {
        scope: Scope::Everything,
        soft: false,
        at_ms: purges.clock().now(),
    }
}

/// Adds `own` marks where Redis has lost them, and reads all that are there then. Says whether it
/// had.
async fn merge_marks(
    link: &Link,
    namespace: &str,
    own: &[Purge],
    purges: &Purges,
) -> Result<bool, Fault> {
    let script = Script::new(include_str!("../marks.lua"));
    let mut invocation = script.prepare_invoke();
    invocation
        .key(marks_key(namespace))
        .key(log_key(namespace))
        .key(unused_key(namespace));
    invocation
        .arg(purges.clock().now().as_millis())
        .arg(MARKS_LIFE_MS)
        .arg(LOG_LIFE_MS);
    for purge in own {
        let (hard, soft) = if purge.soft {
            (0, purge.at_ms.as_millis())
        } else {
            (purge.at_ms.as_millis(), 0)
        };
        invocation
            .arg(mark_name(&purge.scope).unwrap_or_default())
            .arg(hard)
            .arg(soft);
    }
    let reply = link.run(&invocation).await?;
    let (lost, marks): (bool, Vec<(String, String)>) = read_marks(reply)?;
    for (name, times) in marks.iter().filter(|(name, _)| name != SINCE) {
        let Some(read) = purges_of(name, times) else {
            tracing::warn!(
                "a mark of a purge in Redis is not understood; what was stored before now is not used"
            );
            purges.mark(&everything(purges));
            continue;
        };
        for purge in read
            .into_iter()
            .filter(|purge| purge.at_ms > Timestamp::default())
        {
            purges.mark(&purge);
        }
    }
    Ok(lost)
}

/// The script's answer: whether there were no marks, and the marks.
fn read_marks(reply: Value) -> Result<(bool, Vec<(String, String)>), Fault> {
    let Value::Array(mut items) = reply else {
        return read(reply);
    };
    let marks = items.split_off(1.min(items.len()));
    let lost: Vec<bool> = read(Value::Array(items))?;
    Ok((lost.contains(&true), read(Value::Array(marks))?))
}

type Record = (String, Vec<(String, String)>);

/// Appends what is new in the log. Where the place in it is lost, the log begins anew at its end;
/// and where Redis has lost what it had told before (a failover, an old snapshot), what was stored
/// before now is purged, for a purge may be lost too.
pub(super) async fn catch_up(link: &Link, namespace: &str, purges: &Purges) -> Result<(), Fault> {
    let log = log_key(namespace);
    let here = purges.cursor();
    let mut missing = purges.expected_ahead(|own| is_later(own, &here));
    loop {
        let last = purges.cursor();
        // The last one known comes along: if it is still there, nothing between was lost.
        let from = if last.is_empty() { "-" } else { last.as_str() };
        let mut xrange = redis::cmd("XRANGE");
        xrange
            .arg(&log)
            .arg(from)
            .arg("+")
            .arg("COUNT")
            .arg(LOG_LENGTH);
        let records: Vec<Record> = link.query(&xrange).await?;
        let known = records.first().is_some_and(|(id, _)| *id == last);
        if !known {
            return begin_anew(link, namespace, purges, &last).await;
        }
        let fresh: Vec<&Record> = records.iter().filter(|(id, _)| *id != last).collect();
        let all = fresh.len() < LOG_LENGTH - 1;
        for (id, fields) in fresh {
            missing.remove(id);
            match fields
                .iter()
                .find_map(|(_, json)| serde_json::from_str::<Purge>(json).ok())
            {
                Some(purge) => purges.push(id.clone(), purge),
                None => {
                    tracing::warn!(
                        "a purge in Redis is not understood; those who follow here start anew"
                    );
                    load_marks(link, namespace, purges).await?;
                    purges.begin_at(id.clone());
                }
            }
        }
        if all {
            // What is the last here may be later than a purge of our own that is not among what was
            // read.
            return if missing.is_empty() {
                Ok(())
            } else {
                distrust(link, namespace, purges, LOST_PURGES)
                    .await
                    .map(drop)
            };
        }
    }
}

/// Whatever was stored before now may have been purged without anybody's knowing. Gives the place
/// of that purge in the log.
async fn distrust(
    link: &Link,
    namespace: &str,
    purges: &Purges,
    why: &str,
) -> Result<String, Fault> {
    tracing::warn!("{why}; what was stored before now is not used");
    let everything = everything(purges);
    purges.mark(&everything);
    let id = announce(link, namespace, &everything).await?;
    purges.expect(id.clone());
    Ok(id)
}

/// Begins at the log's end, and finds out what the lost place means. An empty log is no place to
/// begin at: one that is lost and begun anew looks the same. So it gets a purge, of everything.
async fn begin_anew(
    link: &Link,
    namespace: &str,
    purges: &Purges,
    last: &str,
) -> Result<(), Fault> {
    let log = log_key(namespace);
    let end = |command: &str, (from, to)| {
        let mut range = redis::cmd(command);
        range.arg(&log).arg(from).arg(to).arg("COUNT").arg(1);
        range
    };
    let oldest: Vec<Record> = link.query(&end("XRANGE", ("-", "+"))).await?;
    let newest: Vec<Record> = link.query(&end("XREVRANGE", ("+", "-"))).await?;
    let length: usize = link.query(redis::cmd("XLEN").arg(&log)).await?;
    let begins_later = oldest.first().is_some_and(|(id, _)| is_later(id, last));
    // A full log drops its oldest: then the marks say all that was dropped.
    let dropped = begins_later && length >= LOG_LENGTH;
    let place = match newest.into_iter().next() {
        Some((id, _)) if last.is_empty() => id,
        Some((id, _)) if dropped => {
            load_marks(link, namespace, purges).await?;
            id
        }
        _ => {
            distrust(
                link,
                namespace,
                purges,
                if last.is_empty() { NO_LOG } else { LOST_PURGES },
            )
            .await?
        }
    };
    purges.begin_at(place);
    Ok(())
}

/// Whether a record's id (`milliseconds-number`) comes after another's.
fn is_later(id: &str, than: &str) -> bool {
    let parts = |id: &str| {
        let (millis, number) = id.split_once('-')?;
        Some((millis.parse::<u64>().ok()?, number.parse::<u64>().ok()?))
    };
    parts(id) > parts(than)
}

#[cfg(test)]
mod tests;
