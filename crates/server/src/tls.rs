//! TLS 1.3, with the operator's certificates or those of a development authority.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use conclave_names::Domain;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};

use crate::{
    authority::{private_dir, private_file},
    clock,
    config::Tls,
};

/// Names and addresses by which a development server is reached on its own machine.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Life of a development leaf; one is made anew when a third of it is left.
const LEAF_DAYS: i64 = 90;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate or key.
    #[error("{path} holds no {what} in PEM: {why}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be there.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Certificate and key do not go together, or have an algorithm that TLS 1.3 does not use.
    #[error("the TLS certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// A development certificate cannot be made.
    #[error("a development certificate cannot be made: {0}")]
    Development(#[from] rcgen::Error),
}

/// What the listener needs, and what clients may pin.
pub(crate) struct Prepared {
    /// None: plaintext.
    pub(crate) config: Option<Arc<ServerConfig>>,
    /// PEM of the development authority.
    pub(crate) ca_pem: Option<String>,
}

pub(crate) fn prepare(tls: &Tls, data_dir: &Path, domain: &Domain) -> Result<Prepared, TlsError> {
    match tls {
        Tls::Plaintext => Ok(Prepared { config: None, ca_pem: None }),
        Tls::Files { certificate, key } => Ok(Prepared { config: Some(config(certificate, key)?), ca_pem: None }),
        Tls::Development => {
            let directory = data_dir.join("tls");
            let ca_pem = development(&directory, domain)?;
            let config = config(&directory.join("leaf.pem"), &directory.join("leaf.key"))?;
            Ok(Prepared { config: Some(config), ca_pem: Some(ca_pem) })
        }
    }
}

fn config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = |path: &Path, what, why: String| TlsError::Pem { path: path.to_owned(), what, why };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(|error| pem(certificate, "certificate", error.to_string()))?;
    if chain.is_empty() {
        return Err(pem(certificate, "certificate", "it is empty".into()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| pem(key, "private key", error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn offset(days: i64) -> time::OffsetDateTime {
    let now = i64::try_from(clock::now().as_secs()).unwrap_or(i64::MAX / 2);
    time::OffsetDateTime::from_unix_timestamp(now + days * 86_400).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

/// What the development authority is; of it, name and key make an issuer.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Conclave development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = offset(-1);
    params.not_after = offset(3650);
    params
}

/// Makes authority and leaf where they are missing, the leaf also when it nears its end. Gives the authority in PEM.
fn development(directory: &Path, domain: &Domain) -> Result<String, TlsError> {
    let path = |name: &str| directory.join(name);
    let file = |path: PathBuf| move |source| TlsError::File { path, source };
    let read = |name: &str| fs::read_to_string(path(name)).map_err(file(path(name)));
    let write = |name: &str, text: &str| private_file(&path(name), text.as_bytes()).map_err(file(path(name)));
    private_dir(directory).map_err(file(directory.to_owned()))?;
    if !path("ca.pem").exists() {
        let key = KeyPair::generate()?;
        write("ca.key", &key.serialize_pem())?;
        write("ca.pem", &authority().self_signed(&key)?.pem())?;
    }
    let ca_pem = read("ca.pem")?;
    let renewed = fs::metadata(path("leaf.pem")).and_then(|metadata| metadata.modified()).ok();
    let fresh = renewed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age.as_secs() < 60 * 86_400);
    let same_domain = fs::read_to_string(path("leaf.domain")).is_ok_and(|text| text == domain.as_str());
    if !fresh || !same_domain {
        let issuer = Issuer::new(authority(), KeyPair::from_pem(&read("ca.key")?)?);
        let key = KeyPair::generate()?;
        let mut names: Vec<String> = LOCAL.map(str::to_owned).to_vec();
        if !names.contains(&domain.to_string()) {
            names.push(domain.to_string());
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = name("Conclave development server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = offset(-1);
        params.not_after = offset(LEAF_DAYS);
        params.use_authority_key_identifier_extension = true;
        write("leaf.key", &key.serialize_pem())?;
        write("leaf.pem", &params.signed_by(&key, &issuer)?.pem())?;
        write("leaf.domain", domain.as_str())?;
    }
    Ok(ca_pem)
}
