//! The origin: it holds a version of each key, takes the next by PUT, and knows when it did what.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::clock::Clock;
use super::history::Applied;
use super::keys;
use super::random::Random;

/// When the content was given, in the field of a `200`.
pub(crate) const GENERATED: &str = "x-generated";
/// When it was given or confirmed, in the field of a `200` or `304`.
pub(crate) const APPROVED: &str = "x-approved";

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well = 0,
    /// Every connection is closed.
    Down = 1,
    /// `500`, and nothing is written.
    Errors = 2,
}

/// The running origin.
#[derive(Debug)]
pub(crate) struct Origin {
    address: String,
    pages: Arc<Pages>,
}

#[derive(Debug)]
struct Pages {
    clock: Clock,
    versions: Mutex<Vec<u64>>,
    applied: Mutex<Vec<Applied>>,
    random: Mutex<Random>,
    mood: AtomicU8,
}

/// A request, as far as it matters.
#[derive(Debug, Default)]
struct Request {
    method: String,
    path: String,
    known: String,
    length: usize,
}

impl Origin {
    /// Starts it on a free port.
    pub(crate) async fn start(clock: Clock, random: Random) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let pages = Arc::new(Pages {
            clock,
            versions: Mutex::new(vec![0; keys::COUNT]),
            applied: Mutex::default(),
            random: Mutex::new(random),
            mood: AtomicU8::new(Mood::Well as u8),
        });
        let origin = Self {
            address: listener.local_addr()?.to_string(),
            pages: pages.clone(),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, pages.clone()));
            }
        });
        Ok(origin)
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Answers so from now on.
    pub(crate) fn become_(&self, mood: Mood) {
        self.pages.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// All that was written, and when.
    pub(crate) fn applied(&self) -> Vec<Applied> {
        self.pages
            .applied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn serve(stream: TcpStream, pages: Arc<Pages>) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Some((request, content)) = read(&mut stream).await {
        if pages.mood.load(Ordering::SeqCst) == Mood::Down as u8 {
            return;
        }
        let answer = pages.answer(&request, &content);
        tokio::time::sleep(pages.delay()).await;
        if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<(Request, String)> {
    let mut request = Request::default();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if request.method.is_empty() {
            let mut words = line.split(' ');
            (request.method, request.path) = (words.next()?.to_owned(), words.next()?.to_owned());
        } else if let Some((name, value)) = line.split_once(':') {
            match name.to_ascii_lowercase().as_str() {
                "if-none-match" => request.known = value.trim().to_owned(),
                "content-length" => request.length = value.trim().parse().ok()?,
                _ => {}
            }
        }
    }
    let mut content = vec![0; request.length.min(1 << 20)];
    stream.read_exact(&mut content).await.ok()?;
    Some((request, String::from_utf8_lossy(&content).into_owned()))
}

impl Pages {
    /// What is answered, and done. The version is the one that was current when the request came,
    /// however late the answer.
    fn answer(&self, request: &Request, content: &str) -> String {
        let now = self.clock.now();
        let Some(key) = keys::of_path(&request.path) else {
            return plain("404 Not Found", "");
        };
        if self.mood.load(Ordering::SeqCst) == Mood::Errors as u8 {
            return plain("500 Internal Server Error", "");
        }
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let version = &mut versions[key];
        match request.method.as_str() {
            "PUT" => {
                let Ok(new) = content.trim().parse::<u64>() else {
                    return plain("400 Bad Request", "");
                };
                // One that was held up on its way must not undo those that came after it.
                if new > *version {
                    *version = new;
                    let applied = Applied {
                        key,
                        version: new,
                        at: now,
                    };
                    self.applied
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(applied);
                }
                plain("204 No Content", "")
            }
            "GET" => {
                let tag = format!("\"v{version}\"");
                let purge_tag = keys::tag(key)
                    .map(|tag| format!("cache-tag: t{tag}\r\n"))
                    .unwrap_or_default();
                let fields = format!(
                    "cache-control: {}\r\netag: {tag}\r\n{purge_tag}{APPROVED}: {now}\r\n",
                    keys::cache_control(key)
                );
                if request.known == tag {
                    return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n");
                }
                let content = keys::content(key, *version);
                let length = content.len();
                format!(
                    "HTTP/1.1 200 OK\r\n{fields}{GENERATED}: {now}\r\ncontent-length: {length}\r\n\r\n{content}"
                )
            }
            _ => plain("405 Method Not Allowed", ""),
        }
    }

    /// Most answers come at once; some so late that others overtake them.
    fn delay(&self) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = if random.chance(4) {
            random.between(100, 700)
        } else {
            random.between(0, 3)
        };
        Duration::from_millis(millis)
    }
}

fn plain(status: &str, fields: &str) -> String {
    let length = if status.starts_with("204") {
        ""
    } else {
        "content-length: 0\r\n"
    };
    format!("HTTP/1.1 {status}\r\n{fields}{length}\r\n")
}
