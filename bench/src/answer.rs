//! An answer as a client sees it: what Larder sends is what the imitators have to send.

use std::path::{Path, PathBuf};

use larder_stack::stack::{built, project_root};
use reqwest::Client;

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Header fields in order.
    pub(crate) fields: Vec<(String, String)>,
    /// Content.
    pub(crate) content: Vec<u8>,
}

/// Bytes from which two steps are faster than one, and for how many a byte of the head counts: the
/// rule of `filter/src/answer.rs`.
const TWO_STEPS_FROM: usize = 4096;
const HEAD_BYTE: usize = 6;
/// What Envoy makes itself.
const MADE_BY_ENVOY: [&str; 2] = ["content-length", "transfer-encoding"];

impl Answer {
    /// Asks for `url`. Anything but 200 is an error.
    pub(crate) async fn fetch(client: &Client, url: &str) -> Result<Self, String> {
        let response = client
            .get(url)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        if response.status() != 200 {
            return Err(format!("{url} was answered with {}", response.status()));
        }
        let text = |value: &reqwest::header::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        let fields = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect();
        let content = response
            .bytes()
            .await
            .map_err(|error| error.to_string())?
            .to_vec();
        Ok(Self { fields, content })
    }

    /// The fields that whoever imitates it has to give Envoy.
    pub(crate) fn own_fields(&self) -> impl Iterator<Item = &(String, String)> {
        self.fields
            .iter()
            .filter(|(name, _)| !MADE_BY_ENVOY.contains(&name.as_str()))
    }

    /// What differs from `model`, if anything: the order of fields does not count.
    pub(crate) fn difference(&self, model: &Self) -> Option<String> {
        let sorted = |answer: &Self| {
            let mut fields = answer.fields.clone();
            fields.sort();
            fields
        };
        let (ours, theirs) = (sorted(self), sorted(model));
        if ours != theirs {
            return Some(format!(
                "it sends the fields {ours:?} instead of {theirs:?}"
            ));
        }
        (self.content != model.content).then(|| "it sends other content".to_owned())
    }

    /// Whether it goes out faster in two steps.
    fn wants_two_steps(&self) -> bool {
        let head: usize = self
            .own_fields()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.content.len() + head * HEAD_BYTE >= TWO_STEPS_FROM
    }

    /// The floor's plugin configuration.
    pub(crate) fn floor_configuration(&self) -> Result<String, String> {
        let content = std::str::from_utf8(&self.content).map_err(|_| "the content is no text")?;
        let mut text = if self.wants_two_steps() {
            "two-steps\n"
        } else {
            "at-once\n"
        }
        .to_owned();
        for (name, value) in self.own_fields() {
            text.push_str(&format!("{name}: {value}\n"));
        }
        Ok(format!("{text}\n{content}"))
    }

    /// The floor's module: only the one that needs them has more callbacks.
    pub(crate) fn floor_module(&self, reads: bool) -> Result<PathBuf, String> {
        let name = match (reads, self.wants_two_steps()) {
            (true, _) => "floor-reads",
            (false, true) => "floor-two-steps",
            (false, false) => "floor-at-once",
        };
        let path = Path::new("target/wasm32-wasip1/wasm")
            .join(name)
            .with_extension("wasm");
        let path = path.to_str().ok_or("the path of the floor is no text")?;
        Ok(built(&project_root(), path, "make bench-floor")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(size: usize) -> Answer {
        let fields = [("age", "0"), ("content-length", "5"), ("date", "x")];
        let fields = fields
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        Answer {
            fields,
            content: vec![b'a'; size],
        }
    }

    #[test]
    fn the_floor_is_told_the_answer_without_what_envoy_makes() {
        assert_eq!(
            answer(3).floor_configuration().unwrap(),
            "at-once\nage: 0\ndate: x\n\naaa"
        );
        assert!(
            answer(4096)
                .floor_configuration()
                .unwrap()
                .starts_with("two-steps\n")
        );
    }

    #[test]
    fn answers_are_the_same_whatever_the_order_of_their_fields() {
        let mut other = answer(3);
        other.fields.reverse();
        assert_eq!(other.difference(&answer(3)), None);
        assert!(answer(2).difference(&answer(3)).is_some());
        other.fields.pop();
        assert!(other.difference(&answer(3)).is_some());
    }
}
