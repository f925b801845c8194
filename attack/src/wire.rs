//! HTTP/1.1 as bytes, for libraries would tidy up what an attacker sends.
//!
//! A request is written as it is given. An answer is read by its framing; one that breaks off or
//! never comes is an answer too, for that is what many scenarios are about.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// A request, written out by [`Request::bytes`].
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    host: String,
    fields: Vec<(String, String)>,
    content: Vec<u8>,
}

/// The site that everybody visits.
pub(crate) const HOST: &str = "shop.test";

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            host: HOST.to_owned(),
            fields: Vec::new(),
            content: Vec::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `Name: value`; nothing for an empty text.
    pub(crate) fn line(self, line: &str) -> Self {
        match line.split_once(':') {
            Some((name, value)) => self.field(name, value.trim_start()),
            None => self,
        }
    }

    /// Content, with its length.
    pub(crate) fn content(self, content: &[u8]) -> Self {
        let mut request = self.field("content-length", &content.len().to_string());
        content.clone_into(&mut request.content);
        request
    }

    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\n",
            self.method, self.target, self.host
        );
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        [text.as_bytes(), &self.content].concat()
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As its framing says.
    Whole,
    /// The connection closed before.
    Cut,
    /// Nothing more came for as long as was waited.
    Silent,
}

/// An answer as far as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// 0 where not even the head came.
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) content: Vec<u8>,
    pub(crate) end: End,
}

impl Answer {
    /// Where there was not even a connection.
    pub(crate) fn missing() -> Self {
        Self::none(End::Cut)
    }

    fn none(end: End) -> Self {
        Self {
            status: 0,
            fields: Vec::new(),
            content: Vec::new(),
            end,
        }
    }

    /// The first line of a field; empty where there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(known, _)| known == name)
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.field("x-cache-status") == "HIT"
    }

    pub(crate) fn is_whole(&self, status: u16) -> bool {
        self.status == status && self.end == End::Whole
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    /// Whether a text occurs anywhere in it, fields included.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.text().contains(text) || self.fields.iter().any(|(_, value)| value.contains(text))
    }

    /// For a person: the head, and the beginning of the content.
    pub(crate) fn shown(&self) -> String {
        let mut text = match self.status {
            0 => "(no answer)\n".to_owned(),
            status => format!("HTTP/1.1 {status}\n"),
        };
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {}\n", shortened(value)));
        }
        text.push_str(&format!("\n{}\n", shortened(&self.text())));
        if self.end != End::Whole {
            text.push_str(&format!(
                "({:?} after {} bytes)\n",
                self.end,
                self.content.len()
            ));
        }
        text
    }
}

/// At most so much of a text as a reader of a report wants.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 400;
    if text.len() <= MOST {
        return text.trim_end().to_owned();
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{start}… ({} bytes)", text.len())
}

/// A connection, and what has been read from it but not used.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    deadline: Instant,
}

impl Connection {
    /// To `host:port`. All that is done with it has to be done within `patience`.
    pub(crate) async fn open(address: &str, patience: Duration) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        let _ = stream.set_nodelay(true);
        Ok(Self {
            stream,
            buffer: Vec::new(),
            deadline: Instant::now() + patience,
        })
    }

    /// Writes bytes as they are. A peer that has closed is seen when its answer is read.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = timeout_at(self.deadline, self.stream.write_all(bytes)).await;
    }

    /// Reads more; the end of what can be read as `Err`.
    async fn more(&mut self) -> Result<(), End> {
        let mut piece = vec![0; 64 * 1024];
        match timeout_at(self.deadline, self.stream.read(&mut piece)).await {
            Err(_) => Err(End::Silent),
            Ok(Ok(0) | Err(_)) => Err(End::Cut),
            Ok(Ok(length)) => {
                self.buffer.extend_from_slice(&piece[..length]);
                Ok(())
            }
        }
    }

    /// All that comes until the peer closes or falls silent.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await.is_ok() {}
        std::mem::take(&mut self.buffer)
    }

    /// So many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.buffer.len() < count {
            self.more().await?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    async fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line)
                    .trim_end_matches(['\r', '\n'])
                    .to_owned());
            }
            self.more().await?;
        }
    }

    /// Reads a head; interim answers (1xx) are passed over.
    pub(crate) async fn head(&mut self) -> Result<Answer, End> {
        loop {
            let start = self.line().await?;
            let status = start
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .unwrap_or(0);
            let mut answer = Answer {
                status,
                ..Answer::none(End::Whole)
            };
            loop {
                let line = self.line().await?;
                let Some((name, value)) = line.split_once(':') else {
                    break;
                };
                answer
                    .fields
                    .push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            if !(100..200).contains(&status) || status == 101 {
                return Ok(answer);
            }
        }
    }

    /// Reads the answer to a request with this method.
    pub(crate) async fn answer(&mut self, method: &str) -> Answer {
        let mut answer = match self.head().await {
            Ok(answer) => answer,
            Err(end) => return Answer::none(end),
        };
        if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            return answer;
        }
        let ended = if answer.field("transfer-encoding").contains("chunked") {
            self.chunks(&mut answer.content).await
        } else if let Ok(length) = answer.field("content-length").parse::<usize>() {
            self.counted(length, &mut answer.content).await
        } else {
            answer.content = self.rest().await;
            Ok(())
        };
        if let Err(end) = ended {
            answer.content.append(&mut self.buffer);
            answer.end = end;
        }
        answer
    }

    async fn counted(&mut self, length: usize, content: &mut Vec<u8>) -> Result<(), End> {
        content.extend(self.exactly(length).await?);
        Ok(())
    }

    async fn chunks(&mut self, content: &mut Vec<u8>) -> Result<(), End> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| End::Cut)?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(());
            }
            content.extend(self.exactly(size).await?);
            self.line().await?;
        }
    }
}
