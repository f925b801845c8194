//! What a mock origin is told, and what it has seen.

use reqwest::Client;
use serde_json::Value;

/// A mock origin at a URL, as a client of its control interface.
pub(crate) struct MockOrigin<'a> {
    pub(crate) client: &'a Client,
    pub(crate) url: String,
}

impl MockOrigin<'_> {
    /// What it saw under a path; `None` where it is down.
    pub(crate) async fn journal(&self, path: &str) -> Option<Vec<Value>> {
        let url = format!("{}/_control/journal?path={path}", self.url);
        let response = self.client.get(url).send().await.ok()?;
        Some(response.json().await.unwrap())
    }

    /// It behaves so under a path.
    pub(crate) async fn behave(&self, path: &str, json: &str) {
        let url = format!("{}/_control/behaviour?path={path}", self.url);
        let put = self.client.put(url).body(json.to_owned());
        let response = put.send().await.unwrap();
        let is_taken = response.status().is_success();
        assert!(is_taken, "{}", response.text().await.unwrap());
    }

    /// It forgets all that was asked of it.
    pub(crate) async fn behave_plainly(&self) {
        let url = format!("{}/_control/behaviour", self.url);
        self.client.delete(url).send().await.unwrap();
    }

    /// It behaves so under a path, in place of all that was asked of it before.
    pub(crate) async fn becomes(&self, path: &str, json: &str) {
        self.behave_plainly().await;
        self.behave(path, json).await;
    }
}
