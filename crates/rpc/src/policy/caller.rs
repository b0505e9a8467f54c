//! Of whom a rule speaks.

use std::borrow::Cow;

use meshx_core::{ServiceName, SpiffeId, TrustDomain};

use super::glob::Glob;

/// Those who are meant by one entry of a rule's callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// `*`: anyone, with an identity or without.
    Anyone,
    /// `spiffe://*`: anyone with an identity.
    Identified,
    /// `spiffe://DOMAIN/*`: any service of a trust domain.
    Domain(TrustDomain),
    /// `spiffe://…/svc/SERVICE`: this identity, and as it is usually written.
    Exactly(Box<SpiffeId>, Box<str>),
    /// `web`, `web-*`: services of that name, as intentions speak of them.
    Service(Glob),
}

/// An identity in parts, without a copy where it is written in the usual form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity<'a> {
    text: &'a str,
    domain: Cow<'a, str>,
    service: Cow<'a, str>,
    has_default_tenancy: bool,
    /// There where it is written in another form.
    parsed: Option<Box<SpiffeId>>,
}

impl Caller {
    /// Reads an entry; the reason if it is none.
    pub(super) fn read(entry: &str) -> Result<Self, String> {
        if entry == "*" {
            return Ok(Self::Anyone);
        }
        let Some(rest) = entry.strip_prefix("spiffe://") else {
            let glob = Glob::read(entry)?;
            // A name with stars is good if it is one with letters in their place.
            entry.replace('*', "x").parse::<ServiceName>().map_err(|error| error.to_string())?;
            return Ok(Self::Service(glob));
        };
        if rest == "*" {
            return Ok(Self::Identified);
        }
        if let Some(domain) = rest.strip_suffix("/*") {
            return domain.parse().map(Self::Domain).map_err(|error| error.to_string());
        }
        if rest.contains('*') {
            return Err("a SPIFFE id is written in full, as `spiffe://TRUST-DOMAIN/*`, or as \
                 `spiffe://*` for all who have one"
                .to_owned());
        }
        let id: SpiffeId =
            entry.parse().map_err(|error: meshx_core::SpiffeError| error.to_string())?;
        let text = id.to_string().into();
        Ok(Self::Exactly(Box::new(id), text))
    }

    /// Whether it speaks of this peer; `None` is one without an identity.
    pub(super) fn matches(&self, identity: Option<&Identity<'_>>) -> bool {
        match (self, identity) {
            (Self::Anyone, _) | (Self::Identified, Some(_)) => true,
            (_, None) => false,
            (Self::Domain(domain), Some(who)) => domain.as_str() == who.domain,
            (Self::Exactly(id, text), Some(who)) => match &who.parsed {
                Some(parsed) => id == parsed,
                None => **text == *who.text,
            },
            (Self::Service(glob), Some(who)) => {
                who.has_default_tenancy && glob.matches(&who.service)
            }
        }
    }
}

