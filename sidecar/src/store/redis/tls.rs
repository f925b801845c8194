//! TLS towards Redis: whom to believe, who we are, and which name the certificate has to bear.
//!
//! The files are read whenever a connection is made, so a renewed certificate needs no restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

/// The settings. Without any, the system's roots are believed and the host of `REDIS_URL` is the
/// name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the certificates that sign the server's, in place of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our own certificate and of those between it and its root.
    pub cert_file: Option<PathBuf>,
    /// PEM file of our certificate's key.
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate bears, where that is not the host of `REDIS_URL`.
    pub server_name: Option<String>,
}

pub(super) const CA_FILE: &str = "LARDER_REDIS_CA_FILE";
pub(super) const CERT_FILE: &str = "LARDER_REDIS_CERT_FILE";
pub(super) const KEY_FILE: &str = "LARDER_REDIS_KEY_FILE";
pub(super) const SERVER_NAME: &str = "LARDER_REDIS_SERVER_NAME";

impl Tls {
    /// Everything that is wrong with the settings now, one line each.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes: Vec<String> = [self.roots().err(), self.identity().err()]
            .into_iter()
            .flatten()
            .collect();
        if let Some(name) = &self.server_name
            && ServerName::try_from(name.as_str()).is_err()
        {
            mistakes.push(format!("{SERVER_NAME}: {name:?} is no name of a server"));
        }
        mistakes
    }

    /// The name to check the certificate of `host` against.
    pub(super) fn name_for(&self, host: &str) -> Result<ServerName<'static>, String> {
        let name = self.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned())
            .map_err(|_| format!("{name:?} is no name that a certificate can bear"))
    }

    /// What a TLS connection is made with.
    pub(super) fn client_config(&self) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        match self.roots()? {
            Some(own) => {
                for certificate in own {
                    roots
                        .add(certificate)
                        .map_err(|error| format!("{CA_FILE}: {error}"))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(format!(
                        "this system has no root certificates; install ca-certificates, or name the server's in {CA_FILE}"
                    ));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let config = match self.identity()? {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("{CERT_FILE}, {KEY_FILE}: {error}"))?,
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    /// The same for the library's cluster client.
    pub(super) fn certificates(&self) -> Result<TlsCertificates, String> {
        let client_tls = match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => Some(ClientTlsConfig {
                client_cert: bytes(CERT_FILE, certificate)?,
                client_key: bytes(KEY_FILE, key)?,
            }),
            _ => None,
        };
        let root_cert = self
            .ca_file
            .as_deref()
            .map(|path| bytes(CA_FILE, path))
            .transpose()?;
        Ok(TlsCertificates {
            client_tls,
            root_cert,
        })
    }

    fn roots(&self) -> Result<Option<Vec<CertificateDer<'static>>>, String> {
        self.ca_file
            .as_deref()
            .map(|path| certificates(CA_FILE, path))
            .transpose()
    }

    fn identity(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
        match (&self.cert_file, &self.key_file) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(format!("{KEY_FILE} is missing; {CERT_FILE} needs it")),
            (None, Some(_)) => Err(format!("{CERT_FILE} is missing; {KEY_FILE} needs it")),
            (Some(certificate), Some(key)) => {
                let chain = certificates(CERT_FILE, certificate)?;
                let key = PrivateKeyDer::from_pem_slice(&bytes(KEY_FILE, key)?).map_err(|_| {
                    format!("{KEY_FILE}: {} holds no private key in PEM", key.display())
                })?;
                Ok(Some((chain, key)))
            }
        }
    }
}

fn bytes(setting: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path)
        .map_err(|error| format!("{setting}: {} cannot be read: {error}", path.display()))
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let none = || format!("{setting}: {} holds no certificate in PEM", path.display());
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(setting, path)?).collect();
    read.ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(none)
}

/// What a failure of TLS means and the way out, if that is known.
pub(super) fn advice(error: &std::io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidMessage(_) => {
            "what answers there speaks no TLS; without TLS the URL begins with redis://".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!(
                "its certificate is signed by nobody that this system believes; name the signer's file in {CA_FILE}"
            )
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "its certificate bears another name; use that name in the URL, or give it in {SERVER_NAME}"
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired; renew it".to_owned(),
        rustls::Error::InvalidCertificate(problem) => {
            format!("its certificate is refused: {problem}")
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
        ) => {
            format!("it asks for a client's certificate; give one in {CERT_FILE} and {KEY_FILE}")
        }
        rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown,
        ) => format!("it does not accept the certificate in {CERT_FILE}"),
        _ => return None,
    })
}
