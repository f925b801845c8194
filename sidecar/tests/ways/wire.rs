//! A store stream's other end: gRPC's framing over HTTP/2, as Envoy speaks it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::{Request, StatusCode};
use larder_contract::store_stream::{Asked, PATH, Said, VERSION};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Everything that is waited for comes within this.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// An open stream.
pub(crate) struct Wire {
    pub(crate) out: Out,
    pub(crate) heard: Heard,
}

/// What is sent.
pub(crate) struct Out {
    stream: SendStream<Bytes>,
    /// Whatever lies behind it ends the connection.
    connection: AbortHandle,
}

/// What comes.
pub(crate) struct Heard {
    stream: RecvStream,
    buffer: BytesMut,
}

impl Wire {
    /// Opens one, on a connection of its own.
    pub(crate) async fn open(address: SocketAddr, token: Option<&str>) -> Result<Self, StatusCode> {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection).abort_handle();
        let mut request = Request::post(format!("http://sidecar{PATH}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).unwrap();
        let (response, out) = client.send_request(request, false).unwrap();
        // The head comes at once, whatever is asked later.
        let response = timeout(LONG, response).await.expect("a head").unwrap();
        if response.status() != StatusCode::OK {
            return Err(response.status());
        }
        assert_eq!(response.headers()["content-type"], "application/grpc");
        Ok(Self {
            out: Out {
                stream: out,
                connection,
            },
            heard: Heard {
                stream: response.into_body(),
                buffer: BytesMut::new(),
            },
        })
    }

    /// One that is welcome.
    pub(crate) async fn welcome(address: SocketAddr, envoy: u64) -> Self {
        let mut wire = Self::open(address, None).await.unwrap();
        wire.out.send(&Asked::Hello {
            version: VERSION,
            envoy,
        });
        let said = wire.heard.next().await;
        assert_eq!(said, Some(Said::Welcome { version: VERSION }));
        wire
    }
}

/// A frame in gRPC's framing.
pub(crate) fn framed(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), frame].concat()
}

/// The frame's bytes, framed.
pub(crate) fn message(asked: &Asked<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    asked.write(&mut frame);
    framed(&frame)
}

impl Out {
    pub(crate) fn send(&mut self, asked: &Asked<'_>) {
        self.send_bytes(message(asked));
    }

    pub(crate) fn send_bytes(&mut self, bytes: Vec<u8>) {
        // Who has been refused may hear of it later.
        let _ = self.stream.send_data(bytes.into(), false);
    }

    /// Says no more.
    pub(crate) fn close(&mut self) {
        let _ = self.stream.send_data(Bytes::new(), true);
    }

    pub(crate) fn reset(&mut self) {
        self.stream.send_reset(h2::Reason::CANCEL);
    }

    /// As a process that dies.
    pub(crate) fn cut(&self) {
        self.connection.abort();
    }
}

impl Heard {
    /// The next frame; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some((&[0, a, b, c, d], rest)) = self.buffer.split_first_chunk() {
                let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap();
                if rest.len() >= length {
                    self.buffer.advance(5);
                    return Some(Said::read(&self.buffer.split_to(length)).unwrap());
                }
            }
            let piece = timeout(LONG, self.stream.data()).await.expect("an answer");
            let piece = piece?.ok()?;
            let _ = self.stream.flow_control().release_capacity(piece.len());
            self.buffer.extend_from_slice(&piece);
        }
    }

    /// `grpc-status`, behind everything else.
    pub(crate) async fn status(&mut self) -> String {
        while self.next().await.is_some() {}
        let trailers = timeout(LONG, self.stream.trailers()).await.expect("an end");
        let trailers = trailers.unwrap().expect("trailers");
        trailers["grpc-status"].to_str().unwrap().to_owned()
    }
}