impl<'a> Identity<'a> {
    /// Reads what the transport has proven; `None` if it is not the identity of a service.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        Self::usual(text).or_else(|| {
            let id: SpiffeId = text.parse().ok()?;
            Some(Self {
                text,
                domain: id.trust_domain().to_string().into(),
                service: id.service().to_string().into(),
                has_default_tenancy: id.has_default_tenancy(),
                parsed: Some(Box::new(id)),
            })
        })
    }

    /// Reads the form that [`SpiffeId`] prints: lower-case domain, nothing escaped. It is all that
    /// our own transports give, and a call must not cost copies of it.
    fn usual(text: &'a str) -> Option<Self> {
        let legal =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'-'..=b':' | b'@' | b'_');
        let lower = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if text.len() > 2048 || !text.bytes().all(legal) {
            return None;
        }
        let (domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
        if !(1..=255).contains(&domain.len()) || !domain.bytes().all(lower) {
            return None;
        }
        let mut parts = path.split('/');
        let mut part = || parts.next().filter(|part| !part.is_empty());
        let (partition, ns) = match part()? {
            "ap" => (Some(part()?), part()?),
            first => (None, first),
        };
        let (namespace, dc, _, svc, service) = (part()?, part()?, part()?, part()?, part()?);
        let first = service.bytes().next()?;
        let named = service.len() <= 255 && (first.is_ascii_alphanumeric() || first == b'_');
        if parts.next().is_some() || (ns, dc, svc) != ("ns", "dc", "svc") || !named {
            return None;
        }
        let has_default_tenancy =
            namespace == "default" && partition.is_none_or(|name| name == "default");
        let (domain, service) = (domain.into(), service.into());
        Some(Self { text, domain, service, has_default_tenancy, parsed: None })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const WEB: &str = "spiffe://ab.consul/ns/default/dc/dc1/svc/web-1";

    fn speaks(entry: &str, of: &str) -> bool {
        let identity = Identity::read(of);
        assert!(identity.is_some(), "{of}");
        Caller::read(entry).unwrap().matches(identity.as_ref())
    }

    #[test]
    fn services_are_meant_by_name_glob_domain_and_identity() {
        for entry in ["*", "spiffe://*", "spiffe://ab.consul/*", "spiffe://AB.consul/*", WEB] {
            assert!(speaks(entry, WEB), "{entry}");
        }
        for entry in ["web-1", "web-*", "*-1", "w*1"] {
            assert!(speaks(entry, WEB), "{entry}");
        }
        for entry in ["web", "web-10", "b*", "spiffe://b.consul/*", &WEB[..WEB.len() - 1]] {
            assert!(!speaks(entry, WEB), "{entry}");
        }
        // Of another tenant only the identity itself speaks, as with intentions.
        for other in [WEB.replace("default", "n"), WEB.replace("/ns", "/ap/p/ns")] {
            for entry in ["web-1", "web-*", WEB] {
                assert!(!speaks(entry, &other), "{entry} {other}");
            }
            assert!(speaks(&other, &other) && speaks("spiffe://ab.consul/*", &other));
        }
    }

    #[test]
    fn another_way_to_write_an_identity_does_not_hide_it() {
        let domain = WEB.replace("ab.c", "AB.C");
        for other in [WEB.replace("web", "%77eb"), domain, WEB.replace("dc1", "dc%31")] {
            assert!(Identity::usual(&other).is_none());
            for entry in [WEB, "web-1", "web-*", "spiffe://ab.consul/*", &other] {
                assert!(speaks(entry, &other), "{entry} {other}");
                assert!(speaks(entry, WEB));
            }
        }
        // Printed, these two look alike.
        let one = WEB.replace("default", "a%2fdc%2fb").replace("dc1", "c");
        let two = WEB.replace("default", "a").replace("dc1", "b%2fdc%2fc");
        assert!(speaks(&one, &one) && !speaks(&one, &two));
    }

    #[test]
    fn without_an_identity_only_anyone_matches() {
        for entry in ["spiffe://*", "spiffe://ab.consul/*", WEB, "web", "w*"] {
            assert!(!Caller::read(entry).unwrap().matches(None), "{entry}");
        }
        assert!(Caller::read("*").unwrap().matches(None));
    }

    #[test]
    fn the_usual_form_is_read_as_core_reads_it() {
        let mut read = 0;
        let mut compare = |text: &str| {
            let Some(usual) = Identity::usual(text) else { return };
            let id: SpiffeId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(usual.domain, id.trust_domain().as_str());
            assert_eq!(usual.service, id.service().as_str());
            assert_eq!(usual.has_default_tenancy, id.has_default_tenancy());
            read += 1;
        };
        for whole in [WEB.to_owned(), WEB.replace("/ns", "/ap/default/ns")] {
            for at in 0..whole.len() {
                for byte in 0..=127_u8 {
                    let mut changed = whole.clone().into_bytes();
                    changed[at] = byte;
                    compare(&String::from_utf8(changed.clone()).unwrap());
                    changed.truncate(at);
                    compare(&String::from_utf8(changed).unwrap());
                }
            }
        }
        compare(&WEB.replace("web-1", &"w".repeat(255)));
        assert!(read > 2000, "{read}");
        for bad in ["w".repeat(256), "-w".into(), "w/".into(), String::new(), "w\u{e9}".into()] {
            assert_eq!(Identity::read(&WEB.replace("web-1", &bad)), None, "{bad}");
        }
        assert_eq!(Identity::read(&WEB.replace("default", &"n".repeat(2048))), None);
    }

    #[test]
    fn what_means_nobody_is_refused() {
        for bad in [
            "",
            "**",
            "two words",
            "a/b",
            "-web",
            "spiffe://",
            "spiffe:///*",
            "spiffe://td",
            "spiffe://a b/*",
            "spiffe://td/agent/x",
            "spiffe://td/ns/default/dc/*/svc/web",
            "spiffe://td*/*",
            "https://td/*",
            &"w".repeat(256),
        ] {
            assert!(Caller::read(bad).is_err(), "{bad}");
        }
    }
}
