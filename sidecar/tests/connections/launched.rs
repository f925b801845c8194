//! A `redis-server` with settings of a test's own, and its certificates.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use larder_sidecar::store::redis::Tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// Gone when dropped.
pub(crate) struct Launched {
    pub(crate) port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Launched {
    /// Starts one; `arguments` are given the port and a folder.
    pub(crate) async fn with(arguments: impl Fn(u16) -> Vec<String>) -> Self {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder.path())
            .args(arguments(port))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let launched = Self { port, child, _folder: folder };
        let up = || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() };
        larder_stack::eventually(Duration::from_secs(10), up).await.unwrap();
        launched
    }

    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority of the test's own, a server's certificate for `redis.example`, and a client's.
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        write("ca.pem", authority.pem());
        for (name, host, usage) in [
            ("server", "redis.example", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", "sidecar.example", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, host);
            params.extended_key_usages = vec![usage];
            write(&format!("{name}.pem"), params.signed_by(&key, &authority).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server that speaks TLS only, and asks for a client's certificate.
    pub(crate) async fn server(&self) -> Launched {
        let path = |name: &str| self.path(name).display().to_string();
        Launched::with(|port| {
            let port = port.to_string();
            let (certificate, key, authority) = (path("server.pem"), path("server.key"), path("ca.pem"));
            ["--port", "0", "--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key]
                .into_iter()
                .chain(["--tls-ca-cert-file", &authority, "--tls-auth-clients", "yes"])
                .map(str::to_owned)
                .collect()
        })
        .await
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
