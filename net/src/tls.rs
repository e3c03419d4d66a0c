//! The identity of nodes: a private authority per cluster, and a certificate per node that names
//! the node and the cluster as `n-<node>.<cluster>.bedstone`. TLS 1.3 only, no resumption, no early
//! data.

use crate::error::Error;
use crate::ids::NodeId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

const ALPN: &[u8] = b"bedstone-net/1";

/// The name in the certificate of a node.
pub fn server_name(node: NodeId, cluster: &str) -> String {
    format!("n-{node}.{cluster}.bedstone")
}

/// The node that the name in a certificate denotes, if the name is of this cluster.
pub fn node_of_name(name: &str, cluster: &str) -> Option<NodeId> {
    let node = name.strip_prefix("n-")?.strip_suffix(".bedstone")?;
    node.strip_suffix(cluster)?.strip_suffix('.')?.parse().ok()
}

/// A cluster's own certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's certificate, PEM: every node trusts it.
    pub cert_pem: String,
    /// The authority's key, PEM. A holder of the key can issue certificates of nodes, so keep the
    /// key off the servers.
    pub key_pem: String,
}

impl Authority {
    /// Makes a new authority.
    pub fn generate(cluster: &str) -> Result<Authority, Error> {
        let key = KeyPair::generate().map_err(failed("the authority's key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("Bedstone cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(failed("the authority's certificate"))?;
        let (cert_pem, key_pem) = (cert.pem(), key.serialize_pem());
        Ok(Authority { issuer: Issuer::new(params, key), cert_pem, key_pem })
    }

    /// An authority made earlier.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Authority, Error> {
        let key = KeyPair::from_pem(key_pem).map_err(failed("the authority's key"))?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key)
            .map_err(failed("the authority's certificate"))?;
        Ok(Authority { issuer, cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() })
    }

    /// Issues a node's certificate.
    pub fn issue(&self, node: NodeId, cluster: &str) -> Result<Identity, Error> {
        let key = KeyPair::generate().map_err(failed("the node's key"))?;
        let name = server_name(node, cluster);
        let mut params =
            CertificateParams::new([name]).map_err(failed("the node's certificate"))?;
        params.distinguished_name.push(DnType::CommonName, format!("node {node} of {cluster}"));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert =
            params.signed_by(&key, &self.issuer).map_err(failed("the node's certificate"))?;
        Ok(Identity {
            authority_pem: self.cert_pem.clone(),
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// The credentials of a node, to prove its identity and to check the identity of peers.
#[derive(Clone)]
pub struct Identity {
    /// Trusted certificates, PEM: the cluster's authority, or two authorities during a replacement.
    pub authority_pem: String,
    /// The node's certificate, PEM.
    pub cert_pem: String,
    /// The node's key, PEM.
    pub key_pem: String,
}

impl Identity {
    /// A secret of this node alone, equal after each start.
    pub(crate) fn secret(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.key_pem.as_bytes());
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, Error> {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(self.authority_pem.as_bytes()) {
            let cert = cert.map_err(failed("the authority's certificate"))?;
            roots.add(cert).map_err(failed("the authority's certificate"))?;
        }
        Ok(Arc::new(roots))
    }

    fn chain(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let certs = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed("the node's certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(failed("the node's key"))?;
        Ok((certs, key))
    }

    pub(crate) fn server(&self) -> Result<QuicServerConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider.clone())
            .build()
            .map_err(failed("the authority's certificate"))?;
        let (certs, key) = self.chain()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed("TLS 1.3"))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certs, key)
            .map_err(failed("the node's certificate"))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        QuicServerConfig::try_from(config).map_err(failed("TLS for QUIC"))
    }

    pub(crate) fn client(&self) -> Result<QuicClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (certs, key) = self.chain()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed("TLS 1.3"))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(certs, key)
            .map_err(failed("the node's certificate"))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(failed("TLS for QUIC"))
    }
}

/// The names in the certificate that a peer proved to own.
pub(crate) fn proven_names(identity: Option<Box<dyn std::any::Any>>) -> Vec<String> {
    let certs = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let Some(cert) = certs.and_then(|certs| certs.into_iter().next()) else { return Vec::new() };
    match webpki::EndEntityCert::try_from(&cert) {
        Ok(cert) => cert.valid_dns_names().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |cause| Error::Tls { what, cause: cause.to_string() }
}
