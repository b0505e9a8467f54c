//! One leaf with its key and roots, parsed.

use std::time::SystemTime;

use meshx_core::SpiffeId;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::IdentityError;
use crate::verify::service_identity;

/// Most certificates that are read of one PEM text.
const MAX_CERTIFICATES: usize = 64;

/// A leaf certificate (with intermediates), its private key, and every root that is trusted.
pub struct Material {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: RootCertStore,
    id: SpiffeId,
    valid_after: SystemTime,
    valid_before: SystemTime,
    serial: String,
}

impl Material {
    /// Reads what a control plane hands out: the leaf (first) with its intermediates, the key, and
    /// the roots, all PEM. All listed roots are trusted, not only the active one: that is what
    /// carries a mesh through the rotation of its root.
    pub fn from_pem<'a>(
        chain_pem: &str,
        key_pem: &str,
        roots_pem: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, IdentityError> {
        let chain = certificates("the leaf certificate", chain_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| IdentityError::malformed("the leaf's private key", "not a PEM key"))?;
        let mut roots = RootCertStore::empty();
        for pem in roots_pem {
            for cert in certificates("a root certificate", pem)? {
                roots.add(cert)?;
            }
        }
        if roots.is_empty() {
            return Err(IdentityError::malformed("the list of roots", "it is empty"));
        }
        let leaf = chain.first().ok_or_else(|| {
            IdentityError::malformed("the leaf certificate", "there is no certificate in it")
        })?;
        let id = service_identity(leaf)?;
        let (_, cert) = X509Certificate::from_der(leaf)
            .map_err(|e| IdentityError::malformed("the leaf certificate", e))?;
        let valid_after = cert.validity().not_before.to_datetime().into();
        let valid_before = cert.validity().not_after.to_datetime().into();
        let serial = cert.tbs_certificate.raw_serial_as_string();
        Ok(Self { chain, key, roots, id, valid_after, valid_before, serial })
    }

    /// The identity that the leaf proves.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The leaf is valid from here.
    pub fn valid_after(&self) -> SystemTime {
        self.valid_after
    }

    /// The leaf is valid until here.
    pub fn valid_before(&self) -> SystemTime {
        self.valid_before
    }

    /// The leaf's serial number, hex with colons.
    pub fn serial(&self) -> &str {
        &self.serial
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("id", &self.id)
            .field("serial", &self.serial)
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

fn certificates(
    what: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_CERTIFICATES)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| IdentityError::malformed(what, format!("{e:?}")))
}
