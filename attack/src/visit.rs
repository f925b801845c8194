//! One check's view of the target: a path of its own, an input, and a transcript of all that was
//! said.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use larder_stack::eventually;
use serde_json::Value;

use crate::h2;
use crate::rogue::Rogue;
use crate::scenario::{Scenario, Verdict, ensure};
use crate::target::{PATIENCE, Target};
use crate::wire::{Answer, Connection, Request, shortened};

/// How long something may take to become true.
const SOON: Duration = Duration::from_secs(5);

/// Cheap to clone, so that parts of a check can go on at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) target: Arc<Target>,
    pub(crate) input: &'static str,
    /// `/anything/…`, for this check alone.
    pub(crate) path: String,
    transcript: Arc<Mutex<Vec<String>>>,
}

impl Visit {
    pub(crate) fn new(target: Arc<Target>, scenario: &Scenario, index: usize) -> Self {
        let path = format!(
            "/anything/{}-{}-{index}",
            scenario.class.name(),
            scenario.name
        );
        Self {
            target,
            input: scenario.inputs[index],
            path,
            transcript: Arc::default(),
        }
    }

    /// The two parts of an input of the form `one > other`.
    pub(crate) fn pair(&self) -> (&'static str, &'static str) {
        self.input.split_once(" > ").unwrap_or((self.input, ""))
    }

    /// The check's own path with these `mock-…` members.
    pub(crate) fn page(&self, members: &[(&str, &str)]) -> String {
        page(&self.path, members)
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn send(&self, request: Request) -> Answer {
        self.send_within(request, PATIENCE).await
    }

    /// The same with a patience of one's own.
    pub(crate) async fn send_within(&self, request: Request, patience: Duration) -> Answer {
        let answers = self
            .raw(&request.bytes(), &[request.method()], patience)
            .await;
        answers
            .into_iter()
            .next()
            .unwrap_or_else(|| unreachable!("one method, one answer"))
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(Request::get(target)).await
    }

    /// Sends bytes on one connection, and reads as many answers as there are methods.
    pub(crate) async fn raw(
        &self,
        bytes: &[u8],
        methods: &[&str],
        patience: Duration,
    ) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut connection = match Connection::open(self.target.cache(), patience).await {
            Ok(connection) => connection,
            Err(problem) => {
                self.note(format!("· no connection: {problem}"));
                return methods
                    .iter()
                    .map(|_| crate::wire::Answer::missing())
                    .collect();
            }
        };
        connection.write(bytes).await;
        let mut said = format!(
            "> {}",
            shortened(&String::from_utf8_lossy(bytes)).replace('\n', "\n> ")
        );
        for method in methods {
            let answer = connection.answer(method).await;
            said.push_str(&format!(
                "\n< {}",
                answer.shown().trim_end().replace('\n', "\n< ")
            ));
            answers.push(answer);
        }
        self.note(said);
        answers
    }

    /// HTTP/2 frames on a connection of their own.
    pub(crate) async fn frames(&self, frames: &[Vec<u8>]) -> Result<h2::Ended, String> {
        let ended = h2::exchange(self.target.cache(), frames, Duration::from_secs(3)).await?;
        self.note(format!(
            "> (HTTP/2) {}\n< whole: {}, 200: {}, {}",
            shortened(
                &String::from_utf8_lossy(&frames.concat())
                    .escape_debug()
                    .to_string()
            ),
            ended.is_whole,
            ended.is_ok,
            shortened(&String::from_utf8_lossy(&ended.content))
        ));
        Ok(ended)
    }

