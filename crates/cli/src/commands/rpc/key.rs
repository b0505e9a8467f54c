//! The key that client and server share outside of a mesh.

use std::path::Path;

use meshx_rpc::Key;

use crate::commands::secret::{self, Unread};
use crate::failure::{Failure, exit};

/// What is shorter can be guessed.
const SHORTEST: usize = 16;
const LONGEST: usize = 4096;

/// The key of a file: its text, without the line feed at its end.
pub(super) fn key(path: &Path) -> Result<Key, Failure> {
    let failed = |message: String| Failure::new(841, exit::CONFIGURATION, message);
    let shown = path.display();
    let make = || format!("make one: openssl rand -hex 32 > {shown}; chmod 400 {shown}");
    let text = secret::read(path, "key", LONGEST as u64).map_err(|unread| match unread {
        Unread::Missing(message) => failed(message).hint(make()),
        Unread::Open(message) => failed(message).hint(format!("chmod 400 {shown}")),
        Unread::Failed(message) => failed(message),
    })?;
    match text.len() {
        SHORTEST..=LONGEST => Ok(Key::new(text)),
        0..SHORTEST => {
            let message = format!("the key in {shown} has fewer than {SHORTEST} characters");
            Err(failed(message).hint(make()))
        }
        _ => Err(failed(format!("the key in {shown} has more than {LONGEST} characters"))),
    }
}
