//! A client that speaks HTTP/2 over TLS, as browsers do, and the certificate that it trusts.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::support::Answer;

/// Writes `tls.crt` and `tls.key` for some names into a folder, and gives a client that trusts
/// them.
pub(super) fn certified(folder: &Path, names: &[&str]) -> Client {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let issued = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.join("tls.crt"), issued.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), issued.signing_key.serialize_pem()).unwrap();
    let mut trusted = rustls::RootCertStore::empty();
    trusted.add(issued.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Client {
        tls: TlsConnector::from(Arc::new(config)),
        address: String::new(),
    }
}

/// One request each on a connection of its own, so that every worker is met.
pub(super) struct Client {
    tls: TlsConnector,
    /// `host:port` of the listener.
    pub(super) address: String,
}

impl Client {
    /// `GET` of a path at a host.
    pub(super) async fn get(&self, host: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let (answer, body) = self.bytes("GET", host, path, fields).await;
        Answer {
            body: String::from_utf8_lossy(&body).into_owned(),
            ..answer
        }
    }

    /// The same for any method, with the content as it came.
    pub(super) async fn bytes(
        &self,
        method: &str,
        host: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> (Answer, Bytes) {
        let socket = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let socket = self.tls.connect(name, socket).await.unwrap();
        assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("https://{host}{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (response, _) = client
            .send_request(request.body(()).unwrap(), true)
            .unwrap();
        let (head, mut content) = response.await.unwrap().into_parts();
        let mut body = BytesMut::new();
        while let Some(piece) = content.data().await {
            body.extend_from_slice(&piece.unwrap());
        }
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter();
        let answer = Answer {
            status: head.status.as_u16(),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body: String::new(),
        };
        (answer, body.freeze())
    }
}
