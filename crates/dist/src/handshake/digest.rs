//! The proof of the cookie.

use std::fmt;

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq;

/// MD5 of the cookie followed by a challenge in decimal.
///
/// Comparison takes the same time wherever two digests differ. Not shown by `Debug`: with the
/// challenge beside it, a digest is enough to guess the cookie off-line.
#[derive(Clone, Copy)]
pub struct Digest([u8; 16]);

/// What a node that has `cookie` answers to `challenge`.
///
/// ```
/// use meshx_dist::handshake::{digest, verify};
/// let answer = digest(b"secret", 4_000_000_000);
/// assert!(verify(b"secret", 4_000_000_000, &answer));
/// assert!(!verify(b"Secret", 4_000_000_000, &answer));
/// ```
pub fn digest(cookie: &[u8], challenge: u32) -> Digest {
    let mut md5 = Md5::new();
    md5.update(cookie);
    md5.update(challenge.to_string());
    Digest(md5.finalize().into())
}

/// Whether `answer` is the digest of `cookie` and `challenge`, in constant time.
pub fn verify(cookie: &[u8], challenge: u32, answer: &Digest) -> bool {
    digest(cookie, challenge) == *answer
}

impl Digest {
    /// The bytes, as they are sent.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<[u8; 16]> for Digest {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with `erlang:md5(["secret" | integer_to_list(N)])` on OTP 25.
    const ERLANG: [(u32, u128); 2] = [
        (7, 0xfcfc_da07_b8fb_7dff_788a_f166_b6a7_8f3e),
        (u32::MAX, 0x5dfd_181e_69aa_587c_c812_eb33_3e65_36b6),
    ];

    #[test]
    fn agrees_with_the_vm() {
        for (challenge, expected) in ERLANG {
            assert_eq!(digest(b"secret", challenge).as_bytes(), &expected.to_be_bytes());
        }
    }

    #[test]
    fn does_not_show_itself() {
        assert_eq!(format!("{:?}", digest(b"secret", 1)), "Digest(..)");
    }
}
