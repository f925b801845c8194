//! What an answer should be like: asked for by `mock-…` query parameters, or queued ahead as JSON.
//!
//! One set of names serves both. An unknown name or an unreadable value is refused and named.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// How one answer departs from the plain one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// HTTP status code.
    pub status: Option<u16>,
    /// Milliseconds before the head is sent.
    pub delay_ms: u64,
    /// Header fields to add, in order; repeats are kept.
    pub headers: Vec<(String, String)>,
    /// So many deterministic bytes instead of the plain content. At most 64 MiB.
    pub body_size: Option<usize>,
    /// Send the content without `Content-Length`.
    pub chunked: bool,
    /// Send the content in so many pieces.
    pub pieces: Option<usize>,
    /// Milliseconds between pieces.
    pub piece_delay_ms: u64,
    /// Break the connection after half of the content.
    pub broken: bool,
    /// Heed a single `Range`, and `If-Range` against the `ETag` among `headers`.
    pub ranges: bool,
    /// Set `Vary` to these names, and echo the request's values of them in the content.
    pub vary: Option<String>,
    /// Repeat the request's values of these fields in the content, and say nothing of it in `Vary`.
    /// Names after commas.
    pub reflect: Option<String>,
    /// Response fields that repeat a field of the request, as (response field, request field).
    pub echo: Vec<(String, String)>,
    /// Answer `304` where `If-None-Match` names the `ETag` among `headers`.
    pub conditional: bool,
    /// Send no `Content-Type`.
    pub untyped: bool,
    /// Fall silent after half of the content, with the connection open.
    pub stall: bool,
    /// Send the content again and again, without an end.
    pub endless: bool,
    /// Close the connection in place of an answer.
    pub reset: bool,
}

/// A behaviour set ahead of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// What to do.
    #[serde(flatten)]
    pub behaviour: Behaviour,
    /// For how many requests; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

/// By hand: a flattened part cannot refuse unknown members, and a misspelt one would be a test that
/// tests nothing.
impl<'de> Deserialize<'de> for Queued {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::<String, Value>::deserialize(deserializer)?;
        let times = members.remove("times").unwrap_or_default();
        let times = Option::deserialize(times)
            .map_err(|error| D::Error::custom(format!("times: {error}")))?;
        let behaviour = Behaviour::deserialize(Value::Object(members)).map_err(D::Error::custom)?;
        Ok(Self { behaviour, times })
    }
}

const MAX_BODY: usize = 64 << 20;

