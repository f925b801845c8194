//! Measurements as tables.

use crate::contestant::Kind;
use crate::figures::{median, millis, ratio, spread};
use crate::herd::{CLIENTS, Herd};
use crate::report::table;
use crate::rounds::Row;
use crate::scenario::Scenario;

/// Kilobytes where they are whole, else bytes.
pub(crate) fn size_name(size: usize) -> String {
    if size.is_multiple_of(1024) {
        format!("{} KB", size / 1024)
    } else {
        format!("{size} B")
    }
}

/// The table of a scenario that was measured in rounds.
pub(crate) fn of_rounds(scenario: Scenario, rows: &[Row]) -> String {
    if scenario == Scenario::Hit {
        of_hits(rows)
    } else {
        of_the_rest(rows)
    }
}

/// `of`'s row with the same size.
fn beside<'a>(row: &Row, rows: &'a [Row], of: Kind) -> Option<&'a Row> {
    rows.iter()
        .find(|other| other.kind == of && other.size == row.size)
}

/// By requests per second: the server's core is busy all the time.
fn of_hits(rows: &[Row]) -> String {
    let head = [
        "content",
        "server",
        "requests/s",
        "CPU µs/request",
        "× `cache_v2`",
        "× wasm floor",
        "spread, requests/s",
    ];
    let line = |row: &Row| {
        let times = |of| {
            beside(row, rows, of).map_or("–".to_owned(), |other| {
                format!("{:.2}", ratio(&row.rates, &other.rates))
            })
        };
        let (least, most) = spread(&row.rates);
        vec![
            size_name(row.size),
            row.kind.name().to_owned(),
            format!("{:.0}", median(&row.rates)),
            format!("{:.1}", median(&row.cpu)),
            times(Kind::CacheV2),
            times(Kind::Floor),
            format!("{least:.0}–{most:.0}"),
        ]
    };
    table(&head, &rows.iter().map(line).collect::<Vec<_>>())
}

/// By processor time: what limits the rate is the load's core, where the origin runs, too.
fn of_the_rest(rows: &[Row]) -> String {
    let head = [
        "content",
        "server",
        "requests/s",
        "CPU µs/request",
        "CPU × no cache",
        "spread, CPU µs",
        "what it did",
    ];
    let line = |row: &Row| {
        let idle = median(&row.sidecar_cpu) < 0.05;
        let sidecar = |text: String| {
            if idle {
                String::new()
            } else {
                format!(" ({text})")
            }
        };
        let with_sidecar: Vec<f64> = row
            .cpu
            .iter()
            .zip(&row.sidecar_cpu)
            .map(|(own, its)| own + its)
            .collect();
        let times = beside(row, rows, Kind::Proxy).map_or("–".to_owned(), |other| {
            let all = sidecar(format!("{:.2}", ratio(&with_sidecar, &other.cpu)));
            format!("{:.2}{all}", ratio(&row.cpu, &other.cpu))
        });
        let (least, most) = spread(&row.cpu);
        vec![
            size_name(row.size),
            row.kind.name().to_owned(),
            format!("{:.0}", median(&row.rates)),
            format!(
                "{:.1}{}",
                median(&row.cpu),
                sidecar(format!("{:.1}", median(&with_sidecar)))
            ),
            times,
            format!("{least:.1}–{most:.1}"),
            row.remark.clone().unwrap_or_default(),
        ]
    };
    table(&head, &rows.iter().map(line).collect::<Vec<_>>())
}

/// The table of the herds.
pub(crate) fn of_herds(herds: &[Herd]) -> String {
    let fetches = format!("origin requests per {CLIENTS} clients");
    let head = [
        "server",
        &fetches,
        "added wait p50, ms",
        "added wait p99, ms",
    ];
    let line = |herd: &Herd| {
        let (middle, late) = herd.waits;
        vec![
            herd.kind.name().to_owned(),
            format!("{:.1}", herd.fetches),
            millis(middle),
            millis(late),
        ]
    };
    table(&head, &herds.iter().map(line).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind, rates: &[f64], cpu: &[f64], sidecar: &[f64]) -> Row {
        let (rates, cpu, sidecar_cpu) = (rates.to_vec(), cpu.to_vec(), sidecar.to_vec());
        Row {
            size: 1024,
            kind,
            rates,
            cpu,
            sidecar_cpu,
            remark: None,
        }
    }

    #[test]
    fn hits_are_compared_by_rate() {
        let rows = [
            row(Kind::Larder, &[90.0, 80.0], &[2.0], &[]),
            row(Kind::CacheV2, &[100.0, 100.0], &[1.0], &[]),
        ];
        let text = of_rounds(Scenario::Hit, &rows);
        assert!(
            text.contains("| 1 KB | **Larder** | 85 | 2.0 | 0.85 | – | 80–90 |"),
            "{text}"
        );
    }

    #[test]
    fn misses_are_compared_by_processor_time_with_and_without_the_sidecar() {
        let rows = [
            row(Kind::Larder, &[9.0], &[60.0], &[20.0]),
            row(Kind::Proxy, &[10.0], &[40.0], &[]),
        ];
        let text = of_rounds(Scenario::Miss, &rows);
        assert!(
            text.contains("| 9 | 60.0 (80.0) | 1.50 (2.00) | 60.0–60.0 |"),
            "{text}"
        );
        assert!(text.contains("| 10 | 40.0 | 1.00 | 40.0–40.0 |"), "{text}");
    }
}
