//! What a node name may look like.
//!
//! The VM itself allows `[0-9A-Za-z_-]+` before the `@` and any printable Latin-1 character after
//! it (`net_kernel`, OTP 23 and later). We are stricter after the `@`: `[0-9A-Za-z_.:-]+`, which
//! holds host names, domain names and IP literals, and nothing that could forge a line of EPMD's
//! text replies, a log line or a path. The whole name has at most [`MAX`] characters, as an atom has.
//!
//! ```
//! use meshx_dist::name;
//! assert_eq!(name::split("shop@10.0.0.9")?, ("shop", "10.0.0.9"));
//! assert!(name::split("shop").is_err());
//! assert!(name::node_part("evil at port 1\nname x").is_err());
//! # Ok::<(), name::Error>(())
//! ```

use std::fmt;

/// The longest name, in characters, alone or with its host: the limit of an Erlang atom.
pub const MAX: usize = 255;

/// Which part of a node name is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Before the `@`.
    Node,
    /// After the `@`.
    Host,
}

/// Why a name is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing there.
    #[error("the {0} part is empty")]
    Empty(Part),
    /// More than [`MAX`] characters.
    #[error("the name has {len} characters; a node name has at most {MAX}")]
    TooLong {
        /// Bytes or characters found.
        len: usize,
    },
    /// A character outside the allowed set.
    #[error("the {part} part contains {character:?}, which is not allowed there")]
    Forbidden {
        /// Where it is.
        part: Part,
        /// The first such character.
        character: char,
    },
    /// No `@`, or more than one.
    #[error("a full node name has exactly one '@'")]
    Shape,
    /// The bytes are not UTF-8.
    #[error("the name is not valid UTF-8")]
    NotUtf8,
    /// A suffix after `/` that is not a known address family.
    #[error("the address family after '/' is neither inet nor inet6")]
    Family,
}

/// Checks the part before the `@` (EPMD calls it the alive name): `[0-9A-Za-z_-]{1,255}`.
pub fn node_part(name: &str) -> Result<&str, Error> {
    check(name, Part::Node, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Checks the part after the `@`: `[0-9A-Za-z_.:-]{1,255}`.
pub fn host_part(host: &str) -> Result<&str, Error> {
    check(host, Part::Host, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':')
    })
}

/// Checks a full name and splits it at its `@` into node part and host part.
pub fn split(full: &str) -> Result<(&str, &str), Error> {
    let (node, host) = full.split_once('@').ok_or(Error::Shape)?;
    if host.contains('@') {
        return Err(Error::Shape);
    }
    if full.len() > MAX {
        return Err(Error::TooLong { len: full.len() });
    }
    Ok((node_part(node)?, host_part(host)?))
}

pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::NotUtf8)
}

// Allowed characters are ASCII, so once they are checked bytes and characters are the same.
fn check(text: &str, part: Part, allowed: fn(u8) -> bool) -> Result<&str, Error> {
    if text.is_empty() {
        return Err(Error::Empty(part));
    }
    if text.len() > MAX {
        return Err(Error::TooLong { len: text.len() });
    }
    let stranger =
        text.chars().find(|&c| !u8::try_from(c).is_ok_and(|b| b.is_ascii() && allowed(b)));
    match stranger {
        Some(character) => Err(Error::Forbidden { part, character }),
        None => Ok(text),
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Host => "host",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_vm_names_itself() {
        for full in ["a@h1", "rem-ab12-app@pod-1.app.mesh", "A_9@10.0.0.7", "x@::1", "n@localhost"]
        {
            let (node, host) = split(full).unwrap();
            assert_eq!(format!("{node}@{host}"), full);
        }
    }

    #[test]
    fn refuses_each_fault_by_its_name() {
        assert_eq!(split("a"), Err(Error::Shape));
        assert_eq!(split("a@b@c"), Err(Error::Shape));
        assert_eq!(split("@h"), Err(Error::Empty(Part::Node)));
        assert_eq!(split("a@"), Err(Error::Empty(Part::Host)));
        let forbidden = |part, character| Err(Error::Forbidden { part, character });
        assert_eq!(split("a b@h"), forbidden(Part::Node, ' '));
        assert_eq!(split("a.b@h"), forbidden(Part::Node, '.'));
        assert_eq!(split("a@h/x"), forbidden(Part::Host, '/'));
        assert_eq!(split("å@h"), forbidden(Part::Node, 'å'));
        assert_eq!(utf8(&[0xff]), Err(Error::NotUtf8));
    }

    #[test]
    fn limit_counts_the_whole_name() {
        let host = "h".repeat(MAX - 2);
        assert!(split(&format!("a@{host}")).is_ok());
        assert_eq!(split(&format!("ab@{host}")), Err(Error::TooLong { len: MAX + 1 }));
        assert_eq!(node_part(&"n".repeat(MAX + 1)), Err(Error::TooLong { len: MAX + 1 }));
    }
}
