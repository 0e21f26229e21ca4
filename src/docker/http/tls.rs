//! TLS with rustls, set up as docker's CLI does.
//!
//! In: certificates and key in PEM. Out: a connector. Called by [`super::connect`].
//!
//! If a CA is given, it is the only one trusted; otherwise the system's CAs are. Encrypted keys are refused. A
//! certificate without its key is ignored (docker/cli `cli/context/docker/load.go`: tlsConfig).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::docker::endpoint::Tls;
use crate::docker::{Cause, Error};

/// Fails if a certificate or the key cannot be used. `endpoint` is used in the message only.
pub(super) fn connector(settings: &Tls, endpoint: &str) -> Result<TlsConnector, Error> {
    let unusable = |what| {
        let endpoint = endpoint.to_owned();
        move |source: Cause| Error::TlsMaterial { what, endpoint, source }
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| unusable("protocol versions")(e.into()))?;
    let builder = if settings.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(settings).map_err(unusable("CA certificate"))?)
    };
    let config = match &settings.key {
        Some(key) => {
            let key = private_key(key).map_err(unusable("key"))?;
            let chain = certificates(settings.cert.as_deref().unwrap_or_default());
            let chain = chain.map_err(unusable("client certificate"))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| unusable("client certificate")(e.into()))?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(settings: &Tls) -> Result<RootCertStore, Cause> {
    let mut roots = RootCertStore::empty();
    match &settings.ca {
        Some(ca) => {
            for certificate in certificates(ca)? {
                roots.add(certificate)?;
            }
        }
        // Systems have certificates that rustls does not accept; docker's own library skips those as well.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Cause> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err("the file contains no certificate".into()) } else { Ok(found) }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Cause> {
    if memchr::memmem::find(pem, b"ENCRYPTED").is_some() {
        return Err("encrypted keys are not supported".into());
    }
    Ok(PrivateKeyDer::from_pem_slice(pem)?)
}

/// Accepts any certificate, which is what `--tls` without `--tlsverify` means. Signatures still have to be valid.
#[derive(Debug)]
struct AcceptAnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
