//! The secret that nodes share: from a file or from the environment, never from the command line,
//! where everybody on the machine could read it.

use std::path::{Path, PathBuf};

use meshx_node::Cookie;

use crate::commands::secret::{self, Unread};
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
    let read = secret::read(path, "cookie", LONGEST as u64).map_err(|unread| match unread {
        Unread::Missing(message) => missing(&message),
        // As the VM demands it (kernel, `auth`).
        Unread::Open(message) => Failure::new(403, exit::CONFIGURATION, message)
            .hint(format!("chmod 400 {}", path.display())),
        Unread::Failed(message) => Failure::new(405, exit::CONFIGURATION, message),
    })?;
    let cookie = checked(&read).map_err(|what| {
        let message = format!("{} holds no cookie: {what}", path.display());
        Failure::new(403, exit::CONFIGURATION, message)
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
