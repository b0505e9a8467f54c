//! Secrets in files: cookies and keys. They never come from the command line, where everybody on the
//! machine could read them.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Why a secret could not be read, as a sentence.
#[derive(Debug)]
pub(crate) enum Unread {
    /// There is no such file.
    Missing(String),
    /// Others than its owner can read it.
    Open(String),
    /// The machine does not let us, or it is no text.
    Failed(String),
}

/// The text of a file that is its owner's alone, without the line feed at its end. What is much longer
/// than `longest` is cut off; that it is too long is for the caller to see.
pub(crate) fn read(path: &Path, what: &str, longest: u64) -> Result<String, Unread> {
    let shown = path.display();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unread::Missing(format!("there is no {what} file {shown}")),
        _ => Unread::Failed(format!("cannot read the {what} {shown}: {error}")),
    };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        let message = format!("the {what} file {shown} must be accessible by its owner only");
        return Err(Unread::Open(message));
    }
    let mut text = String::new();
    file.take(longest.saturating_add(64)).read_to_string(&mut text).map_err(failed)?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}
