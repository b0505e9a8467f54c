//! Reading a root certificate that somebody else may have made.

use rcgen::string::{BmpString, Ia5String, PrintableString, TeletexString, UniversalString};
use rcgen::{DistinguishedName, DnType, DnValue};
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;

use crate::IdentityError;

/// Longest serial number in bytes (RFC 5280 §4.1.2.2), and one more for the sign.
const MAX_SERIAL: usize = 21;
/// Most attributes of a subject.
const MAX_ATTRIBUTES: usize = 32;

/// What of a root is repeated in the certificates that it signs, or told by the API.
pub(super) struct Root {
    pub(super) subject: DistinguishedName,
    /// The low 64 bits.
    pub(super) serial: u64,
    /// The subject key id, if there is one.
    pub(super) key_id: Option<Vec<u8>>,
    pub(super) uris: Vec<String>,
    pub(super) key_type: (&'static str, usize),
}

impl Root {
    /// Reads and judges a certificate that is to sign others.
    pub(super) fn read(cert: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        let constraints = cert.basic_constraints().map_err(refuse)?;
        if !constraints.is_some_and(|constraints| constraints.value.ca) {
            return Err(refuse("it is no authority (no basic constraint cA)"));
        }
        let usage = cert.key_usage().map_err(refuse)?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(refuse("its key may not sign certificates (no key usage keyCertSign)"));
        }
        let raw = cert.raw_serial();
        if raw.len() > MAX_SERIAL {
            return Err(refuse("its serial number is longer than 20 bytes"));
        }
        let low = raw.iter().fold(0_u64, |low, byte| (low << 8) | u64::from(*byte));
        let key_id = cert.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let names = cert.subject_alternative_name().map_err(refuse)?;
        let names = names.iter().flat_map(|extension| &extension.value.general_names);
        let uris = names.filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let key_type = match cert.public_key().parsed() {
            Ok(PublicKey::EC(point)) => ("ec", point.key_size()),
            Ok(PublicKey::RSA(rsa)) => ("rsa", rsa.key_size()),
            _ => ("", 0),
        };
        Ok(Self { subject: subject(cert)?, serial: low, key_id, uris: uris.collect(), key_type })
    }
}

fn refuse(reason: impl std::fmt::Display) -> IdentityError {
    IdentityError::malformed("the CA's certificate", reason)
}

/// A subject that would come out as another name.
pub(super) fn unrepeatable() -> IdentityError {
    refuse(
        "its subject cannot be repeated as the issuer of leaves: it may have every attribute once, \
         in a step of its own, as text",
    )
}

/// The subject, attribute by attribute in its order, each in the string type that it has.
fn subject(cert: &X509Certificate<'_>) -> Result<DistinguishedName, IdentityError> {
    let mut name = DistinguishedName::new();
    let steps: Vec<_> = cert.subject().iter_rdn().take(MAX_ATTRIBUTES + 1).collect();
    if steps.is_empty() {
        return Err(refuse("it has no subject"));
    }
    if steps.len() > MAX_ATTRIBUTES {
        return Err(unrepeatable());
    }
    for step in steps {
        let mut attributes = step.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(unrepeatable());
        };
        let oid: Vec<u64> = attribute.attr_type().iter().ok_or_else(unrepeatable)?.collect();
        let kind = DnType::CustomDnType(oid);
        if name.get(&kind).is_some() {
            return Err(unrepeatable());
        }
        name.push(kind, value(attribute.attr_value()).ok_or_else(unrepeatable)?);
    }
    Ok(name)
}

fn value(value: &Any<'_>) -> Option<DnValue> {
    let text = || std::str::from_utf8(value.data).ok();
    Some(match value.header.tag() {
        Tag::Utf8String => DnValue::Utf8String(text()?.to_owned()),
        Tag::PrintableString => DnValue::PrintableString(PrintableString::try_from(text()?).ok()?),
        Tag::Ia5String => DnValue::Ia5String(Ia5String::try_from(text()?).ok()?),
        Tag::T61String => DnValue::TeletexString(TeletexString::try_from(text()?).ok()?),
        Tag::BmpString => DnValue::BmpString(BmpString::from_utf16be(value.data.to_vec()).ok()?),
        Tag::UniversalString => {
            DnValue::UniversalString(UniversalString::from_utf32be(value.data.to_vec()).ok()?)
        }
        _ => return None,
    })
}
