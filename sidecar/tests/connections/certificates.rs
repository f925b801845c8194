//! Certificates, and a `redis-server` that asks for them.

use std::path::PathBuf;

use larder_sidecar::store::redis::Tls;
use larder_stack::RedisServer;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// An authority of the test's own, a server's certificate for `redis.example`, and a client's.
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        write("ca.pem", authority.pem());
        for (name, host, usage) in [
            (
                "server",
                "redis.example",
                ExtendedKeyUsagePurpose::ServerAuth,
            ),
            (
                "client",
                "sidecar.example",
                ExtendedKeyUsagePurpose::ClientAuth,
            ),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, host);
            params.extended_key_usages = vec![usage];
            write(
                &format!("{name}.pem"),
                params.signed_by(&key, &authority).unwrap().pem(),
            );
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server that speaks TLS only, and asks for a client's certificate.
    pub(crate) async fn server(&self) -> RedisServer {
        let path = |name: &str| self.path(name).display().to_string();
        RedisServer::with(|port| {
            let port = port.to_string();
            let (certificate, key, authority) =
                (path("server.pem"), path("server.key"), path("ca.pem"));
            [
                "--port",
                "0",
                "--tls-port",
                &port,
                "--tls-cert-file",
                &certificate,
                "--tls-key-file",
                &key,
            ]
            .into_iter()
            .chain([
                "--tls-ca-cert-file",
                &authority,
                "--tls-auth-clients",
                "yes",
            ])
            .map(str::to_owned)
            .collect()
        })
        .await
        .unwrap()
    }

    /// All that is needed to be let in.
    pub(crate) fn tls(&self) -> Tls {
        Tls {
            ca_file: Some(self.path("ca.pem")),
            cert_file: Some(self.path("client.pem")),
            key_file: Some(self.path("client.key")),
            server_name: Some("redis.example".to_owned()),
        }
    }
}