    /// So many of the same request at once.
    pub(crate) async fn herd(&self, request: &Request, count: usize) -> Vec<Answer> {
        join_all((0..count).map(|_| self.send(request.clone()))).await
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(
        &self,
        request: &Request,
        wanted: &str,
        is_wanted: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, String> {
        let found = eventually(SOON, || async {
            let answer = self.send(request.clone()).await;
            is_wanted(&answer).then_some(answer)
        });
        found
            .await
            .ok_or_else(|| format!("within {SOON:?} no answer was {wanted}"))
    }

    /// Asks, as everybody does, until the answer is a hit.
    pub(crate) async fn warm(&self, target: &str) -> Result<Answer, String> {
        self.until(&Request::get(target), "a hit", |answer| answer.is_hit())
            .await
    }

    /// Lets a lifetime of one second pass. Time itself is what is waited for here.
    pub(crate) async fn a_second_passes(&self) {
        self.time_passes(1600).await;
    }

    pub(crate) async fn time_passes(&self, milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        self.note(format!("· {milliseconds} ms pass"));
    }

    /// What the origin saw under the check's own path, or another.
    pub(crate) async fn journal(&self, path: &str) -> Vec<Value> {
        self.target
            .journal(path.split('?').next().unwrap_or_default())
            .await
    }

    pub(crate) async fn fetches(&self) -> usize {
        self.journal(&self.path).await.len()
    }

    /// Waits until the origin has seen so many requests, and gives them.
    pub(crate) async fn sees(&self, count: usize) -> Result<Vec<Value>, String> {
        let seen = eventually(SOON, || async {
            let journal = self.journal(&self.path).await;
            (journal.len() >= count).then_some(journal)
        });
        seen.await
            .ok_or_else(|| format!("the origin has not seen {count} requests"))
    }

    /// Has the origin behave so under the check's own path, after all it was told before.
    pub(crate) async fn behave(&self, json: &Value) -> Verdict {
        self.behave_at(&self.path, json).await
    }

    pub(crate) async fn behave_at(&self, path: &str, json: &Value) -> Verdict {
        self.note(format!("· the origin is told to behave {json} at {path}"));
        let request = Request::new("PUT", &format!("/_control/behaviour?path={path}"));
        let answer = self
            .target
            .origin(request.content(json.to_string().as_bytes()))
            .await?;
        ensure!(
            answer.status == 200,
            "the origin refused the behaviour: {}",
            answer.shown()
        );
        Ok(())
    }

    /// An operator's purge.
    pub(crate) async fn purge(&self, order: &Value) -> Verdict {
        self.note(format!("· purge {order}"));
        self.target.purge(order).await
    }

    /// The rogue origin, in its setting.
    pub(crate) fn rogue(&self) -> Result<&Rogue, String> {
        self.target
            .rogue
            .as_ref()
            .ok_or_else(|| "this setting has no rogue origin".to_owned())
    }

    pub(crate) fn note(&self, said: String) {
        self.transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(said);
    }

    /// All that was said, and the origin's journal; for a report. Of long stories the beginning and
    /// the end.
    pub(crate) async fn told(&self) -> String {
        const MOST: usize = 8;
        let said = self
            .transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut told = if said.len() <= 2 * MOST {
            said.join("\n")
        } else {
            let between = format!("… {} more …", said.len() - 2 * MOST);
            [&said[..MOST], &[between], &said[said.len() - MOST..]]
                .concat()
                .join("\n")
        };
        told.push_str("\norigin's journal:");
        let request = Request::get("/_control/journal");
        let all: Vec<Value> = match (&self.target.rogue, self.target.origin(request).await) {
            (None, Ok(answer)) => serde_json::from_slice(&answer.content).unwrap_or_default(),
            _ => Vec::new(),
        };
        let own = |request: &&Value| {
            request["target"]
                .as_str()
                .is_some_and(|target| target.contains(&self.path[9..]))
        };
        for request in all.iter().filter(own).take(12) {
            let fields = shortened(&request["headers"].to_string());
            let target = shortened(&request["target"].to_string());
            told.push_str(&format!("\n  {} {target} {fields}", request["method"]));
        }
        if let Some(rogue) = &self.target.rogue {
            rogue
                .heads(&self.path)
                .iter()
                .take(12)
                .for_each(|head| told.push_str(&format!("\n  {}", head.escape_debug())));
        }
        told
    }
}

/// A target with `mock-…` members, encoded so that nothing in them means anything to a query.
pub(crate) fn page(path: &str, members: &[(&str, &str)]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("mock-{name}={}", encoded(value)))
        .collect();
    format!("{path}?{}", members.join("&"))
}

fn encoded(value: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let one = |byte: u8| {
        if plain(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    value.bytes().map(one).collect()
}

/// A request's field as the origin's journal has it.
pub(crate) fn journal_field<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    let fields = request["headers"].as_array()?;
    fields.iter().find(|pair| pair[0] == name)?[1].as_str()
}
