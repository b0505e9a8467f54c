//! What our private front door carries in EPMD's format beyond EPMD.
//!
//! `meshx exec` gives each VM a front door of its own and an epmd module (`meshx_epmd`) that talks
//! to it. The format on the wire is EPMD's; three of its fields say more than EPMD knows:
//!
//! | field | form | type |
//! |---|---|---|
//! | extra of `ALIVE2_REQ` | `meshx1:FAMILY:HOST`, the host empty if the VM does not know it yet | [`Origin`] |
//! | name of `PORT_PLEASE2_REQ` | `NODE@HOST` for `inet`, `NODE@HOST/inet6` for `inet6` | [`Lookup`] |
//! | extra of `PORT2_RESP` | empty, or `meshx1:ADDRESS` with the IP address to dial | [`Target`] |
//!
//! FAMILY is `inet` or `inet6`. Without an address the module dials 127.0.0.1 or `::1`, by the family
//! it asked for; it refuses an address of the other family. A front door must not echo the extra
//! field of a registration, as a real daemon does: in a reply it would be read as an address.
//!
//! ```
//! use meshx_dist::epmd::front_door::{Family, Lookup};
//! let wanted = Lookup::parse("shop@h2/inet6")?;
//! assert_eq!((wanted.node.as_str(), wanted.host.as_deref()), ("shop", Some("h2")));
//! assert_eq!(wanted.family, Family::Inet6);
//! assert_eq!(Lookup::parse("shop")?.host, None); // as a stock VM asks
//! # Ok::<(), meshx_dist::name::Error>(())
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::Error;
use crate::name;

const VERSION: &str = "meshx1:";

/// The address family that a VM's distribution uses (`inet_tcp` or `inet6_tcp`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4, the VM's default.
    #[default]
    Inet,
    /// IPv6.
    Inet6,
}

/// The node that a `PORT_PLEASE2_REQ` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// The part before the `@`.
    pub node: String,
    /// The part after the `@`; a stock VM does not send it.
    pub host: Option<String>,
    /// The family of the address that the asker can dial.
    pub family: Family,
}

/// Who registers: the extra field of `ALIVE2_REQ` from our epmd module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The family the node listens on.
    pub family: Family,
    /// The host part of its name, if known when it registers.
    pub host: Option<String>,
}

/// Where to dial: the extra field of `PORT2_RESP` to our epmd module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target(pub IpAddr);

impl Family {
    /// The loopback address of the family: where our module dials if the reply names no address.
    pub fn loopback(self) -> IpAddr {
        match self {
            Self::Inet => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::Inet6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }

    /// Erlang's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Inet6 => "inet6",
        }
    }
}

impl Lookup {
    /// Parses `NODE`, `NODE@HOST` or `NODE@HOST/FAMILY`; at most [`name::MAX`] characters before the
    /// `/`.
    pub fn parse(text: &str) -> Result<Self, name::Error> {
        let (full, family) = match text.split_once('/') {
            Some((full, family)) => (full, family.parse().map_err(|_| name::Error::Family)?),
            None => (text, Family::Inet),
        };
        let (node, host) = if full.contains('@') {
            let (node, host) = name::split(full)?;
            (node, Some(host.to_owned()))
        } else if text.contains('/') {
            return Err(name::Error::Shape);
        } else {
            (name::node_part(full)?, None)
        };
        Ok(Self { node: node.to_owned(), host, family })
    }
}

impl Origin {
    const FORM: &str = "meshx1:FAMILY:HOST";

    /// Parses the extra field of a registration. An empty field is a stock VM's: `None`.
    pub fn parse(extra: &[u8]) -> Result<Option<Self>, Error> {
        if extra.is_empty() {
            return Ok(None);
        }
        let wrong = || Error::Extra(Self::FORM);
        let text = payload(extra).ok_or_else(wrong)?;
        let (family, host) = text.split_once(':').ok_or_else(wrong)?;
        let family = family.parse().map_err(|_| wrong())?;
        let host = match host {
            "" => None,
            host => Some(name::host_part(host).map_err(|_| wrong())?.to_owned()),
        };
        Ok(Some(Self { family, host }))
    }
}

impl Target {
    const FORM: &str = "meshx1:ADDRESS";

    /// Parses the extra field of a reply. An empty field names no address: `None`.
    pub fn parse(extra: &[u8]) -> Result<Option<Self>, Error> {
        if extra.is_empty() {
            return Ok(None);
        }
        let wrong = || Error::Extra(Self::FORM);
        let address = payload(extra).and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        Ok(Some(Self(address)))
    }

    /// The extra field.
    pub fn to_extra(self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

fn payload(extra: &[u8]) -> Option<&str> {
    std::str::from_utf8(extra).ok()?.strip_prefix(VERSION)
}

impl FromStr for Family {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "inet" => Ok(Self::Inet),
            "inet6" => Ok(Self::Inet6),
            _ => Err(Error::Extra("inet or inet6")),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The form that [`Lookup::parse`] takes.
impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.node)?;
        let Some(host) = &self.host else { return Ok(()) };
        write!(f, "@{host}")?;
        match self.family {
            Family::Inet => Ok(()),
            Family::Inet6 => f.write_str("/inet6"),
        }
    }
}

/// The extra field as text.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}{}:{}", self.family, self.host.as_deref().unwrap_or_default())
    }
}

/// The extra field as text.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}{}", self.0)
    }
}
