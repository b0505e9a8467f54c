//! Fetches packages of another release from the mirror that this machine uses already.
//!
//! The mirror and its keyring are those of the machine's own sources; only the suite is another
//! one. Lists and cache are private, so neither root nor a lock of the system is needed, and the
//! system's view of its packages does not change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step;

/// Downloads `packages` of `suite` into `work` and returns the files.
pub(super) fn download(
    work: &Path,
    suite: &str,
    codename: &str,
    packages: &[&str],
) -> Result<Vec<PathBuf>> {
    let source = choose(&machine_sources()?, codename)
        .with_context(|| format!("apt's sources have no mirror of {codename} main"))?
        .with_suite(suite);
    let list = work.join("other.sources");
    fs::write(&list, source.to_deb822())?;
    for folder in ["lists/partial", "cache/archives/partial", "packages"] {
        fs::create_dir_all(work.join(folder))?;
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        for (key, value) in [
            ("Dir::Etc::sourcelist", list.as_path()),
            ("Dir::Etc::sourceparts", Path::new("-")),
            ("Dir::Etc::preferences", Path::new("/dev/null")),
            ("Dir::Etc::preferencesparts", Path::new("-")),
            ("Dir::State::Lists", &work.join("lists")),
            ("Dir::Cache", &work.join("cache")),
            ("Acquire::Languages", Path::new("none")),
            // The private folders need not be open to apt's own user.
            ("APT::Sandbox::User", Path::new("root")),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        command.current_dir(work.join("packages"));
        command
    };
    step::output(apt().args(["-q", "update"]))?;
    let wanted = packages.iter().map(|package| format!("{package}/{suite}"));
    step::output(apt().args(["-q", "download"]).args(wanted))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(work.join("packages"))? {
        files.push(entry?.path());
    }
    if files.len() < packages.len() {
        bail!("apt fetched {} of {} packages", files.len(), packages.len());
    }
    Ok(files)
}

/// One entry of apt's sources, of which only these fields matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Source {
    uris: String,
    suites: Vec<String>,
    components: Vec<String>,
    /// A path, a fingerprint or a whole key, as it was written.
    signed_by: Option<String>,
    trusted: Option<String>,
}

impl Source {
    fn with_suite(&self, suite: &str) -> Self {
        Self { suites: vec![suite.to_owned()], components: vec!["main".to_owned()], ..self.clone() }
    }

    fn to_deb822(&self) -> String {
        let mut text = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\n",
            self.uris,
            self.suites.join(" "),
            self.components.join(" ")
        );
        for (key, value) in [("Signed-By", &self.signed_by), ("Trusted", &self.trusted)] {
            if let Some(value) = value {
                text.extend([key, ": ", value, "\n"]);
            }
        }
        text
    }
}

/// The source of the release itself, not that of its security updates.
fn choose<'a>(sources: &'a [Source], codename: &str) -> Option<&'a Source> {
    let has_main = |source: &&Source| source.components.iter().any(|name| name == "main");
    let of = |suite: &str| {
        sources
            .iter()
            .filter(has_main)
            .find(|source| source.suites.iter().any(|name| name == suite))
    };
    of(codename).or_else(|| of("stable")).or_else(|| of("testing")).or_else(|| of("unstable"))
}

fn machine_sources() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        for entry in entries {
            files.push(entry?.path());
        }
    }
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => sources.extend(read_deb822(&text)),
            Some("list") => sources.extend(text.lines().filter_map(read_line)),
            _ => {}
        }
    }
    Ok(sources)
}

/// sources.list(5), "DEB822-style format".
fn read_deb822(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).filter_map(read_stanza).collect()
}

fn read_stanza(lines: &[&str]) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_lowercase(), value.trim().to_owned()));
        }
    }
    let field =
        |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let words = |name: &str| {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let enabled = !matches!(field("enabled"), Some("no" | "false" | "0" | "off" | "without"));
    if !enabled || !words("types").iter().any(|name| name == "deb") {
        return None;
    }
    Some(Source {
        uris: words("uris").join(" "),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(str::to_owned),
        trusted: field("trusted").map(str::to_owned),
    })
}

/// sources.list(5), "One-line-style format".
fn read_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let option = |name: &str| {
        options
            .split_whitespace()
            .find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.replace(',', " "))
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uris: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: option("signed-by"),
        trusted: option("trusted"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb
# http://other.example/debian
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb deb-src
URIs: http://keyed.example/
Suites: stable
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
";

    #[test]
    fn reads_stanzas_and_keeps_the_key_as_written() {
        let sources = read_deb822(DEB822);
        assert_eq!(sources.len(), 3);
        assert_eq!(sources[0].uris, "http://mirror.example/debian");
        assert_eq!(sources[0].signed_by.as_deref(), Some("/usr/share/keyrings/archive.gpg"));
        assert!(sources[2].to_deb822().contains("Signed-By: \n -----BEGIN"));
    }

    #[test]
    fn chooses_the_release_and_not_its_security_updates() {
        let sources = read_deb822(DEB822);
        let source = choose(&sources, "bookworm").unwrap().with_suite("bullseye");
        assert_eq!(
            source.to_deb822(),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bullseye\nComponents: main\n\
             Signed-By: /usr/share/keyrings/archive.gpg\n"
        );
        assert_eq!(choose(&sources, "trixie").unwrap().suites, ["stable"]);
        assert_eq!(choose(&sources[1..2], "bookworm"), None);
    }

    #[test]
    fn reads_lines() {
        let source =
            read_line("deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian sid main")
                .unwrap();
        assert_eq!(
            (source.uris.as_str(), source.signed_by.as_deref()),
            ("http://m.example/debian", Some("/k.gpg"))
        );
        assert_eq!(
            read_line("deb http://m.example/debian sid main contrib # x").unwrap().components,
            ["main", "contrib"]
        );
        for line in [
            "",
            "# deb http://m.example sid main",
            "deb-src http://m.example sid main",
            "deb",
            "deb [a",
        ] {
            assert_eq!(read_line(line), None, "{line}");
        }
    }
}
