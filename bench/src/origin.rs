//! The mock origin that all contestants share, and its control interface.

use std::path::Path;

use larder_stack::launch;
use larder_stack::process::Process;
use reqwest::Client;
use serde_json::Value;

use crate::machine::{LOAD_CORE, pin};

/// A running origin. Dropping it ends it.
pub(crate) struct Origin {
    /// `host:port`.
    pub(crate) address: String,
    client: Client,
    _process: Process,
}

/// How requests arrived.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Arrivals {
    /// Requests that the journal still holds.
    pub(crate) seen: usize,
    /// Of these, the ones with `If-None-Match`.
    pub(crate) conditional: usize,
}

impl Origin {
    /// Starts it on the load's core.
    pub(crate) async fn start(folder: &Path) -> Result<Self, String> {
        let (process, address) = launch::origin("origin", folder, launch::ANYWHERE).await?;
        pin(process.id(), LOAD_CORE)?;
        Ok(Self {
            address,
            client: Client::new(),
            _process: process,
        })
    }

    fn control(&self, path: &str) -> String {
        format!("http://{}/_control/{path}", self.address)
    }

    /// From now on `path` is answered so; see the origin's README for the members.
    pub(crate) async fn behave(&self, path: &str, behaviour: &Value) -> Result<(), String> {
        let url = self.control("behaviour");
        self.client
            .delete(&url)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let answer = self
            .client
            .put(format!("{url}?path={path}"))
            .body(behaviour.to_string())
            .send()
            .await;
        answer
            .and_then(reqwest::Response::error_for_status)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// Empties the journal.
    pub(crate) async fn forget(&self) -> Result<(), String> {
        self.client
            .delete(self.control("journal"))
            .send()
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// Requests since the journal was emptied.
    pub(crate) async fn requests(&self) -> Result<u64, String> {
        let stats = self.json("stats").await?;
        stats["total"]
            .as_u64()
            .ok_or_else(|| format!("the origin said {stats}"))
    }

    /// The last requests, by their kind.
    pub(crate) async fn arrivals(&self) -> Result<Arrivals, String> {
        Ok(arrivals_in(&self.json("journal").await?))
    }

    /// Requests by path, without queries.
    pub(crate) async fn by_path(&self) -> Result<Vec<(String, u64)>, String> {
        let stats = self.json("stats").await?;
        let counts = stats["by_path"]
            .as_object()
            .ok_or_else(|| format!("the origin said {stats}"))?;
        Ok(counts
            .iter()
            .map(|(path, count)| (path.clone(), count.as_u64().unwrap_or(0)))
            .collect())
    }

    async fn json(&self, path: &str) -> Result<Value, String> {
        let answer = self
            .client
            .get(self.control(path))
            .send()
            .await
            .map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    }
}

fn arrivals_in(journal: &Value) -> Arrivals {
    let requests = journal.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_conditional = |request: &&Value| {
        let headers = request["headers"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        headers.iter().any(|header| header[0] == "if-none-match")
    };
    Arrivals {
        seen: requests.len(),
        conditional: requests.iter().filter(is_conditional).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditional_requests_are_told_from_others() {
        let request = |name: &str| json!({ "headers": [["host", "a"], [name, "\"1\""]] });
        let journal = json!([
            request("if-none-match"),
            request("accept"),
            request("if-none-match")
        ]);
        assert_eq!(
            arrivals_in(&journal),
            Arrivals {
                seen: 3,
                conditional: 2
            }
        );
        assert_eq!(arrivals_in(&json!({})), Arrivals::default());
    }
}
