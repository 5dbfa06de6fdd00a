//! What the vault's own certificate, which its configuration names, says to a caller on the same machine.

use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How to check that it is the vault who answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnCertificate {
    /// The file holds its own roots: a certificate signed by itself, or those between it and its root.
    pub(super) vouches: bool,
    /// A name that the certificate carries, where it does not carry the address.
    pub(super) name: Option<String>,
}

/// Reads the file. What can't be read says nothing: the connection then fails with a reason of its own.
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
        // A name with a wildcard is none that can be asked for.
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
