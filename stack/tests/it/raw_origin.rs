//! An origin that sends exactly the bytes it was told to: what no well-behaved server would, and
//! when it would not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is sent, or how long is waited, in its order.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    Close,
}

/// What to answer, given the request's head in lower case.
type Script = Arc<dyn Fn(&str) -> Vec<Step> + Send + Sync>;

/// Answers by path, without the query. A path without a script gets `404`.
#[derive(Clone)]
pub(crate) struct RawOrigin {
    pub(crate) address: String,
    scripts: Arc<Mutex<HashMap<String, Script>>>,
    connections: Arc<Mutex<usize>>,
}

impl RawOrigin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let origin = Self {
            address,
            scripts: Arc::default(),
            connections: Arc::default(),
        };
        let serving = origin.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                *serving.connections.lock().unwrap() += 1;
                tokio::spawn(serving.clone().serve(socket));
            }
        });
        origin
    }

    /// From now on this is the answer at `path`.
    pub(crate) fn script(
        &self,
        path: &str,
        script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
    ) {
        self.scripts
            .lock()
            .unwrap()
            .insert(path.to_owned(), Arc::new(script));
    }

    /// From now on these bytes are the answer at `path`.
    pub(crate) fn answers(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.script(path, move |_| vec![Step::Send(bytes.clone())]);
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    async fn serve(self, mut socket: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                let mut piece = [0; 16384];
                match socket.read(&mut piece).await {
                    Ok(length) if length > 0 => bytes.extend_from_slice(&piece[..length]),
                    _ => return,
                }
            };
            let head: Vec<u8> = bytes.drain(..end).collect();
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let target = head.split(' ').nth(1).unwrap_or_default();
            let path = target.split('?').next().unwrap_or_default();
            let script = self.scripts.lock().unwrap().get(path).cloned();
            let steps = script.map_or_else(
                || {
                    vec![Step::Send(
                        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
                    )]
                },
                |script| script(&head),
            );
            for step in steps {
                match step {
                    Step::Send(bytes) if socket.write_all(&bytes).await.is_ok() => {}
                    Step::Wait(time) => tokio::time::sleep(time).await,
                    Step::Send(_) | Step::Close => return,
                }
            }
        }
    }
}

/// A whole answer: status line, fields, content of a declared length.
pub(crate) fn answer(status: &str, fields: &[(&str, &str)], content: &[u8]) -> Vec<u8> {
    let mut bytes = head(status, fields);
    let at = bytes.len() - 2;
    bytes.splice(
        at..at,
        format!("content-length: {}\r\n", content.len()).into_bytes(),
    );
    bytes.extend_from_slice(content);
    bytes
}

/// A head without a length.
pub(crate) fn head(status: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let lines: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("HTTP/1.1 {status}\r\n{lines}\r\n").into_bytes()
}
