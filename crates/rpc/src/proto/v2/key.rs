//! §5: proof of a shared key.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// A secret that both sides have. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// These bytes. Fewer than 16 random ones can be guessed.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    /// What the server says (§5.2).
    pub(crate) fn server_proof(&self, client_hello: &[u8], server_hello: &[u8]) -> [u8; 32] {
        self.proof(b"meshx-rpc 2 server", client_hello, server_hello)
    }

    /// What the client says (§5.2).
    pub(crate) fn client_proof(&self, client_hello: &[u8], server_hello: &[u8]) -> [u8; 32] {
        self.proof(b"meshx-rpc 2 client", client_hello, server_hello)
    }

    fn proof(&self, who: &[u8], client_hello: &[u8], server_hello: &[u8]) -> [u8; 32] {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        mac.update(who);
        mac.update(client_hello);
        mac.update(server_hello);
        mac.finalize().into_bytes().into()
    }
}

/// In constant time (§5.3).
pub(crate) fn is_same(proof: &[u8; 32], said: &[u8]) -> bool {
    proof[..].ct_eq(said).into()
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_side_one_key_and_one_handshake() {
        let key = Key::new("secret");
        let proof = key.server_proof(b"hello", b"there");
        assert!(is_same(&proof, &proof));
        assert!(!is_same(&proof, &key.client_proof(b"hello", b"there")));
        assert!(!is_same(&proof, &key.server_proof(b"hello", b"you")));
        assert!(!is_same(&proof, &Key::new("other").server_proof(b"hello", b"there")));
        assert!(!is_same(&proof, &proof[..31]));
        assert_eq!(format!("{key:?}"), "Key(…)");
    }
}
