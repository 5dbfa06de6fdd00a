//! What a caller on the same machine learns from the vault's own certificate, which the configuration names.

use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How a caller checks that it has reached the vault.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnCertificate {
    /// Whether the file holds roots to trust: a self-signed certificate, or the certificates between the vault's and
    /// its root.
    pub(super) vouches: bool,
    /// A name to expect, if the certificate carries a name but not the address.
    pub(super) name: Option<String>,
}

/// Reads the file. An unreadable file yields nothing: the connection then fails and gives the reason.
pub(super) fn read(file: &Path, address: IpAddr) -> OwnCertificate {
    let Ok(pem) = std::fs::read(file) else { return OwnCertificate::default() };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    let leaf = chain.first().and_then(|der| X509Certificate::from_der(der).ok());
    let Some((_, leaf)) = leaf else { return OwnCertificate::default() };
    let vouches = chain.len() > 1 || leaf.issuer() == leaf.subject();
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let carries_address = names.iter().any(|name| match (name, address) {
        (GeneralName::IPAddress(bytes), IpAddr::V4(ip)) => *bytes == ip.octets(),
        (GeneralName::IPAddress(bytes), IpAddr::V6(ip)) => *bytes == ip.octets(),
        _ => false,
    });
    let name = names.iter().find_map(|name| match name {
        // A wildcard can't be used as the name to expect.
        GeneralName::DNSName(name) if !name.contains('*') => Some((*name).to_owned()),
        _ => None,
    });
    OwnCertificate { vouches, name: name.filter(|_| !carries_address) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn of(names: &[&str]) -> OwnCertificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vault.crt");
        std::fs::write(&file, made.cert.pem()).unwrap();
        read(&file, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    #[test]
    fn a_name_is_asked_for_where_the_certificate_lacks_the_address() {
        assert_eq!(of(&["127.0.0.1", "vault.example"]), OwnCertificate { vouches: true, name: None });
        let named = OwnCertificate { vouches: true, name: Some("vault.example".into()) };
        assert_eq!(of(&["*.example", "vault.example"]), named);
        assert_eq!(read(Path::new("/nowhere"), IpAddr::V4(Ipv4Addr::LOCALHOST)), OwnCertificate::default());
    }
}
