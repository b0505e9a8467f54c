//! Names, checked once at the border.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest service name or service id, in bytes.
pub(crate) const MAX_NAME: usize = 255;

/// The name of a service: what intentions, certificates and lookups speak of.
///
/// 1 to 255 bytes of `A-Z a-z 0-9 _ . : @ -`, beginning with a letter, a digit or `_`. An Erlang
/// node is the service of its full node name (`node1@myhost`).
///
/// ```
/// use meshx_core::ServiceName;
/// assert!("web-2".parse::<ServiceName>().is_ok());
/// assert!("node1@fdaa::3".parse::<ServiceName>().is_ok());
/// assert!("*".parse::<ServiceName>().is_err());
/// assert!("two\nlines".parse::<ServiceName>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

impl ServiceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This service as an Erlang node, if its name is one.
    pub fn as_node(&self) -> Option<NodeName> {
        NodeName::from_str(&self.0).ok()
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check("service name", text)?;
        Ok(Self(text.to_owned()))
    }
}

/// The identity of one instance of a service on its agent. Same alphabet as [`ServiceName`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceId(String);

impl ServiceId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check("service id", text)?;
        Ok(Self(text.to_owned()))
    }
}

impl From<&ServiceName> for ServiceId {
    fn from(name: &ServiceName) -> Self {
        Self(name.0.clone())
    }
}

macro_rules! text_type {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}
text_type!(ServiceName);
text_type!(ServiceId);

/// The full name of an Erlang node, `alive@host`.
///
/// The alive part is what the VM accepts in `-name`/`-sname` (`A-Z a-z 0-9 _ -`); the host part is
/// a host name, an IPv4 or an IPv6 literal. Whether names are short or long is a property of the
/// host part alone (erl(1), `-name`), see [`NodeName::form`].
///
/// ```
/// use meshx_core::{HostForm, NodeName};
/// let node: NodeName = "app@10.0.0.5".parse()?;
/// assert_eq!((node.alive(), node.host(), node.form()), ("app", "10.0.0.5", HostForm::Long));
/// assert_eq!("a@myhost".parse::<NodeName>()?.form(), HostForm::Short);
/// assert_eq!("a@fdaa::3".parse::<NodeName>()?.form(), HostForm::LongIpv6);
/// # Ok::<(), meshx_core::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName {
    full: String,
    at: usize,
}

/// Which distribution mode a host part demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostForm {
    /// No dot: `-sname`.
    Short,
    /// A dotted name or an IPv4 literal: `-name`.
    Long,
    /// An IPv6 literal: `-name` and `-proto_dist inet6_tcp`.
    LongIpv6,
}

impl HostForm {
    /// True when two nodes of these forms can talk: the VM refuses to mix short and long names.
    pub fn agrees_with(self, other: Self) -> bool {
        (self == Self::Short) == (other == Self::Short)
    }
}

impl NodeName {
    /// The part before `@`.
    pub fn alive(&self) -> &str {
        &self.full[..self.at]
    }

    /// The part after `@`.
    pub fn host(&self) -> &str {
        &self.full[self.at + 1..]
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.full
    }

    /// Short or long names, judged by the host part as the VM does.
    pub fn form(&self) -> HostForm {
        if self.host().parse::<Ipv6Addr>().is_ok() {
            HostForm::LongIpv6
        } else if self.host().parse::<Ipv4Addr>().is_ok() || self.host().contains('.') {
            HostForm::Long
        } else {
            HostForm::Short
        }
    }

    /// The service of this node.
    pub fn service(&self) -> ServiceName {
        ServiceName(self.full.clone())
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check("node name", text)?;
        let refuse = |reason| NameError { what: "node name", text: shorten(text), reason };
        let (alive, host) =
            text.split_once('@').ok_or_else(|| refuse("it has no `@`: write `name@host`"))?;
        if alive.is_empty() || host.is_empty() {
            return Err(refuse("both sides of `@` must be filled"));
        }
        if !alive.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(refuse("before `@` only letters, digits, `_` and `-` are allowed"));
        }
        if host.contains('@') {
            return Err(refuse("it has more than one `@`"));
        }
        if host.contains(':') && host.parse::<Ipv6Addr>().is_err() {
            return Err(refuse("a host with `:` must be an IPv6 address"));
        }
        Ok(Self { full: text.to_owned(), at: alive.len() })
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.full, f)
    }
}

/// A name that was refused at the border.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {reason}")]
pub struct NameError {
    what: &'static str,
    text: String,
    reason: &'static str,
}

impl NameError {
    /// A text that cannot be what it should be, for types that are made of names.
    pub fn new(what: &'static str, text: &str, reason: &'static str) -> Self {
        Self { what, text: shorten(text), reason }
    }
}

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    let refuse = |reason| Err(NameError { what, text: shorten(text), reason });
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.len() > MAX_NAME {
        return refuse("it is longer than 255 bytes");
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        return refuse("it must begin with a letter, a digit or `_`");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:@-".contains(&b)) {
        return refuse("only letters, digits and `_ . : @ -` are allowed");
    }
    Ok(())
}

/// What an error may repeat of an untrusted name: printable, and not much of it.
fn shorten(text: &str) -> String {
    text.chars().take(40).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_checked_part_by_part() {
        for good in ["a@b", "a-1_b@h.example.org", "x@127.0.0.1", "x@::1", "A9@fdaa:0:1::2"] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["", "a", "@h", "a@", "a@b@c", "a b@c", "é@h", "a.b@h", "a@h:1", "a@\n"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
        assert!(format!("a@{}", "h".repeat(254)).parse::<NodeName>().is_err());
    }

    #[test]
    fn errors_do_not_repeat_control_characters() {
        let error = "evil\x1b[2J".parse::<ServiceName>().unwrap_err().to_string();
        assert!(!error.contains('\x1b'), "{error:?}");
    }
}
