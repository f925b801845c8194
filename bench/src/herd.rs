//! The herd: many clients at once ask for what nobody has.

use std::time::{Duration, Instant};

use reqwest::Client;

use crate::answer::Answer;
use crate::contestant::Kind;
use crate::figures::percentile;
use crate::load::seed;
use crate::origin::Origin;
use crate::rounds::{Measured, Plan};
use crate::scenario::Scenario;
use crate::server::Server;

/// Clients that ask at once.
pub(crate) const CLIENTS: usize = 64;
/// URLs asked for, one after the other.
pub(crate) const ROUNDS: usize = 20;
/// What the origin takes.
pub(crate) const ORIGIN: Duration = Duration::from_millis(100);

/// One contestant's figures.
pub(crate) struct Herd {
    pub(crate) kind: Kind,
    /// Requests at the origin for each URL, on average.
    pub(crate) fetches: f64,
    /// What clients wait beyond the origin's time: the middle one, and the one at the 99th of a
    /// hundred.
    pub(crate) waits: (Duration, Duration),
}

/// Every cache has its turn.
pub(crate) async fn measure(
    plan: &Plan,
    origin: &Origin,
    measured: &mut Measured,
) -> Result<Vec<Herd>, String> {
    let mut herds = Vec::new();
    for kind in Scenario::Herd.contestants(0) {
        if !plan.servers.is_empty() && !plan.servers.contains(&kind) {
            continue;
        }
        match turn(kind, origin).await {
            Ok(herd) => herds.push(herd),
            Err(problem) => measured.miss_out(kind, &problem)?,
        }
    }
    Ok(herds)
}

async fn turn(kind: Kind, origin: &Origin) -> Result<Herd, String> {
    let server = Server::start(kind, &origin.address, None).await?;
    // Connections of its own, so that the next contestant's herd does not find them taken.
    let client = Client::builder()
        .pool_max_idle_per_host(CLIENTS)
        .build()
        .map_err(|error| error.to_string())?;
    let mut waits = Vec::new();
    let herd = format!("herd-{}", seed());
    origin.forget().await?;
    // The first round makes the connections and is not counted.
    for round in 0..=ROUNDS {
        let query = format!(
            "mock-delay-ms={}&mock-cache-control=max-age%3D3600",
            ORIGIN.as_millis()
        );
        let url = format!("{}/anything/{herd}{round}?{query}", server.url);
        let requests = (0..CLIENTS).map(|_| async {
            let begun = Instant::now();
            Answer::fetch(&client, &url)
                .await
                .map(|_| begun.elapsed().saturating_sub(ORIGIN))
        });
        for waited in futures_util::future::join_all(requests).await {
            let waited = waited?;
            if round > 0 {
                waits.push(waited);
            }
        }
    }
    let first = format!("/anything/{herd}0");
    let counts = origin.by_path().await?;
    let fetches: u64 = counts
        .iter()
        .filter(|(path, _)| path.contains(&herd) && *path != first)
        .map(|(_, n)| n)
        .sum();
    #[allow(clippy::cast_precision_loss, reason = "counts of requests")]
    let fetches = fetches as f64 / ROUNDS as f64;
    if fetches < 1.0 {
        return Err("the origin was not asked for each URL".to_owned());
    }
    Ok(Herd {
        kind,
        fetches,
        waits: (percentile(&mut waits, 0.5), percentile(&mut waits, 0.99)),
    })
}
