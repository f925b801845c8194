//! Interleaved rounds: in each, every contestant has its turn, and every turn is checked.

use std::time::Duration;

use futures_util::StreamExt;
use larder_stack::eventually;
use reqwest::Client;

use crate::answer::Answer;
use crate::contestant::Kind;
use crate::load::{self, Urls};
use crate::origin::Origin;
use crate::scenario::{Happened, Scenario};
use crate::server::Server;

/// Seconds for which a server of hits is under load before its first turn: a module's code is
/// compiled for the second time, and better, once it has been in use.
pub(crate) const WARM_UP: u64 = 1;

/// `wrk` rounds what it has read to three digits or more.
const ROUNDED: f64 = 0.99;

/// What is asked for.
pub(crate) struct Plan {
    /// Seconds of each turn.
    pub(crate) seconds: u64,
    /// Turns of each contestant.
    pub(crate) rounds: usize,
    /// URLs in turn.
    pub(crate) keys: usize,
    /// Header fields beside those that the origin sends anyhow.
    pub(crate) fields: usize,
    /// Only these contestants; all where empty.
    pub(crate) servers: Vec<Kind>,
}

/// One contestant's figures for one size, a value for each round.
#[derive(Debug)]
pub(crate) struct Row {
    /// Bytes of content.
    pub(crate) size: usize,
    /// Whose.
    pub(crate) kind: Kind,
    /// Requests per second.
    pub(crate) rates: Vec<f64>,
    /// Microseconds of processor time per request.
    pub(crate) cpu: Vec<f64>,
    /// The sidecar's, where there is one.
    pub(crate) sidecar_cpu: Vec<f64>,
    /// What it did instead of the plain thing.
    pub(crate) remark: Option<String>,
}

impl Row {
    /// Adds what a turn was like to what earlier ones were like.
    fn note(&mut self, remark: Option<String>) {
        let Some(remark) = remark else { return };
        match &mut self.remark {
            Some(all) if all.split("; ").any(|one| one == remark) => {}
            Some(all) => all.push_str(&format!("; {remark}")),
            none => *none = Some(remark),
        }
    }
}

/// The figures, and who has none and why.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    pub(crate) absent: Vec<String>,
}

impl Measured {
    /// Notes who has no figure. For one of ours that is an error.
    pub(crate) fn miss_out(&mut self, kind: Kind, problem: &str) -> Result<(), String> {
        let line = format!("{}: {problem}", kind.plain_name());
        if kind.is_larder() {
            return Err(line);
        }
        if !self.absent.contains(&line) {
            self.absent.push(line);
        }
        Ok(())
    }
}

/// One scenario with one size of contents.
pub(crate) struct Arena<'a> {
    pub(crate) scenario: Scenario,
    pub(crate) size: usize,
    pub(crate) plan: &'a Plan,
    pub(crate) origin: &'a Origin,
    pub(crate) client: &'a Client,
}

