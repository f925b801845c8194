//! An origin that answers with any bytes, whatever HTTP says of them. The mock origin is too
//! well-mannered for that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it has been told to say by path, and what it was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rogue(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, Vec<u8>>,
    heads: Vec<(String, String)>,
}

impl Rogue {
    /// Starts it; the address is `host:port`. It ends with the program.
    pub(crate) async fn start() -> Result<(Self, String), String> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| error.to_string())?;
        let address = listener
            .local_addr()
            .map_err(|error| error.to_string())?
            .to_string();
        let rogue = Self::default();
        let serving = rogue.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        Ok((rogue, address))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests under `path` get these bytes, and then the connection closes without a word of
    /// warning: a request that Envoy sends on it meanwhile fails.
    pub(crate) fn says_exactly(&self, path: &str, bytes: &[u8]) {
        self.state()
            .answers
            .insert(path.to_owned(), bytes.to_owned());
    }

    /// The same, with the warning in the head.
    pub(crate) fn says(&self, path: &str, bytes: &[u8]) {
        let start = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let (line, rest) = bytes.split_at(start);
        self.says_exactly(path, &[line, b"connection: close\r\n", rest].concat());
    }

    /// The heads of the requests under a path.
    pub(crate) fn heads(&self, path: &str) -> Vec<String> {
        self.state()
            .heads
            .iter()
            .filter(|(known, _)| known == path)
            .map(|(_, head)| head.clone())
            .collect()
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut request = Vec::new();
        let mut piece = [0; 16 * 1024];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(length) => request.extend_from_slice(&piece[..length]),
            }
        }
        let head = String::from_utf8_lossy(&request).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let bytes = {
            let mut state = self.state();
            state.heads.push((path.clone(), head));
            state.answers.get(&path).cloned()
        };
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".to_vec();
        let _ = stream.write_all(&bytes.unwrap_or(plain)).await;
        let _ = stream.shutdown().await;
    }
}
