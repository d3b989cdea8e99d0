//! Whose certificates a Delivery Service without an Authentication Service believes.

use std::time::Duration;

use conclave_mls::credential::{Issuer, Issuers};
use conclave_names::Domain;
use conclave_protocol::v1::{GetIssuersRequest, authentication_service_client::AuthenticationServiceClient};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::fs;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::config::IssuerSource;

/// How long an Authentication Service may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the issuers are not known.
#[derive(Debug, thiserror::Error)]
#[error("the issuers cannot be learnt from {from}: {why}")]
pub struct IssuersError {
    from: String,
    why: String,
}

pub(crate) async fn learn(source: &IssuerSource, domain: &Domain) -> Result<Issuers, IssuersError> {
    let from = match source {
        IssuerSource::File(path) => path.display().to_string(),
        IssuerSource::Url { url, .. } => url.clone(),
    };
    let failed = |why: String| IssuersError { from: from.clone(), why };
    let certificates = match source {
        IssuerSource::File(path) => {
            let bytes = fs::read(path).await.map_err(|error| failed(error.to_string()))?;
            let pem: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
                .collect::<Result<_, _>>()
                .map_err(|error| failed(error.to_string()))?;
            if pem.is_empty() { vec![bytes] } else { pem.iter().map(|der| der.to_vec()).collect() }
        }
        IssuerSource::Url { url, ca } => {
            let mut endpoint = Endpoint::from_shared(url.clone())
                .map_err(|error| failed(error.to_string()))?
                .connect_timeout(TIMEOUT)
                .timeout(TIMEOUT);
            if url.starts_with("https://") {
                let mut tls = ClientTlsConfig::new();
                tls = match ca {
                    Some(path) => {
                        let pem =
                            fs::read(path).await.map_err(|error| failed(format!("{}: {error}", path.display())))?;
                        tls.ca_certificate(Certificate::from_pem(pem))
                    }
                    None => tls.with_native_roots(),
                };
                endpoint = endpoint.tls_config(tls).map_err(|error| failed(error.to_string()))?;
            }
            let channel = endpoint.connect().await.map_err(|error| failed(format!("{error:?}")))?;
            let answer = AuthenticationServiceClient::new(channel)
                .get_issuers(GetIssuersRequest {})
                .await
                .map_err(|status| failed(status.message().to_owned()))?;
            answer.into_inner().issuers
        }
    };
    let mut issuers = Issuers::new();
    for der in &certificates {
        let issuer = Issuer::parse(der).map_err(|error| failed(error.to_string()))?;
        if issuer.domain() != domain {
            return Err(failed(format!("one is of the domain {}, not {domain}", issuer.domain())));
        }
        issuers.add(issuer);
    }
    if certificates.is_empty() { Err(failed("there are none".into())) } else { Ok(issuers) }
}
