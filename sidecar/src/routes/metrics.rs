//! What the sidecar counts, for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;

use super::Shared;
use crate::store::Store;

/// Prometheus text.
pub(super) async fn metrics<S: Store>(State(sidecar): Shared<S>) -> String {
    let counters = &sidecar.counters;
    let mut text = String::from("# TYPE larder_sidecar_lookups_total counter\n");
    let mut line = |name: &str, counter: &AtomicU64| {
        text.push_str(&format!("{name} {}\n", counter.load(Ordering::Relaxed)));
    };
    line(
        "larder_sidecar_lookups_total{result=\"entry\"}",
        &counters.entries,
    );
    line(
        "larder_sidecar_lookups_total{result=\"lease\"}",
        &counters.leases,
    );
    line(
        "larder_sidecar_lookups_total{result=\"held\"}",
        &counters.held,
    );
    line(
        "larder_sidecar_lookups_total{result=\"nothing\"}",
        &counters.nothing,
    );
    line(
        "larder_sidecar_writes_total{result=\"stored\"}",
        &counters.stored,
    );
    line(
        "larder_sidecar_writes_total{result=\"refused\"}",
        &counters.fenced,
    );
    line(
        "larder_sidecar_invalidated_keys_total",
        &counters.invalidations,
    );
    line("larder_sidecar_purges_total", &counters.purges);
    line("larder_sidecar_store_faults_total", &counters.faults);
    line("larder_sidecar_refused_attempts_total", &counters.refused);
    line(
        "larder_sidecar_questions_total{way=\"stream\"}",
        &counters.by_stream,
    );
    line(
        "larder_sidecar_questions_total{way=\"http\"}",
        &counters.by_http,
    );
    line("larder_sidecar_streams", &counters.streams);
    text.push_str("# TYPE larder_sidecar_crowded_total counter\n");
    for (table, times) in sidecar.store.crowded() {
        text.push_str(&format!(
            "larder_sidecar_crowded_total{{table=\"{table}\"}} {times}\n"
        ));
    }
    text.push_str(&format!(
        "larder_sidecar_waiting_lookups {}\n",
        sidecar.waiting.len()
    ));
    text
}
