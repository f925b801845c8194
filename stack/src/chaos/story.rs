//! A violation as the shortest story that shows it: what was ordered, what came before, what was
//! read, which faults were near.

use super::checker::{Cause, Seen, Violation};
use super::history::{Got, History, Micros, Scope, Span, Through};
use super::keys;

/// How long before the story begins a fault is told of.
const NEAR: Micros = 5_000_000;
/// Reads of the same key through the same Envoy before the one that is wrong.
const BEFORE: usize = 3;

/// One line for each event, in the order of time.
pub(crate) fn of(history: &History, violation: Violation) -> Vec<String> {
    let mut lines: Vec<(Micros, String)> = Vec::new();
    let (key, through, begin, end) = match violation.seen {
        Seen::Read(at) => {
            let read = &history.reads[at];
            (read.key, read.through, read.begin, read.end)
        }
        Seen::Put(at) => {
            let put = &history.puts[at];
            lines.push(line_of_put(history, at));
            (put.key, put.through, put.begin, put.end)
        }
    };
    let since = match violation.cause {
        Cause::Put(at) => {
            lines.push(line_of_put(history, at));
            history.puts[at].begin
        }
        Cause::Purge(at) => {
            lines.push(line_of_purge(history, at));
            history.purges[at].begin
        }
        Cause::Nothing => begin,
    };
    if let Seen::Read(at) = violation.seen {
        let same =
            |read: usize| history.reads[read].key == key && history.reads[read].through == through;
        let mut before: Vec<usize> = (0..history.reads.len())
            .filter(|read| same(*read) && history.reads[*read].end <= begin)
            .collect();
        before.sort_by_key(|read| history.reads[*read].begin);
        lines.extend(
            before
                .iter()
                .rev()
                .take(BEFORE)
                .map(|read| line_of_read(history, *read)),
        );
        lines.push(line_of_read(history, at));
    }
    let near = |span: &&Span| span.begin <= end && span.end.saturating_add(NEAR) >= since;
    lines.extend(history.spans.iter().filter(near).map(line_of_fault));
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

fn line_of_put(history: &History, at: usize) -> (Micros, String) {
    let put = &history.puts[at];
    let outcome = put.answered.as_ref().map_or_else(
        |problem| format!("failed: {problem}"),
        |()| "answered".to_owned(),
    );
    let what = format!(
        "PUT {} version {} through {}: {outcome}",
        keys::path(put.key),
        put.version,
        who(put.through)
    );
    (put.begin, timed(put.begin, put.end, &what))
}

fn line_of_purge(history: &History, at: usize) -> (Micros, String) {
    let purge = &history.purges[at];
    let scope = match purge.scope {
        Scope::Url(key) => keys::path(key),
        Scope::Tag(tag) => format!("tag t{tag}"),
        Scope::Prefix(prefix) => format!("prefix {}", keys::PREFIXES[prefix]),
        Scope::Everything => "everything".to_owned(),
    };
    let how = if purge.soft { "soft purge" } else { "purge" };
    let what = format!(
        "{how} of {scope} through sidecar {}: done",
        purge.sidecar + 1
    );
    (purge.begin, timed(purge.begin, purge.end, &what))
}

fn line_of_read(history: &History, at: usize) -> (Micros, String) {
    let read = &history.reads[at];
    let got = match &read.got {
        Got::Version(answer) => format!(
            "version {} (given at {}, confirmed at {}), {}",
            answer.version,
            seconds(answer.generated),
            seconds(answer.approved),
            answer.told
        ),
        Got::Mangled(instead) => instead.clone(),
        Got::Status(status, told) => format!("{status} {told}"),
        Got::Nothing(problem) => format!("no answer: {problem}"),
    };
    let what = format!(
        "GET {} through {}: {got}",
        keys::path(read.key),
        who(read.through)
    );
    (read.begin, timed(read.begin, read.end, &what))
}

fn line_of_fault(span: &Span) -> (Micros, String) {
    (
        span.begin,
        timed(span.begin, span.end, &format!("fault: {}", span.fault)),
    )
}

fn who(through: Through) -> String {
    match through.life {
        0 => format!("Envoy {}", through.envoy + 1),
        life => format!("Envoy {} (life {})", through.envoy + 1, life + 1),
    }
}

fn timed(begin: Micros, end: Micros, what: &str) -> String {
    let end = if end == Micros::MAX {
        "end".to_owned()
    } else {
        seconds(end)
    };
    format!("{:>9} – {end:>9}  {what}", seconds(begin))
}

/// For people: seconds with milliseconds.
pub(crate) fn seconds(time: Micros) -> String {
    format!("{}.{:03} s", time / 1_000_000, time / 1_000 % 1_000)
}