impl Arena<'_> {
    /// Who takes part.
    pub(crate) fn contestants(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| self.plan.servers.is_empty() || self.plan.servers.contains(kind);
        self.scenario
            .contestants(self.size)
            .into_iter()
            .filter(wanted)
            .collect()
    }

    /// Starts, warms up, and has all rounds.
    pub(crate) async fn measure(
        &self,
        measured: &mut Measured,
        progress: impl Fn(&str),
    ) -> Result<(), String> {
        let behaviour = self.scenario.behaviour(self.size, self.plan.fields);
        self.origin.behave(self.scenario.path(), &behaviour).await?;
        let mut racing = self.start(measured).await?;
        for round in 1..=self.plan.rounds {
            progress(&format!("round {round} of {}", self.plan.rounds));
            let mut still = Vec::new();
            for (mut server, mut row) in racing {
                let turn = self.turn(&mut server, &mut row).await;
                match turn {
                    Ok(()) => still.push((server, row)),
                    Err(problem) => measured.miss_out(row.kind, &problem)?,
                }
            }
            racing = still;
        }
        measured.rows.extend(racing.into_iter().map(|(_, row)| row));
        Ok(())
    }

    async fn start(&self, measured: &mut Measured) -> Result<Vec<(Server, Row)>, String> {
        let (mut racing, mut model) = (Vec::new(), None);
        for kind in self.contestants() {
            let size = self.size;
            let row = Row {
                size,
                kind,
                rates: Vec::new(),
                cpu: Vec::new(),
                sidecar_cpu: Vec::new(),
                remark: None,
            };
            match self.start_one(kind, &mut model).await {
                Ok(server) => racing.push((server, row)),
                Err(problem) => measured.miss_out(kind, &problem)?,
            }
        }
        Ok(racing)
    }

    /// Starts a contestant and lets it fetch what it is to have. Larder's first answer to a stored
    /// thing is the model.
    async fn start_one(&self, kind: Kind, model: &mut Option<Answer>) -> Result<Server, String> {
        if kind.imitates() && model.is_none() {
            return Err("needs Larder to take part, whose answers it imitates".to_owned());
        }
        let server = Server::start(kind, &self.origin.address, model.as_ref()).await?;
        if let (Urls::InTurn(count), false) = (self.scenario.urls(self.plan.keys), kind.imitates())
        {
            self.fetch_all(&server, count).await?;
        }
        if self.scenario == Scenario::Hit {
            load::turn(
                &self.target(&server),
                self.scenario.urls(self.plan.keys),
                self.scenario.request_head(),
                WARM_UP,
            )
            .await?;
        }
        let answer = Answer::fetch(self.client, &self.url(&server, "1")).await?;
        match model {
            Some(model) if kind.imitates() => {
                answer.difference(model).map_or(Ok(server), |difference| {
                    Err(format!("not comparable: {difference}"))
                })
            }
            _ => {
                if kind == Kind::Larder {
                    *model = Some(answer);
                }
                Ok(server)
            }
        }
    }

    fn target(&self, server: &Server) -> String {
        format!("{}{}", server.url, self.scenario.path())
    }

    fn url(&self, server: &Server, id: &str) -> String {
        format!("{}?id={id}", self.target(server))
    }

    /// Every URL twice, so that it is stored, and counted as wanted.
    async fn fetch_all(&self, server: &Server, count: usize) -> Result<(), String> {
        for _ in 0..2 {
            let fetches = (1..=count).map(|id| {
                let url = self.url(server, &id.to_string());
                async move { Answer::fetch(self.client, &url).await.map(drop) }
            });
            let mut fetches = futures_util::stream::iter(fetches).buffer_unordered(16);
            while let Some(fetched) = fetches.next().await {
                fetched?;
            }
        }
        Ok(())
    }

    /// One turn. The error says why it is none.
    async fn turn(&self, server: &mut Server, row: &mut Row) -> Result<(), String> {
        let urls = self.scenario.urls(self.plan.keys);
        self.origin.forget().await?;
        let level_2 = self.scenario == Scenario::Level2 && server.has_sidecar();
        let found_before = if level_2 {
            server.level_2_hits(self.client).await?
        } else {
            0.0
        };
        let (cpu, sidecar_cpu) = server.cpu();
        let outcome = load::turn(
            &self.target(server),
            urls,
            self.scenario.request_head(),
            self.plan.seconds,
        )
        .await?;
        let (cpu_after, sidecar_after) = server.cpu();
        let found = if level_2 {
            server.level_2_hits(self.client).await?
        } else {
            0.0
        };
        #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
        let (fetched, size) = (self.origin.requests().await? as f64, self.size as f64);
        if outcome.bytes < outcome.requests * size * ROUNDED {
            return Err(format!(
                "{} answers had only {} bytes",
                outcome.requests, outcome.bytes
            ));
        }
        let conditional = if self.scenario == Scenario::Revalidation {
            self.conditional().await?
        } else {
            0.0
        };
        let happened = Happened {
            asked: outcome.requests,
            fetched,
            conditional,
            from_level_2: found - found_before,
        };
        row.note(self.scenario.judge(row.kind, &happened)?);
        self.probe(server).await?;
        row.rates.push(outcome.rate);
        row.cpu.push((cpu_after - cpu) / outcome.requests);
        if server.has_sidecar() {
            row.sidecar_cpu
                .push((sidecar_after - sidecar_cpu) / outcome.requests);
        }
        if self.scenario.is_miss() && row.kind.grows() {
            *server = Server::start(row.kind, &self.origin.address, None).await?;
        }
        Ok(())
    }

    /// The share of the last requests at the origin that were conditional.
    #[allow(clippy::cast_precision_loss, reason = "counts of requests")]
    async fn conditional(&self) -> Result<f64, String> {
        let arrivals = self.origin.arrivals().await?;
        Ok(arrivals.conditional as f64 / (arrivals.seen.max(1)) as f64)
    }

    /// One answer looked at closely; and what was missed just now has to be there the next time.
    async fn probe(&self, server: &Server) -> Result<(), String> {
        let id = if self.scenario.is_miss() {
            load::seed()
        } else {
            "1".to_owned()
        };
        let url = self.url(server, &id);
        let length = Answer::fetch(self.client, &url).await?.content.len();
        if length != self.size {
            return Err(format!(
                "an answer has {length} bytes instead of {}",
                self.size
            ));
        }
        if !self.scenario.is_miss() || server.kind == Kind::Proxy {
            return Ok(());
        }
        let stored = eventually(Duration::from_secs(2), || async {
            self.origin.forget().await.ok()?;
            Answer::fetch(self.client, &url).await.ok()?;
            (self.origin.requests().await == Ok(0)).then_some(())
        });
        stored
            .await
            .ok_or_else(|| "it does not store what it misses".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_each_thing_that_happened_once() {
        let (rates, cpu, sidecar_cpu) = (Vec::new(), Vec::new(), Vec::new());
        let mut row = Row {
            size: 1,
            kind: Kind::Larder,
            rates,
            cpu,
            sidecar_cpu,
            remark: None,
        };
        for remark in [None, Some("a"), Some("b"), Some("a")] {
            row.note(remark.map(str::to_owned));
        }
        assert_eq!(row.remark.as_deref(), Some("a; b"));
    }
}
