//! The secret that nodes share: from a file or from the environment, never from the command line,
//! where everybody on the machine could read it.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use meshx_node::Cookie;

use crate::environment::variable;
use crate::failure::{Failure, exit};

/// A cookie is an atom.
const LONGEST: usize = 255;

/// The cookie of the file, or else of a release's variable, or else of the file that stock nodes use.
pub(super) fn cookie(file: Option<&Path>) -> Result<Cookie, Failure> {
    match (file, variable("RELEASE_COOKIE"), variable("HOME")) {
        (Some(file), ..) => read(file),
        (None, Some(cookie), _) => checked(&cookie).map(Cookie::new).map_err(|what| {
            Failure::new(403, exit::CONFIGURATION, format!("$RELEASE_COOKIE is no cookie: {what}"))
        }),
        (None, None, Some(home)) => read(&PathBuf::from(home).join(".erlang.cookie")),
        (None, None, None) => Err(missing("there is no cookie: no file was named, and no $HOME")),
    }
}

fn read(path: &Path) -> Result<Cookie, Failure> {
    let shown = path.display();
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => missing(&format!("there is no cookie file {shown}")),
        _ => Failure::new(
            405,
            exit::CONFIGURATION,
            format!("cannot read the cookie {shown}: {error}"),
        ),
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    // As the VM demands it (kernel, `auth`).
    if meta.mode() & 0o077 != 0 {
        let message = format!("the cookie file {shown} must be accessible by its owner only");
        return Err(
            Failure::new(403, exit::CONFIGURATION, message).hint(format!("chmod 400 {shown}"))
        );
    }
    let mut text = String::new();
    let longest = LONGEST as u64 + 64;
    file.take(longest).read_to_string(&mut text).map_err(failed)?;
    let cookie = checked(text.trim_end_matches(['\r', '\n'])).map_err(|what| {
        Failure::new(403, exit::CONFIGURATION, format!("{shown} holds no cookie: {what}"))
    })?;
    Ok(Cookie::new(cookie))
}

fn missing(what: &str) -> Failure {
    Failure::new(403, exit::CONFIGURATION, what)
        .hint("the first VM with a name makes ~/.erlang.cookie; or name a file with --cookie-file")
}

fn checked(text: &str) -> Result<&str, &'static str> {
    match text.len() {
        0 => Err("it is empty"),
        LONGEST.. if text.len() > LONGEST => Err("it has more than 255 characters"),
        _ if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
            Err("it has characters that are not printable ASCII")
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_short_printable_text() {
        assert_eq!(checked("OATMEAL"), Ok("OATMEAL"));
        assert!(checked("").is_err() && checked("a\nb").is_err() && checked("é").is_err());
        assert!(checked(&"x".repeat(255)).is_ok() && checked(&"x".repeat(256)).is_err());
    }
}
