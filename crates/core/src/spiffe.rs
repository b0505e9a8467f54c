//! SPIFFE ids in Consul's form.

use std::fmt;
use std::str::FromStr;

use crate::{NameError, ServiceName};

/// Longest SPIFFE id that is read, in bytes (SPIFFE-ID §2.3).
const MAX_ID: usize = 2048;

/// A trust domain, such as `5f3c….consul`. Lower case, 1 to 255 bytes of `a-z 0-9 . - _`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let lower = text.to_ascii_lowercase();
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        if lower.is_empty() || lower.len() > 255 || !lower.bytes().all(legal) {
            return Err(SpiffeError::TrustDomain);
        }
        Ok(Self(lower))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The identity of a service: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/dc/DATACENTER/svc/SERVICE`, the
/// one form that Consul's Connect CA puts into a leaf certificate (an admin partition may come
/// first: `/ap/PARTITION/…`).
///
/// ```
/// use meshx_core::SpiffeId;
/// let id: SpiffeId = "spiffe://ab.consul/ns/default/dc/dc1/svc/node1@myhost".parse()?;
/// assert_eq!(id.service().as_str(), "node1@myhost");
/// assert_eq!(id.to_string(), "spiffe://ab.consul/ns/default/dc/dc1/svc/node1@myhost");
/// assert!("spiffe://ab.consul/agent/server/dc/dc1".parse::<SpiffeId>().is_err());
/// # Ok::<(), meshx_core::SpiffeError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    partition: Option<String>,
    namespace: String,
    datacenter: String,
    service: ServiceName,
}

impl SpiffeId {
    /// The identity of `service` in the default namespace.
    pub fn new(trust_domain: TrustDomain, datacenter: &str, service: ServiceName) -> Self {
        let (namespace, datacenter) = ("default".to_owned(), datacenter.to_owned());
        Self { trust_domain, partition: None, namespace, datacenter, service }
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace, `default` without Consul Enterprise.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// True without a partition and namespace other than the default ones.
    pub fn has_default_tenancy(&self) -> bool {
        self.namespace == "default" && self.partition.as_deref().is_none_or(|p| p == "default")
    }

    /// The datacenter that issued the certificate.
    pub fn datacenter(&self) -> &str {
        &self.datacenter
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID {
            return Err(SpiffeError::TooLong);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(SpiffeError::Path)?;
        let trust_domain = domain.parse()?;
        let mut parts: Vec<String> =
            path.split('/').map(percent_decode).collect::<Option<_>>().ok_or(SpiffeError::Path)?;
        if parts.iter().any(String::is_empty) {
            return Err(SpiffeError::Path);
        }
        let partition = match parts.first().map(String::as_str) {
            Some("ap") if parts.len() == 8 => parts.drain(..2).nth(1),
            _ => None,
        };
        let Ok([ns, namespace, dc, datacenter, svc, service]) = <[String; 6]>::try_from(parts)
        else {
            return Err(SpiffeError::Path);
        };
        if ns != "ns" || dc != "dc" || svc != "svc" {
            return Err(SpiffeError::Path);
        }
        let service = service.parse()?;
        Ok(Self { trust_domain, partition, namespace, datacenter, service })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain)?;
        if let Some(partition) = &self.partition {
            write!(f, "/ap/{partition}")?;
        }
        write!(f, "/ns/{}/dc/{}/svc/{}", self.namespace, self.datacenter, self.service)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Why a URI is not the identity of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeError {
    /// Not `spiffe://`.
    #[error("a SPIFFE id begins with spiffe://")]
    Scheme,
    /// The trust domain is empty or has illegal characters.
    #[error("the trust domain of a SPIFFE id is 1 to 255 of a-z 0-9 . - _")]
    TrustDomain,
    /// The path is not Consul's service form.
    #[error("the SPIFFE id does not name a service (/ns/NS/dc/DC/svc/SERVICE)")]
    Path,
    /// Longer than 2048 bytes.
    #[error("the SPIFFE id is longer than 2048 bytes")]
    TooLong,
    /// The service part is not a service name.
    #[error(transparent)]
    Service(#[from] NameError),
}

/// Decodes `%XX`; `None` when an escape is broken or the result is not UTF-8.
fn percent_decode(part: &str) -> Option<String> {
    if !part.contains('%') {
        return Some(part.to_owned());
    }
    let mut bytes = part.bytes();
    let mut decoded = Vec::with_capacity(part.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_consuls_forms_and_nothing_else() {
        let id: SpiffeId = "spiffe://TD.consul/ap/p/ns/n/dc/d/svc/a%40b".parse().unwrap();
        assert_eq!(id.service().as_str(), "a@b");
        assert_eq!(id.trust_domain().as_str(), "td.consul");
        for bad in [
            "https://td/ns/default/dc/dc1/svc/web",
            "spiffe://td",
            "spiffe://td/",
            "spiffe:///ns/default/dc/dc1/svc/web",
            "spiffe://td/ns/default/dc/dc1/svc/",
            "spiffe://td/ns/default/dc/dc1/svc/web/extra",
            "spiffe://td/ns/default/dc/dc1/svc/we%2fb",
            "spiffe://td/ns/default/dc/dc1/svc/we%zz",
            "spiffe://td/ns/default/dc/dc1/svc/*",
            "spiffe://td?x/ns/default/dc/dc1/svc/web",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            drop(text.parse::<SpiffeId>());
            drop(format!("spiffe://{text}").parse::<SpiffeId>());
            drop(format!("spiffe://td/ns/default/dc/dc1/svc/{text}").parse::<SpiffeId>());
        }

        #[test]
        fn what_is_printed_is_read_back(service in "[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,60}", dc in "[a-z0-9-]{1,20}") {
            let domain = "ab.consul".parse().unwrap();
            let id = SpiffeId::new(domain, &dc, service.parse().unwrap());
            proptest::prop_assert_eq!(id.to_string().parse::<SpiffeId>(), Ok(id));
        }
    }
}
