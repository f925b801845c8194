//! Where purges lie in Redis, and how they are read back.

use super::Link;
use crate::purging::{LOG_LENGTH, Purges};
use crate::store::Fault;
use larder_cache_core::http_time::Timestamp;
use larder_cache_core::purge::{Purge, Scope};

/// On the wake channel: there is a new purge in the log. Anything else there is a key.
pub(super) const NEWS: &str = "purge";
/// A year, the longest life of an entry, and a day.
pub(super) const MARKS_LIFE_MS: u64 = 366 * 86_400_000;
/// Whoever is further behind starts anew.
pub(super) const LOG_LIFE_MS: u64 = 86_400_000;

pub(super) fn marks_key(namespace: &str) -> String {
    format!("{namespace}:{{purges}}:marks")
}

pub(super) fn log_key(namespace: &str) -> String {
    format!("{namespace}:{{purges}}:log")
}

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
        Some(Purge { scope: scope.clone(), soft, at_ms: Timestamp::from_millis(time.parse().ok()?) })
    };
    Some([purge(false, hard)?, purge(true, soft)?])
}

/// Reads all marks.
pub(super) async fn load_marks(link: &Link, namespace: &str, purges: &Purges) -> Result<(), Fault> {
    let marks: Vec<(String, String)> = link.query(redis::cmd("HGETALL").arg(marks_key(namespace))).await?;
    let read = marks.iter().filter_map(|(name, times)| purges_of(name, times)).flatten();
    for purge in read.filter(|purge| purge.at_ms > Timestamp::default()) {
        purges.mark(&purge);
    }
    Ok(())
}

type Record = (String, Vec<(String, String)>);

/// Appends what is new in the log. Where the place in it is lost, the log begins anew at its end.
pub(super) async fn catch_up(link: &Link, namespace: &str, purges: &Purges) -> Result<(), Fault> {
    let log = log_key(namespace);
    loop {
        let last = purges.cursor();
        // The last one known comes along: if it is still there, nothing between was lost.
        let from = if last.is_empty() { "-" } else { last.as_str() };
        let mut xrange = redis::cmd("XRANGE");
        xrange.arg(&log).arg(from).arg("+").arg("COUNT").arg(LOG_LENGTH);
        let records: Vec<Record> = link.query(&xrange).await?;
        let known = last == EMPTY || records.first().is_some_and(|(id, _)| *id == last);
        if !known {
            let mut xrevrange = redis::cmd("XREVRANGE");
            xrevrange.arg(&log).arg("+").arg("-").arg("COUNT").arg(1);
            let newest: Vec<Record> = link.query(&xrevrange).await?;
            purges.begin_at(newest.first().map_or_else(|| EMPTY.to_owned(), |(id, _)| id.clone()));
            return Ok(());
        }
        let fresh: Vec<&Record> = records.iter().filter(|(id, _)| *id != last).collect();
        let all = fresh.len() < LOG_LENGTH - 1;
        for (id, fields) in fresh {
            if let Some(purge) = fields.iter().find_map(|(_, json)| serde_json::from_str::<Purge>(json).ok()) {
                purges.push(id.clone(), purge);
            }
        }
        if all {
            return Ok(());
        }
    }
}

/// The cursor of an empty log.
pub(super) const EMPTY: &str = "0-0";
