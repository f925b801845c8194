//! The load: one turn of `wrk`, and what it says.

use std::path::PathBuf;

use larder_stack::stack::project_root;
use tokio::process::Command;

use crate::machine::LOAD_CORE;

const CONNECTIONS: u32 = 32;
/// A later answer is an error. nginx lets a request wait for another for up to five seconds.
const PATIENCE: &str = "--timeout=10s";

/// Which URLs are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urls {
    /// So many in turn.
    InTurn(usize),
    /// Never the same twice.
    Fresh,
}

/// What came of a turn.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Requests answered.
    pub(crate) requests: f64,
    /// Requests answered per second.
    pub(crate) rate: f64,
    /// Bytes read, heads included.
    pub(crate) bytes: f64,
}

/// Asks for `url` with an `id` for so many seconds.
pub(crate) async fn turn(
    url: &str,
    urls: Urls,
    head: &[(&str, &str)],
    seconds: u64,
) -> Result<Outcome, String> {
    let script: PathBuf = project_root().join("bench/load/urls.lua");
    let mut wrk = Command::new("taskset");
    wrk.args([
        "-c",
        &LOAD_CORE.to_string(),
        "wrk",
        "-t1",
        &format!("-c{CONNECTIONS}"),
        &format!("-d{seconds}s"),
    ]);
    wrk.arg(PATIENCE);
    for (name, value) in head {
        wrk.arg("-H").arg(format!("{name}: {value}"));
    }
    match urls {
        Urls::InTurn(1) => wrk.arg(format!("{url}?id=1")),
        Urls::InTurn(count) => wrk
            .arg("-s")
            .arg(script)
            .args([url, "--", &count.to_string(), ""]),
        Urls::Fresh => wrk.arg("-s").arg(script).args([url, "--", "0", &seed()]),
    };
    let said = wrk
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("wrk: {error}"))?;
    read(&String::from_utf8_lossy(
        &[said.stdout, said.stderr].concat(),
    ))
}

/// Text that no other turn has.
pub(crate) fn seed() -> String {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{:x}-", since.as_nanos())
}

/// What `wrk` says. An answer that is no success and a broken connection are errors.
fn read(text: &str) -> Result<Outcome, String> {
    if let Some(problem) = text
        .lines()
        .find(|line| line.contains("Non-2xx") || line.contains("Socket errors"))
    {
        return Err(format!("wrk: {}", problem.trim()));
    }
    let outcome = || {
        let rate = text.lines().find_map(|line| {
            line.trim()
                .strip_prefix("Requests/sec:")?
                .trim()
                .parse()
                .ok()
        })?;
        let (requests, rest) = text
            .lines()
            .find_map(|line| line.trim().split_once(" requests in "))?;
        let bytes = amount(rest.split_once(", ")?.1.strip_suffix(" read")?)?;
        Some(Outcome {
            requests: requests.parse().ok().filter(|requests| *requests > 0.0)?,
            rate,
            bytes,
        })
    };
    outcome().ok_or_else(|| format!("wrk: {}", text.trim()))
}

/// Bytes as `wrk` writes them: `1.50MB`.
fn amount(text: &str) -> Option<f64> {
    let units = [("KB", 10), ("MB", 20), ("GB", 30), ("TB", 40), ("B", 0)];
    let (number, power) = units
        .iter()
        .find_map(|(unit, power)| Some((text.strip_suffix(unit)?, *power)))?;
    #[allow(clippy::cast_precision_loss, reason = "a power of two")]
    number
        .parse::<f64>()
        .ok()
        .map(|number| number * (1_u64 << power) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 32 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   700.00us  100.00us   5.00ms   90.00%\n  \
        91644 requests in 2.00s, 111.50MB read\nRequests/sec:  45822.31\nTransfer/sec:     55.75MB\n";

    #[test]
    fn what_wrk_says_is_read() {
        let bytes = 111.5 * f64::from(1 << 20);
        assert_eq!(
            read(SAID),
            Ok(Outcome {
                requests: 91_644.0,
                rate: 45_822.31,
                bytes
            })
        );
    }

    #[test]
    fn errors_are_not_figures() {
        for problem in [
            "  Non-2xx or 3xx responses: 7\n",
            "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        ] {
            let said = SAID.replace("Requests/sec", &format!("{problem}Requests/sec"));
            assert_eq!(read(&said), Err(format!("wrk: {}", problem.trim())));
        }
        for nothing in [
            "",
            "unable to connect to 127.0.0.1:1 Connection refused",
            &SAID.replace("91644", "0"),
        ] {
            assert!(read(nothing).is_err(), "{nothing}");
        }
    }

    #[test]
    fn amounts_have_units() {
        for (text, bytes) in [
            ("12B", 12.0),
            ("1.50KB", 1536.0),
            ("2.00GB", 2_147_483_648.0),
        ] {
            assert_eq!(amount(text), Some(bytes));
        }
        assert_eq!(amount("12"), None);
    }
}