impl Behaviour {
    /// Reads the `mock-…` parameters of a query. The error names the parameter.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let mut behaviour = Self::default();
        for (name, value) in query
            .split('&')
            .filter_map(|pair| pair.split_once('=').or(Some((pair, ""))))
        {
            let Some(name) = name.strip_prefix("mock-") else {
                continue;
            };
            let value = decode(value);
            behaviour
                .set(name, &value)
                .map_err(|problem| format!("mock-{name}: {problem}"))?;
        }
        behaviour.check()?;
        Ok(behaviour)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{value:?} is not a whole number"))
        };
        let size = || {
            value
                .parse::<usize>()
                .map_err(|_| format!("{value:?} is not a whole number"))
        };
        match name {
            "status" => {
                self.status = Some(
                    value
                        .parse()
                        .map_err(|_| format!("{value:?} is not a status code"))?,
                )
            }
            "delay-ms" => self.delay_ms = number()?,
            "header" => {
                let (name, value) = value.split_once(':').ok_or("must be Name:value")?;
                self.headers
                    .push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "cache-control" => self
                .headers
                .push(("cache-control".to_owned(), value.to_owned())),
            "body-size" => self.body_size = Some(size()?),
            "chunked" => self.chunked = value != "0",
            "pieces" => self.pieces = Some(size()?),
            "piece-delay-ms" => self.piece_delay_ms = number()?,
            "broken" => self.broken = value != "0",
            "ranges" => self.ranges = value != "0",
            "vary" => self.vary = Some(value.to_owned()),
            "reflect" => self.reflect = Some(value.to_owned()),
            "echo" => {
                let (to, from) = value
                    .split_once(':')
                    .ok_or("must be Response-Field:request-field")?;
                self.echo
                    .push((to.trim().to_owned(), from.trim().to_owned()));
            }
            "conditional" => self.conditional = value != "0",
            "untyped" => self.untyped = value != "0",
            "stall" => self.stall = value != "0",
            "endless" => self.endless = value != "0",
            "reset" => self.reset = value != "0",
            _ => return Err("is not known".to_owned()),
        }
        Ok(())
    }

    /// Bounds and well-formedness; the error says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self
            .status
            .is_some_and(|status| !(200..=999).contains(&status))
        {
            return Err("status: must be from 200 to 999".to_owned());
        }
        if self.body_size.is_some_and(|size| size > MAX_BODY) {
            return Err(format!("body-size: must be at most {MAX_BODY}"));
        }
        if self
            .pieces
            .is_some_and(|pieces| !(1..=10_000).contains(&pieces))
        {
            return Err("pieces: must be from 1 to 10000".to_owned());
        }
        for (name, value) in &self.headers {
            let well_formed = axum::http::HeaderName::try_from(name.as_str()).is_ok()
                && axum::http::HeaderValue::try_from(value.as_str()).is_ok();
            if !well_formed {
                return Err(format!("header: {name:?} is not a header"));
            }
        }
        if u8::from(self.broken) + u8::from(self.stall) + u8::from(self.endless) > 1 {
            return Err(
                "broken, stall, endless: only one can be the end of the content".to_owned(),
            );
        }
        if self.endless && self.body_size == Some(0) {
            return Err("endless: needs content to repeat".to_owned());
        }
        let reflected = self.reflect.iter().flat_map(|names| names.split(','));
        let echoed = self
            .echo
            .iter()
            .flat_map(|(to, from)| [to.as_str(), from.as_str()]);
        for name in reflected.chain(echoed) {
            if axum::http::HeaderName::try_from(name.trim()).is_err() {
                return Err(format!(
                    "reflect, echo: {name:?} is not the name of a header"
                ));
            }
        }
        Ok(())
    }
}

fn decode(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = (byte == b'%').then(|| tail.get(..2)).flatten();
        let mut decoded = [0];
        match digits.filter(|digits| hex::decode_to_slice(digits, &mut decoded).is_ok()) {
            Some(_) => {
                bytes.push(decoded[0]);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if byte == b'+' { b' ' } else { byte });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_headers_repeat() {
        let query = "id=1&mock-status=503&mock-header=A:1&mock-header=a:%202&mock-cache-control=max-age%3D5&mock-chunked";
        let behaviour = Behaviour::from_query(query).unwrap();
        assert_eq!(behaviour.status, Some(503));
        let headers = [("A", "1"), ("a", "2"), ("cache-control", "max-age=5")];
        assert_eq!(
            behaviour.headers,
            headers.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert!(behaviour.chunked);
    }

    #[test]
    fn an_unknown_member_is_refused_and_the_known_ones_are_listed() {
        let queued: Queued = serde_json::from_str(r#"{"status": 503, "times": 2}"#).unwrap();
        assert_eq!(
            (queued.behaviour.status, queued.times),
            (Some(503), Some(2))
        );
        for (json, part) in [
            (
                r#"{"delay": 300}"#,
                "unknown field `delay`, expected one of `status`, `delay_ms`",
            ),
            (r#"{"time": 1}"#, "unknown field `time`"),
            (r#"{"times": "often"}"#, "times: invalid type"),
            (r#"{"times": -1}"#, "times: invalid value"),
            ("[]", "invalid type"),
        ] {
            let error = serde_json::from_str::<Queued>(json)
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, part) in [
            ("mock-bogus=1", "mock-bogus"),
            ("mock-status=abc", "mock-status"),
            ("mock-status=100", "status"),
            ("mock-header=x", "mock-header"),
            ("mock-header=a%20b:c", "header"),
            ("mock-header=a:b%0d%0ac", "header"),
            ("mock-pieces=0", "pieces"),
            ("mock-body-size=99999999999", "body-size"),
            ("mock-echo=location", "mock-echo"),
            ("mock-echo=a%20b:c", "echo"),
            ("mock-reflect=a%20b", "reflect"),
            ("mock-broken=1&mock-endless=1", "only one"),
            ("mock-endless=1&mock-body-size=0", "endless"),
        ] {
            assert!(
                Behaviour::from_query(query).unwrap_err().contains(part),
                "{query}"
            );
        }
    }
}
